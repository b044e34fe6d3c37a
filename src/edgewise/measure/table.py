"""`latency_table`: what each width of each part costs on this device, measured on the whole model as it will be served.

A layer alone runs faster or slower than inside its model (fusion, layouts, caches), so nothing is timed alone: the whole graph is shrunk,
and timed in turn with the dense one. Which units go makes no difference to time; the first ones stay.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import monotonic

import numpy as np

from edgewise.devices import Watch
from edgewise.errors import EdgewiseError, InvalidInput, MeasurementFailed
from edgewise.graph.graph import Graph
from edgewise.graph.parts import Coupling, Kind
from edgewise.graph.shrink import shrink
from edgewise.measure import elsewhere
from edgewise.measure.alternating import Alternating, Timer
from edgewise.measure.cores import reserved
from edgewise.measure.interleave import Clock
from edgewise.measure.layermodel import Features, axes_of, features, fitted
from edgewise.measure.sizes import Layout, layout
from edgewise.measure.statistics import median_interval
from edgewise.records import Device, Interval, JointTime, LatencyTable, WidthTime
from edgewise.types import Execution, Inputs

Progress = Callable[[str, float], None]  # what is being done; the share of it that is done, 0..1

PAIRS = 5
MOST_PASSES = 3
JOINT_GROUP = 8  # joint configurations between two calls of `keep`

# Widths per part, by its share of the arithmetic, and joint configurations: the finest plan first, for where time is short the next.
LARGE, MIDDLE = 0.1, 0.03
PLANS = (((10, 7, 5), 30), ((7, 5, 3), 24), ((4, 3, 2), 16))
# Joint configurations spread over overall costs from dense / 1.2 to dense / 16, as counted; in time that is less.
DEAREST, CHEAPEST = 1 / 1.2, 1 / 16
LEAST_JOINT = 4  # channels


@dataclass(frozen=True)
class Group:
    """Parts that are alike, numbers of them: `changed` of them share no layer and are narrowed together, at each of `widths`."""

    members: tuple[int, ...]
    changed: tuple[int, ...]
    widths: tuple[int, ...]


def latency_table(
    graph: Graph,
    parts: Coupling,
    execution: Execution,
    inputs: Inputs,
    device: Device,
    *,
    form: str = "",
    ladder: Mapping[str, Sequence[int]] | None = None,
    seconds: float = 90.0,
    known: LatencyTable | None = None,
    keep: Callable[[LatencyTable], None] | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    timer: Timer | None = None,
    clock: Clock = monotonic,
) -> LatencyTable:
    """Measure what narrowing `parts` of `graph` saves under `execution` on `inputs`, and fit the layers' times to it.

    form: recipe text of what made `graph` of the trained one. ladder: widths to measure by part; without it, some that depend on how much
    of the arithmetic the part takes part in. seconds: how long it may take, about; a slow model gets fewer widths and may still take
    longer, which `progress` says at the beginning. known: a table of the same circumstances that was begun before; what it has isn't
    measured again. keep: called with the table so far, often, so that an interruption loses little. timer: in place of measuring processes.

    Raises InvalidInput when there is nothing to prune or `known` is of other circumstances; what an engine raises for the dense model.
    """
    for name, widths in (ladder or {}).items():
        part = next((part for part in parts.parts if part.name == name), None)
        if part is None:
            raise InvalidInput(
                f"ladder names {name!r}, which is no part; the parts are {', '.join(part.name for part in parts.parts) or '(none)'}"
            )
        least = 0 if part.removable else 1
        if wrong := [width for width in widths if not least <= width <= part.units]:
            raise InvalidInput(f"ladder[{name!r}] holds {wrong[0]}; give widths from {least} to {part.units}")
    if not parts.parts:
        raise InvalidInput("no part of this model can be pruned, so there is no table to measure; `parts(graph).fixed` says why")
    tell = progress or (lambda what, share: None)
    if timer is None and (there := elsewhere.of(device)) is not None:
        kept = keep or (lambda table: None)
        found = there.table(
            graph, execution, inputs, form=form, ladder=ladder, seconds=seconds, known=known, keep=kept, progress=tell, seed=seed
        )
        kept(found)
        return found
    shapes = {name: tuple(array.shape) for name, array in inputs.items()}
    plan = layout(graph, parts, **axes_of(graph, shapes))
    table = LatencyTable(execution, form, graph.sha256, shapes, device.key, _now(), 0.0, dict(plan.parts))
    if known is not None:
        _check_same(known, table)
        table = known
    measuring = _Measuring(graph, parts, plan, table, keep or (lambda table: None), tell, clock, seed)
    if timer is not None:
        done = measuring.run(timer, ladder, seconds)
    else:
        with reserved(execution.threads) as cores, Alternating(graph, execution, inputs, cores) as alternating:
            watch = Watch(cores)
            done = measuring.run(alternating, ladder, seconds)
            if alternating.engine:  # else nothing was left to measure
                conditions = watch.conditions(device=device.name, engine=alternating.engine, threads=execution.threads)
                done = replace(done, conditions=alternating.referee.told(conditions))
    if done is not known:
        measuring.keep(done)
    tell("latency table: done", 1.0)
    return done


def default_ladder(units: int, removable: bool = False, most: int | None = None, *, kind: Kind = "channels") -> tuple[int, ...]:
    """Widths worth having, from wide to narrow, without the full one: multiples of 8 (of 4 up to 16; all of a few), 1, and 0 if removable.

    Engines compute whole vectors of channels, so widths between cost as much as the next multiple; heads are whole vectors each, and any
    number of them is worth having. most: this many, closer to each other where narrow, besides 0. Of what matrices multiply, these are the
    multiples of 64 (of 32 up to 128): kernels take whole tiles, and what lies between two can take longer than the larger one.
    """
    whole = kind == "heads" or units <= 8
    grid = range(1, units) if whole else [1, *(width for width in range(4, units, 4) if width <= 16 or width % 8 == 0)]
    widths = sorted(grid)
    if most is not None and len(widths) > most:
        if kind in ("hidden", "neurons"):
            widths = [width for width in widths if width <= 64 or width % (32 if width <= 128 else 64) == 0]
        wanted = np.linspace(1, units**0.5, most + 1)[:-1] ** 2
        widths = sorted({min(widths, key=lambda width: abs(width - goal)) for goal in wanted})
    return tuple(widths[::-1]) + ((0,) if removable else ())


def alike(plan: Layout) -> list[tuple[int, ...]]:
    """Numbers of the parts, together where they are alike: as wide, and touching layers that do the same in the same role."""
    found: dict[object, list[int]] = {}
    touching = _touching(plan)
    for number, units in enumerate(plan.parts.values()):
        touched = sorted(
            (layer.shape, number in plan.depends(layer.inputs), number in plan.depends(layer.outputs), number in layer.gone)
            for layer in plan.layers
            if number in touching[layer.name]
        )
        found.setdefault((units, int(plan.least[number]), tuple(touched)), []).append(number)
    return [tuple(numbers) for numbers in found.values()]


def joint_widths(known: Features, seed: int, index: int) -> dict[str, int]:
    """The index-th random configuration: widths of the ladder, for an overall cost that covers the region from little to much pruning."""
    plan, expected = known.layout, known.expected[known.column]
    random = np.random.default_rng((seed, index))
    # Multiples of the golden ratio cover an interval evenly, however many there will be.
    share = (0.5 + index * 0.6180339887) % 1.0
    tilt = random.normal(0, 0.5, len(plan.parts))
    gone = (random.random(len(plan.parts)) < 0.3 * share) & (plan.least == 0)
    # A single channel is a kernel of its own, and rarely what anyone wants: entries show what it costs, here it would hide the rest.
    grids = [
        np.array([units, *(width for width in default_ladder(units) if width >= min(LEAST_JOINT, units))]) for units in plan.parts.values()
    ]

    def chosen(level: float) -> np.ndarray:
        wanted = [units * min(1.0, float(np.exp(level + lean))) for units, lean in zip(plan.parts.values(), tilt, strict=True)]
        near = [int(grid[np.argmin(np.abs(grid - width))]) for grid, width in zip(grids, wanted, strict=True)]
        return np.where(gone, 0, near)

    def cost(level: float) -> float:
        return float(known.values(chosen(level)[None])[0] @ expected)

    low, high = -8.0, 2.0
    goal = DEAREST * (max(CHEAPEST, 1.3 * cost(low)) / DEAREST) ** share
    for _ in range(20):
        level = (low + high) / 2
        low, high = (low, level) if cost(level) > goal else (level, high)
    return dict(zip(plan.parts, map(int, chosen(low)), strict=True))


# What is to be measured: widths of alike parts, and joint configurations.
Plan = tuple[list[Group], list[dict[str, int]]]


@dataclass
class _Measuring:
    """One run of `latency_table`: what is measured so far, and what is left."""

    graph: Graph
    parts: Coupling
    plan: Layout
    table: LatencyTable
    keep: Callable[[LatencyTable], None]
    tell: Progress
    clock: Clock
    seed: int
    pairs: dict[tuple[tuple[str, int], ...], list[tuple[float, float]]] = field(default_factory=dict)  # configuration -> its blocks
    failed: dict[str, str] = field(default_factory=dict)
    done: int = 0
    total: int = 1

    @cached_property
    def names(self) -> list[str]:
        return list(self.plan.parts)

    @cached_property
    def known(self) -> Features:
        return features(self.plan)

    def run(self, timer: Timer, ladder: Mapping[str, Sequence[int]] | None, seconds: float) -> LatencyTable:
        if self.table.model and ladder is None:
            return self.table
        groups, joints = self._left(*self._planned(ladder, 0))
        if not _count(groups, joints):
            return self.table if self.table.model else fitted(self.table, self.plan)
        started = self.clock()
        # The dense graph against itself: what two equal models differ by, and, once the processes run, how long one configuration takes.
        self._time(timer, {})
        running = self.clock()
        own = self._time(timer, {})
        each = self.clock() - running
        for finest in range(len(PLANS)):
            groups, joints = self._planned(ladder, finest)
            if each * _count(groups, joints) <= seconds:
                break
        # What is known already counts too: a table that goes on follows the plan that it began with.
        passes = int(np.clip(seconds // max(each * _count(groups, joints), 1e-9), 1, MOST_PASSES))
        groups, joints = self._left(groups, joints)
        self.total = max(1, passes * _count(groups, joints))
        self.table = replace(self.table, dense_ms=float(np.median([pair[0] for pair in own])), scatter=_interval(own))
        self.tell(f"latency table: {self.total} timings of about {each:.1f} s, so about {each * self.total:.0f} s", 0.0)
        for _ in range(passes):
            for group in groups:
                self._measure_group(timer, group)
                self._keep(started)
            for first in range(0, len(joints), JOINT_GROUP):
                self._measure_joint(timer, joints[first : first + JOINT_GROUP])
                self._keep(started)
        if not self.table.entries:
            raise MeasurementFailed(f"no width could be timed: {next(iter(self.failed.values()))}")
        notes = tuple(f"{what} could not be timed: {why}" for what, why in self.failed.items())
        dense = float(np.median([pair[0] for pairs in self.pairs.values() for pair in pairs]))
        spent = self.table.seconds + self.clock() - started
        self.table = fitted(replace(self.table, dense_ms=dense, notes=(*self.table.notes, *notes), seconds=spent), self.plan)
        return self.table

    def _planned(self, ladder: Mapping[str, Sequence[int]] | None, finest: int) -> Plan:
        """All that one of PLANS asks for: groups, those with the most arithmetic first, and joint configurations."""
        (large, middle, small), wanted = PLANS[finest]
        share = _arithmetic(self.plan)
        groups = []
        for members in sorted(alike(self.plan), key=lambda numbers: -share[numbers[0]]):
            name, part = self.names[members[0]], self.parts.parts[members[0]]
            most = large if share[members[0]] >= LARGE else middle if share[members[0]] >= MIDDLE else small
            widths = (
                default_ladder(part.units, part.removable, most, kind=part.kind)
                if ladder is None
                else sorted({*ladder.get(name, ())} - {part.units})[::-1]
            )
            groups.append(Group(members, _apart(self.plan, members), tuple(widths)))
        joints: list[dict[str, int]] = []
        for index in range(wanted if len(self.names) > 1 else 0):
            drawn = joint_widths(self.known, self.seed, index)
            joints += [drawn] if drawn not in joints else []
        return groups, joints

    def _left(self, groups: list[Group], joints: list[dict[str, int]]) -> Plan:
        """What of it isn't measured yet. A table that is fitted has its joint configurations."""
        have = {(entry.part, entry.width) for entry in self.table.entries}
        timed = [one.widths for one in self.table.joint]
        left = [
            replace(group, widths=tuple(width for width in group.widths if (self.names[group.members[0]], width) not in have))
            for group in groups
        ]
        return left, [] if self.table.model else [widths for widths in joints if widths not in timed]

    def _measure_group(self, timer: Timer, group: Group) -> None:
        lead, together = self.names[group.members[0]], len(group.changed)
        entries = {(entry.part, entry.width): entry for entry in self.table.entries}
        for width in group.widths:
            ratio = self._timed(timer, {self.names[number]: width for number in group.changed}, f"{lead} at {width}")
            if ratio is None:
                continue
            single = replace(ratio, **{end: 1 - (1 - getattr(ratio, end)) / together for end in ("value", "low", "high")})
            for number in group.members:
                name = self.names[number]
                entries[name, width] = WidthTime(name, width, single, "" if name == lead else lead, together)
        self.table = replace(self.table, entries=tuple(entries.values()))

    def _measure_joint(self, timer: Timer, configurations: Iterable[dict[str, int]]) -> None:
        known = list(self.table.joint)
        for widths in configurations:
            ratio = self._timed(timer, widths, "a joint configuration")
            if ratio is None:
                continue
            same = [i for i, one in enumerate(known) if one.widths == widths]
            if same:
                known[same[0]] = JointTime(widths, ratio)
            else:
                known.append(JointTime(widths, ratio))
        self.table = replace(self.table, joint=tuple(known))

    def _timed(self, timer: Timer, widths: Mapping[str, int], what: str) -> Interval | None:
        """The ratio over all passes so far; None when the engine refused the graph, which is noted."""
        self.tell(f"latency table: {what}", self.done / self.total)
        self.done += 1
        try:
            return _interval(self._time(timer, widths))
        except EdgewiseError as error:
            self.failed[what] = str(error).splitlines()[0]
            return None

    def _time(self, timer: Timer, widths: Mapping[str, int]) -> list[tuple[float, float]]:
        graph = shrink(self.graph, {name: range(width) for name, width in widths.items()}, coupling=self.parts) if widths else self.graph
        found = self.pairs.setdefault(tuple(sorted(widths.items())), [])
        found += timer(graph, PAIRS)
        return found

    def _keep(self, started: float) -> None:
        self.keep(replace(self.table, seconds=self.table.seconds + self.clock() - started))


