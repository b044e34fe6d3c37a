"""A data set of texts that is ready: read, cleaned and split, with an account of all that was found."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.data.dataset import SPLITS, by_hash, checked
from edgewise.data.splits import assign
from edgewise.data.text.cleaning import Cleaned, clean, plain
from edgewise.data.text.source import TextSource
from edgewise.errors import InvalidInput

LARGE = 0.05


@dataclass(frozen=True, eq=False)
class TextDataset:
    """Texts, their targets, and the splits as indices into both, which follow a text's length: batches in this order have little padding.

    first, second, targets, labels: as in `TextSource`, where every sample of a split has a target, or targets is None.
    parts: split -> indices; "calibration" is a part of "train", the others are disjoint.
    fingerprint: SHA-256 over texts, targets, labels and splits.
    """

    name: str
    first: Sequence[str]
    second: Sequence[str] | None
    targets: np.ndarray | None
    labels: tuple[str, ...]
    parts: Mapping[str, np.ndarray]
    findings: tuple[str, ...]
    fingerprint: str

    def texts(self, indices: np.ndarray) -> list[str] | list[tuple[str, str]]:
        if self.second is None:
            return [self.first[i] for i in indices]
        return [(self.first[i], self.second[i]) for i in indices]


def prepare(source: TextSource, *, validation: float = 0.1, test: float = 0.15, calibration: int = 512, seed: int = 0) -> TextDataset:
    """Clean and split `source`.

    validation, test: the share that is split off where the data doesn't bring that split itself: of whole texts, and their phrases (texts
    that stand inside them) leave train. calibration: how many of train calibrate.
    Raises InvalidData when a split comes out empty or a class has no training text, InvalidInput for impossible shares and counts.
    """
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise InvalidInput(f"validation={validation}, test={test}: give shares above 0 that leave something for train")
    if calibration < 1:
        raise InvalidInput(f"calibration={calibration}: give the number of texts to calibrate with, 1 or more")
    cleaned = clean(source)
    parts, left = _parts(source, cleaned, {"test": test, "validation": validation}, calibration, seed)
    targets = source.targets if source.labelled().any() else None
    classes = targets if targets is not None and targets.dtype.kind == "i" else None
    missing = checked(source.name, "text", classes, source.labels, parts)
    findings = (*cleaned.findings, *left, *missing)
    return TextDataset(
        source.name, source.first, source.second, targets, source.labels, parts, findings, _fingerprint(source, cleaned, parts)
    )


def _parts(
    source: TextSource, cleaned: Cleaned, shares: Mapping[str, float], calibration: int, seed: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    kept = {split: np.flatnonzero(cleaned.keep & (source.given == split)) for split in ("validation", "test")}
    pool = np.flatnonzero(cleaned.keep & np.isin(source.given, ("", "train")))
    absent = {split: share for split, share in shares.items() if len(kept[split]) == 0}
    drawn = {"train": pool}
    findings = []
    if absent:
        # A phrase has no place of its own: it goes with the texts that it stands in, or stays in train.
        large = _large([cleaned.groups[i] for i in pool])
        whole = pool[~cleaned.phrase[pool] & ~large]
        drawn = {split: whole[places] for split, places in assign([cleaned.groups[i] for i in whole], fractions=absent, seed=seed).items()}
        held = np.concatenate([drawn[split] for split in absent])
        phrases, tied = pool[cleaned.phrase[pool]], pool[~cleaned.phrase[pool] & large]
        out = cleaned.stand_in(phrases, held)
        drawn["train"] = np.concatenate([drawn["train"], phrases[~out], tied])
        if len(tied):
            findings.append(f"{len(tied)} samples hang together by texts that they share, too many for one side: they stay in train")
        if out.any():
            names = " and ".join(absent)
            findings.append(
                f"{names} was split off by whole texts: {int(out.sum())} phrases that stand inside its {len(held)} texts left train"
            )
    parts = {split: _by_length(source, found) for split, found in (kept | drawn).items()}
    train = parts["train"]
    # Whole texts calibrate, as they are what will come.
    order = np.concatenate([by_hash(train[cleaned.phrase[train] == phrase], cleaned.groups, seed) for phrase in (False, True)])
    parts["calibration"] = _by_length(source, order[:calibration])
    return {split: parts[split] for split in SPLITS}, findings


def _large(groups: Sequence[bytes]) -> np.ndarray:
    """(n,) bool: those in a group of over LARGE of all, which would make a split too large or leave it empty."""
    counts = Counter(groups)
    return np.array([counts[group] > max(1, LARGE * len(groups)) for group in groups], dtype=bool)


def _by_length(source: TextSource, indices: np.ndarray) -> np.ndarray:
    lengths = [len(source.first[i]) + (len(source.second[i]) if source.second is not None else 0) for i in indices]
    return indices[np.lexsort((indices, np.array(lengths, np.int64)))].astype(np.int64)


def _fingerprint(source: TextSource, cleaned: Cleaned, parts: Mapping[str, np.ndarray]) -> str:
    every = hashlib.sha256(repr((source.labels, source.targets is None, len(cleaned.digests))).encode())
    every.update(b"".join(cleaned.digests))
    # Digests know nothing of case and spaces, and a tokenizer may.
    for place, text in enumerate((*source.first, *(source.second or ()))):
        if text != plain(text):
            every.update(f"{place} {text}\0".encode("utf-8", "surrogatepass"))
    if source.targets is not None:
        every.update(repr(source.targets.tolist()).encode())
    for split in SPLITS:
        every.update(split.encode() + parts[split].astype("<i8").tobytes())
    return every.hexdigest()
