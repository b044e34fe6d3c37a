"""What a schedule is made of: requests that wait, calls that run, models with their curves; and how each event changes it.

Frozen data and pure functions: an event is told with its instant, in seconds of any one steady clock, and gives the next state.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from edgewise.scheduling.curve import Curve, paced

RATE_S = 0.15  # arrivals are averaged over about so long
FADING = 0.9  # of how many were there at once, that is remembered after a call
FORGOTTEN_S = 1.0  # without any request, nobody is there
# Of requests with a deadline, the share that may be late: what admission leaves to chance is steered to it.
LATE = 0.0025
LEAST_CAUTION, MOST_CAUTION = 0.8, 4.0
# Of requests with a deadline that are answered in time, as many in a hundred again may be given up for others; and how many at once.
GIVEN_UP = 0.005
MOST_CREDIT = 3.0
DEARER = 3.0  # times as much of the machine's time, that one takes who may be given up for another


@dataclass(frozen=True)
class Model:
    """shared: whether requests may share a call: rows are independent, all inputs and outputs have a batch axis.

    largest: rows of a call at most; 0: as many as were measured. cores: that a call takes.
    instances: how many of its calls may run at once. places: requests of it that may wait.
    """

    curve: Curve
    shared: bool = False
    largest: int = 0
    cores: int = 1
    instances: int = 1
    places: int = 256

    @property
    def most(self) -> int:
        """Rows that a call is filled to."""
        if not self.shared:
            return 1
        return self.curve.best_rows(self.largest or self.curve.largest)


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A request that waits. deadline_s: None where it may take any time. priority: higher ones go first. rows: that stay together.

    due_s: its deadline, infinity where it has none.
    """

    id: int
    model: str
    arrived_s: float
    deadline_s: float | None = None
    priority: int = 0
    rows: int = 1
    client: str = ""
    due_s: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "due_s", math.inf if self.deadline_s is None else self.deadline_s)


def key(pending: Pending) -> tuple[int, float, float, int]:
    """The order: higher priority, earlier deadline, earlier arrival. Those without deadline come last (`planning.turn`)."""
    return (-pending.priority, pending.due_s, pending.arrived_s, pending.id)


@dataclass(frozen=True, slots=True)
class Running:
    """A call that was begun."""

    id: int
    model: str
    rows: int
    began_s: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """How requests of a model come. rate: rows a second; pressing: of those with a deadline. priority: of the last of these; allowed_s:
    from when it came until its deadline.

    gap_s: typically between two requests, or between a call's end and the next. crowd: the most rows that were there at once, waiting or
    running, lately. last_s: of the last arrival or end of a call.
    """

    rate: float = 0.0
    pressing: float = 0.0
    priority: int = 0
    allowed_s: float = 0.0
    gap_s: float = math.inf
    crowd: float = 0.0
    arrived_s: float = -math.inf
    last_s: float = -math.inf


@dataclass(frozen=True)
class State:
    """cores: how many calls of one core may run at once. waiting: in order of `key`.

    pace: by model, what its calls take over what is predicted.

    caution: how much of the measured spread an end is taken to be late by; steered by how many are late (`judged`, `planning.safe_s`).
    rested_s: until when those without deadline have had their share (see `planning.turn`).
    freed_s: when the last call ended.
    given_up: of those that wait, whose promise was broken for others (`calls.next_call`): they run where nothing else could.
    credit: how many more may be; it grows with those that are answered in time.
    refused: who last couldn't keep its deadline with what waits, and by when it would have ended; until somebody leaves (`admit`).
    """

    models: Mapping[str, Model]
    cores: int = 1
    waiting: tuple[Pending, ...] = ()
    running: tuple[Running, ...] = ()
    pace: Mapping[str, float] = field(default_factory=dict)
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    caution: float = 1.0
    rested_s: float = -math.inf
    freed_s: float = -math.inf
    given_up: frozenset[int] = frozenset()
    credit: float = MOST_CREDIT
    refused: tuple[Pending, float] | None = None

    def mean_s(self, model: str, rows: int) -> float:
        return self.models[model].curve.mean_s(rows) * self.pace.get(model, 1.0)

    def cost_s(self, model: str, rows: int = 1) -> float:
        """Seconds of the machine that so many rows take, in calls of the model's best size, on its share of the cores."""
        most = self.models[model].most
        return self.mean_s(model, most) / most * rows * self.needs(model) / self.cores

    def p99_s(self, model: str, rows: int) -> float:
        return self.models[model].curve.p99_s(rows) * self.pace.get(model, 1.0)

    def reachable(self, pending: Pending, now: float) -> bool:
        """Whether its deadline could be kept if it ran alone, now, as fast as half its calls do."""
        if pending.deadline_s is None:
            return True
        return now + self.models[pending.model].curve.median_s(pending.rows) * self.pace.get(pending.model, 1.0) <= pending.deadline_s

    @property
    def free(self) -> int:
        """Cores without a call."""
        return self.cores - sum([self.needs(call.model) for call in self.running])

    def needs(self, model: str) -> int:
        """Cores that a call of it takes: all, where it was measured with more."""
        return min(self.models[model].cores, self.cores)

    def startable(self, model: str) -> bool:
        """Whether cores and a runner are free for a call of it."""
        return self.needs(model) <= self.free and sum([call.model == model for call in self.running]) < self.models[model].instances


