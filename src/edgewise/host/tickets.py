"""What the executor moves about: requests that wait, and models that stand ready to be called."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edgewise.backends.signature import Gate
from edgewise.errors import InvalidInput
from edgewise.host.batching import Key, key_of
from edgewise.host.loading import Facts
from edgewise.host.repository import File
from edgewise.host.requests import Answer, Request, State, Statistics
from edgewise.host.residency import Place
from edgewise.host.settings import ModelSettings
from edgewise.scheduling import Curve, Point
from edgewise.types import Inputs, Runner


@dataclass(eq=False, slots=True)
class Ticket:
    """A request on its way. deadline: on the host's clock, None for none. answer: done once, with an Answer or an error.

    probe: it runs though it is foretold to be late (`probing`).
    """

    id: int
    request: Request
    version: Version
    rows: int
    arrived: float
    deadline: float | None
    priority: int
    answer: asyncio.Future[Answer]
    forget: Callable[[Ticket], None]
    line: str = ""
    timer: asyncio.TimerHandle | None = None
    probe: bool = False

    @property
    def over(self) -> bool:
        return self.answer.done()

    def cancel(self) -> None:
        """Whoever asked has gone: it isn't run, unless it runs already."""
        self.forget(self)


@dataclass(eq=False)
class Version:
    """One version of a model: its file, what is known of it, who waits for it, and its runners while it is in memory.

    later: who waits until it is in memory. free: runners that nobody calls. lines: by shapes that may share a call, its name in the
    schedule; inline: rows up to which such a call may run in the loop.
    row_bytes: of one row of the inputs that the curve was measured with. together: False where outputs came that don't lead with the batch.
    retired: another has taken its place; parked: taken out of memory by hand, and not loaded again until somebody says so.
    """

    file: File
    settings: ModelSettings
    place: Place
    facts: Facts | None = None
    reason: str = ""
    failed: bool = False
    retired: bool = False
    parked: bool = False
    gate: Gate | None = None
    batched: bool = False
    curve: Curve | None = None
    row_bytes: float = 0.0
    exact: int = 1
    warm: bool = False
    together: bool = True
    runners: list[Runner] = field(default_factory=list)
    free: list[Runner] = field(default_factory=list)
    later: dict[int, Ticket] = field(default_factory=dict)
    lines: dict[Key, str] = field(default_factory=dict)
    inline: dict[Key, int] = field(default_factory=dict)
    waiting: int = 0
    figures: Statistics = field(default_factory=Statistics)

    @property
    def name(self) -> str:
        return self.file.model

    @property
    def number(self) -> str:
        return self.file.version

    @property
    def state(self) -> State:
        if self.failed:
            return "failed"
        return self.place.state

    @property
    def cores(self) -> int:
        return self.facts.execution.threads if self.facts is not None else 1

    @property
    def shared(self) -> bool:
        """Whether rows of strangers may share its calls: proved, wanted, and not seen to fail."""
        return self.facts is not None and self.facts.batchable and self.together and self.settings.max_rows != 1

    @property
    def largest(self) -> int:
        """Rows of a call that strangers share at most; 0: as many as the curve pays for."""
        limit = self.settings.max_rows
        return min(limit or self.exact, self.exact) if self.settings.exact else limit

    def hopeless(self, seconds: float) -> bool:
        """Whether it has to be loaded first, and that took longer the last time."""
        return self.place.state == "absent" and self.warm and self.place.reload_s > seconds

    def key(self, inputs: Inputs) -> Key:
        return key_of(self.facts.signature, inputs) if self.facts is not None else ()

    def rows_of(self, inputs: Inputs) -> int:
        """Rows that share a call, 1 where there are none. Raises InvalidInput for what the model doesn't take."""
        if self.facts is None or self.gate is None:
            raise InvalidInput(f"{self.name} isn't known yet")
        self.gate.check(inputs)
        if not self.batched:
            return 1
        rows = len(inputs[self.facts.signature.inputs[0].name])
        if 0 < self.settings.max_rows < rows:
            raise InvalidInput(f"{self.name} takes {self.settings.max_rows} rows a call, not {rows}; send them in several requests")
        return rows

    def curve_for(self, inputs: Inputs) -> Curve:
        """The curve as it was measured, stretched by how much larger one row of `inputs` is than one of those it was measured with."""
        if self.curve is None:
            raise InvalidInput(f"{self.name} isn't in memory")
        ratio = row_bytes(inputs) / self.row_bytes if self.row_bytes else 1.0
        return stretched(self.curve, ratio) if ratio not in (0.0, 1.0) else self.curve


@dataclass(eq=False, slots=True)  # not frozen: that would cost a microsecond a call
class Begun:
    """A call that runs. line: of the schedule. inline: in the loop itself."""

    id: int
    line: str
    version: Version
    runner: Runner
    tickets: list[Ticket]
    rows: int
    at: float
    inline: bool = False

    @property
    def probe(self) -> bool:
        return self.tickets[0].probe


def stretched(curve: Curve, ratio: float) -> Curve:
    return Curve(tuple(Point(point.rows, point.p50_ms * ratio, point.p99_ms * ratio) for point in curve.points))


def inline_rows(curve: Curve, most_s: float) -> int:
    """Rows up to which a call takes no longer on average; 0 for none. Not at p99, which is often that of a neighbour on the machine."""
    rows = 0
    while rows < curve.largest and curve.mean_s(rows + 1) <= most_s:
        rows += 1
    return rows


def deadline_of(request: Request, settings: ModelSettings, now: float) -> float | None:
    if request.deadline is not None:
        return request.deadline if math.isfinite(request.deadline) else None
    return now + settings.deadline_ms / 1e3 if settings.deadline_ms is not None else None


def check_wanted(version: Version, wanted: tuple[str, ...]) -> None:
    """Raises InvalidInput for an output that the model hasn't got."""
    if wanted and version.facts is not None:
        names = [spec.name for spec in version.facts.signature.outputs]
        for name in wanted:
            if name not in names:
                raise InvalidInput(f"{version.name} has no output {name!r}; it has {', '.join(names)}")


def fit(ticket: Ticket, version: Version) -> None:
    """Have it wait for `version`, whatever it came for. Raises InvalidInput where that one takes or gives something else."""
    ticket.rows = version.rows_of(ticket.request.inputs)
    check_wanted(version, ticket.request.outputs)


def row_bytes(inputs: Inputs) -> float:
    return float(sum(np.prod(array.shape[1:], dtype=np.int64) * array.dtype.itemsize for array in inputs.values()))
