"""All pictures of a data set before anything was cleaned or split, whatever the layout that they came in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgewise.data.pictures import Pictures
from edgewise.errors import InvalidData

# What a split may be called by whoever made the data -> what it is called here.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
    "t10k": "test",
}


@dataclass(frozen=True)
class Source:
    """Pictures with their classes and the splits that their publisher made.

    targets: (n,) int64 into labels; None when unlabelled. labels: () when unlabelled.
    given: (n,) the split that the publisher put each picture in, "" where none: those are split here, with "train".
    findings: what the reading already found to say, as sentences.
    """

    name: str
    pictures: Pictures
    targets: np.ndarray | None
    labels: tuple[str, ...]
    given: np.ndarray
    findings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.pictures)
        if n == 0:
            raise InvalidData(f"{self.name}: no pictures")
        if len(self.given) != n or (self.targets is not None and len(self.targets) != n):
            raise InvalidData(f"{self.name}: {n} pictures, {len(self.given)} split names; expected one each, and one target or none at all")
