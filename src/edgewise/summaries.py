"""What a study says of the model and the data that it was given: floor 0, read through `records`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgewise.types import Signature


@dataclass(frozen=True)
class ModelSummary:
    name: str
    sha256: str
    parameters: int
    operations: int  # multiply-accumulates of one sample
    size_bytes: int
    nodes: int
    signature: Signature


@dataclass(frozen=True)
class DataSummary:
    task: str
    metric: str
    source: str
    fingerprint: str
    samples: Mapping[str, int]  # split -> n
    labels: tuple[str, ...]
    cleaning: tuple[str, ...] = ()  # what was found and what was done about it
