"""Whether a request is taken: what can't make its deadline is told so at once, not when it is too late."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

from edgewise.scheduling.planning import Planned, plan, remaining, summed
from edgewise.scheduling.state import DEARER, RATE_S, Pending, State, key

Reason = Literal["", "never", "full", "deadline"]
MOST_KEPT = 0.8  # of the time until a deadline, that is kept for others
CHEAPER = 1.5  # times as cheap by row, that room is kept for others
BEHIND = 0.5
SOONEST_S = 0.01
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Verdict:
    """reason: "" where it is admitted; "never": its deadline is shorter than its own call; "full": no place; "deadline": not with
    what waits. retry_after_s: when the same may be taken. ends_s: by when it ends with 99 % confidence, infinity where none was worked out.
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
    to one of its priority or a higher one is broken by it; but a promise to a far costlier one may be, where there is credit for that.
    """
    model = state.models[pending.model]
    own = now + state.p99_s(pending.model, pending.rows)
    if own > pending.due_s:
        return Verdict("never", max(SOONEST_S, own - pending.due_s), own)
    places = sum([one.model == pending.model for one in state.waiting])
    if places >= model.places or (2 * places >= model.places and _crowded(state, pending)):
        return Verdict("full", max(SOONEST_S, _next_end(state, now) - now))
    if not state.waiting and state.startable(pending.model):
        return Verdict("", 0.0, own)
    if pending.deadline_s is None:
        return Verdict()
    if (alike := _alike(state, pending)) is not None:
        return alike
    waiting = list(state.waiting)
    insort(waiting, pending, key=key)
    calls, begun = plan(state, now, waiting), list[Planned]()
    mine = summed(state, pending, waiting, now)
    if mine is None:
        for call in calls:
            begun.append(call)
            if pending in call.requests:
                mine = call
                break
    if mine is None:
        return Verdict("deadline", 1.0)
    kept = _kept_s(state, pending, now)
    ends = mine.safe_s + kept
    if ends > pending.due_s:
        if state.credit >= 1 and mine.safe_s > pending.due_s and _instead(state, pending, waiting, kept, now)[1]:
            return Verdict("", 0.0, pending.due_s)
        return Verdict("deadline", max(SOONEST_S, ends - pending.due_s), mine.safe_s)
    if pending is waiting[-1] and mine.requests[0] is pending:
        return Verdict("", 0.0, mine.safe_s)
    broken = _broken([*begun, *calls], pending.priority)
    if broken and not _harmless(state, pending, waiting, kept, now, broken):
        return Verdict("deadline", max(SOONEST_S, _next_end(state, now) - now), mine.safe_s)
    return Verdict("", 0.0, mine.safe_s)


def refused(state: State, pending: Pending, verdict: Verdict) -> State:
    """After `admit` refused it."""
    if verdict.reason != "deadline" or math.isinf(verdict.ends_s):
        return state
    return replace(state, refused=(pending, verdict.ends_s))


def _alike(state: State, pending: Pending) -> Verdict | None:
    """The verdict on whoever goes behind one that was refused, with a deadline before that one's end, while nobody has left since.

    In overload most arrivals are such, and a plan of all that waits says the same of them; but where calls are shared, now and then the
    newcomer would have found a place in one that is planned otherwise by then.
    """
    if state.refused is None:
        return None
    before, ends_s = state.refused
    behind = pending.model == before.model and pending.rows >= before.rows and pending.priority <= before.priority
    if not behind or not before.due_s <= pending.due_s < ends_s:
        return None
    return Verdict("deadline", max(SOONEST_S, ends_s - pending.due_s), ends_s)


def _harmless(state: State, pending: Pending, waiting: list[Pending], kept_s: float, now: float, broken: set[int]) -> bool:
    """Whether those who are late by the plan with `pending` would be so without it too, or can be given up for it."""
    left = waiting
    if state.credit >= 1:
        left, good = _instead(state, pending, waiting, kept_s, now)
        if good:
            return True
        broken = _broken(plan(state, now, left), pending.priority)
    return not broken - _broken(plan(state, now, [one for one in left if one is not pending]), pending.priority)


def _instead(state: State, pending: Pending, waiting: list[Pending], kept_s: float, now: float) -> tuple[list[Pending], bool]:
    """Who is left of those that wait without the costliest, as few as are needed and credit is there for, each far costlier than
    `pending`; and whether all of them are in time then.

    Nobody is given up here: `next_call` does that when it is such a one's turn, if by then it is still needed.
    """
    least, left = DEARER * state.cost_s(pending.model, pending.rows), list(waiting)
    for credit in range(int(state.credit), -1, -1):
        ahead = list[Pending]()
        for call in plan(state, now, left):
            ahead += call.requests
            if call.late or (pending in call.requests and call.safe_s + kept_s > pending.due_s):
                break
        else:
            return left, True
        dated = [one for one in ahead if one.deadline_s is not None and one.priority <= pending.priority]
        dear = [one for one in dated if state.cost_s(one.model, one.rows) >= least]
        if not credit or not dear:
            break
        left.remove(max(dear, key=lambda one: state.cost_s(one.model, one.rows)))
    return left, False


def _broken(calls: Iterable[Planned], priority: int) -> set[int]:
    """Who of this priority or a higher one is late by this plan."""
    return {one.id for call in calls if call.late for one in call.requests if call.safe_s > one.due_s and one.priority >= priority}


def _next_end(state: State, now: float) -> float:
    return min((remaining(state, call, now)[0] for call in state.running), default=now)


def _crowded(state: State, pending: Pending) -> bool:
    """Whether its client has an even share of the model's places, where others wait too."""
    clients = [one.client for one in state.waiting if one.model == pending.model]
    among = len({*clients, pending.client})
    return among > 1 and clients.count(pending.client) * among >= state.models[pending.model].places


def _kept_s(state: State, pending: Pending, now: float) -> float:
    """Seconds of the time until its deadline that are kept for requests to come whose models take less time for a row.

    A costly request has to leave room for the cheap ones that may come before its deadline, since many of them are answered in the time
    that it takes. For how many: the protection level of revenue management (Littlewood 1972), up to where the chance that so many come,
    by Poisson's law as a normal one, is the ratio of the costs. Those who come less than BEHIND of their own allowance before its
    deadline go behind it and don't count. Where there is time for all, nothing is kept from anybody; and no model is
    kept out for more than MOST_KEPT of the time.
    """
    left, own, kept = pending.due_s - now, state.cost_s(pending.model, pending.rows), 0.0
    for name, traffic in state.traffic.items():
        if name == pending.model or traffic.priority < pending.priority or not traffic.pressing:
            continue
        each = state.cost_s(name)
        if each * CHEAPER <= own:
            rate = traffic.pressing * math.exp(-max(0.0, now - traffic.arrived_s) / RATE_S)
            expected = rate * max(0.0, left - BEHIND * traffic.allowed_s)
            kept += max(0.0, expected + _NORMAL.inv_cdf(1 - each / own) * math.sqrt(expected)) * each
    return min(kept, MOST_KEPT * left)
