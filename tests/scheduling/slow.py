"""What `next_call` and `plan` are told to choose, worked out slowly: every plan to its end, nothing kept from one to the next.

What they ask (curves, a running call's end, whose turn it is, whether to wait) is the room's own; what is asked and in which order isn't.
"""

from __future__ import annotations

import math
from dataclasses import replace

from edgewise.scheduling import Call, Pending, Planned, State, Wait, turn, without
from edgewise.scheduling.calls import SURE, _filling
from edgewise.scheduling.planning import WIDER, remaining
from edgewise.scheduling.state import DEARER


def next_call(state: State, now: float) -> Call | Wait:
    if state.free <= 0 or not state.waiting:
        return Wait()
    first = step = following(state, now)
    left, gone = state, []
    while isinstance(step, Call) and state.credit - len(gone) >= 1 and better_without(left, step, now):
        gone.append(step.requests[0].id)
        left = without(left, [step.requests[0].id])
        step = following(left, now)
    if isinstance(step, Call):
        return replace(step, given_up=tuple(gone))
    if not gone and state.given_up and not plan(state, now):
        return following(replace(state, given_up=frozenset()), now)
    return first


def better_without(state: State, call: Call, now: float) -> bool:
    one = call.requests[0]
    if len(call.requests) > 1 or one.deadline_s is None:
        return False
    cheap = [
        each for each in state.waiting
        if each.priority >= one.priority and state.cost_s(each.model, each.rows) <= state.cost_s(one.model, one.rows) / DEARER
    ]  # fmt: skip

    def late(state: State) -> int:
        ends = [(each, call.ends_s + SURE * (call.safe_s - call.ends_s)) for call in plan(state, now) for each in call.requests]
        return sum(each in cheap and end > each.due_s for each, end in ends)

    return late(without(state, [one.id])) < late(state)


def following(state: State, now: float) -> Call | Wait:
    calls = plan(state, now)
    place = next((i for i, call in enumerate(calls) if call.starts_s <= now and state.startable(call.model)), None)
    if place is None:
        return Wait()
    ready = calls[place]
    if state.models[ready.model].shared:
        if place == 0 and len(ready.requests) < len(state.waiting):
            ready = least_late(state, ready, now)
        until = _filling(state, ready, now)
        if until > now:
            return Wait(until)
    return Call(ready.model, ready.requests, ready.rows)


