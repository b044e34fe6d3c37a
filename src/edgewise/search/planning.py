"""Widths for a budget: solved for on a latency table of the form that serves, measured whole and corrected before an epoch is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewise import measure
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, parts, shrink
from edgewise.measure import Subject
from edgewise.measure.layermodel import correct, latency_predictor
from edgewise.measure.table import latency_table
from edgewise.package import Package, stored_bytes
from edgewise.records import Interval, LatencyTable, PruningPlan
from edgewise.search.bench import Side, least
from edgewise.search.limits import Bytes, Form, Limits, Predict, bytes_predictor
from edgewise.search.pace import PLAN_SECONDS, SURVEY_SECONDS
from edgewise.search.store import key
from edgewise.types import Execution, Inputs, from_json, to_json

if TYPE_CHECKING:
    from edgewise.compress.prune.pruning import Survey
    from edgewise.search.climb import Climb

# The plan aims this much beyond what is asked, for a race's noise; prediction and measurement may part by WITHIN before it is solved again.
MARGIN = 1.02
WITHIN = 0.03
ROUNDS = 6

# Channels that every part is left with, to see how fast a model can become.
NARROWEST = (1, 4, 8)


@dataclass(frozen=True)
class Bounds:
    """Widths that a solution stays between, by part: what a narrower member of the family will need, and what a wider one has left."""

    least: Mapping[str, int]
    most: Mapping[str, int]


def surveyed(climb: Climb) -> Any:
    """What the parts of the trained model are worth; looked at once."""
    if climb.survey is None:
        from edgewise.compress.prune.pruning import survey
        from edgewise.models.network import Network

        if climb.maker.structure is None:
            raise ValueError("a model without structure can't be pruned")
        network = Network(climb.maker.structure())
        with climb.pace.piece(SURVEY_SECONDS) as tell:
            climb.survey = survey(network, climb.bench.calibration(), seed=climb.seed, progress=tell)
    return climb.survey


def tables_of(climb: Climb, form: Form) -> tuple[LatencyTable, ...]:
    """For each shape that is timed the latency table of this form, measured here or kept from before."""
    return tuple(_table_of(climb, form, shape) for shape in climb.bench.shapes)


def _table_of(climb: Climb, form: Form, shape: Inputs) -> LatencyTable:
    store, name = climb.bench.store, _table_key(climb, form, shape)
    seconds = climb.table_seconds / len(climb.bench.shapes)
    kept = store.noted(name)
    known = from_json(kept.encode(), LatencyTable) if kept else None
    if known is not None and known.model is not None:
        return known
    with climb.pace.piece(seconds) as tell:
        return latency_table(
            form.graph,
            parts(form.graph),
            form.execution,
            shape,
            climb.bench.device,
            form=form.recipe,
            seconds=seconds,
            known=known,
            keep=lambda table: store.note(name, to_json(table).decode()),
            progress=tell,
        )


@dataclass(frozen=True)
class Reach:
    """What a form comes to with every part at its narrowest, as far as it is bound: as measured."""

    widths: Mapping[str, int]
    speedup: float | None = None
    size_bytes: float | None = None
    memory_bytes: float | None = None


def within_reach(climb: Climb, form: Form, limits: Limits) -> Reach:
    """How far the form can go. Raises InvalidInput where that isn't far enough: a look of seconds, before minutes go into a table."""
    coupling = parts(form.graph)
    if not coupling.parts:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(coupling.fixed.items())[:3])
        raise InvalidInput(f"{limits} is out of reach: no part of this model can be pruned ({why or 'it has no layers with units'})")
    widths = {part.name: 0 if part.removable else 1 for part in coupling.parts}
    small = shrunk(form, widths)
    reach = Reach(
        widths,
        _fastest(climb, form) if limits.speedup is not None else None,
        climb.bench.package_bytes(small) if limits.size_bytes is not None else None,
        memory_of(climb, small, form.execution) if limits.memory_bytes is not None else None,
    )
    if limits.speedup is not None and reach.speedup is not None and limits.speedup > reach.speedup:
        raise InvalidInput(
            f"{limits.speedup:g}x is out of reach: with every part at its narrowest, this model is {reach.speedup:.3g}x as fast; "
            "what is left can't be pruned, and is the engine's own time"
        )
    for asked, found, what in (
        (limits.size_bytes, reach.size_bytes, "its package"),
        (limits.memory_bytes, reach.memory_bytes, "its memory, the engine's own included,"),
    ):
        if asked is not None and found is not None and found > asked:
            raise InvalidInput(
                f"{asked / 1e3:,.0f} kB is out of reach: with every part at its narrowest, {what} takes {found / 1e3:,.0f} kB"
            )
    return reach


