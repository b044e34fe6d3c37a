"""What `edgewise.scheduling` is told of the host's calls, and what is kept of each line besides: where its calls run, and its probes."""

from __future__ import annotations

from itertools import count

from edgewise import scheduling
from edgewise.host import lines
from edgewise.host.lines import Line
from edgewise.host.tickets import Begun, Version
from edgewise.scheduling import Pending, Running, State, Verdict
from edgewise.types import Inputs

PACED = 16  # of calls that run alone, about one in eight is told to the schedule, which takes its pace of them; of those at once, one in 16


class Schedule:
    """state: as `edgewise.scheduling` has it. lines: by their names there. inline_s: calls that take no longer may run in the loop."""

    def __init__(self, cores: int, inline_s: float) -> None:
        self.state = State({}, cores)
        self.lines: dict[str, Line] = {}
        self._inline_s = inline_s
        self._lone: Begun | None = None  # a call that the state doesn't have: nothing else is there
        self._numbers = count(1)

    def admit(self, pending: Pending, now: float) -> Verdict:
        """Of a request that comes."""
        self.state = scheduling.seen(self.state, pending, now)
        verdict = scheduling.admit(self.state, pending, now)
        if not verdict.admitted:
            self.state = scheduling.refused(self.state, pending, verdict)
        return verdict

    def line(self, version: Version, inputs: Inputs) -> str:
        """Where requests of these shapes wait: those that may share a call, in one line."""
        key = lines.key_of(version, inputs)
        name = version.lines.get(key)
        if name is None:
            name = version.lines[key] = f"{version.name}/{version.number}/{next(self._numbers)}"
            self.state, line = lines.added(self.state, name, version, key, inputs)
            self.lines[name] = line
            lines.runs_in_loop(name, line, lines.bearable(self.state, name, self._inline_s))
        return name

    def closed(self, version: Version) -> None:
        gone = set(version.lines.values())
        version.lines.clear()
        version.inline.clear()
        for name in gone:
            self.lines.pop(name, None)
        self.state = lines.without(self.state, gone)

    def pace(self, version: Version) -> float:
        """What calls take over what the curve said, of the shapes that it was measured with; 1 where none came."""
        measured = (name for name in version.lines.values() if self.lines[name].measured)
        return self.state.pace.get(next(measured, ""), 1.0)

    def apart(self, version: Version) -> None:
        """Nobody shares this model's calls any more."""
        for name in version.lines.values():
            self.state = lines.alone(self.state, name, self.lines[name])

    def enrol(self) -> None:
        """Tell of a call that began when there was nothing to schedule."""
        if self._lone is not None:
            lone, self._lone = self._lone, None
            self.state = scheduling.begun(self.state, Running(lone.id, lone.line, lone.rows, lone.at), ())

    def began(self, begun: Begun, lone: bool) -> None:
        """lone: nothing else is there, so nobody need know of it as yet."""
        if lone:
            self._lone = begun
            return
        self.enrol()
        running = Running(begun.id, begun.line, begun.rows, begun.at)
        self.state = scheduling.begun(self.state, running, [ticket.id for ticket in begun.tickets])

    def ended(self, begun: Begun, now: float, took: float, counts: bool) -> None:
        """took: seconds of the call alone. counts: whether they tell of the next ones'."""
        name, line = begun.line, self.lines[begun.line]
        if begun.inline:
            lines.ran_in_loop(name, line, took, self._inline_s)
        if self._lone is begun and begun.id % PACED >= 2:  # of ids, every other one is a call's
            self._lone = None
            return
        self.enrol()
        foretold = self.state.mean_s(name, begun.rows)
        self.state = scheduling.ended(self.state, begun.id, now, counts=counts)
        if begun.probe:
            line.probing = line.probing.ended(now, took if counts else foretold, foretold)
        if counts and not begun.inline:
            lines.ran_in_thread(self.state, name, line, begun.rows, took, self._inline_s)

    def passed(self, name: str, rows: int, began: float, took: float, counts: bool, probe: bool) -> None:
        """A call that began and ended in one step."""
        line = self.lines[name]
        line.passed += 1
        if probe or not line.passed % PACED:
            foretold = self.state.mean_s(name, rows)
            self.state = scheduling.begun(self.state, Running(0, name, rows, began), ())
            self.state = scheduling.ended(self.state, 0, began + took, counts=counts)
            if probe:
                line.probing = line.probing.ended(began + took, took if counts else foretold, foretold)
        lines.ran_in_loop(name, line, took, self._inline_s)

    def tries(self, name: str, now: float) -> bool:
        """Whether a request that is foretold to be late is run now all the same: never where anybody waits, whom it could make late."""
        line = self.lines[name]
        if now < line.probing.from_s or self.state.waiting or not self.state.startable(name) or not line.version.free:
            return False
        line.probing = line.probing.tried()
        return True
