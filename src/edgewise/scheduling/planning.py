"""The calls to come, if nothing else does: which requests share each, when it starts, and by when it ends with 99 % confidence.

Admission asks this whether promises can be kept; the choice of the next call takes the first of it. So both mean the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.scheduling.state import Model, Pending, Running, State

# Requests without deadline that waited for so long are served now and then whatever else waits, for a tenth of the time.
PATIENCE_S = 1.0
SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Planned:
    """A call to come. rows: that it has now. starts_s, ends_s: as expected. safe_s: when it has ended, with 99 % confidence.

    due_s: the first deadline in it. variance: of the end, in seconds squared, in units where 1 is 99 % confidence.
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


@dataclass
class _Cores:
    """When cores and runners get free: (expected, variance of that), as calls are planned."""

    cores: list[tuple[float, float]]
    runners: dict[str, list[tuple[float, float]]]

    @classmethod
    def of(cls, state: State, now: float) -> _Cores:
        cores: list[tuple[float, float]] = []
        runners: dict[str, list[tuple[float, float]]] = {}
        for call in state.running:
            mean, tail = remaining(state, call, now)
            free = (mean, (tail - mean) ** 2)
            cores += [free] * state.models[call.model].cores
            runners.setdefault(call.model, []).append(free)
        cores += [(now, 0.0)] * (state.cores - len(cores))
        return cls(cores, runners)

    def start(self, state: State, name: str, now: float) -> tuple[float, float]:
        """When a call of this model can start."""
        model = state.models[name]
        cores = self.cores
        free = cores[0] if len(cores) == 1 else sorted(cores)[min(model.cores, len(cores)) - 1]
        busy = self.runners.get(name)
        if busy and len(busy) >= model.instances:
            free = max(free, sorted(busy)[len(busy) - model.instances])
        return max(free, (now, 0.0))

    def take(self, state: State, call: Planned, start: tuple[float, float]) -> None:
        """The cores that get free last before it starts, so that none is idle for long."""
        need, end = state.models[call.model].cores, (call.ends_s, call.variance)
        if len(self.cores) == 1:
            self.cores[0] = end
        else:
            early = sorted((free for free in self.cores if free[0] <= start[0]), reverse=True)
            rest = [free for free in self.cores if free[0] > start[0]]
            self.cores = early[need:] + rest + [end] * min(need, len(early))
        self.runners.setdefault(call.model, []).append(end)


def plan(state: State, now: float, waiting: Sequence[Pending] | None = None, first_rows: int = 0) -> list[Planned]:
    """Every waiting request in calls, in order, but for those whose deadline can't be kept any more.

    waiting: other requests than the state's, in order of `key`. first_rows: what the first call is filled to, where it isn't the curve's best.
    """
    queue = [one for one in (state.waiting if waiting is None else waiting) if state.reachable(one, now)]
    lines: dict[str, list[Pending]] = {}
    for one in queue:
        lines.setdefault(one.model, []).append(one)
    cores = _Cores.of(state, now)
    turned = turn(queue, state)
    taken: set[int] = set()
    found: list[Planned] = []
    for one in queue:
        while one.id not in taken:
            head, start = one, cores.start(state, one.model, now)
            if turned is not None and start[0] >= turned[1]:
                head, turned = turned[0], None
                if head.id in taken:
                    continue
                start = cores.start(state, head.model, now)
            call = _call(state, head, lines[head.model], taken, start, now, len(found), first_rows)
            taken.update(each.id for each in call.requests)
            cores.take(state, call, start)
            found.append(call)
    return found


def _call(
    state: State, head: Pending, line: list[Pending], taken: set[int], start: tuple[float, float], now: float, index: int, first_rows: int
) -> Planned:
    """index: how many calls are planned before.

    One that others go before is taken to grow as requests come, up to its model's best size: who is promised an end there has to leave
    room for those who will share the call. Without that, calls stay as small as the first deadline in them made them, and the machine as
    slow as its smallest calls.
    """
    model = state.models[head.model]
    group = [head]
    if model.shared:
        wanted = first_rows if first_rows and not index else 0
        group = _group(model, head, [one for one in line[line.index(head) :] if one.id not in taken], wanted)

    def planned(count: int) -> Planned:
        rows, due = 0, math.inf
        for one in group[:count]:
            rows += one.rows
            if one.deadline_s is not None and one.deadline_s < due:
                due = one.deadline_s
        grown = rows
        if model.shared and index >= state.cores:
            rate = state.traffic[head.model].rate if head.model in state.traffic else 0.0
            grown = max(rows, min(model.most, int(rows + rate * (start[0] - now))))
        mean = state.mean_s(head.model, grown)
        end = start[0] + mean
        variance = start[1] + max(0.0, state.p99_s(head.model, grown) - mean) ** 2
        safe = end + math.sqrt(variance) + state.caution * (end - now)
        return Planned(head.model, tuple(group[:count]), rows, start[0], end, safe, due, variance)

    whole = planned(len(group))
    if not whole.late or len(group) == 1 or (first_rows and not index):
        return whole
    # Fewer rows keep its first deadline, with 99 % confidence or at least probably; where none do, more rows are of more use.
    fewer = [planned(count) for count in range(len(group) - 1, 0, -1)]
    return next((one for one in fewer if not one.late), None) or next((one for one in (whole, *fewer) if one.ends_s <= one.due_s), whole)


def _group(model: Model, head: Pending, line: Sequence[Pending], wanted: int) -> list[Pending]:
    """Who shares the call with `head`, of those behind it: to `wanted` rows, or to what is soonest for all of them by the curve."""
    limit = min(model.largest or model.curve.largest, model.curve.largest)
    if not wanted:
        rows = 0
        for one in line:
            rows += one.rows
            if rows > limit:
                break
        wanted = model.curve.best_rows(limit) if rows > limit else model.curve.next_rows(rows)
    group, rows = [head], head.rows
    for one in line[1:]:
        if rows + one.rows > wanted:
            break
        group.append(one)
        rows += one.rows
    # Requests of several rows needn't add up to what was wanted: they share only what is no slower than a call for each.
    while len(group) > 1 and model.curve.median_s(rows) > sum(model.curve.median_s(one.rows) for one in group):
        rows -= group.pop().rows
    return group
