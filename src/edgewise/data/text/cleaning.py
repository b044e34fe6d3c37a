"""What is wrong with a data set of texts, said aloud, and what has to leave so that its splits are honest.

Leaves: texts that are empty (but from the test split, which stays as published), samples without a target where others have one, and
samples outside the test split (or validation) that equal one inside it. All else is reported and kept.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.data.text import phrases
from edgewise.data.text.source import TextSource

# Each split may hold no text of those before it.
_PROTECTED = ("test", "validation", "train")
# Pairs that share a text of so many words go to one side: a premise with its hypotheses, a paragraph with its questions. "Yes." doesn't
# bind anybody.
_BINDS = 4


@dataclass(frozen=True, eq=False)
class Cleaned:
    """keep: (n,) bool. digests: of each sample's texts. groups: the same for samples that go to one side of a split.

    phrase: (n,) bool, those that stand inside another sample of their split. tokens: of all texts, by which that is found.
    """

    keep: np.ndarray
    digests: tuple[bytes, ...]
    groups: tuple[bytes, ...]
    phrase: np.ndarray
    tokens: phrases.Tokens
    findings: tuple[str, ...]

    def stand_in(self, some: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(some,) bool: those that stand inside one of `others`."""
        if not len(some):
            return np.zeros(0, dtype=bool)
        return phrases.inside(self.tokens.take(some), self.tokens.take(others))


def clean(source: TextSource) -> Cleaned:
    """Judge `source`. Spaces and case don't count where texts are compared."""
    first = [plain(text) for text in source.first]
    other = [plain(text) for text in source.second] if source.second is not None else None
    digests = tuple(
        hashlib.sha256(
            text.encode("utf-8", "surrogatepass") + b"\0" + (other[i] if other else "").encode("utf-8", "surrogatepass")
        ).digest()
        for i, text in enumerate(first)
    )
    empty = np.array([not text and not (other and other[i]) for i, text in enumerate(first)], dtype=bool) & (source.given != "test")
    labelled = source.labelled()
    unknown = ~labelled if labelled.any() else np.zeros(len(labelled), dtype=bool)
    usable = ~empty & ~unknown
    tokens = phrases.tokens(first if other is None else ())
    alike = _alike(tokens, digests) if other is None else digests
    leaks = _leaks(source.given, alike, usable)
    keep = usable & ~leaks
    pool = keep & np.isin(source.given, ("", "train"))
    groups = alike if other is None else _bound(first, other, digests)
    phrase = np.zeros(len(digests), dtype=bool)
    if other is None:
        places = np.flatnonzero(pool)
        phrase[places] = phrases.inside(tokens.take(places), tokens.take(places))
    found = Cleaned(keep, digests, groups, phrase, tokens, ())
    findings = [
        *source.findings,
        *_counted(empty, source, "texts are empty and were left out"),
        *_counted(unknown & ~empty, source, "samples have no label and were left out"),
        *_copies(source.given, digests, usable),
        *_conflicts(source, digests, usable),
        *_counted(leaks, source, "texts equal one of a split that is kept for judging, and left theirs"),
        *_phrases(source, found),
    ]
    return Cleaned(keep, digests, groups, phrase, tokens, tuple(findings))


def plain(text: str) -> str:
    """As texts are compared: small letters, single spaces."""
    return " ".join(text.split()).casefold()


def _alike(tokens: phrases.Tokens, digests: Sequence[bytes]) -> tuple[bytes, ...]:
    """Of texts with the same words and marks, whatever spaces stand between them ("it 's" and "it's"), the least digest."""
    found = list(digests)
    places: dict[bytes, list[int]] = defaultdict(list)
    for place in np.flatnonzero(tokens.lengths > 0).tolist():
        places[tokens.ids[tokens.starts[place] : tokens.starts[place + 1]].tobytes()].append(place)
    for same in places.values():
        least = min(digests[place] for place in same)
        for place in same:
            found[place] = least
    return tuple(found)


