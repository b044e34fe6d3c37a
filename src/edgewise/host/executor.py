"""From requests to calls and back: the queue, the threads, deadlines to the moment. What runs next is `edgewise.scheduling`'s to say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

from edgewise import scheduling
from edgewise.errors import InvalidInput
from edgewise.host.batching import Key, chosen
from edgewise.host.calling import WHY, Ran, counted, run, told
from edgewise.host.requests import Answer, Late, Refused, Request
from edgewise.host.residency import Residency
from edgewise.host.schedule import Schedule
from edgewise.host.tickets import Begun, Ticket, Version, check_wanted, deadline_of, fit
from edgewise.host.workers import Workers
from edgewise.scheduling import Pending, State, Wait
from edgewise.types import Outputs

TURN_S = 5e-4  # of calls in one turn of the loop, after which others queue: until the turn is over nobody hears who else asks, and by when


class Executor:
    """cores: how many calls' threads run at once. inline_s: calls that take no longer run in the loop, when nothing else waits or runs."""

    def __init__(
        self,
        workers: Workers,
        residency: Residency,
        *,
        cores: int,
        inline_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._schedule = Schedule(cores, inline_s)
        self._workers, self._residency, self._clock, self._loop = workers, residency, clock, loop
        self._waiting: dict[int, Ticket] = {}
        self._calls: dict[int, Begun] = {}
        self._numbers = count(1)
        self._due = False
        self._again: asyncio.TimerHandle | None = None
        self._quiet = asyncio.Event()
        self._held = 0  # in `later` of their versions
        self._spent = 0.0  # seconds of calls in this turn of the loop

    @property
    def state(self) -> State:
        return self._schedule.state

    def take(self, version: Version, request: Request) -> Answer | Ticket:
        """The answer of a call that was too short to queue for, or the ticket of a request that was queued.

        Raises InvalidInput for what the model doesn't take, Refused for what can't be taken.
        """
        now = self._clock()
        rows = version.rows_of(request.inputs)
        check_wanted(version, request.outputs)
        deadline = deadline_of(request, version.settings, now)
        self._residency.touch(version.place)
        if version.place.usable:
            key = version.key(request.inputs)
            limit = version.inline.get(key, 0)
            if rows <= limit and version.free and not self._waiting and not self._calls and self._spent < TURN_S:
                return self._at_once(version, request, key, rows, deadline, now)
        priority = request.priority + version.settings.priority
        ticket = Ticket(next(self._numbers), request, version, rows, now, deadline, priority, self._loop.create_future(), self._forget)
        try:
            self._place(ticket, now)
        except Refused:
            version.figures.refused.add(0.0)
            raise
        if deadline is not None and not ticket.over:
            ticket.timer = self._loop.call_later(deadline - now, self._late, ticket)
        return ticket

    def _forget(self, ticket: Ticket) -> None:
        self._unqueue(ticket)
        self._settle(ticket)

    def opened(self, version: Version) -> None:
        """The model came into memory: who waited for it goes into the queue, in this very step."""
        later, version.later = version.later, {}
        self._held -= len(later)
        now = self._clock()
        for ticket in later.values():
            try:
                fit(ticket, version)  # it may have come for another version
                self._queue(ticket, now, asked=False)
            except InvalidInput as error:
                self._fail(ticket, error)

    def moved(self, version: Version, other: Version) -> None:
        """Those who wait for `version` to come wait for `other` instead."""
        later, version.later = version.later, {}
        self._held -= len(later)
        for ticket in later.values():
            ticket.version = other
            try:
                if other.place.usable:
                    fit(ticket, other)
                self._place(ticket, self._clock(), asked=False)
            except (Refused, InvalidInput) as error:
                self._fail(ticket, error)

    def refused(self, version: Version, error: Exception) -> None:
        """The model won't come."""
        later, version.later = version.later, {}
        self._held -= len(later)
        for ticket in later.values():
            self._fail(ticket, error)

    def closed(self, version: Version) -> None:
        """The model is out of memory. Its lines' pace is kept by the curve on the shelf."""
        self._schedule.closed(version)

    def pace(self, version: Version) -> float:
        """What calls take over what the curve said, of the shapes that it was measured with."""
        return self._schedule.pace(version)

    def waiting_of(self, version: Version) -> int:
        return version.waiting + len(version.later)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + self._held

    @property
    def running(self) -> int:
        return len(self._calls)

    async def drained(self, seconds: float) -> bool:
        """Until nothing waits or runs; whether it came to that in time."""
        until = self._loop.time() + seconds
        while self._waiting or self._calls or self._held:
            self._quiet.clear()
            try:
                await asyncio.wait_for(self._quiet.wait(), until - self._loop.time())
            except TimeoutError:
                return False
        return True

    def give_up(self, error: Exception) -> None:
        """Everything that waits is answered so."""
        for ticket in list(self._waiting.values()):
            self._unqueue(ticket)
            self._fail(ticket, error)

    def _place(self, ticket: Ticket, now: float, asked: bool = True) -> None:
        version = ticket.version
        if version.waiting + len(version.later) >= version.settings.queue:
            first = version.figures.compute
            mean = first.seconds / first.count if first.count else 0.05
            raise Refused(f"{version.name} has {version.settings.queue} requests waiting already", mean * version.settings.queue)
        if version.place.usable:
            self._queue(ticket, now, asked)
            return
        if version.parked:
            raise Refused(f"{version.name} was taken out of memory by hand; load it first", 60.0)
        if asked and ticket.deadline is not None and version.hopeless(ticket.deadline - now):
            self._residency.want(version.place)  # or it would be told so for ever
            seconds = version.place.reload_s
            raise Refused(f"{version.name} has to be loaded first, which takes {seconds * 1e3:,.0f} ms", seconds)
        version.later[ticket.id] = ticket
        self._held += 1
        self._residency.want(version.place)

    def _queue(self, ticket: Ticket, now: float, asked: bool = True) -> None:
        if ticket.over:
            return
        version = ticket.version
        line = ticket.line = self._schedule.line(version, ticket.request.inputs)
        if asked and self._straight(version, ticket, now):
            return
        self._schedule.enrol()
        pending = Pending(ticket.id, line, ticket.arrived, ticket.deadline, ticket.priority, ticket.rows, ticket.request.client)
        if asked:
            verdict = self._schedule.admit(pending, now)
            if verdict.reason == "never" and self._schedule.tries(line, now):
                ticket.probe = True
                self._begin(line, [ticket], ticket.rows, now)
                return
            if verdict.reason:
                raise Refused(f"{version.name}: {WHY[verdict.reason]}", verdict.retry_after_s)
        self._schedule.state = scheduling.queued(self.state, pending)
        self._waiting[ticket.id] = ticket
        version.waiting += 1
        self._residency.enter(version.place)
        self._soon()

    def _straight(self, version: Version, ticket: Ticket, now: float) -> bool:
        """Begin its call here and now, where nothing waits and nobody is likely to share it: there is nothing to schedule."""
        self._schedule.enrol()
        state, line = self.state, self._schedule.lines[ticket.line]
        if (
            state.waiting
            or (line.gains and (line.inline or not line.lone))
            or not version.free
            or state.free < state.models[ticket.line].cores
        ):
            return False
        if ticket.deadline is not None and now + state.p99_s(ticket.line, ticket.rows) > ticket.deadline:
            return False
        self._begin(ticket.line, [ticket], ticket.rows, now, lone=True)
        return True

    def _unqueue(self, ticket: Ticket) -> None:
        version = ticket.version
        if version.later.pop(ticket.id, None) is not None:
            self._held -= 1
        if self._waiting.pop(ticket.id, None) is not None:
            self._schedule.state = scheduling.without(self.state, (ticket.id,))
            version.waiting -= 1
            self._residency.leave(version.place)
            self._soon()  # what was planned around it may start now

    def _soon(self) -> None:
        """Look what can run when this turn of the loop is over: whoever comes in it may share a call."""
        if not self._due:
            self._due = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._due = False
        if self._again is not None:
            self._again.cancel()
            self._again = None
        blocked: set[int] = set()
        while self.state.waiting:
            now = self._clock()
            state = scheduling.without(self.state, blocked) if blocked else self.state
            step = scheduling.next_call(state, now)
            if isinstance(step, Wait):
                if step.until_s < float("inf"):
                    self._again = self._loop.call_later(max(0.0, step.until_s - now), self._dispatch)
                return
            version = self._schedule.lines[step.model].version
            if not version.free:  # the schedule counts runners by line; this one's are with another line of its model
                blocked |= {pending.id for pending in self.state.waiting if self._schedule.lines[pending.model].version is version}
                continue
            tickets = [self._waiting.pop(pending.id) for pending in step.requests]
            version.waiting -= len(tickets)
            self._schedule.state = scheduling.rested(self.state, step, now)
            self._begin(step.model, tickets, step.rows, now)
            for _ in tickets:  # its call is its model's user now
                self._residency.leave(version.place)

    def _begin(self, line: str, tickets: list[Ticket], rows: int, now: float, lone: bool = False) -> None:
        known, alone = self._schedule.lines[line], not self._calls
        version = known.version
        begun = Begun(next(self._numbers), line, version, version.free.pop(), tickets, rows, now)
        self._schedule.began(begun, lone and alone)
        self._calls[begun.id] = begun
        self._residency.enter(version.place)
        parts = [(ticket.request.inputs, ticket.rows, ticket.request.outputs) for ticket in tickets]
        work = partial(run, begun.runner, parts)
        if alone and rows <= known.inline and not self.state.waiting and self._spent < TURN_S:
            begun.inline = True
            try:
                result, error = work(), None
            except Exception as raised:  # as in a thread: whoever waits is told
                result, error = None, raised
            self._spend(self._clock() - now)
            self._ended(begun, result, error)
        else:
            self._workers.start(work, partial(self._ended, begun))

    def _at_once(self, version: Version, request: Request, key: Key, rows: int, deadline: float | None, now: float) -> Answer:
        """A call that is over sooner than two threads could tell each other of it."""
        line, probe = version.lines[key], False
        if deadline is not None and now + self.state.p99_s(line, rows) > deadline:
            probe = self._schedule.tries(line, now)
            if not probe:
                version.figures.refused.add(0.0)
                raise Refused(f"{version.name}: {WHY['never']}")
        runner = version.free[-1]
        try:
            outputs, error = runner.run(request.inputs), None
        except Exception as raised:  # an engine's own, of any class: counted, and told to whoever asked
            outputs, error = {}, raised
        took = self._clock() - now
        self._spend(took)
        self._schedule.passed(line, rows, now, took, error is None, probe)
        if error is not None:
            version.figures.fail.add(took)
            raise told(version, error) from error
        counted(version, took, 0.0, took, rows, rows)
        return Answer(version.name, version.number, chosen(outputs, request.outputs), 0.0, took, rows)

    def _spend(self, seconds: float) -> None:
        if not self._spent:
            self._loop.call_soon(setattr, self, "_spent", 0.0)
        self._spent += seconds

    def _ended(self, begun: Begun, ran: Ran | None, error: BaseException | None) -> None:
        now = self._clock()
        version = begun.version
        del self._calls[begun.id]
        version.free.append(begun.runner)
        took = ran.seconds if ran is not None else now - begun.at
        self._schedule.ended(begun, now, now - begun.at if begun.inline else took, error is None and ran is not None and ran.together)
        self._schedule.lines[begun.line].lone = len(begun.tickets) == 1 and not self.state.waiting
        self._residency.leave(version.place)
        if ran is not None and not ran.together:
            version.together = False
            version.reason = "an output came with another number of rows than its inputs, so its requests no longer share calls"
            self._schedule.apart(version)
        outcomes: Sequence[Outputs | BaseException | None] = ran.outcomes if ran is not None else [error] * len(begun.tickets)
        for ticket, outcome in zip(begun.tickets, outcomes, strict=True):
            if ticket.over:
                continue
            if isinstance(outcome, dict):
                counted(version, now - ticket.arrived, begun.at - ticket.arrived, took, ticket.rows, 0)
                answer = Answer(version.name, version.number, outcome, begun.at - ticket.arrived, took, begun.rows)
                ticket.answer.set_result(answer)
                if ticket.deadline is not None and not ticket.probe:
                    self._schedule.state = scheduling.judged(self.state, False)
                self._settle(ticket)
            else:
                self._fail(ticket, told(version, outcome))
        version.figures.called(begun.rows, took)
        self._rest()
        self._dispatch()

    def _late(self, ticket: Ticket) -> None:
        if ticket.over or ticket.deadline is None:
            return
        now = self._clock()
        if now < ticket.deadline:  # a loop whose timers have whole milliseconds may be early
            ticket.timer = self._loop.call_later(max(0.0005, ticket.deadline - now), self._late, ticket)
            return
        if not ticket.probe:
            self._schedule.state = scheduling.judged(self.state, True)
        self._unqueue(ticket)
        ticket.version.figures.late.add(now - ticket.arrived)
        after_ms = (now - ticket.arrived) * 1e3
        ticket.answer.set_exception(Late(f"{ticket.version.name}: its deadline passed {after_ms:,.0f} ms after it came"))
        self._settle(ticket)

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        if not ticket.over:
            figures = ticket.version.figures
            (figures.refused if isinstance(error, Refused) else figures.fail).add(self._clock() - ticket.arrived)
            ticket.answer.set_exception(error)
        self._settle(ticket)

    def _settle(self, ticket: Ticket) -> None:
        if ticket.timer is not None:
            ticket.timer.cancel()
            ticket.timer = None
        self._rest()

    def _rest(self) -> None:
        if not self._waiting and not self._calls and not self._held:
            self._quiet.set()
