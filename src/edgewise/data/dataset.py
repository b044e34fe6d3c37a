"""A data set that is ready: read, cleaned and split, with an account of all that was found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewise.data.cleaning import Cleaned, clean
from edgewise.data.pictures import Pictures, Survey
from edgewise.data.source import Source
from edgewise.data.sources import find
from edgewise.data.splits import assign
from edgewise.errors import InvalidData, InvalidInput

SPLITS = ("train", "calibration", "validation", "test")


def check_split(name: str, *, sealed: bool) -> None:
    """Raises InvalidInput for an unknown split, and for the test split while it is sealed."""
    if name not in SPLITS:
        raise InvalidInput(f"split {name!r}: give one of {', '.join(SPLITS)}")
    if name == "test" and sealed:
        raise InvalidInput(
            "the test split is sealed: only a verdict reads it, once, after the choice was made. Decide on split('validation'); "
            "a verdict takes task.unsealed().split('test')"
        )


@dataclass(frozen=True)
class Dataset:
    """Pictures, their classes, and the splits as indices into both.

    targets: (n,) int64; None when unlabelled. parts: split -> ascending indices; "calibration" is a part of "train", the others are
    disjoint.
    size: (height, width) when all pictures have one; channels: 1 when nearly all are grey, else 3.
    fingerprint: SHA-256 over pictures, targets, labels and splits.
    """

    name: str
    pictures: Pictures
    targets: np.ndarray | None
    labels: tuple[str, ...]
    parts: Mapping[str, np.ndarray]
    size: tuple[int, int] | None
    channels: int
    findings: tuple[str, ...]
    fingerprint: str


def load(
    where: str | Path | Source,
    *,
    labels: tuple[str, ...] = (),
    validation: float = 0.1,
    test: float = 0.15,
    calibration: int = 512,
    seed: int = 0,
) -> Dataset:
    """Find, clean and split the pictures at `where` (see `sources.find`).

    validation, test: the share that is split off where the data doesn't bring that split itself. calibration: how many of train
    calibrate (all of it, when it has fewer).
    Raises InvalidData when a split comes out empty or a class has no training picture, InvalidInput for impossible shares and counts.
    """
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise InvalidInput(f"validation={validation}, test={test}: give shares above 0 that leave something for train")
    if calibration < 1:
        raise InvalidInput(f"calibration={calibration}: give the number of pictures to calibrate with, 1 or more")
    source = find(where, labels)
    survey = source.pictures.survey()
    cleaned = clean(source, survey)
    parts = _parts(source, cleaned, {"test": test, "validation": validation}, calibration, seed)
    missing = checked(source.name, "picture", source.targets, source.labels, parts)
    shapes = survey.shapes[cleaned.keep]
    sizes = np.unique(shapes[:, :2], axis=0)
    return Dataset(
        name=source.name,
        pictures=source.pictures,
        targets=source.targets,
        labels=source.labels,
        parts=parts,
        size=(int(sizes[0, 0]), int(sizes[0, 1])) if len(sizes) == 1 else None,
        channels=1 if (shapes[:, 2] == 1).mean() > 0.9 else 3,
        findings=(*cleaned.findings, *missing),
        fingerprint=_fingerprint(source, survey, parts),
    )


def by_hash(indices: np.ndarray, digests: tuple[bytes, ...], seed: int) -> np.ndarray:
    """`indices` in an order that is random, but depends on nothing but content and seed: equal data gives equal draws."""
    salt = f"draw {seed}".encode()
    return np.array(sorted(indices.tolist(), key=lambda i: (hashlib.sha256(salt + digests[i]).digest(), i)), dtype=np.int64)


def _parts(source: Source, cleaned: Cleaned, shares: Mapping[str, float], calibration: int, seed: int) -> dict[str, np.ndarray]:
    kept = {split: np.flatnonzero(cleaned.keep & (source.given == split)) for split in ("validation", "test")}
    pool = np.flatnonzero(cleaned.keep & np.isin(source.given, ("", "train")))
    absent = {split: share for split, share in shares.items() if split not in source.given}
    drawn = assign([cleaned.groups[i] for i in pool], fractions=absent, seed=seed)
    parts = kept | {split: pool[places] for split, places in drawn.items()}
    parts["calibration"] = np.sort(by_hash(parts["train"], cleaned.groups, seed)[:calibration])
    return {split: parts[split] for split in SPLITS}


def checked(name: str, what: str, targets: np.ndarray | None, labels: tuple[str, ...], parts: Mapping[str, np.ndarray]) -> list[str]:
    """Raise for what can't work; return sentences about what can, but should be known. what: a sample, in a word."""
    for split, indices in parts.items():
        if len(indices) == 0:
            counts = ", ".join(f"{each} {len(part)}" for each, part in parts.items())
            raise InvalidData(f"{name}: nothing is left for {split} ({counts}); give more {what}s, or change validation= and test=")
    if targets is None:
        return []
    found = []
    for split in ("train", "validation", "test"):
        present = np.bincount(targets[parts[split]], minlength=len(labels))
        absent = [labels[i] for i in np.flatnonzero(present == 0)]
        names = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        if absent and split == "train":
            raise InvalidData(f"{name}: no training {what} of class {names}; add some, or leave the class out of the labels")
        if absent:
            found.append(f"{split} has no {what} of class {names}: nothing is known of it there")
    return found


def _fingerprint(source: Source, survey: Survey, parts: Mapping[str, np.ndarray]) -> str:
    every = hashlib.sha256(repr((source.labels, source.targets is None, len(survey.digests))).encode())
    every.update(b"".join(survey.digests))
    if source.targets is not None:
        every.update(source.targets.astype("<i8").tobytes())
    for split in SPLITS:
        every.update(split.encode() + parts[split].astype("<i8").tobytes())
    return every.hexdigest()