def least_late(state: State, first: Planned, now: float) -> Planned:
    def late(calls: list[Planned]) -> int:
        return sum(call.safe_s > one.due_s for call in calls if call.late for one in call.requests)

    best, fewest = first, late(plan(state, now))
    for rows in sorted({state.models[first.model].most, first.rows // 2, 1} - {0, first.rows}, reverse=True):
        other = plan(state, now, rows)
        if other and late(other) < fewest:
            best, fewest = other[0], late(other)
    return best


def plan(state: State, now: float, first_rows: int = 0) -> list[Planned]:
    queue = [one for one in state.waiting if one.id not in state.given_up]
    cores, runners = busy(state, now)
    turned, taken = turn(queue, state), set[int]()
    calls: list[Planned] = []

    def start(name: str) -> tuple[float, float]:
        model = state.models[name]
        free = sorted(cores)[min(model.cores, len(cores)) - 1]
        if len(cores) > 1 and len(runners.get(name, [])) >= model.instances:
            free = max(free, min(runners[name]))
        return max(free, (now, 0.0))

    def call(head: Pending, rows: int) -> None:
        made = called(state, now, queue, taken, head, start(head.model), len(calls), rows)
        taken.update(one.id for one in made.requests)
        take(state, cores, runners, made)
        calls.append(made)

    for one in queue:
        fastest = state.models[one.model].curve.median_s(one.rows) * state.pace.get(one.model, 1.0)
        if one.id in taken or (one.deadline_s is not None and now + fastest > one.deadline_s):
            continue
        if turned is not None and start(one.model)[0] >= turned[1]:
            patient, turned = turned[0], None
            if patient.id not in taken:
                call(patient, 0)
        if one.id not in taken:
            call(one, 0 if calls else first_rows)
    return calls


def busy(state: State, now: float) -> tuple[list[tuple[float, float]], dict[str, list[tuple[float, float]]]]:
    cores: list[tuple[float, float]] = []
    runners: dict[str, list[tuple[float, float]]] = {}
    for call in state.running:
        mean, tail = remaining(state, call, now)
        cores += [(mean, (tail - mean) ** 2)] * state.needs(call.model)
        runners.setdefault(call.model, []).append((mean, (tail - mean) ** 2))
    return cores + [(now, 0.0)] * (state.cores - len(cores)), runners


def take(state: State, cores: list[tuple[float, float]], runners: dict[str, list[tuple[float, float]]], call: Planned) -> None:
    """Of the cores that are free by its start, those that get free last; of its runners, the one that gets free first."""
    model, end = state.models[call.model], (call.ends_s, call.variance)
    fitting = sorted((free, -place) for place, free in enumerate(cores) if free[0] <= call.starts_s)
    for _, place in fitting[-min(model.cores, len(cores)) :]:
        cores[-place] = end
    mine = runners.setdefault(call.model, [])
    if len(mine) >= model.instances:
        mine.remove(min(mine))
    mine.append(end)


def called(
    state: State, now: float, queue: list[Pending], taken: set[int], head: Pending, start: tuple[float, float], index: int, wanted: int
) -> Planned:
    model, pace = state.models[head.model], state.pace.get(head.model, 1.0)
    if not model.shared:
        return planned(state, now, [head], start, 0)
    rate = state.traffic[head.model].rate if head.model in state.traffic else 0.0
    growing = int(rate * (start[0] - now)) if index >= state.cores else 0
    waiting = [one for one in queue if one.model == head.model]
    group = grouped(model.curve, now + model.curve.median_s(1) * pace, waiting, taken, head, wanted, model.largest)
    whole = planned(state, now, group, start, growing)
    if not whole.late or len(group) == 1 or wanted:
        return whole
    sizes = [planned(state, now, group[:count], start, growing) for count in range(1, len(group) + 1)]
    in_time = [found for found in sizes if not found.late] or [found for found in sizes if found.ends_s <= found.due_s]
    return in_time[-1] if in_time else whole


def planned(state: State, now: float, group: list[Pending], start: tuple[float, float], growing: int) -> Planned:
    name, rows = group[0].model, sum(one.rows for one in group)
    grown = max(rows, min(state.models[name].most, rows + growing))
    mean = state.mean_s(name, grown)
    end, variance = start[0] + mean, start[1] + max(0.0, state.p99_s(name, grown) - mean) ** 2
    safe = end + state.caution * WIDER * math.sqrt(variance) + max(0.0, state.caution - 1.0) * 0.1 * (end - now)
    return Planned(name, tuple(group), rows, start[0], end, safe, min(one.due_s for one in group), variance)


def grouped(curve, soonest: float, waiting: list[Pending], taken: set[int], head: Pending, wanted: int, largest: int) -> list[Pending]:
    limit = min(largest or curve.largest, curve.largest)
    place = waiting.index(head)
    if all(one.rows == 1 and one.deadline_s is not None for one in waiting) and waiting[-1].priority == head.priority:
        behind = waiting[place:]
        return behind[: wanted or (curve.best_rows(limit) if len(behind) > limit else curve.next_rows(len(behind)))]
    group, at_hand, full = [head], head.rows, False
    for one in waiting[place + 1 :]:
        if one.id in taken or soonest > one.due_s:
            continue
        at_hand += one.rows
        full = full or sum(each.rows for each in group) + one.rows > limit
        if not full:
            group.append(one)
        if at_hand > limit:
            break
    wanted = wanted or (curve.best_rows(limit) if at_hand > limit else curve.next_rows(at_hand))
    while len(group) > 1:
        rows = sum(one.rows for one in group)
        if rows <= wanted and curve.median_s(rows) <= sum(curve.median_s(one.rows) for one in group):
            break
        group.pop()
    return group
