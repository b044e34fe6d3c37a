"""What an integer costs in the adaptive coder, before it is coded: bits by how large its neighbours in row and column are.

The coder (`edgewise.coding.adaptive`) expects an integer's bit length from the *activity* around it: moving averages of bit lengths along
its row and its column. Here the same activity gives a level, and each level has a table of what a bit length costs in it, learned from the
integers themselves. That is close enough to choose by; what a file takes is always what the coder itself makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LENGTHS = 16  # bit lengths that are told apart; nothing rounded for size is longer
# Where a level of activity (mean bit length around) ends: finer where most weights are zero.
LEVELS = np.array([0.004, 0.012, 0.03, 0.06, 0.12, 0.2, 0.3, 0.45, 0.65, 0.9, 1.2, 1.6, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0])
_PRIOR = 0.4  # of one observation of each bit length, as adaptive estimators start


def lengths(integers: np.ndarray) -> np.ndarray:
    """Bit lengths of magnitudes: 0 for 0, 1 for 1, 2 for 2 and 3 …; int64, at most LENGTHS - 1."""
    size = np.frexp(np.abs(integers).astype(np.float64))[1]
    return np.minimum(size, LENGTHS - 1).astype(np.int64)


def level_of(activity: np.ndarray) -> np.ndarray:
    return np.searchsorted(LEVELS, activity)


@dataclass(frozen=True, eq=False)
class Prices:
    """bits: (levels, lengths) that a bit length costs at a level of activity, sign and lower bits included."""

    bits: np.ndarray

    def of(self, integers: np.ndarray, activity: np.ndarray) -> np.ndarray:
        """Bits of each integer at the activity around it; both of one shape."""
        return self.bits[level_of(activity), lengths(integers)]

    def total(self, integers: np.ndarray) -> float:
        """Bits of a whole matrix (rows, columns), from the activities of its rows and columns."""
        return float(self.of(integers, activities(integers)).sum())


def activities(integers: np.ndarray) -> np.ndarray:
    """(rows, columns): mean bit length in the row and in the column of each integer, itself left out."""
    size = lengths(integers).astype(np.float64)
    rows, columns = size.shape
    along = (size.sum(1, keepdims=True) - size) / max(columns - 1, 1)
    across = (size.sum(0, keepdims=True) - size) / max(rows - 1, 1)
    if rows == 1 or columns == 1:
        return along + across
    return joined(along, across, float(size.mean()))


def joined(along: np.ndarray, across: np.ndarray, mean: float) -> np.ndarray:
    """One activity from those of a row and a column: independent factors of the whole's mean, halfway to their plain mean."""
    product = along * across / max(mean, 1e-9)
    return np.minimum(0.5 * product + 0.25 * (along + across), LENGTHS)


def learned(integers: np.ndarray, activity: np.ndarray) -> Prices:
    """Prices that fit these integers: empirical code lengths at every level, with a prior from the level's activity where it is rare."""
    counts = np.zeros((len(LEVELS) + 1, LENGTHS))
    np.add.at(counts, (level_of(activity).ravel(), lengths(integers).ravel()), 1.0)
    middle = np.concatenate(([0.002], np.sqrt(LEVELS[:-1] * LEVELS[1:]), [7.0, 9.0]))[: len(counts)]
    # A geometric distribution of that mean: what is known of a level in which nothing was seen.
    keep = (middle / (1 + middle))[:, None]
    prior = (1 - keep) * keep ** np.arange(LENGTHS)
    whole = counts.sum(1, keepdims=True)
    chance = (counts + 8 * prior + _PRIOR / LENGTHS) / (whole + 8 + _PRIOR)
    chance /= chance.sum(1, keepdims=True)
    # A sign, and the bits under the highest one.
    return Prices(-np.log2(chance) + np.arange(LENGTHS))
