"""What is run next, and who has run out of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgewise.scheduling.planning import PATIENCE_S, SHARE, Planned, plan
from edgewise.scheduling.state import DEARER, FADING, Pending, State, Traffic, without

QUIET = 3.0  # gaps without a request, after which the crowd is taken to be there
MOST_WAIT = 0.2  # of a call's time, that it may wait to be filled
SURE = 0.6  # of the way from when a call is expected to end to its 99 % point, that has to be late for another to be given up


@dataclass(frozen=True, slots=True)
class Call:
    """To be begun now. rows: of all its requests. given_up: ids of those whose turn it was, and who are not run for it (`next_call`)."""

    model: str
    requests: tuple[Pending, ...]
    rows: int
    given_up: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """until_s: when to ask again, if nothing happens before; infinity where only an event can change it."""

    until_s: float = math.inf


def next_call(state: State, now: float) -> Call | Wait:
    """The call that is to begin now, or until when to wait.

    No core is idle while a request waits that could be run, but where its call is about to be filled (see `_filling`).

    A costly request whose turn it is, for which cheap ones would be late, is given up where there is credit for it: the latest moment at
    which its time is of use to them. (Moore 1968 leaves out the longest as soon as a set can't be kept; here that was a promise.)
    """
    if state.free <= 0 or not state.waiting:
        return Wait()
    first = step = _following(state, now)
    left, gone = state, list[int]()
    while isinstance(step, Call) and state.credit - len(gone) >= 1 and (rest := _spared(left, step, now)) is not None:
        gone.append(step.requests[0].id)
        left, step = rest, _following(rest, now)
    if isinstance(step, Call):
        return replace(step, given_up=tuple(gone)) if gone else step
    if first is step and state.given_up and next(plan(state, now), None) is None:
        return _following(replace(state, given_up=frozenset()), now)
    return first


def _spared(state: State, call: Call, now: float) -> State | None:
    """The state without the one request of `call`, where fewer are late in it of those that take far less time. Else None."""
    one = call.requests[0]
    if len(call.requests) > 1 or one.deadline_s is None:
        return None
    most = state.cost_s(one.model, one.rows) / DEARER
    cheap = {each.id for each in state.waiting if each.priority >= one.priority and state.cost_s(each.model, each.rows) <= most}
    if not cheap:
        return None

    def late(state: State) -> int:
        found = 0
        for call in plan(state, now):
            ends = call.ends_s + SURE * (call.safe_s - call.ends_s)
            found += sum([each.id in cheap and ends > each.due_s for each in call.requests])
        return found

    rest = without(state, (one.id,))
    return rest if (before := late(state)) and late(rest) < before else None


def _following(state: State, now: float) -> Call | Wait:
    """The next call, whoever may be late for it."""
    calls, ready = [], None
    for call in plan(state, now):
        calls.append(call)
        if call.starts_s <= now and state.startable(call.model):
            ready = call
            break
    if ready is None:
        return Wait()
    if state.models[ready.model].shared:
        if len(calls) == 1 and len(ready.requests) < len(state.waiting):
            ready = _least_late(state, ready, now)
        until = _filling(state, ready, now)
        if until > now:
            return Wait(until)
    return Call(ready.model, ready.requests, ready.rows)


def rested(state: State, call: Call, now: float) -> State:
    """After `call` was begun: where it was the turn of one without deadline, before those that have one, the next turn comes when this one
    was a tenth of the time. Those who were given up for it are noted."""
    if call.given_up:
        state = replace(state, given_up=state.given_up.union(call.given_up), credit=state.credit - len(call.given_up))
    patient = any(one.deadline_s is None and one.arrived_s + PATIENCE_S <= now for one in call.requests)
    if not patient or now < state.rested_s:
        return state
    return replace(state, rested_s=now + state.mean_s(call.model, call.rows) / SHARE)


def expired(state: State, now: float) -> tuple[tuple[int, ...], float]:
    """Waiting requests whose deadline is there, and when to ask again: at the next deadline.

    One that can't be kept any more is answered at its deadline too; it isn't run, whatever is idle (`State.reachable`).
    """
    late = tuple(one.id for one in state.waiting if one.due_s <= now)
    return late, min((one.due_s for one in state.waiting if one.due_s > now), default=math.inf)


def _least_late(state: State, first: Planned, now: float) -> Planned:
    """The first call of the size with which the fewest are late: as planned, or whole where it was made smaller for one, or smaller."""

    def late(calls: Sequence[Planned]) -> int:
        return sum(call.safe_s > one.due_s for call in calls if call.late for one in call.requests)

    best, fewest = first, late(list(plan(state, now)))
    if fewest:
        for rows in sorted({state.models[first.model].most, first.rows // 2, 1} - {0, first.rows}, reverse=True):
            other = list(plan(state, now, first_rows=rows))
            if other and (count := late(other)) < fewest:
                best, fewest = other[0], count
    return best


def _filling(state: State, call: Planned, now: float) -> float:
    """Until when `call` waits for more rows: `now` where it doesn't.

    It does where others are known to come (fewer are here than were lately), the next of them soon enough that sharing saves more time of
    all than waiting costs, and no deadline is at risk. A single client never waits: nobody else was here.
    """
    model, traffic = state.models[call.model], state.traffic.get(call.model, Traffic())
    rows, more = call.rows, call.rows + 1
    # What is remembered has faded once since those who are missing were here.
    if not model.shared or rows >= model.most or rows + 0.5 >= traffic.crowd / FADING or math.isinf(traffic.gap_s):
        return now
    if len(call.requests) < len(state.waiting) or any(running.model == call.model for running in state.running):
        return now
    here, shared, single = (state.mean_s(call.model, count) for count in (rows, more, 1))
    saved = here + single - shared - traffic.gap_s  # for the one that comes
    lost = rows * (traffic.gap_s + shared - here)  # for those that are here
    if saved <= lost or model.curve.throughput(more) <= model.curve.throughput(rows):
        return now
    since = max(state.freed_s, min(each.arrived_s for each in call.requests))
    until = min(traffic.last_s + QUIET * traffic.gap_s, since + MOST_WAIT * single)
    return min(until, call.due_s - state.p99_s(call.model, more) * (1 + state.caution))
