"""Widths for a speedup: solved for on a latency table of the form that serves, measured whole and corrected before an epoch is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewise import measure
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, parts, shrink
from edgewise.measure import Subject
from edgewise.measure.layermodel import correct, latency_predictor
from edgewise.measure.table import latency_table
from edgewise.records import LatencyTable, PruningPlan
from edgewise.search.store import key
from edgewise.types import Execution, from_json, to_json

if TYPE_CHECKING:
    from edgewise.compress.prune.pruning import Survey
    from edgewise.search.climb import Climb

# The plan aims this much beyond what is asked, for a race's noise; prediction and measurement may part by WITHIN before it is solved again.
MARGIN = 1.02
WITHIN = 0.03
ROUNDS = 8
PLAN_SECONDS = 20.0

# Channels that every part is left with, to see how fast a model can become.
NARROWEST = (1, 4, 8)

# For the estimate of time left, on two x86 cores.
SURVEY_SECONDS = 70.0


@dataclass(frozen=True)
class Form:
    """How the pruned model will be served: the recipe that follows on training, the engine, and the dense model's speedup in that form."""

    recipe: str
    execution: Execution
    graph: Graph
    speedup: float


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


def table_of(climb: Climb, form: Form) -> LatencyTable:
    """The latency table of this form, measured here or kept from before."""
    store, name = climb.bench.store, _table_key(climb, form)
    kept = store.noted(name)
    known = from_json(kept.encode(), LatencyTable) if kept else None
    if known is not None and known.model is not None:
        return known
    with climb.pace.piece(climb.table_seconds) as tell:
        return latency_table(
            form.graph,
            parts(form.graph),
            form.execution,
            climb.bench.inputs,
            climb.bench.device,
            form=form.recipe,
            seconds=climb.table_seconds,
            known=known,
            keep=lambda table: store.note(name, to_json(table).decode()),
            progress=tell,
        )


def within_reach(climb: Climb, form: Form, asked: float) -> None:
    """Raises InvalidInput where even the narrowest form isn't `asked` times faster than the reference: how fast it is, as measured.

    A look of seconds, before minutes go into a table. Engines compute whole vectors of channels, so the fastest need not have the fewest.
    """
    coupling = parts(form.graph)
    if not coupling.parts:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(coupling.fixed.items())[:3])
        raise InvalidInput(f"{asked:g}x is out of reach: no part of this model can be pruned ({why or 'it has no layers with units'})")
    memo = key(*climb.bench.origin, "narrowest", form.recipe, str(form.execution))
    fastest = climb.bench.store.noted(memo)
    if fastest is None:
        climb.pace.begin("how fast the narrowest form of this model is")
        subjects = [climb.reference.subject]
        for width in NARROWEST:
            keep = {part.name: range(0 if part.removable else min(width, part.units)) for part in coupling.parts}
            subjects.append(Subject(shrink(form.graph, keep, coupling=coupling).to_bytes(), form.execution))
        raced = measure.race(subjects, climb.bench.inputs, climb.bench.device)[1:]
        fastest = max((one.ratio.high for one in raced if one.ratio), default=0.0)
        climb.bench.store.note(memo, fastest)
    if asked > fastest:
        raise InvalidInput(
            f"{asked:g}x is out of reach: with every part at its narrowest, this model is {fastest:.3g}x as fast; "
            "what is left can't be pruned, and is the engine's own time"
        )


def keep_table(climb: Climb, form: Form, table: LatencyTable) -> None:
    climb.bench.store.note(_table_key(climb, form), to_json(table).decode())


def _table_key(climb: Climb, form: Form) -> str:
    return key(*climb.bench.origin, "latency table", form.recipe, str(form.execution), form.graph.sha256)


def solved(form: Form, table: LatencyTable, found: Survey, factor: float, bounds: Bounds) -> tuple[dict[str, int], float]:
    """Widths within `bounds` that make the model `factor` times faster than the reference, as the table predicts; and what it predicts.

    Raises InvalidInput where that is out of reach: how near it comes.
    """
    coupling = parts(form.graph)
    predict = latency_predictor(form.graph, coupling, table)
    known = {part.name for part in coupling.parts}

    def time(widths: Mapping[str, int]) -> float:
        return predict({name: width for name, width in widths.items() if name in known})

    now = time({})
    solution = found.solve(time, now * form.speedup / factor, bounds.least, bounds.most)
    reached = form.speedup * now / solution.predicted
    if not solution.reachable:
        raise InvalidInput(f"{factor:.3g}x is out of reach: with every part at its narrowest, {reached:.3g}x is predicted")
    return {name: width for name, width in solution.widths.items() if name in known}, reached


def widths_for(
    climb: Climb, form: Form, table: LatencyTable, asked: float, bounds: Bounds
) -> tuple[dict[str, int], LatencyTable, list[PruningPlan]]:
    """Widths that reach `asked` as measured whole: solved, raced against the reference, the table corrected, and solved again.

    Where corrections end out of reach, the fastest plan that was measured. Raises InvalidInput where the first one is.
    """
    found = surveyed(climb)
    plans: list[PruningPlan] = []
    tried: list[tuple[float, dict[str, int]]] = []
    for _ in range(ROUNDS):
        try:
            widths, predicted = solved(form, table, found, asked * MARGIN, bounds)
        except InvalidInput as error:
            if not tried:
                raise
            climb.notes.append(f"pruning: {error}")
            break
        small = shrink(form.graph, {name: range(width) for name, width in widths.items()})
        climb.pace.begin(f"measuring the plan for {asked:g}x ({predicted:.2f}x predicted)")
        # As the verdict does it: where memory lies in one process moves a tiny model's time by more than the margin.
        measured = measure.compare(
            climb.reference.subject,
            Subject(small.to_bytes(), form.execution),
            climb.bench.inputs,
            climb.bench.device,
            max_seconds=PLAN_SECONDS,
            min_pairs=30,
            renew_pairs=10,
        ).ratio
        climb.pace.finish(PLAN_SECONDS)
        narrowed = {name: width for name, width in widths.items() if width < found.coupling.part(name).units}
        plans.append(PruningPlan(asked, form.recipe, form.execution, predicted, measured, narrowed))
        tried.append((measured.value, widths))
        if asked <= measured.value <= asked * (MARGIN + WITHIN):
            break
        table = correct(table, widths, form.speedup / measured.value)
    enough = [one for one in tried if one[0] >= asked]
    return (min(enough, key=lambda one: one[0]) if enough else max(tried, key=lambda one: one[0]))[1], table, plans
