"""The rung of structured pruning: a speedup that is asked for, planned on a latency table, checked by measuring, then trained back.

ZipLM (Kurtic 2023) with a table of this device: widths are solved for in the form that will serve (int8, where int8 serves), so that the
product of both is what was asked for. Time doesn't depend on the weights, so the plan is measured whole, and corrected, before an epoch is
spent on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgewise import measure, registry
from edgewise import recipe as recipes
from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.graph import Graph, cost, parts, shrink
from edgewise.measure import Subject
from edgewise.measure.layermodel import Predictor, correct, latency_predictor
from edgewise.measure.table import latency_table
from edgewise.records import LatencyTable, PruningPlan, Trial
from edgewise.search.store import key
from edgewise.types import Execution, from_json, to_json

if TYPE_CHECKING:
    from edgewise.compress.prune.pruning import Survey
    from edgewise.search.climb import Climb

# The plan aims this much beyond what is asked, for a race's noise; prediction and measurement may part by WITHIN before it is solved again.
MARGIN = 1.02
WITHIN = 0.03
ROUNDS = 5
PLAN_SECONDS = 20.0

# A form may lose this much more than the budget allows before it is retrained: training takes the quantization error back in part.
SLACK = 0.01

# From this factor on it goes in two stages: prune half the way, train, prune on, train on (Zhu and Gupta 2017: gradual loses less).
GRADUAL_FROM = 2.0

# For the estimate of time left: the table and the survey; a forward and a backward pass per 10⁹ multiply-accumulates on two x86 cores.
PLANNING_SECONDS = 150.0
SECONDS_PER_TRAINED_GMAC = 0.1


@dataclass(frozen=True)
class Form:
    """How the pruned model will be served: the recipe that follows on training, the engine, and the dense model's speedup in that form."""

    recipe: str
    execution: Execution
    graph: Graph
    speedup: float


def asked_speedup(climb: Climb) -> float | None:
    """The factor over the reference that the budget's time limit comes to; None where it has none."""
    budget, measured = climb.budget, climb.baseline.measurement
    factors = [budget.speedup] if budget.speedup else []
    if budget.latency_ms and measured is not None:
        factors.append(measured.latency.percentile(float(budget.percentile.removeprefix("p"))) / budget.latency_ms)
    return max(factors, default=None)


def forms(climb: Climb) -> list[Form]:
    """For each engine the dense model and the fastest quantized one, as far as they lose little enough, fastest first."""
    allowed = climb.budget.allowed_drop(climb.metric) + SLACK
    found: dict[tuple[str, bool], tuple[float, Trial]] = {}
    for trial in climb.timed():
        if trial.drop is None or trial.speedup is None or -trial.drop.difference.value > allowed or trial.rung == "prune":
            continue
        kind, factor = (str(trial.execution), bool(trial.recipe)), trial.speedup.ratio.value
        if kind not in found or found[kind][0] < factor:
            found[kind] = (factor, trial)
    ordered = sorted(found.values(), key=lambda pair: -pair[0])
    return [Form(trial.recipe, trial.execution, climb.made(trial.recipe).graph, factor) for factor, trial in ordered]


def best_form(climb: Climb, asked: float) -> Form | None:
    """The form that is fastest once it is about as narrow as `asked` needs: what wins when wide (int8, an engine) can lose when narrow.

    Every form is shrunk alike, to 1/asked of the operations, and raced. None where no trial loses little enough.
    """
    candidates = forms(climb)
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    memo = key(*climb.bench.origin, "form", asked, *((form.recipe, str(form.execution)) for form in candidates))
    before = climb.bench.store.noted(memo)
    if before is not None:
        return candidates[int(before)]
    subjects = []
    share = (1 / asked) ** 0.5  # a convolution's operations go with the square of the widths
    for form in candidates:
        coupling = parts(form.graph)
        keep = {part.name: range(max(1, round(part.units * share))) for part in coupling.parts}
        subjects.append(Subject(shrink(form.graph, keep, coupling=coupling).to_bytes(), form.execution))
    climb.pace.begin(f"which form is fastest when narrow, of {len(candidates)}")
    raced = measure.race(subjects, climb.bench.inputs, climb.bench.device)
    place = max(range(len(raced)), key=lambda i: raced[i].ratio.value if raced[i].ratio else 0.0)  # type: ignore[union-attr]
    climb.bench.store.note(memo, place)
    return candidates[place]


