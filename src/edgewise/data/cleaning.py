"""What is wrong with a data set, said aloud, and what has to leave so that its splits are honest.

Only two kinds of pictures leave: those that can't be read, and those outside the test split (or validation) that equal one inside it.
All else is reported and kept: a publisher's test split stays as published, so that figures on it can be compared with others'.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.data.pictures import Survey
from edgewise.data.source import Source

# Two pictures are near-duplicates when their 16×16 grey thumbnails differ by at most this share of their contrast, in the mean. A photo
# saved again as JPEG stays below; among 6,000 MNIST digits no two are closer than 0.031, among 6,000 of Fashion-MNIST one pair is, a copy.
NEAR = 0.03

# Each split may hold no picture of those before it.
_PROTECTED = ("test", "validation", "train")


@dataclass(frozen=True)
class Cleaned:
    """keep: (n,) bool. groups: one digest per picture, the same for its copies and near-copies: they go to one side of a split."""

    keep: np.ndarray
    groups: tuple[bytes, ...]
    findings: tuple[str, ...]


def clean(source: Source, survey: Survey) -> Cleaned:
    """Judge `source` by its `survey`; pixels aren't read again."""
    readable = np.array([index not in survey.errors for index in range(len(survey.digests))], dtype=bool)
    groups, near = _groups(survey, readable)
    keep = readable & ~_leaks(source.given, groups, readable)
    findings = [
        *source.findings,
        *_unreadable(survey),
        *_odd(source, survey, readable),
        *_copies(source, survey, readable),
        *_conflicts(source, survey, readable),
        *_near(source, near),
        *_left(source, readable & ~keep),
    ]
    return Cleaned(keep, groups, tuple(findings))


def _groups(survey: Survey, readable: np.ndarray) -> tuple[tuple[bytes, ...], list[tuple[int, int]]]:
    """Digest of each picture's group (the least in it), and the pairs that are near-duplicates without being equal."""
    leader: dict[bytes, bytes] = {}

    def top(digest: bytes) -> bytes:
        while leader.get(digest, digest) != digest:
            digest = leader[digest]
        return digest

    pairs = []
    if survey.thumbnails is not None:
        for a, b in near_pairs(survey.thumbnails, readable):
            one, two = survey.digests[a], survey.digests[b]
            if one != two:
                pairs.append((a, b))
                low, high = sorted((top(one), top(two)))
                leader[high] = low
    return tuple(top(digest) for digest in survey.digests), pairs


def near_pairs(thumbnails: np.ndarray, among: np.ndarray) -> list[tuple[int, int]]:
    """All pairs of `among` (n,) bool whose thumbnails (n, 16, 16) differ by at most NEAR of the lesser contrast, in the mean.

    Exact: the mean difference of two pictures is at least the difference of their means, so, in order of their means, only a short window
    can hold partners. A picture without contrast (a standard deviation below 1) is near nothing: equal ones are found by their digest.
    """
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.int16)
    contrast = flat.std(axis=1)
    chosen = np.flatnonzero(among & (contrast >= 1))
    means = flat[chosen].mean(axis=1)
    order = np.argsort(means, kind="stable")
    chosen, means = chosen[order], means[order]
    ends = np.searchsorted(means, means + NEAR * contrast[chosen], side="right")
    pairs = []
    for position, (index, end) in enumerate(zip(chosen, ends, strict=True)):
        others = chosen[position + 1 : end]
        distance = np.abs(flat[others] - flat[index]).mean(axis=1)
        close = others[distance <= NEAR * np.minimum(contrast[others], contrast[index])]
        pairs += [(int(min(index, other)), int(max(index, other))) for other in close]
    return sorted(pairs)


def _leaks(given: np.ndarray, groups: Sequence[bytes], readable: np.ndarray) -> np.ndarray:
    """(n,) bool: pictures with a copy in a split that comes before theirs in _PROTECTED. Where no split was given, "" counts as train."""
    leaks = np.zeros(len(groups), dtype=bool)
    taken: set[bytes] = set()
    for split in _PROTECTED:
        members = np.flatnonzero(readable & np.isin(given, (split, "") if split == "train" else (split,)))
        own = [groups[int(i)] for i in members]
        leaks[members] = [group in taken for group in own]
        taken.update(own)
    return leaks


