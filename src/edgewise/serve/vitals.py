"""What happened to requests in the last minute, by model: rates, percentiles, queue, batches, cache, misses. For the page and for metrics.

Whoever speaks a protocol tells of each request that ended (`Vitals.finished`); nothing is kept of it but counts, by the second.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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


def percentile_s(histogram: Mapping[int, int], share: float) -> float | None:
    """Nearest rank: the least time that a share of at least `share` (0..1] did not exceed. None of nothing."""
    left = math.ceil(share * sum(histogram.values()))
    for number in sorted(histogram):
        left -= histogram[number]
        if left <= 0:
            return middle_s(number)
    return None


class _Second:
    """What ended within one second, or in several together. queued_s: of all. rows: of a call -> requests in one of so many."""

    __slots__ = ("at", "cached", "outcomes", "queued_s", "rows", "times")

    def __init__(self, at: int) -> None:
        self.at = at
        self.outcomes: dict[Outcome, int] = {}
        self.times: dict[int, int] = {}
        self.rows: dict[int, int] = {}
        self.queued_s = 0.0
        self.cached = 0

    def add(self, other: _Second, sign: int = 1) -> None:
        for mine, theirs in ((self.outcomes, other.outcomes), (self.times, other.times), (self.rows, other.rows)):
            _add(mine, theirs, sign)
        self.queued_s += sign * other.queued_s
        self.cached += sign * other.cached


def _add(mine: dict[Any, int], theirs: Mapping[Any, int], sign: int) -> None:
    for key, count in theirs.items():
        left = mine.get(key, 0) + sign * count
        if left:
            mine[key] = left
        else:
            del mine[key]


class _Window:
    """One version's seconds. Those that are over are added up as they end, so that a look costs no more after many requests than after few:
    a look that takes long would make requests late.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self.over: deque[_Second] = deque()
        self.sum = _Second(-1)
        self.now = _Second(-1)

    def at(self, now: int) -> _Second:
        """The second that runs."""
        if self.now.at != now:
            self._turn(now)
        return self.now

    def _turn(self, now: int) -> None:
        if self.now.outcomes:
            self.over.append(self.now)
            self.sum.add(self.now)
        while self.over and now - self.over[0].at >= self._length:
            self.sum.add(self.over.popleft(), -1)
        if not self.over:
            self.sum = _Second(-1)  # what floats leave behind when as much is taken from them as was added
        self.now = _Second(now)

    @property
    def empty(self) -> bool:
        return not self.over and not self.now.outcomes