def pruned(climb: Climb) -> Iterator[tuple[str, str, list[Execution]]]:
    """One recipe: prune (gradually, where much goes), distil, then the form's own steps. Nothing where time isn't bound, or is reached."""
    asked = asked_speedup(climb)
    if asked is None or not climb.epochs or any(form.speedup >= asked for form in forms(climb)):
        return
    if climb.maker.structure is None:
        climb.notes.append("pruning wasn't tried: it trains, which an exported program can't, and which needs torch (the extra 'workshop')")
        return
    form = best_form(climb, asked)
    if form is None:
        climb.notes.append("pruning wasn't tried: every form loses more than it may before anything is pruned")
        return
    trained = climb.epochs * len(climb.bench.task.split("train")) * sum(node.macs for node in cost(climb.dense)) / 1e9
    climb.pace.add(PLANNING_SECONDS + SECONDS_PER_TRAINED_GMAC * trained / (asked / form.speedup))
    climb.maker.supplies["progress"] = lambda what, share: climb.pace.begin(what)
    recipe = planned(climb, form, asked)
    if recipe:
        yield "prune", recipe, [form.execution]


def planned(climb: Climb, form: Form, asked: float) -> str:
    """The recipe for this form and factor; "" where pruning can't add anything, with the reason in the climb's notes."""
    memo = key(*climb.bench.origin, "pruning plan", form.recipe, str(form.execution), asked, climb.epochs)
    kept = climb.bench.store.noted(memo)
    if kept is not None:
        climb.plans += [from_json(plan.encode(), PruningPlan) for plan in kept["plans"]]
        climb.notes += kept["notes"]
        if kept["plans"]:
            climb.tables[form.recipe] = table_of(climb, form)
        return str(kept["recipe"])
    before, said = len(climb.plans), len(climb.notes)
    try:
        recipe = _planned(climb, form, asked)
    except EdgewiseError as error:
        climb.notes.append(f"pruning: {error}")
        recipe = ""
    plans = [to_json(plan).decode() for plan in climb.plans[before:]]
    climb.bench.store.note(memo, {"recipe": recipe, "plans": plans, "notes": climb.notes[said:]})
    return recipe


def _planned(climb: Climb, form: Form, asked: float) -> str:
    table = table_of(climb, form)
    found = _survey(climb)
    final, table = widths_for(climb, form, table, found, asked)
    keep_table(climb, form, table)
    share = asked / form.speedup
    stages = [final]
    if share >= GRADUAL_FROM:
        half, _ = solved(climb, form, table, found, share**0.5, least=final)
        stages = [half, final]
    epochs = _split(climb.epochs, len(stages))
    steps = [f"prune(widths={_narrow(widths, found)!r}) > distill(epochs={count})" for widths, count in zip(stages, epochs, strict=True)]
    return " > ".join([*steps, *([form.recipe] if form.recipe else [])])


