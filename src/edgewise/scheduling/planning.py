"""The calls to come, if nothing else does: which requests share each, when it starts, and by when it ends with 99 % confidence.

Admission asks this whether promises can be kept; the choice of the next call takes the first of it. So both mean the same.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from edgewise.scheduling.state import Model, Pending, Running, State

# Requests without deadline that waited for so long are served now and then whatever else waits, for a tenth of the time.
PATIENCE_S = 1.0
SHARE = 0.1
# Of the way from the mean to the 99 % point: calls share one fate, and 32 requests late at once weigh more than 1 % of all calls does.
WIDER = 1.25

Instant = tuple[float, float]  # seconds as expected, and the variance of that in s²: of the normal distribution, times (its 99 % point)²


class Planned(NamedTuple):
    """A call to come; a tuple, because an arrival may plan a hundred of them. rows: that it has now. starts_s, ends_s: as expected.

    safe_s: when it has ended, with 99 % confidence. due_s: the first deadline in it.
    """

    model: str
    requests: tuple[Pending, ...]
    rows: int
    starts_s: float
    ends_s: float
    safe_s: float
    due_s: float
    variance: float

    @property
    def late(self) -> bool:
        return self.safe_s > self.due_s


def safely(now: float, caution: float) -> Callable[[float, float], float]:
    """(end, variance) -> by when what is expected at `end` has ended, with confidence: at caution 1, by what the curves' p99s say; at more,
    their spread is taken to be so many times as wide, and a tenth of the time until then to be missing in it: a curve may have been
    measured in peace.
    """
    wider, missing, root = caution * WIDER, max(0.0, caution - 1.0) * 0.1, math.sqrt
    return lambda end, variance: end + wider * root(variance) + missing * (end - now)


def remaining(state: State, call: Running, now: float) -> tuple[float, float]:
    """When a running call ends: (expected, 99 % confidence). One that took longer than p99 takes a tenth of that more, who knows why."""
    mean = call.began_s + state.mean_s(call.model, call.rows)
    tail = max(mean, call.began_s + state.p99_s(call.model, call.rows))
    if now < mean:
        return mean, tail
    if now < tail:
        return (now + tail) / 2, tail
    more = (now - call.began_s) / 10
    return now + more, now + 2 * more


def turn(queue: Sequence[Pending], state: State) -> tuple[Pending, float] | None:
    """Of the requests without deadline the one that waited longest, and from when on it goes before everybody else."""
    oldest = None
    for one in queue:
        if one.deadline_s is None and (oldest is None or one.arrived_s < oldest.arrived_s):
            oldest = one
    return None if oldest is None else (oldest, max(oldest.arrived_s + PATIENCE_S, state.rested_s))


def plan(state: State, now: float, waiting: Sequence[Pending] | None = None, first_rows: int = 0) -> Iterator[Planned]:
    """Every waiting request in calls, in order, but for those given up or whose deadline can't be kept; planned as they are asked for.

    waiting: other requests than the state's, in order of `key`. first_rows: what the first call is filled to, where the curve doesn't say.
    """
    queue = state.waiting if waiting is None else waiting
    if state.given_up:
        queue = [one for one in queue if one.id not in state.given_up]
    cores, turned = _Cores(state, now), turn(queue, state)
    lines: dict[str, _Line] = {}
    taken: set[int] = set()
    index = 0
    for one in queue:
        if one.id in taken:
            continue
        line = lines.get(one.model)
        if line is None:
            line = lines[one.model] = _Line(state, one.model, queue, taken, now)
        if (line.soonest_s if one.rows == 1 else line.soonest_of(one.rows)) > one.due_s:
            continue
        start = cores.start(line.model, one.model)
        if turned is not None and start[0] >= turned[1]:
            patient, turned = turned[0], None
            if patient.id not in taken:
                other = lines.get(patient.model)
                if other is None:
                    other = lines[patient.model] = _Line(state, patient.model, queue, taken, now)
                call = other.call(patient, cores.start(other.model, patient.model), index, 0)
                index += 1
                cores.take(call, other.model)
                yield call
                if one.id in taken:
                    continue
                start = cores.start(line.model, one.model)
        call = line.call(one, start, index, 0 if index else first_rows)
        index += 1
        cores.take(call, line.model)
        yield call


def summed(state: State, pending: Pending, waiting: Sequence[Pending], now: float) -> Planned | None:
    """What `plan` says of `pending`, one of `waiting`, where that is a sum: calls of one row on one core, all with deadlines. Else None.

    In overload every arrival asks for this, and most of the queue goes before it; a sum by models takes a tenth of the time of a plan.
    """
    if state.cores > 1 or None in [one.deadline_s for one in waiting]:
        return None
    ahead: dict[str, int] = {}
    latest = {name: now + model.curve.median_s(1) * state.pace.get(name, 1.0) for name, model in state.models.items()}
    for one in waiting:
        name = one.model
        if one.rows > 1:
            return None
        if latest[name] <= one.due_s and one.id not in state.given_up:
            ahead[name] = ahead.get(name, 0) + 1
        if one is pending:
            break
    if any(state.models[name].shared for name in ahead):
        return None
    end, variance = _Cores(state, now).start(state.models[pending.model], pending.model)
    for name, count in ahead.items():
        mean = state.mean_s(name, 1)
        end += count * mean
        variance += count * max(0.0, state.p99_s(name, 1) - mean) ** 2
    safe = safely(now, state.caution)(end, variance)
    return Planned(pending.model, (pending,), 1, end - state.mean_s(pending.model, 1), end, safe, pending.due_s, variance)


class _Cores:
    """When cores and runners get free, as calls are planned: never before now (`remaining`)."""

    def __init__(self, state: State, now: float) -> None:
        idle = (now, 0.0)
        self._cores: list[Instant] = []
        self._runners: dict[str, list[Instant]] = {}
        for call in state.running:
            mean, tail = remaining(state, call, now)
            free = (mean, (tail - mean) ** 2)
            self._cores += [free] * state.needs(call.model)
            self._runners.setdefault(call.model, []).append(free)
        self._cores += [idle] * (state.cores - len(self._cores))

    def start(self, model: Model, name: str) -> Instant:
        """When a call of this model can start."""
        cores = self._cores
        if len(cores) == 1:
            return cores[0]
        free = min(cores) if model.cores == 1 else sorted(cores)[min(model.cores, len(cores)) - 1]
        busy = self._runners.get(name)
        if busy is not None and len(busy) >= model.instances:
            free = max(free, min(busy))
        return free

    def take(self, call: Planned, model: Model) -> None:
        """The cores that get free last before it starts, so that none is idle for long."""
        cores, end = self._cores, (call.ends_s, call.variance)
        if len(cores) == 1:
            cores[0] = end
            return
        taken, start = min(model.cores, len(cores)), call.starts_s
        for _ in range(taken):
            last = -1
            for place, free in enumerate(cores):
                if free[0] <= start and (last < 0 or free > cores[last]):
                    last = place
            cores[last] = (math.inf, 0.0) if taken > 1 else end
        if taken > 1:
            cores[:] = [end if free[0] == math.inf else free for free in cores]
        busy = self._runners.setdefault(call.model, [])
        if len(busy) >= model.instances:
            busy.remove(min(busy))
        busy.append(end)


class _Line:
    """Requests of one model, and what its calls take now. taken: ids of all that are in a call; calls made here add theirs."""

    def __init__(self, state: State, name: str, queue: Sequence[Pending], taken: set[int], now: float) -> None:
        self.model = model = state.models[name]
        self._name, self._pace, self._cores, self._now = name, state.pace.get(name, 1.0), state.cores, now
        self._safe_s = safely(now, state.caution)
        self._rate = state.traffic[name].rate if name in state.traffic else 0.0
        self._most = model.most
        self._taken = taken
        self._waiting = [one for one in queue if one.model == name] if model.shared else []
        self._alike = all(one.rows == 1 and one.deadline_s is not None for one in self._waiting)
        self._shared, self.soonest_s = model.shared, now + model.curve.median_s(1) * self._pace
        self._one = self._of(1)
        self._from = 0  # the first of them that may not be in a call

    def soonest_of(self, rows: int) -> float:
        """When a call of so many rows can have ended."""
        return self._now + self.model.curve.median_s(rows) * self._pace

    def _of(self, rows: int) -> Instant:
        """What a call of so many takes."""
        mean, tail = self.model.curve.mean_s(rows) * self._pace, self.model.curve.p99_s(rows) * self._pace
        return mean, max(0.0, tail - mean) ** 2

    def call(self, head: Pending, start: Instant, index: int, wanted: int) -> Planned:
        """index: how many calls are planned before. wanted: rows, where it isn't as many as is best.

        A call that others go before is taken to grow as requests come, up to its model's best size: who is promised an end there has to
        leave room for those who will share the call. Without that, calls stay as small as the first deadline in them made them, and the
        machine as slow as its smallest calls.
        """
        if not self._shared:  # of a queue in overload, most are
            self._taken.add(head.id)
            mean, variance = self._one if head.rows == 1 else self._of(head.rows)
            end, variance = start[0] + mean, start[1] + variance
            return Planned(self._name, (head,), head.rows, start[0], end, self._safe_s(end, variance), head.due_s, variance)
        growing = int(self._rate * (start[0] - self._now)) if index >= self._cores else 0
        group = self._group(head, wanted)
        whole = found = self._planned(tuple(group), sum([one.rows for one in group]), start, growing)
        if whole.late and len(group) > 1 and not wanted:
            # Fewer rows keep its first deadline, with 99 % confidence or at least probably; where none do, more rows are of more use.
            def fewer(count: int) -> Planned:
                return self._planned(tuple(group[:count]), sum([one.rows for one in group[:count]]), start, growing)

            counts = range(1, len(group) + 1)
            count = bisect(counts, False, key=lambda count: fewer(count).late)
            count = count or bisect(counts, False, key=lambda count: fewer(count).ends_s > fewer(count).due_s)
            found = fewer(count) if count else whole
        self._taken.update([one.id for one in found.requests])
        return found

    def _planned(self, group: tuple[Pending, ...], rows: int, start: Instant, growing: int) -> Planned:
        first, last = group[0], group[-1]
        due = first.due_s if first.priority == last.priority else min([one.due_s for one in group])
        grown = max(rows, min(self._most, rows + growing)) if growing else rows
        mean, variance = self._one if grown == 1 else self._of(grown)
        end, variance = start[0] + mean, start[1] + variance
        return Planned(self._name, group, rows, start[0], end, self._safe_s(end, variance), due, variance)

    def _group(self, head: Pending, wanted: int) -> list[Pending]:
        """Who shares the call with `head`, of those behind it: to `wanted` rows, or to what is soonest for all of them by the curve."""
        curve = self.model.curve
        limit = min(self.model.largest or curve.largest, curve.largest)
        waiting, taken, soonest = self._waiting, self._taken, self.soonest_s
        while waiting[self._from].id in taken:
            self._from += 1
        place = waiting.index(head, self._from)
        if self._alike and waiting[-1].priority == head.priority:
            # Deadlines go up from here, and nobody has to stay together: those who are next, as many as are wanted.
            left = len(waiting) - place
            return waiting[place : place + (wanted or (curve.best_rows(limit) if left > limit else curve.next_rows(left)))]
        group, rows, at_hand, fits = [head], head.rows, head.rows, True
        for one in waiting[place + 1 :]:
            if one.id in taken or soonest > one.due_s:
                continue
            at_hand += one.rows
            fits = fits and rows + one.rows <= limit
            if fits:
                group.append(one)
                rows += one.rows
            if at_hand > limit:
                break
        if not wanted:
            wanted = curve.best_rows(limit) if at_hand > limit else curve.next_rows(at_hand)
        # Requests of several rows needn't add up to what was wanted: they share only what is no slower than a call for each.
        while len(group) > 1 and (rows > wanted or curve.median_s(rows) > sum([curve.median_s(one.rows) for one in group])):
            rows -= group.pop().rows
        return group