def seen(state: State, pending: Pending, now: float) -> State:
    """After a request came, whatever becomes of it: rates count those that are refused too."""
    before = state.traffic.get(pending.model, Traffic())
    here = pending.rows
    if state.models[pending.model].shared:
        here += sum([one.rows for one in state.waiting if one.model == pending.model])
        here += sum([call.rows for call in state.running if call.model == pending.model])
    since = now - before.arrived_s
    fading, more = math.exp(-since / RATE_S), pending.rows / RATE_S
    dated = pending.deadline_s is not None
    after = Traffic(
        rate=before.rate * fading + more,
        pressing=before.pressing * fading + (more if dated else 0.0),
        priority=pending.priority if dated else before.priority,
        allowed_s=pending.due_s - now if dated else before.allowed_s,
        gap_s=_typical(before.gap_s, now - before.last_s),
        crowd=max(here, before.crowd if since < FORGOTTEN_S else 0.0),
        arrived_s=now,
        last_s=now,
    )
    return replace(state, traffic={**state.traffic, pending.model: after})


def queued(state: State, pending: Pending) -> State:
    """After a request was admitted."""
    waiting = list(state.waiting)
    insort(waiting, pending, key=key)
    return replace(state, waiting=tuple(waiting))


def without(state: State, ids: Iterable[int]) -> State:
    """After requests were answered, given up or cancelled before they ran."""
    gone = frozenset(ids)
    waiting = tuple(one for one in state.waiting if one.id not in gone)
    return replace(state, waiting=waiting, given_up=state.given_up - gone, refused=None)


def begun(state: State, call: Running, requests: Iterable[int]) -> State:
    """After a call of these waiting requests was begun."""
    state = without(state, requests)
    return replace(state, running=(*state.running, call))


def ended(state: State, id: int, now: float, *, counts: bool = True) -> State:
    """After the call of this id. counts: whether its time tells of the next ones', not so where it failed."""
    call = next(one for one in state.running if one.id == id)
    before = state.traffic.get(call.model, Traffic())
    after = replace(before, crowd=FADING * before.crowd, last_s=now)
    running = tuple(one for one in state.running if one.id != id)
    state = replace(state, running=running, traffic={**state.traffic, call.model: after}, freed_s=now, refused=None)
    if not counts:
        return state
    pace = paced(state.pace.get(call.model, 1.0), state.models[call.model].curve.mean_s(call.rows), now - call.began_s)
    return replace(state, pace={**state.pace, call.model: pace})


def judged(state: State, late: bool) -> State:
    """After an admitted request with a deadline was answered in time or not.

    A step up for each that is late, LATE of a step down for each that isn't: at rest where just LATE of them are (Robbins and Monro 1951).
    While some are given up, one that is late is taken to be of them, and says nothing of chance.
    """
    if late and state.given_up:
        return state
    step = 0.05
    caution = state.caution + (step * (1 - LATE) if late else -step * LATE)
    credit = state.credit if late else min(MOST_CREDIT, state.credit + GIVEN_UP)
    return replace(state, caution=min(MOST_CAUTION, max(LEAST_CAUTION, caution)), credit=credit)


def _typical(gap_s: float, another_s: float) -> float:
    """A running median of gaps, in steps of a fifth: bursts are told by their small gaps, whatever lies between them."""
    if math.isinf(gap_s):
        return another_s
    return gap_s * 1.2 if another_s > gap_s else max(1e-6, gap_s / 1.2)