def _split(epochs: int, stages: int) -> list[int]:
    """A third for what comes first, where there are two stages."""
    first = max(1, epochs // 3) if stages == 2 else 0
    return [first, max(1, epochs - first)] if stages == 2 else [epochs]


def _narrow(widths: Mapping[str, int], found: Survey) -> dict[str, int]:
    """Only what becomes narrower: a recipe that people may read."""
    return {name: width for name, width in widths.items() if width < found.coupling.part(name).units}


def _survey(climb: Climb) -> Any:
    from edgewise.compress.prune.pruning import survey
    from edgewise.models.network import Network

    if climb.maker.structure is None:
        raise ValueError("a model without structure can't be pruned")
    climb.pace.begin("what each part of the model is worth")
    network = Network(climb.maker.structure())
    return survey(network, climb.bench.calibration(), progress=lambda what, share: climb.pace.begin(what))


def table_of(climb: Climb, form: Form) -> LatencyTable:
    """The latency table of this form, measured here or kept from before."""
    store, name = climb.bench.store, _table_key(climb, form)
    kept = store.noted(name)
    known = from_json(kept.encode(), LatencyTable) if kept else None
    if known is not None and known.model is not None:
        return known
    return latency_table(
        form.graph,
        parts(form.graph),
        form.execution,
        climb.bench.inputs,
        climb.bench.device,
        form=form.recipe,
        known=known,
        keep=lambda table: store.note(name, to_json(table).decode()),
        progress=lambda what, share: climb.pace.begin(what),
    )


def keep_table(climb: Climb, form: Form, table: LatencyTable) -> None:
    climb.bench.store.note(_table_key(climb, form), to_json(table).decode())
    climb.tables[form.recipe] = table


def _table_key(climb: Climb, form: Form) -> str:
    return key(*climb.bench.origin, "latency table", form.recipe, str(form.execution), form.graph.sha256)


def solved(
    climb: Climb, form: Form, table: LatencyTable, found: Survey, share: float, least: Mapping[str, int] | None = None
) -> tuple[dict[str, int], float]:
    """Widths that make the form `share` times faster, as the table predicts, and what it predicts; none below `least`.

    Raises InvalidInput where that is out of reach.
    """
    coupling = parts(form.graph)
    predict = latency_predictor(form.graph, coupling, table)
    known = {part.name for part in coupling.parts}

    def time(widths: Mapping[str, int]) -> float:
        return predict({name: width for name, width in widths.items() if name in known})

    now = time({})
    solution = found.solve(time, now / share, least)
    if not solution.reachable:
        most = form.speedup * now / solution.predicted
        raise InvalidInput(f"{form.speedup * share:.3g}x is out of reach: with every part at its narrowest, {most:.3g}x is predicted")
    return {name: width for name, width in solution.widths.items() if name in known}, now / solution.predicted


def widths_for(climb: Climb, form: Form, table: LatencyTable, found: Survey, asked: float) -> tuple[dict[str, int], LatencyTable]:
    """Widths that reach `asked` as measured whole: solved, raced against the reference, the table corrected, and solved again.

    Where corrections end out of reach, the fastest plan that was measured. Raises InvalidInput where the first one is.
    """
    factor = form.speedup
    plans: list[tuple[float, dict[str, int]]] = []
    for _ in range(ROUNDS):
        try:
            widths, predicted = solved(climb, form, table, found, asked / factor * MARGIN)
        except InvalidInput as error:
            if not plans:
                raise
            climb.notes.append(f"pruning: {error}")
            break
        small = shrink(form.graph, {name: range(width) for name, width in widths.items()})
        climb.pace.begin(f"measuring the plan for {asked:g}x ({predicted * factor:.2f}x predicted)")
        subject = Subject(small.to_bytes(), form.execution)
        # As the verdict does it: where memory lies in one process moves a tiny model's time by more than the margin.
        measured = measure.compare(
            climb.reference.subject, subject, climb.bench.inputs, climb.bench.device, max_seconds=PLAN_SECONDS, min_pairs=30, renew_pairs=10
        ).ratio
        climb.plans.append(PruningPlan(asked, form.recipe, form.execution, predicted * factor, measured, _narrow(widths, found)))
        plans.append((measured.value, widths))
        if asked <= measured.value <= asked * (MARGIN + WITHIN):
            break
        table = correct(table, widths, factor / measured.value)
    enough = [plan for plan in plans if plan[0] >= asked]
    return (min(enough, key=lambda plan: plan[0]) if enough else max(plans, key=lambda plan: plan[0]))[1], table


def table_for(climb: Climb, recipe: str, executions: Sequence[Execution]) -> Predictor:
    """What predicts times for a `prune` within `recipe`: by a table of the form that the steps on the graph make, on its fastest engine."""
    steps = recipes.parse(recipe).steps
    rest = str(recipes.Recipe(tuple(step for step in steps if recipes.level(registry.load("pass", step.name)) == "graph")))
    graph = climb.made(rest).graph
    subjects = [Subject(graph.to_bytes(), execution) for execution in executions]
    climb.pace.begin("which engine is fastest in this form")
    raced = [one for one in measure.race(subjects, climb.bench.inputs, climb.bench.device) if one.ratio is not None]
    fastest = max(raced, key=lambda one: one.ratio.value if one.ratio else 0.0)
    form = Form(rest, fastest.subject.execution, graph, 1.0)
    table = table_of(climb, form)
    climb.tables[rest] = table
    return latency_predictor(graph, parts(graph), table)
