"""What others do, for comparison: first in, first out, and a fixed priority for each model. Neither refuses what can't be in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from edgewise.scheduling.admission import Verdict
from edgewise.scheduling.calls import Call, Wait
from edgewise.scheduling.simulate import Policy
from edgewise.scheduling.state import Pending, State


def everybody(state: State, pending: Pending, now: float) -> Verdict:
    """Admits all that a place is left for."""
    places = sum(one.model == pending.model for one in state.waiting)
    return Verdict() if places < state.models[pending.model].places else Verdict("full", 1.0)


def first_of(order: Callable[[Pending], tuple[float, ...]]) -> Callable[[State, float], Call | Wait]:
    """The next call in this order, shared with whoever waits for the same model, to its best size; no deadline is looked at."""

    def following(state: State, now: float) -> Call | Wait:
        startable = {name for name in state.models if state.startable(name)} if state.free > 0 else set()
        head = min([one for one in state.waiting if one.model in startable], key=order, default=None)
        if head is not None:
            model = state.models[head.model]
            group, rows = [head], head.rows
            if model.shared:
                line = sorted([one for one in state.waiting if one.model == head.model and one is not head], key=order)
                most = model.curve.next_rows(head.rows + sum([one.rows for one in line]))
                for one in line:
                    if rows + one.rows > min(most, model.largest or most):
                        break
                    group.append(one)
                    rows += one.rows
            return Call(head.model, tuple(group), rows)
        return Wait(math.inf)

    return following


def fifo(expires: bool = False) -> Policy:
    """First in, first out. expires: whether those whose deadline has passed are left out, a kindness that plain queues haven't got."""
    name = "FIFO that drops the late" if expires else "FIFO"
    return Policy(name, everybody, first_of(lambda one: (one.arrived_s, one.id)), expires)


def static_priority(levels: Mapping[str, float], expires: bool = False) -> Policy:
    """Models in order of their level, the lowest first; usually by their deadlines (deadline monotonic, Leung and Whitehead 1982)."""
    name = "static priority that drops the late" if expires else "static priority"
    return Policy(name, everybody, first_of(lambda one: (levels[one.model], one.arrived_s, one.id)), expires)
