"""What happened to requests in the last minute, by model: rates, percentiles, queue, batches, cache, misses. For the page and for metrics.

Whoever speaks a protocol tells of each request that ended (`Vitals.finished`); nothing is kept of it but counts, by the second.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from edgewise.host import Answer, Late, NoModel, Refused
from edgewise.serve.problems import Forbidden, TooMany, Unauthorized

Outcome = Literal["success", "fail", "refused", "late"]

WINDOW_S = 60
MOST = 4096  # models and versions that are followed at a time; names come from clients, and may be made up
SHORTEST_S = 1e-5
STEPS = 8  # buckets of an octave: a percentile is off by at most 2^(1/16), 4.4 %
LONGEST = 28 * STEPS  # 2^28 times SHORTEST_S, some 45 minutes


def bucket(seconds: float) -> int:
    """Which bucket of the fixed, logarithmic histogram holds `seconds`: b holds SHORTEST_S · (2^((b-1)/STEPS), 2^(b/STEPS)]."""
    return 0 if seconds <= SHORTEST_S else min(LONGEST, math.ceil(math.log2(seconds / SHORTEST_S) * STEPS))


def middle_s(number: int) -> float:
    """The geometric middle of a bucket, in seconds."""
    return SHORTEST_S * 2.0 ** ((number - 0.5) / STEPS)


def percentile_s(histogram: Counter[int], share: float) -> float | None:
    """Nearest rank: the least time that a share of at least `share` (0..1] did not exceed. None of nothing."""
    left = math.ceil(share * histogram.total())
    for number in sorted(histogram):
        left -= histogram[number]
        if left <= 0:
            return middle_s(number)
    return None


@dataclass
class _Second:
    """What ended within one second. queued_s: of all together. rows: of a call, by how many requests were in one of so many."""

    at: int = -1
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    times: Counter[int] = field(default_factory=Counter)
    rows: Counter[int] = field(default_factory=Counter)
    queued_s: float = 0.0
    cached: int = 0


@dataclass(frozen=True)
class Recent:
    """One model's last `seconds`. Percentiles are of answers that came; refusals, failures and misses are counted, and have no time.

    rate: of requests that ended, a second. waiting: how many were in the queue on average (Little's law: time waited in all, by
    the time that went by). rows: rows of a call -> requests. rates, p99s_ms: second by second, the oldest first; None where nothing came.
    """

    seconds: float
    requests: int
    success: int
    fail: int
    refused: int
    late: int
    cached: int
    rate: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    waiting: float
    rows: dict[int, int]
    rates: tuple[int, ...]
    p99s_ms: tuple[float | None, ...]

    @property
    def mean_rows(self) -> float | None:
        """Of the calls that requests were in, as requests saw them."""
        total = sum(self.rows.values())
        return sum(rows * count for rows, count in self.rows.items()) / total if total else None


def _outcome(error: BaseException) -> Outcome:
    if isinstance(error, Refused | TooMany):
        return "refused"
    return "late" if isinstance(error, Late) else "fail"


class Vitals:
    """Of one event loop, as all that `serve` does. clock: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, window_s: int = WINDOW_S) -> None:
        self._clock, self._window = clock, window_s
        self._began = clock()
        self._kept: dict[tuple[str, str], list[_Second]] = {}

    def finished(
        self, model: str, version: str, outcome: Outcome, seconds: float, *, queued_s: float = 0.0, rows: int = 1, cached: bool = False
    ) -> None:
        """A request ended, `seconds` after it was read. model: one that there is; version: "" where none was found for it."""
        now = int(self._clock())
        ring = self._kept.get((model, version)) or self._ring((model, version), now)
        if ring is None:
            return
        second = ring[now % self._window]
        if second.at != now:
            second = ring[now % self._window] = _Second(now)
        second.outcomes[outcome] += 1
        second.queued_s += queued_s
        if outcome == "success":
            second.times[bucket(seconds)] += 1
            if cached:
                second.cached += 1
            else:
                second.rows[rows] += 1

    def answered(self, answer: Answer, seconds: float) -> None:
        """A request was answered, `seconds` after it was read."""
        self.finished(answer.model, answer.version, "success", seconds, queued_s=answer.queued_s, rows=answer.rows, cached=answer.cached)

    def failed(self, model: str, version: str, error: BaseException, seconds: float) -> None:
        """A request ended with `error`. One for a model that isn't there, without a key, or given up by its client, is nobody's."""
        if not isinstance(error, NoModel | Unauthorized | Forbidden | asyncio.CancelledError):
            self.finished(model, version, _outcome(error), seconds)

    def _ring(self, key: tuple[str, str], now: int) -> list[_Second] | None:
        if len(self._kept) >= MOST:
            self._forget(now)
        if len(self._kept) >= MOST:
            return None
        self._kept[key] = [_Second() for _ in range(self._window)]
        return self._kept[key]

    def _forget(self, now: int) -> None:
        """Those of whom nothing was heard in the window."""
        self._kept = {key: ring for key, ring in self._kept.items() if any(now - second.at < self._window for second in ring)}

    def versions(self, model: str) -> tuple[str, ...]:
        """Those with requests in the window, sorted; "" among them where some were refused before a version was found."""
        now = int(self._clock())
        return tuple(
            sorted(
                version
                for (name, version), ring in self._kept.items()
                if name == model and any(now - second.at < self._window for second in ring)
            )
        )

    def recent(self, model: str | None = None, version: str | None = None) -> Recent:
        """Of one version, of all versions of a model, or of everything."""
        rings = [ring for key, ring in self._kept.items() if model in (None, key[0]) and version in (None, key[1])]
        return _recent(rings, self._clock(), self._window, self._began)


def _recent(rings: Iterable[list[_Second]], now: float, window: int, began: float) -> Recent:
    first = int(now) - window + 1
    by_second: list[list[_Second]] = [[] for _ in range(window)]
    for ring in rings:
        for second in ring:
            if first <= second.at <= int(now):
                by_second[second.at - first].append(second)
    found = [second for seconds in by_second for second in seconds]
    outcomes: Counter[Outcome] = Counter()
    times: Counter[int] = Counter()
    rows: Counter[int] = Counter()
    for second in found:
        outcomes.update(second.outcomes)
        times.update(second.times)
        rows.update(second.rows)
    # The current second is not over, and a server that has just begun has no minute behind it.
    seconds = max(1.0, min(now - first, now - began))
    shares = [_ms(percentile_s(times, share)) for share in (0.5, 0.95, 0.99)]
    p99s = []
    for each in by_second:
        merged: Counter[int] = Counter()
        for second in each:
            merged.update(second.times)
        p99s.append(_ms(percentile_s(merged, 0.99)))
    return Recent(
        seconds=seconds,
        requests=outcomes.total(),
        success=outcomes["success"],
        fail=outcomes["fail"],
        refused=outcomes["refused"],
        late=outcomes["late"],
        cached=sum(second.cached for second in found),
        rate=outcomes.total() / seconds,
        p50_ms=shares[0],
        p95_ms=shares[1],
        p99_ms=shares[2],
        waiting=sum(second.queued_s for second in found) / seconds,
        rows=dict(sorted(rows.items())),
        rates=tuple(sum(second.outcomes.total() for second in each) for each in by_second),
        p99s_ms=tuple(p99s),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
