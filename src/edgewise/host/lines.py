"""Models as the schedule knows them: a line for each kind of shapes, whose requests may share a call."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from edgewise.host.batching import Key
from edgewise.host.probing import Probing
from edgewise.host.tickets import Version, inline_rows, row_bytes
from edgewise.scheduling import Model, State
from edgewise.types import Inputs

MOST = 32  # kinds of shapes of one model that have a line of their own; all others wait in one, and share no calls
# Late calls in the loop (each counts, and fades by a tenth a call) that send a line's calls to threads; calls in threads one after
# another, each short enough, that bring them back.
SLOW, SHORT = 3.0, 16


@dataclass(eq=False, slots=True)  # not frozen: it counts calls
class Line:
    """gains: whether sharing pays. measured: whether the curve was measured with such rows.

    inline: rows up to which a call may run in the loop.
    slow, short: what SLOW and SHORT are compared with. passed: calls that the schedule was never to know of.
    lone: the last call was one request's, and nobody waited when it ended: as long as one client asks, nobody comes to share. (Says
    nothing of calls in the loop: who else asks is heard only after them.)
    """

    version: Version
    gains: bool
    measured: bool
    inline: int = 0
    slow: float = 0.0
    short: int = 0
    passed: int = 0
    lone: bool = False
    probing: Probing = field(default_factory=Probing)


def key_of(version: Version, inputs: Inputs) -> Key:
    key = version.key(inputs)
    return key if key in version.lines or len(version.lines) < MOST else ()


def added(state: State, name: str, version: Version, key: Key, inputs: Inputs) -> tuple[State, Line]:
    """With another line, for requests shaped as `inputs`."""
    curve, shared, own = version.curve_for(inputs), version.shared and key != (), version.settings
    cores = min(version.cores, state.cores)
    model = Model(curve, shared, version.largest, cores, own.instances, own.queue)
    line = Line(version, shared and curve.pays(), row_bytes(inputs) == version.row_bytes)
    return replace(state, models={**state.models, name: model}), line


def alone(state: State, name: str, line: Line) -> State:
    """Its requests share no calls any more."""
    line.gains = False
    return replace(state, models={**state.models, name: replace(state.models[name], shared=False)})


def bearable(state: State, name: str, inline_s: float) -> int:
    """Rows of a call that is over within `inline_s`, as calls were seen to be."""
    return inline_rows(state.models[name].curve, inline_s / state.pace.get(name, 1.0))


def runs_in_loop(name: str, line: Line, rows: int) -> None:
    """Calls of up to so many rows, from now on; 0: all in threads."""
    line.inline, line.slow, line.short = rows, 0.0, 0
    # Where rows that share a call gain, whoever comes in the same turn of the loop is waited for.
    at_once = 0 if line.gains else rows
    line.version.inline |= {key: at_once for key, its in line.version.lines.items() if its == name}


def ran_in_loop(name: str, line: Line, took_s: float, inline_s: float) -> None:
    """Out of it, where too many calls held it up."""
    line.slow = line.slow * 0.9 + (took_s > inline_s)
    if line.slow > SLOW:
        runs_in_loop(name, line, 0)


def ran_in_thread(state: State, name: str, line: Line, rows: int, took_s: float, inline_s: float) -> None:
    """Into the loop, or back, once calls that it could have borne came one after another, whatever a curve of other shapes foretold."""
    if line.inline:
        return
    most = bearable(state, name, inline_s)
    if 0 < most < rows:  # says nothing of those that would run there
        return
    line.short = line.short + 1 if took_s <= inline_s else 0
    if most and line.short >= SHORT:
        runs_in_loop(name, line, most)


def without(state: State, names: Collection[str]) -> State:
    """Without these lines, and what is known of them."""
    models = {line: model for line, model in state.models.items() if line not in names}
    pace = {line: pace for line, pace in state.pace.items() if line in models}
    traffic = {line: traffic for line, traffic in state.traffic.items() if line in models}
    return replace(state, models=models, pace=pace, traffic=traffic)