def _fastest(climb: Climb, form: Form) -> float:
    """Over the reference, the upper end of the interval. Engines compute whole vectors: the fastest need not have the fewest channels."""
    memo = key(*climb.bench.origin, "narrowest", form.recipe, str(form.execution))
    fastest: float | None = climb.bench.store.noted(memo)
    if fastest is None:
        climb.pace.begin("how fast the narrowest form of this model is")
        sides: list[Side] = [climb.reference]
        for width in NARROWEST:
            widths = {part.name: 0 if part.removable else min(width, part.units) for part in parts(form.graph).parts}
            sides.append(Subject(shrunk(form, widths).to_bytes(), form.execution))
        ratios = [least(one) for one in climb.bench.race(sides)[1:]]
        fastest = max((ratio.high for ratio in ratios if ratio), default=0.0)
        climb.bench.store.note(memo, fastest)
    return fastest


def memory_of(climb: Climb, graph: Graph, execution: Execution) -> float:
    """Peak bytes of the graph in a process of its own. Kept in the study."""
    memo = key(*climb.bench.origin, "memory", graph.sha256, str(execution))
    found: float | None = climb.bench.store.noted(memo)
    if found is None:
        model, bench = graph.to_bytes(), climb.bench
        found = measure.profile(model, execution, bench.inputs, bench.device, seconds=0.2, min_samples=10).peak_memory_bytes
        climb.bench.store.note(memo, found)
    return found


def shrunk(form: Form, widths: Mapping[str, int]) -> Graph:
    """The form at these widths, with the first units of each part: of any weights, as fast as trained ones."""
    return shrink(form.graph, {name: range(width) for name, width in widths.items()})


def keep_tables(climb: Climb, form: Form, tables: Sequence[LatencyTable]) -> None:
    for shape, table in zip(climb.bench.shapes, tables, strict=True):
        climb.bench.store.note(_table_key(climb, form, shape), to_json(table).decode())


def _table_key(climb: Climb, form: Form, shape: Inputs) -> str:
    sizes = {name: array.shape for name, array in shape.items()}
    return key(*climb.bench.origin, "latency table", form.recipe, str(form.execution), form.graph.sha256, repr(sizes))


@dataclass(frozen=True)
class Costs:
    """What predicts the limits that bind; the others are None. tables: for each shape, where time binds; else none."""

    tables: tuple[LatencyTable, ...]
    size: Bytes | None
    memory: Bytes | None

    def corrected(self, form: Form, widths: Mapping[str, int], found: Found) -> Costs:
        """The same through what was measured at `widths`."""
        tables = tuple(
            correct(table, widths, before / now.value)
            for table, before, now in zip(self.tables, form.speedups, found.speedups, strict=bool(self.tables))
        )
        size = self.size.corrected(widths, found.size_bytes) if self.size else None
        memory = self.memory.corrected(widths, found.memory_bytes or 0.0) if self.memory else None
        return Costs(tables, size, memory)


@dataclass(frozen=True)
class Found:
    """A plan, measured whole: what isn't bound isn't measured. speedups: over the reference, at each shape."""

    speedups: tuple[Interval, ...]
    size_bytes: float
    memory_bytes: float | None

    @property
    def speedup(self) -> Interval | None:
        """Where it is least."""
        return min(self.speedups, key=lambda one: one.value, default=None)

    def excess(self, limits: Limits) -> float:
        return limits.excess(self.speedup.value if self.speedup else float("inf"), self.size_bytes, self.memory_bytes)


def costs_of(climb: Climb, form: Form, limits: Limits) -> Costs:
    """Predictors for the limits that bind; a latency table only where time does."""
    reach = within_reach(climb, form, limits)
    size = None
    if reach.size_bytes is not None:
        shares = _shares(climb.bench.package(form.graph, {}))
        size = bytes_predictor(form, form.size_bytes, reach.widths, reach.size_bytes, shares)
    memory = None
    if reach.memory_bytes is not None and form.memory_bytes is not None:
        memory = bytes_predictor(form, form.memory_bytes, reach.widths, reach.memory_bytes)
    return Costs(tables_of(climb, form) if limits.speedup is not None else (), size, memory)


def _shares(package: Package) -> dict[str, float]:
    """What each weight takes in the package, over its bytes: a table in few bits is coded shorter than the layers' weights are."""
    rows = package.manifest.entry("main").tensors
    return {row.name: row.length / stored_bytes(row.dtype, row.shape) for row in rows if stored_bytes(row.dtype, row.shape)}


def solved(form: Form, costs: Costs, found: Survey, limits: Limits, bounds: Bounds) -> tuple[dict[str, int], float]:
    """Widths within `bounds` that meet `limits`, as predicted; and the speedup over the reference that is predicted (0 without a table).

    Raises InvalidInput where that is out of reach: how near it comes.
    """
    excess, times, known = _excess(form, costs, limits)
    solution = found.solve(excess, 1.0, bounds.least, bounds.most)
    widths = {name: width for name, width in solution.widths.items() if name in known}
    if not solution.reachable:
        raise InvalidInput(
            f"{limits} is out of reach: with every part at its narrowest, {solution.predicted:.3g} times too much is predicted"
        )
    reached = [speedup * time({}) / time(widths) for time, speedup in zip(times, form.speedups, strict=bool(times))]
    return widths, min(reached, default=0.0)


