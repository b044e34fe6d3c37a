"""What is run next, and who has run out of time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, tee

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
    if state.free <= 0 or not any(map(state.startable, {one.model for one in state.waiting})):
        return Wait()
    ahead = _Ahead(state, now)
    first = step = _following(ahead)
    gone = list[int]()
    while isinstance(step, Call) and state.credit - len(gone) >= 1 and (rest := _spared(ahead, step)) is not None:
        gone.append(step.requests[0].id)
        ahead, step = rest, _following(rest)
    if isinstance(step, Call):
        return replace(step, given_up=tuple(gone)) if gone else step
    if first is step and state.given_up and next(iter(ahead), None) is None:
        return _following(_Ahead(replace(state, given_up=frozenset()), now))
    return first


class _Ahead:
    """A state and its plan, of which each call is worked out once, when it is first looked at."""

    def __init__(self, state: State, now: float) -> None:
        self.state, self.now = state, now
        self._calls = plan(state, now)

    def __iter__(self) -> Iterator[Planned]:
        self._calls, calls = tee(self._calls)
        return calls


def _spared(ahead: _Ahead, call: Call) -> _Ahead | None:
    """The state without the one request of `call`, where fewer are late in it of those that take far less time. Else None."""
    one, state = call.requests[0], ahead.state
    if len(call.requests) > 1 or one.deadline_s is None:
        return None
    most, costs = state.cost_s(one.model, one.rows) / DEARER, dict[tuple[str, int], float]()
    cheap = set[int]()
    for each in state.waiting:
        if each.priority >= one.priority:
            kind = (each.model, each.rows)
            if kind not in costs:
                costs[kind] = state.cost_s(*kind)
            if costs[kind] <= most:
                cheap.add(each.id)

    def late(calls: Iterable[Planned], enough: float = math.inf) -> int:
        """Of the cheap ones; at least `enough` where there are so many."""
        found, left = 0, len(cheap)
        for call in calls:
            ends = call.ends_s + SURE * (call.safe_s - call.ends_s)
            for each in call.requests:
                if each.id in cheap:
                    left -= 1
                    found += ends > each.due_s
            if not left or found >= enough:
                break
        return found

    if not cheap or not (before := late(ahead)):
        return None
    rest = _Ahead(without(state, (one.id,)), ahead.now)
    return rest if late(rest, before) < before else None


def _following(ahead: _Ahead) -> Call | Wait:
    """The next call, whoever may be late for it."""
    state, now, ready, place = ahead.state, ahead.now, None, 0
    for place, call in enumerate(ahead):  # noqa: B007 (place: of the one that is ready)
        if call.starts_s <= now and state.startable(call.model):
            ready = call
            break
    if ready is None:
        return Wait()
    if state.models[ready.model].shared:
        if not place and len(ready.requests) < len(state.waiting):
            ready = _least_late(ahead, ready)
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


def _least_late(ahead: _Ahead, first: Planned) -> Planned:
    """The first call of the size with which the fewest are late: as planned, or whole where it was made smaller for one, or smaller."""

    def late(calls: Iterable[Planned], enough: float = math.inf) -> int:
        """At least `enough` where there are so many."""
        found = 0
        for call in calls:
            if call.late:
                found += sum([call.safe_s > one.due_s for one in call.requests])
                if found >= enough:
                    break
        return found

    best, fewest = first, late(ahead)
    if fewest:
        for rows in sorted({ahead.state.models[first.model].most, first.rows // 2, 1} - {0, first.rows}, reverse=True):
            calls = plan(ahead.state, ahead.now, first_rows=rows)
            if (other := next(calls, None)) is not None and (count := late(chain((other,), calls), fewest)) < fewest:
                best, fewest = other, count
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
