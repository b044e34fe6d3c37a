"""Whether a request is taken: what can't make its deadline is told so at once, not when it is too late."""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass
from typing import Literal

from edgewise.scheduling.planning import plan, remaining
from edgewise.scheduling.state import Pending, State, key

Reason = Literal["", "never", "full", "deadline"]
MOST_KEPT = 0.8  # of the time until a deadline, that is kept for others
SOONEST_S = 0.01


@dataclass(frozen=True, slots=True)
class Verdict:
    """reason: "" where it is admitted; "never": its deadline is shorter than its own call; "full": no place; "deadline": not with what waits.

    retry_after_s: when the same may be taken. ends_s: by when it ends with 99 % confidence, infinity where none was worked out.
    """

    reason: Reason = ""
    retry_after_s: float = 0.0
    ends_s: float = math.inf

    @property
    def admitted(self) -> bool:
        return not self.reason


def admit(state: State, pending: Pending, now: float) -> Verdict:
    """Whether `pending`, which isn't in the state yet, is taken.

    It is where it has a place, where it ends in time with 99 % confidence though everybody before it goes first, and where no promise
    to one of its priority or a higher one is broken by it.
    """
    model = state.models[pending.model]
    own = now + state.p99_s(pending.model, pending.rows)
    if own > pending.due_s:
        return Verdict("never", max(SOONEST_S, own - pending.due_s), own)
    places = sum([one.model == pending.model for one in state.waiting])
    if places >= model.places or (2 * places >= model.places and _crowded(state, pending, places)):
        return Verdict("full", max(SOONEST_S, _next_end(state, now) - now))
    if not state.waiting and state.free >= model.cores:
        return Verdict("", 0.0, own)
    if pending.deadline_s is None:
        return Verdict()
    waiting = list(state.waiting)
    insort(waiting, pending, key=key)
    calls = list(plan(state, now, waiting))
    mine = next((call for call in calls if pending in call.requests), None)
    if mine is None or mine.safe_s > pending.due_s:
        ends = math.inf if mine is None else mine.safe_s
        return Verdict("deadline", _after(ends - pending.due_s), ends)
    kept = _kept_s(state, pending, now)
    if mine.safe_s + kept > pending.due_s:
        return Verdict("deadline", _after(mine.safe_s + kept - pending.due_s), mine.safe_s)
    broken = {
        one.id for call in calls if call.late for one in call.requests if call.safe_s > one.due_s and one.priority >= pending.priority
    }
    if broken:
        before = {one.id for call in plan(state, now) if call.late for one in call.requests if call.safe_s > one.due_s}
        if broken - before:
            return Verdict("deadline", _after(_next_end(state, now) - now), mine.safe_s)
    return Verdict("", 0.0, mine.safe_s)


def _after(seconds: float) -> float:
    return max(SOONEST_S, seconds) if math.isfinite(seconds) else 1.0


def _next_end(state: State, now: float) -> float:
    return min((remaining(state, call, now)[0] for call in state.running), default=now)


def _crowded(state: State, pending: Pending, places: int) -> bool:
    """Whether its client has more than an even share of the places, in a queue that is half full."""
    clients = [one.client for one in state.waiting if one.model == pending.model]
    return clients.count(pending.client) * (len({*clients, pending.client}) + 1) > 2 * state.models[pending.model].places


def _kept_s(state: State, pending: Pending, now: float) -> float:
    return 0.0