def settled(climb: Climb, form: Form, costs: Costs, limits: Limits, bounds: Bounds) -> Bounds:
    """`bounds` with each stream fixed at the width at which the network comes out best (see `Survey.settled`)."""
    excess, _, _ = _excess(form, costs, limits)

    def tell(name: str, width: int) -> None:
        climb.pace.begin(f"{limits} with {name} at {width}, refitted")

    fixed = surveyed(climb).settled(excess, 1.0, bounds.least, bounds.most, tell=tell)
    return Bounds({**bounds.least, **fixed}, {**bounds.most, **fixed})


def _excess(form: Form, costs: Costs, limits: Limits) -> tuple[Predict, Sequence[Predict], set[str]]:
    """By what factor widths miss the limit that they miss most, as predicted; the times at each shape; the parts that the form knows."""
    coupling = parts(form.graph)
    known = {part.name for part in coupling.parts}
    asked: list[tuple[Predict, float]] = []
    times = [latency_predictor(form.graph, coupling, table) for table in costs.tables]
    if limits.speedup is not None:
        asked += [(time, time({}) * speedup / limits.speedup) for time, speedup in zip(times, form.speedups, strict=True)]
    if costs.size is not None and limits.size_bytes is not None:
        asked.append((costs.size, limits.size_bytes))
    if costs.memory is not None and limits.memory_bytes is not None:
        asked.append((costs.memory, limits.memory_bytes))

    def excess(widths: Mapping[str, int]) -> float:
        own = {name: width for name, width in widths.items() if name in known}
        return max(predict(own) / allowed for predict, allowed in asked)

    return excess, times, known


def widths_for(climb: Climb, form: Form, costs: Costs, limits: Limits, bounds: Bounds) -> tuple[dict[str, int], Costs, list[PruningPlan]]:
    """Widths that meet `limits` as measured whole: solved, raced against the reference, the table corrected, and solved again.

    Where corrections end out of reach, the nearest plan that was measured. Raises InvalidInput where the first one is.
    """
    survey = surveyed(climb)
    known = {part.name for part in parts(form.graph).parts}
    if strange := [part.name for part in survey.chosen if part.name not in known]:
        climb.notes.append(
            f"pruning: {len(strange)} of {len(survey.chosen)} parts ({strange[0]}, …) aren't known in {form.recipe or 'fp32'}, and stay"
        )
    bounds = settled(climb, form, costs, limits.tightened(MARGIN), bounds)
    plans: list[PruningPlan] = []
    tried: list[tuple[float, dict[str, int]]] = []
    for _ in range(ROUNDS):
        try:
            widths, predicted = solved(form, costs, survey, limits.tightened(MARGIN), bounds)
        except InvalidInput as error:
            if not tried:
                raise
            climb.notes.append(f"pruning: {error}")
            break
        if any(widths == before for _, before in tried):
            break  # nothing else between what is too much and what is too little
        found = _measured(climb, form, shrunk(form, widths), limits, predicted)
        if found.speedup is not None and limits.speedup is not None:
            narrowed = {name: width for name, width in widths.items() if width < survey.coupling.part(name).units}
            plans.append(PruningPlan(limits.speedup, form.recipe, form.execution, predicted, found.speedup, narrowed))
        tried.append((found.excess(limits), widths))
        if 1 / (MARGIN + WITHIN) <= tried[-1][0] <= 1:
            break
        costs = costs.corrected(form, widths, found)
    enough = [one for one in tried if one[0] <= 1]
    return (max(enough, key=lambda one: one[0]) if enough else min(tried, key=lambda one: one[0]))[1], costs, plans


def _measured(climb: Climb, form: Form, small: Graph, limits: Limits, predicted: float) -> Found:
    bench, memory = climb.bench, None
    speedups: tuple[Interval, ...] = ()
    climb.pace.begin(f"measuring the plan for {limits}" + (f" ({predicted:.2f}x predicted)" if predicted else ""))
    if limits.speedup is not None:
        # As the verdict does it: where memory lies in one process moves a tiny model's time by more than the margin.
        subject = Subject(small.to_bytes(), form.execution)
        found = bench.compare(climb.reference, subject, max_seconds=PLAN_SECONDS * len(bench.shapes), min_pairs=30, renew_pairs=10)
        speedups = tuple(one.ratio for one in found)
    if limits.memory_bytes is not None:
        memory = memory_of(climb, small, form.execution)
    climb.pace.finish(PLAN_SECONDS)
    return Found(speedups, bench.package_bytes(small), memory)