@dataclass(frozen=True)
class Recent:
    """One model's last `seconds`. Percentiles are of answers that came; refusals, failures and misses are counted, and have no time.

    rate: of requests that ended, a second. waiting: how many were in the queue on average (Little's law: time waited in all, by
    the time that went by). rows: rows of a call -> requests.
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

    @property
    def mean_rows(self) -> float | None:
        """Of the calls that requests were in, as requests saw them."""
        total = sum(self.rows.values())
        return sum(rows * count for rows, count in self.rows.items()) / total if total else None


def outcome(error: BaseException) -> Outcome:
    if isinstance(error, Refused | TooMany):
        return "refused"
    return "late" if isinstance(error, Late) else "fail"


class Watch(Protocol):
    """Who hears of every end of a request too, as it comes (`tracing.Tracer`)."""

    def answered(self, answer: Answer) -> None: ...

    def failed(self, model: str, version: str, error: BaseException) -> None: ...


class Vitals:
    """Of one event loop, as all that `serve` does. clock: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, window_s: int = WINDOW_S, watch: Watch | None = None) -> None:
        self._clock, self._window, self._watch = clock, window_s, watch
        self._began = clock()
        self._kept: dict[tuple[str, str], _Window] = {}
        self._p99s_ms: dict[int, float | None] = {}

    def finished(
        self, model: str, version: str, outcome: Outcome, seconds: float, *, queued_s: float = 0.0, rows: int = 1, cached: bool = False
    ) -> None:
        """A request ended, `seconds` after it was read. model: one that there is; version: "" where none was found for it."""
        now = int(self._clock())
        window = self._kept.get((model, version)) or self._begun((model, version), now)
        if window is None:
            return
        second = window.at(now)
        second.outcomes[outcome] = second.outcomes.get(outcome, 0) + 1
        second.queued_s += queued_s
        if outcome == "success":
            number = bucket(seconds)
            second.times[number] = second.times.get(number, 0) + 1
            if cached:
                second.cached += 1
            else:
                second.rows[rows] = second.rows.get(rows, 0) + 1

    def answered(self, answer: Answer, seconds: float) -> None:
        """A request was answered, `seconds` after it was read."""
        self.finished(answer.model, answer.version, "success", seconds, queued_s=answer.queued_s, rows=answer.rows, cached=answer.cached)
        if self._watch is not None:
            self._watch.answered(answer)

    def failed(self, model: str, version: str, error: BaseException, seconds: float) -> None:
        """A request ended with `error`. One for a model that isn't there, without a key, or given up by its client, is nobody's."""
        if not isinstance(error, NoModel | Unauthorized | Forbidden | asyncio.CancelledError):
            self.finished(model, version, outcome(error), seconds)
        if self._watch is not None:
            self._watch.failed(model, version, error)

    def versions(self, model: str) -> tuple[str, ...]:
        """Those with requests in the window, sorted; "" among them where some were refused before a version was found."""
        self._turned()
        return tuple(sorted(version for (name, version), window in self._kept.items() if name == model and not window.empty))

    def recent(self, model: str | None = None, version: str | None = None) -> Recent:
        """Of one version, of all versions of a model, or of everything."""
        now = self._turned()
        windows = [window for key, window in self._kept.items() if model in (None, key[0]) and version in (None, key[1])]
        # The current second is not over, and a server that has just begun has no minute behind it.
        return _recent(windows, max(1.0, min(now - int(now) + self._window - 1, now - self._began)))

    def rates(self, model: str | None = None) -> list[int]:
        """Requests that ended in each second of the window, the oldest first; of one model, or of everything."""
        first = int(self._turned()) - self._window + 1
        found = [0] * self._window
        for (name, _), window in self._kept.items():
            if model in (None, name):
                for second in (*window.over, window.now):
                    found[second.at - first] += sum(second.outcomes.values())
        return found

    def p99s_ms(self) -> list[float | None]:
        """Of everything that was answered in each second of the window, the oldest first; None where nothing was."""
        last = int(self._turned())
        first = last - self._window + 1
        self._p99s_ms = {at: p99 for at, p99 in self._p99s_ms.items() if at >= first}
        wanted = [at for at in range(first, last + 1) if at not in self._p99s_ms]
        times: dict[int, dict[int, int]] = {at: {} for at in wanted}
        for window in self._kept.values():
            for second in (*window.over, window.now):
                if second.at in times:
                    _add(times[second.at], second.times, 1)
        found = {at: _ms(percentile_s(times[at], 0.99)) for at in wanted}
        self._p99s_ms |= {at: p99 for at, p99 in found.items() if at < last}  # what is over stays as it is
        return [self._p99s_ms.get(at, found.get(at)) for at in range(first, last + 1)]

    def _begun(self, key: tuple[str, str], now: int) -> _Window | None:
        if len(self._kept) >= MOST:
            self._turned()
            self._kept = {name: window for name, window in self._kept.items() if not window.empty}
        if len(self._kept) >= MOST:
            return None
        self._kept[key] = _Window(self._window)
        return self._kept[key]

    def _turned(self) -> float:
        """Now, which every window then knows."""
        now = self._clock()
        for window in self._kept.values():
            window.at(int(now))
        return now


def _recent(windows: Iterable[_Window], seconds: float) -> Recent:
    """seconds: that went by."""
    found = _Second(-1)
    for window in windows:
        found.add(window.sum)
        found.add(window.now)
    outcomes = found.outcomes
    requests = sum(outcomes.values())
    p50, p95, p99 = (_ms(percentile_s(found.times, share)) for share in (0.5, 0.95, 0.99))
    return Recent(
        seconds=seconds,
        requests=requests,
        success=outcomes.get("success", 0),
        fail=outcomes.get("fail", 0),
        refused=outcomes.get("refused", 0),
        late=outcomes.get("late", 0),
        cached=found.cached,
        rate=requests / seconds,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        waiting=max(0.0, found.queued_s) / seconds,
        rows=dict(sorted(found.rows.items())),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 4)
