"""What a call of a model takes, by its rows: measured at some sizes, predicted at all; and how rows are best cut into calls."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

from edgewise.errors import InvalidInput

# Sizes that calls are cut into. Past this a CPU's time per row is flat, and the cutting below costs the square of it, once.
LARGEST = 128
# A cut into other sizes than rows alone has to save this much: less is within what a curve is measured to.
WORTH = 0.02
_Z99 = 2.326  # of the normal distribution


@dataclass(frozen=True)
class Point:
    """rows: of a call. p50_ms, p99_ms: of its time."""

    rows: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Curve:
    """Measured times of calls. Time never falls as rows grow: a larger call that was measured as faster is taken
    to be as fast. Between points time is linear in rows; past the last, it is as much per row as there. Raises InvalidInput for points that
    no clock gives.
    """

    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        if not self.points:
            raise InvalidInput("a curve of no points; measure at least a call of one row")
        for point in self.points:
            if point.rows < 1 or not (0 < point.p50_ms <= point.p99_ms and math.isfinite(point.p99_ms)):
                raise InvalidInput(f"{point} is no measured time: rows are 1 or more, 0 < p50_ms <= p99_ms")
        if any(one.rows >= other.rows for one, other in zip(self.points, self.points[1:], strict=False)):
            raise InvalidInput(f"a curve's points go up in rows, each once; got rows {[point.rows for point in self.points]}")

    def median_s(self, rows: int) -> float:
        """Seconds that half the calls of so many rows stay below."""
        return self._medians[rows] if rows < len(self._medians) else self._at(rows, self._knots[1])

    def p99_s(self, rows: int) -> float:
        return self._tails[rows] if rows < len(self._tails) else self._at(rows, self._knots[2])

    def mean_s(self, rows: int) -> float:
        """Seconds, as a queue of them adds up: the mean of a log-normal time with this median and p99, exp(s²/2) above the median.

        By at most a tenth: a p99 that far off is that of a few stalls, which log-normal times wouldn't have.
        """
        return self._means[rows] if rows < len(self._means) else self._mean(rows)

    def throughput(self, rows: int) -> float:
        """Rows a second, of calls of so many."""
        return rows / self.median_s(rows)

    @property
    def largest(self) -> int:
        """Rows up to which it was measured, and which calls are filled to at most."""
        return min(LARGEST, self.points[-1].rows)

    def best_rows(self, limit: int) -> int:
        """The rows of a call, at most `limit`, that give the most rows a second; the fewest of those alike."""
        return self._best[min(limit, self.largest)]

    def next_rows(self, waiting: int) -> int:
        """Rows of the next call where so many wait and none comes any more: of the cut of them all that is done soonest, the best part.

        No part is slower by row than calls of one, or the cut wouldn't be the soonest.
        """
        return self.best_rows(waiting) if waiting > self.largest else self._cuts[waiting]

    def pays(self) -> bool:
        """Whether any batch has more rows a second than calls of one have."""
        return self.best_rows(self.largest) > 1

    def scaled(self, factor: float) -> Curve:
        """The same at a share of the cores: every time `factor` times as long."""
        return Curve(tuple(Point(point.rows, point.p50_ms * factor, point.p99_ms * factor) for point in self.points))

    @cached_property
    def _knots(self) -> tuple[list[int], list[float], list[float]]:
        """Rows, and medians and p99s in seconds, neither ever falling."""
        medians, tails = [0.0], [0.0]
        for point in self.points:
            medians.append(max(medians[-1], point.p50_ms / 1e3))
            tails.append(max(tails[-1], point.p99_ms / 1e3, medians[-1]))
        return [point.rows for point in self.points], medians[1:], tails[1:]

    def _at(self, rows: int, seconds: list[float]) -> float:
        sizes = self._knots[0]
        place = bisect_left(sizes, rows)
        if place == len(sizes):
            return seconds[-1] * rows / sizes[-1]
        if place == 0:
            return seconds[0]
        low, high = sizes[place - 1], sizes[place]
        return seconds[place - 1] + (seconds[place] - seconds[place - 1]) * (rows - low) / (high - low)

    def _mean(self, rows: int) -> float:
        median = self.median_s(rows)
        width = math.log(self.p99_s(rows) / median) / _Z99
        return median * min(1.1, math.exp(width * width / 2))

    @cached_property
    def _means(self) -> list[float]:
        return [self._mean(max(1, rows)) for rows in range(LARGEST + 1)]

    @cached_property
    def _medians(self) -> list[float]:
        return [self._at(max(1, rows), self._knots[1]) for rows in range(LARGEST + 1)]

    @cached_property
    def _tails(self) -> list[float]:
        return [self._at(max(1, rows), self._knots[2]) for rows in range(LARGEST + 1)]

    @cached_property
    def _best(self) -> list[int]:
        best = [1, 1]
        for rows in range(2, self.largest + 1):
            best.append(rows if self.throughput(rows) > self.throughput(best[-1]) * (1 + 1e-9) else best[-1])
        return best if self.throughput(best[-1]) > self.throughput(1) * (1 + WORTH) else [1] * len(best)

    @cached_property
    def _cuts(self) -> list[int]:
        """Rows that wait → rows of the next call: clear[k] = min over n of median(n) + clear[k - n], by dynamic programming."""
        clear, last, best = [0.0], [0], [1]
        for waiting in range(1, self.largest + 1):
            part = min(range(1, waiting + 1), key=lambda rows: (self._medians[rows] + clear[waiting - rows], -rows))
            if self._medians[part] + clear[waiting - part] > waiting * self._medians[1] * (1 - WORTH):
                part = 1
            clear.append(self._medians[part] + clear[waiting - part])
            last.append(part)
            best.append(max((part, best[waiting - part]), key=self.throughput) if waiting > part else part)
        return best


def paced(pace: float, predicted_s: float, observed_s: float) -> float:
    """How much longer calls take than their curve says, after one more of them: a running mean of the ratio, over about sixteen calls.

    A ratio counts as no further off than 3 times what the mean says: one stall isn't taken for a slower machine, a few in a row are.
    """
    ratio = min(3 * pace, max(pace / 3, observed_s / predicted_s))
    return min(100.0, max(0.01, pace + (ratio - pace) / 16))
