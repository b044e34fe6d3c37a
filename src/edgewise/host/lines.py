"""Models as the schedule knows them: a line for each kind of shapes, whose requests may share a call."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from edgewise.host.batching import Key
from edgewise.host.tickets import Version, inline_rows
from edgewise.scheduling import Model, State
from edgewise.types import Inputs

MOST = 32  # kinds of shapes of one model that have a line of their own; all others wait in one, and share no calls


@dataclass(frozen=True, eq=False, slots=True)
class Line:
    """inline: rows up to which a call may run in the loop. gains: whether sharing pays."""

    version: Version
    inline: int
    gains: bool


def key_of(version: Version, inputs: Inputs) -> Key:
    key = version.key(inputs)
    return key if key in version.lines or len(version.lines) < MOST else ()


def added(state: State, line: str, version: Version, key: Key, inputs: Inputs, inline_s: float) -> tuple[State, Line]:
    """With another line, for requests shaped as `inputs`. inline_s: what may run in the loop takes no longer."""
    curve, shared, own = version.curve_for(inputs), version.shared and key != (), version.settings
    cores = min(version.cores, state.cores)
    model = Model(curve, shared, version.largest, cores, own.instances, own.queue)
    return replace(state, models={**state.models, line: model}), Line(version, inline_rows(curve, inline_s), shared and curve.pays())


def alone(state: State, line: str, known: Line) -> tuple[State, Line]:
    """With a line whose requests share no calls any more."""
    return replace(state, models={**state.models, line: replace(state.models[line], shared=False)}), replace(known, gains=False)


def learnt(state: State, line: str, known: Line, inline_s: float) -> Line:
    """In the loop from now on, where calls were seen to be shorter than a curve foretold that was measured with other shapes."""
    if known.inline or known.gains:
        return known
    rows = inline_rows(state.models[line].curve, inline_s / state.pace.get(line, 1.0))
    if not rows:
        return known
    known.version.inline |= {key: rows for key, its in known.version.lines.items() if its == line}
    return replace(known, inline=rows)


def without(state: State, lines: Collection[str]) -> State:
    """Without these lines, and what is known of them."""
    models = {line: model for line, model in state.models.items() if line not in lines}
    pace = {line: pace for line, pace in state.pace.items() if line in models}
    traffic = {line: traffic for line, traffic in state.traffic.items() if line in models}
    return replace(state, models=models, pace=pace, traffic=traffic)
