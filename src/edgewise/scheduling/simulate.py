"""Traces of requests against policies, event by event, in simulated time: the policies are the ones that serve.

Deterministic: a call's time is drawn from its model's curve by a seed and the call's number, so a run can be repeated to the last bit.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edgewise.scheduling.admission import Verdict, admit, refused
from edgewise.scheduling.calls import Call, Wait, expired, next_call, rested
from edgewise.scheduling.curve import Curve
from edgewise.scheduling.state import Pending, Running, State, begun, ended, judged, queued, seen, without

Fate = Literal["done", "refused", "late"]
_Z99 = 2.326


@dataclass(frozen=True)
class Policy:
    """admit, next_call: as in this room. expires: whether requests whose deadline has passed are taken out of the queue."""

    name: str
    admit: Callable[[State, Pending, float], Verdict] = admit
    next_call: Callable[[State, float], Call | Wait] = next_call
    expires: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """fate: done, wherever its deadline was; refused at once; or late: taken out of the queue at its deadline.

    answered_s: when, in the trace's time. retry_after_s: of one that was refused.
    """

    request: Pending
    fate: Fate
    answered_s: float
    retry_after_s: float = 0.0

    @property
    def in_time(self) -> bool:
        return self.fate == "done" and self.answered_s <= self.request.due_s


@dataclass(frozen=True, slots=True)
class Made:
    """A call that was made."""

    model: str
    rows: int
    requests: tuple[int, ...]
    began_s: float
    ended_s: float


@dataclass(frozen=True)
class Simulated:
    """outcomes: in the trace's order, one for each request. state: at the end."""

    outcomes: tuple[Outcome, ...]
    calls: tuple[Made, ...]
    state: State

    @property
    def attainment(self) -> float:
        """The share of all requests that was answered in time."""
        return sum(one.in_time for one in self.outcomes) / max(1, len(self.outcomes))

    @property
    def kept(self) -> float:
        """The share of those admitted that was answered in time."""
        admitted = [one for one in self.outcomes if one.fate != "refused"]
        return sum(one.in_time for one in admitted) / max(1, len(admitted))

    @property
    def rows_in_time(self) -> int:
        return sum(one.request.rows for one in self.outcomes if one.in_time)


Times = Callable[[int, Curve, int], float]


def noisy(seed: int, slower: float = 1.0) -> Times:
    """(number of the call, curve, rows) → seconds: log-normal, with the curve's median and p99, `slower` times as long."""

    normals = np.random.default_rng(seed).standard_normal(4096)

    def draw(number: int, curve: Curve, rows: int) -> float:
        width = math.log(curve.p99_s(rows) / curve.median_s(rows)) / _Z99
        return slower * curve.median_s(rows) * math.exp(width * float(normals[number % len(normals)]))

    return draw


def exact(number: int, curve: Curve, rows: int) -> float:
    """Always the median."""
    return curve.median_s(rows)


def simulate(state: State, trace: Sequence[Pending], policy: Policy | None = None, times: Times = exact) -> Simulated:
    """`trace`, in order of arrival, each `arrived_s` its instant, from `state` on until all are answered."""
    policy = policy or Policy("edgewise")
    outcomes: dict[int, Outcome] = {}
    requests_of: dict[int, tuple[Pending, ...]] = {}
    made: list[Made] = []
    # (instant, kind, number): ends before arrivals before timers, where they fall together
    events: list[tuple[float, int, int]] = [(one.arrived_s, 1, place) for place, one in enumerate(trace)]
    heapq.heapify(events)
    asked = math.inf  # the timer that is set
    while events:
        now, kind, number = heapq.heappop(events)
        if kind == 0:
            call = next(one for one in state.running if one.id == number)
            state = ended(state, number, now)
            made.append(Made(call.model, call.rows, tuple(one.id for one in requests_of[number]), call.began_s, now))
            for one in requests_of.pop(number):
                outcomes[one.id] = Outcome(one, "done", now)
                if one.deadline_s is not None:
                    state = judged(state, now > one.deadline_s)
        elif kind == 1:
            state = _arrived(state, trace[number], policy, outcomes)
        elif now >= asked:
            asked = math.inf
        if policy.expires:
            late, _ = expired(state, now)
            for one in [one for one in state.waiting if one.id in late]:
                outcomes[one.id] = Outcome(one, "late", now)
                state = judged(state, True)
            state = without(state, late) if late else state
        while isinstance(step := policy.next_call(state, now), Call):
            number = len(made) + len(requests_of)
            requests_of[number] = step.requests
            taken = times(number, state.models[step.model].curve, step.rows)
            state = begun(rested(state, step, now), Running(number, step.model, step.rows, now), [one.id for one in step.requests])
            heapq.heappush(events, (now + taken, 0, number))
        wanted = min(step.until_s, expired(state, now)[1] if policy.expires else math.inf)
        if now < wanted < asked:
            asked = wanted
            heapq.heappush(events, (wanted, 2, 0))
    return Simulated(tuple(outcomes[one.id] for one in trace), tuple(made), state)


def _arrived(state: State, pending: Pending, policy: Policy, outcomes: dict[int, Outcome]) -> State:
    state = seen(state, pending, pending.arrived_s)
    verdict = policy.admit(state, pending, pending.arrived_s)
    if verdict.admitted:
        return queued(state, pending)
    outcomes[pending.id] = Outcome(pending, "refused", pending.arrived_s, verdict.retry_after_s)
    return refused(state, pending, verdict)


def poisson(rates: dict[str, float], seconds: float, deadlines_s: dict[str, float], seed: int, bursts: float = 1.0) -> list[Pending]:
    """Requests of every model at its rate (requests a second). deadlines_s: after arrival, by model; none for one that isn't named.

    bursts: how much the rate of each is multiplied in bursts, of 0.2 s on average, a quarter of the time; between them it is less, so that
    the mean stays. At 1 the process is Poisson's, above it one of two states, as traffic of people is.
    """
    random = np.random.default_rng(seed)
    found = []
    for name, rate in rates.items():
        now, busy, until = 0.0, False, 0.0
        quiet = (1 - 0.25 * bursts) / 0.75
        if quiet < 0:
            raise ValueError(f"bursts={bursts:g} takes more than all requests in a quarter of the time; give 1 to 4")
        while now < seconds:
            if now >= until:
                busy = bool(random.random() < 0.25) if until == 0 else not busy
                until = now + random.exponential(0.2 if busy else 0.6)
            level = rate * (bursts if busy else quiet)
            step = float(random.exponential(1 / level)) if level > 0 else math.inf
            if now + step > until:
                now = until
                continue
            now += step
            due = now + deadlines_s[name] if name in deadlines_s else None
            found.append(Pending(0, name, now, due))
    found = [one for one in found if one.arrived_s < seconds]
    found.sort(key=lambda one: one.arrived_s)
    return [replace(one, id=place) for place, one in enumerate(found)]
