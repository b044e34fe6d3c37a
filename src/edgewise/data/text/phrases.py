"""Which texts stand whole inside another: phrases of a sentence, which must not lie on the other side of a split.

Texts are compared token by token (words and single marks, case apart): "the art" stands inside "in the art of", not inside "the article".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

_TOKEN = re.compile(r"\w+|[^\w\s]")
# A text is looked for by its first tokens: by as many of them as the first of these lengths that it has.
_HEADS = (64, 16, 4, 3, 2, 1)
_AT_ONCE = 1 << 21  # pairs
_BASE, _INVERSE = 0x9E3779B97F4A7C15, pow(0x9E3779B97F4A7C15, -1, 2**64)


@dataclass(frozen=True, eq=False)
class Tokens:
    """Texts as numbers of tokens. ids: (tokens,) int64, the texts one after the other; text i is ids[starts[i]:starts[i + 1]]."""

    ids: np.ndarray
    starts: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def take(self, indices: np.ndarray) -> Tokens:
        pieces = [self.ids[self.starts[i] : self.starts[i + 1]] for i in indices]
        return Tokens(np.concatenate([*pieces, np.zeros(0, np.int64)]), np.concatenate([[0], np.cumsum(self.lengths[indices])]))

    def runs(self, starts: np.ndarray, length: int | np.ndarray) -> np.ndarray:
        """Hashes of the `length` tokens from each of `starts`, uint64: sums over prefixes give that of any run (Karp and Rabin 1987).

        H = Σ r(x_i) · B^(i − start) = (S[start + length] − S[start]) · B^(−start), modulo 2⁶⁴, where S[n] = Σ_(i < n) r(x_i) · B^i.
        """
        sums, inverse = self._prefixes
        found: np.ndarray = (sums[starts + length] - sums[starts]) * inverse[starts]
        return found

    @cached_property
    def _prefixes(self) -> tuple[np.ndarray, np.ndarray]:
        one = np.ones(1, np.uint64)
        powers, inverse = (np.cumprod(np.append(one, np.full(len(self.ids), base, np.uint64))) for base in (_BASE, _INVERSE))
        return np.append(one - one, np.cumsum(_random(self.ids) * powers[:-1])), inverse


def tokens(texts: Iterable[str]) -> Tokens:
    """`texts` as tokens of one vocabulary, numbered as they come."""
    known: dict[str, int] = {}
    ids: list[int] = []
    starts = [0]
    for text in texts:
        ids += [known.setdefault(token, len(known)) for token in _TOKEN.findall(text.casefold())]
        starts.append(len(ids))
    return Tokens(np.array(ids, np.int64), np.array(starts, np.int64))


def inside(needles: Tokens, hay: Tokens) -> np.ndarray:
    """(needles,) bool: those that stand whole in a longer text of `hay`; both of one vocabulary. Empty ones stand nowhere.

    Runs are compared by hashes of 64 bits, and only where their first tokens are the same: the 67,000 phrases of SST-2 among themselves
    take two seconds.
    """
    found = np.zeros(len(needles.lengths), dtype=bool)
    left = needles.lengths > 0
    room = np.repeat(hay.starts[1:], hay.lengths) - np.arange(len(hay.ids))  # tokens from each place to its text's end
    sizes = np.repeat(hay.lengths, hay.lengths)
    for head in _HEADS:
        chosen = np.flatnonzero(left & (needles.lengths >= head))
        left[chosen] = False
        begins = needles.runs(needles.starts[chosen], head)
        places = np.flatnonzero(room >= head)
        heads = hay.runs(places, head)
        known = np.isin(heads, begins)
        order = np.argsort(heads[known], kind="stable")
        places, heads = places[known][order], heads[known][order]
        first, last = np.searchsorted(heads, begins, "left"), np.searchsorted(heads, begins, "right")
        for needle, place in _pairs(chosen, first, last):
            at, length = places[place], needles.lengths[needle]
            fits = (room[at] >= length) & (sizes[at] > length)
            needle, at, length = needle[fits], at[fits], length[fits]
            same = needles.runs(needles.starts[needle], length) == hay.runs(at, length)
            found[needle[same]] = True
    return found


def _pairs(indices: np.ndarray, first: np.ndarray, last: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every index i with every number of first[i] … last[i] − 1, some millions at a time."""
    counts = last - first
    for chunk in np.split(np.arange(len(indices)), np.flatnonzero(np.diff(np.cumsum(counts) // _AT_ONCE)) + 1):
        many = counts[chunk]
        before = np.repeat(np.cumsum(many) - many, many)
        yield np.repeat(indices[chunk], many), np.repeat(first[chunk], many) + np.arange(many.sum()) - before


def _random(ids: np.ndarray) -> np.ndarray:
    """A number of 64 bits for each token, the same everywhere (splitmix64; Steele, Lea, Flood 2014)."""
    z = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