def _unreadable(survey: Survey) -> list[str]:
    if not survey.errors:
        return []
    return [f"{len(survey.errors)} pictures can't be read and were left out: {_some(survey.errors.values(), '; ')}"]


def _odd(source: Source, survey: Survey, readable: np.ndarray) -> list[str]:
    """Shapes that stand out: few of another size where nearly all are of one, grey among colour."""
    shapes = survey.shapes[readable]
    found = []
    sizes, counts = np.unique(shapes[:, :2], axis=0, return_counts=True) if len(shapes) else (np.zeros((0, 2)), np.zeros(0))
    if len(sizes) > 1 and counts.max() > 0.9 * len(shapes):
        usual = sizes[counts.argmax()]
        odd = np.flatnonzero(readable & (survey.shapes[:, :2] != usual).any(axis=1))
        names = _some(f"{source.pictures.describe(int(i))} is {survey.shapes[i, 0]}×{survey.shapes[i, 1]}" for i in odd)
        found.append(f"{len(odd)} of {len(shapes)} pictures aren't {usual[0]}×{usual[1]} like the others, and are resized: {names}")
    grey = np.flatnonzero(readable & (survey.shapes[:, 2] == 1))
    if 0 < len(grey) < len(shapes):
        colour = np.flatnonzero(readable & (survey.shapes[:, 2] == 3))
        fewer, name = (grey, "grey") if len(grey) <= len(colour) else (colour, "colour")
        found.append(f"{len(fewer)} of {len(shapes)} pictures are {name}, unlike the others, and are converted: {_names(source, fewer)}")
    return found


def _copies(source: Source, survey: Survey, readable: np.ndarray) -> list[str]:
    """Copies inside one given split: kept, as they deceive nobody, but counted."""
    found = []
    for split in dict.fromkeys(source.given.tolist()):
        count = Counter(survey.digests[i] for i in np.flatnonzero(readable & (source.given == split)))
        extra = sum(count.values()) - len(count)
        if extra:
            where = f" inside {split}" if split else ""
            found.append(f"{extra} pictures are copies of another{where}: kept, on one side of every split made here")
    return found


def _conflicts(source: Source, survey: Survey, readable: np.ndarray) -> list[str]:
    if source.targets is None:
        return []
    classes: dict[bytes, set[int]] = defaultdict(set)
    first: dict[bytes, int] = {}
    for index in np.flatnonzero(readable):
        digest = survey.digests[index]
        classes[digest].add(int(source.targets[index]))
        first.setdefault(digest, int(index))
    torn = [(first[digest], sorted(found)) for digest, found in classes.items() if len(found) > 1]
    if not torn:
        return []
    names = _some(f"{source.pictures.describe(i)} is {' and '.join(source.labels[c] for c in found)}" for i, found in torn)
    return [f"{len(torn)} pictures occur with more than one label, kept as they are: {names}"]


def _near(source: Source, pairs: Sequence[tuple[int, int]]) -> list[str]:
    if not pairs:
        return []
    names = _some(f"{source.pictures.describe(a)} and {source.pictures.describe(b)}" for a, b in pairs)
    return [f"{len(pairs)} pairs of pictures are nearly equal: kept, on one side of every split made here: {names}"]


def _left(source: Source, left: np.ndarray) -> list[str]:
    if not left.any():
        return []
    names = _names(source, np.flatnonzero(left))
    return [f"{int(left.sum())} pictures equal, or nearly equal, one of a split that is kept for judging, and left theirs: {names}"]


def _names(source: Source, indices: np.ndarray) -> str:
    return _some(source.pictures.describe(int(i)) for i in indices)


def _some(texts: Iterable[str], separator: str = ", ", most: int = 5) -> str:
    """The first few of `texts`, and how many more there are."""
    every = list(texts)
    more = f"{separator}and {len(every) - most} more" if len(every) > most else ""
    return separator.join(every[:most]) + more