def _count(groups: Sequence[Group], joints: Sequence[object]) -> int:
    return sum(len(group.widths) for group in groups) + len(joints)


def _interval(pairs: Sequence[tuple[float, float]]) -> Interval:
    return median_interval([own / dense for dense, own in pairs])


def _touching(plan: Layout) -> dict[str, frozenset[int]]:
    """Layer -> the parts that it changes with."""
    return {layer.name: frozenset((*plan.depends(layer.outputs, layer.inputs, layer.macs), *layer.gone)) for layer in plan.layers}


def _apart(plan: Layout, members: Sequence[int]) -> tuple[int, ...]:
    """As many of `members` as share no layer with each other: what they save adds up."""
    chosen: list[int] = []
    touching = _touching(plan).values()
    for number in members:
        if not any(number in numbers and other in numbers for numbers in touching for other in chosen):
            chosen.append(number)
    return tuple(chosen)


def _arithmetic(plan: Layout) -> list[float]:
    """For each part the share of the multiply-accumulates that it takes part in."""
    touching = _touching(plan)
    full = plan.vector({})[None]
    macs = {layer.name: float(plan.count([(layer.macs, ())]).many(full)[0]) for layer in plan.layers}
    whole = sum(macs.values()) or 1.0
    return [sum(count for name, count in macs.items() if number in touching[name]) / whole for number in range(len(plan.parts))]


def _check_same(known: LatencyTable, now: LatencyTable) -> None:
    for name in ("execution", "form", "graph", "inputs", "device"):
        before, given = getattr(known, name), getattr(now, name)
        if before != given:
            raise InvalidInput(f"the known latency table was measured with {name}={before}, not {given}; measure a new one without known=")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