def _bound(first: Sequence[str], second: Sequence[str], digests: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Digest of each pair's group (the least in it): pairs that share a text, directly or through others."""
    leader: dict[bytes, bytes] = {}

    def top(digest: bytes) -> bytes:
        while (above := leader.get(digest, digest)) != digest:
            leader[digest] = leader.get(above, above)
            digest = above
        return digest

    holder: dict[str, bytes] = {}
    for one, two, digest in zip(first, second, digests, strict=True):
        for text in (one, two):
            if text.count(" ") + 1 >= _BINDS:
                low, high = sorted((top(holder.setdefault(text, digest)), top(digest)))
                leader[high] = low
    return tuple(top(digest) for digest in digests)


def _leaks(given: np.ndarray, digests: Sequence[bytes], usable: np.ndarray) -> np.ndarray:
    """(n,) bool: samples with a copy in a split that comes before theirs in _PROTECTED. Where no split was given, "" counts as train."""
    leaks = np.zeros(len(digests), dtype=bool)
    taken: set[bytes] = set()
    for split in _PROTECTED:
        members = np.flatnonzero(usable & np.isin(given, (split, "") if split == "train" else (split,)))
        own = [digests[int(i)] for i in members]
        leaks[members] = [digest in taken for digest in own]
        taken.update(own)
    return leaks


def _copies(given: np.ndarray, digests: Sequence[bytes], usable: np.ndarray) -> list[str]:
    """Copies inside one given split: kept, as they deceive nobody, but counted."""
    found = []
    for split in dict.fromkeys(given.tolist()):
        count = Counter(digests[i] for i in np.flatnonzero(usable & (given == split)).tolist())
        extra = sum(count.values()) - len(count)
        if extra:
            where = f" inside {split}" if split else ""
            found.append(f"{extra} texts are copies of another{where}: kept, on one side of every split made here")
    return found


def _conflicts(source: TextSource, digests: Sequence[bytes], usable: np.ndarray) -> list[str]:
    if source.targets is None or source.targets.dtype.kind != "i":
        return []
    classes: dict[bytes, set[int]] = defaultdict(set)
    first: dict[bytes, int] = {}
    for index in np.flatnonzero(usable).tolist():
        classes[digests[index]].add(int(source.targets[index]))
        first.setdefault(digests[index], index)
    torn = [(first[digest], sorted(found)) for digest, found in classes.items() if len(found) > 1]
    if not torn:
        return []
    names = _some(f"{_quoted(source, i)} is {' and '.join(source.labels[c] for c in found)}" for i, found in torn)
    return [f"{len(torn)} texts occur with more than one label, kept as they are: {names}"]


def _phrases(source: TextSource, found: Cleaned) -> list[str]:
    """Texts of train that stand whole in one of a given test or validation split: most are a few words that any text may hold."""
    train = np.flatnonzero(found.keep & np.isin(source.given, ("", "train")))
    held = np.flatnonzero(found.keep & np.isin(source.given, ("test", "validation")))
    if source.second is not None or not len(held):
        return []
    stand = train[found.stand_in(train, held)]
    long = stand[found.tokens.lengths[stand] >= _BINDS]
    if not len(long):
        return []
    some = _some(_quoted(source, int(i)) for i in long)
    return [f"{len(stand)} texts of train stand whole in a text that is kept for judging, {len(long)} of four tokens or more; kept: {some}"]


def _counted(which: np.ndarray, source: TextSource, what: str) -> list[str]:
    count = Counter(source.given[which].tolist())
    if not count:
        return []
    where = ", ".join(f"{n} of {split}" for split, n in count.items() if split)
    return [f"{int(which.sum())} {what}{f' ({where})' if where else ''}"]


def _quoted(source: TextSource, index: int) -> str:
    text = source.first[index]
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _some(texts: Iterable[str], most: int = 3) -> str:
    every = list(texts)
    return ", ".join(every[:most]) + (f", and {len(every) - most} more" if len(every) > most else "")
