"""Intervals that assume nothing about the shape of the noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb

import numpy as np

from edgewise.records import Interval


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The median and its distribution-free interval, from order statistics: [x_(k), x_(n+1-k)] holds the true median with probability
    1 - 2 P(Binomial(n, 1/2) < k) (Conover, Practical Nonparametric Statistics, 3.2). Values must be independent.

    Below six values no such interval reaches 95 %: then it is the whole range, and `confidence` says what that is worth.
    """
    if len(values) == 0:
        raise ValueError("a median of nothing")
    ordered = np.sort(np.asarray(values, float))
    n = len(ordered)
    k = _rank(n, confidence)
    reached = confidence if k else 1 - 2 * 0.5**n
    k = max(1, k)
    return Interval(float(np.median(ordered)), float(ordered[k - 1]), float(ordered[n - k]), n, reached)


@lru_cache(maxsize=4096)
def _rank(n: int, confidence: float) -> int:
    """The largest k with P(Binomial(n, 1/2) < k) <= (1 - confidence) / 2; 0 when there is none."""
    below, k = 0, 0
    limit = (1 - confidence) / 2 * 2**n if n < 1000 else int((1 - confidence) / 2 * 2**60) * 2 ** (n - 60)
    while k < n // 2:
        below += comb(n, k)
        if below > limit:
            break
        k += 1
    return k
