"""The rung of structured pruning: a speedup that is asked for, planned on a latency table, checked by measuring, then trained back.

ZipLM (Kurtic 2023) with a table of this device: widths are solved for in the form that will serve (int8, where int8 serves), so that the
product of both is what was asked for. Time doesn't depend on the weights, so the plan is measured whole, and corrected, before an epoch is
spent on it. The members of a family are planned so that each is part of the one before: one run of pruning and training gives them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgewise import backends, measure, registry
from edgewise import recipe as recipes
from edgewise.compress.quantize.tables import tables
from edgewise.data import metrics
from edgewise.errors import EdgewiseError
from edgewise.graph import Graph, cost, found_again, parts, shrink
from edgewise.measure import Subject
from edgewise.measure.layermodel import latency_predictor
from edgewise.records import LatencyTable, PruningPlan, Trial
from edgewise.search.bench import least
from edgewise.search.kinds import of_tokens
from edgewise.search.limits import SMALL_TABLES, Form, Limits, asked_limits, smallest_size
from edgewise.search.pace import training_seconds
from edgewise.search.planning import (
    Bounds,
    costs_of,
    keep_tables,
    memory_of,
    settled,
    shrunk,
    solved,
    surveyed,
    tables_of,
    widths_for,
)  # fmt: skip
from edgewise.search.store import key
from edgewise.types import Execution, from_json, to_json

if TYPE_CHECKING:
    from edgewise.search.climb import Climb

# A form may lose this much more than the budget allows before it is retrained: training takes the quantization error back in part.
SLACK = 0.01

# A validation drop beyond the limit and this much more isn't worth timing, nor pruning on from: no rung recovers it.
HOPELESS = 0.1

# From this factor on it goes in two stages: prune half the way, train, prune on, train on (Zhu and Gupta 2017: gradual loses less).
GRADUAL_FROM = 2.0

# Forms whose packages differ by less are alike in size.
SMALLER = 1.05

# An engine that can't be planned for is tried after pruning where it was at most so much slower before.
CLEARLY = 1.2

# How a network of tokens is trained back: in batches and at rates that its kind is tuned with, its layers held to the dense model's.
TOKENS = ", optimizer='adamw', learning_rate=0.0003, batch_size=32, layers=1.0, by_length=True"

# What a package's verdict takes in it, about; at most this share of a small one.
VERDICT_BYTES, VERDICT_SHARE = 6000, 0.1


@dataclass(frozen=True)
class Planned:
    """What one target comes to: the form that serves, and the width of every part in it."""

    limits: Limits
    form: Form
    widths: Mapping[str, int]


def forms(climb: Climb) -> list[Form]:
    """For each engine the dense model and the fastest quantized one, as far as they lose little enough, fastest first."""
    allowed = climb.budget.allowed_drop(climb.metric) + SLACK
    found: dict[tuple[str, bool], tuple[float, Trial]] = {}
    for trial in climb.timed():
        if trial.drop is None or trial.speedup is None or -trial.drop.difference.value > allowed or trial.rung == "prune":
            continue
        if backends.form(trial.execution.backend) != backends.ONNX:
            continue  # a plan stands on dozens of graphs that are timed; see `own_forms`
        kind, factor = (str(trial.execution), bool(trial.recipe)), trial.speedup.ratio.value
        if kind not in found or _before(climb, (factor, trial), found[kind]):
            found[kind] = (factor, trial)
    ordered = sorted(found.values(), key=lambda pair: -pair[0])
    return [_form(climb, trial, factor) for factor, trial in ordered]


def _before(climb: Climb, one: tuple[float, Trial], other: tuple[float, Trial]) -> bool:
    """Whether to plan in the first form rather than in the second: it is clearly smaller where the larger one is too large, else faster."""
    own, others, limit = one[1].size_bytes, other[1].size_bytes, smallest_size(climb)
    if limit is not None and own and others and max(own, others) > max(limit, SMALLER * min(own, others)):
        return own < others
    return one[0] > other[0]


def own_forms(climb: Climb, form: Form) -> Iterator[Trial]:
    """Of each engine with a form of its own the fastest trial that loses little enough, where it isn't clearly slower than `form`.

    Such an engine can't be planned for, but what was pruned for another one is tried on it too.
    """
    allowed = climb.budget.allowed_drop(climb.metric) + SLACK
    best: dict[str, Trial] = {}
    for trial in climb.timed():
        engine = trial.execution.backend
        if backends.form(engine) == backends.ONNX or trial.drop is None or trial.speedup is None or trial.rung == "prune":
            continue
        factor = trial.speedup.ratio.value
        if -trial.drop.difference.value <= allowed and factor >= form.speedup / CLEARLY and factor > speed(best.get(engine)):
            best[engine] = trial
    yield from best.values()


def speed(trial: Trial | None) -> float:
    """Over the reference; 0 where it wasn't timed."""
    return trial.speedup.ratio.value if trial is not None and trial.speedup is not None else 0.0


def _form(climb: Climb, trial: Trial, factor: float) -> Form:
    graph = climb.made(trial.recipe).graph
    memory: float | None = None
    if climb.budget.memory_bytes is not None:
        measured = trial.measurement
        memory = measured.peak_memory_bytes if measured is not None else memory_of(climb, graph, trial.execution)
    speedups = tuple(one.ratio.value for one in trial.shapes) or (factor,)
    return Form(trial.recipe, trial.execution, graph, speedups, trial.size_bytes or climb.bench.package_bytes(graph), memory)


def best_form(climb: Climb, limits: Limits) -> Form | None:
    """The form that is fastest once it is about as narrow as the speedup needs: what wins when wide (int8, an engine) can lose when narrow.

    Every form is shrunk alike, to as much of the operations as the speedup leaves, and raced; those whose package is too large even then
    stay out where another's isn't. Where time isn't bound, the form that has the least to lose. None where no trial loses little enough.
    """
    candidates = forms(climb)
    if limits.speedup is None or len(candidates) < 2:
        return min(candidates, key=limits.left, default=None)
    share = (1 / limits.speedup) ** 0.5  # a convolution's operations go with the square of the widths
    narrow = {}
    for number, form in enumerate(candidates):
        widths = {part.name: max(1, round(part.units * share)) for part in parts(form.graph).parts}
        narrow[number] = shrunk(form, widths)
    if limits.size_bytes is not None:
        sizes = {number: climb.bench.package_bytes(graph) for number, graph in narrow.items()}
        small_enough = [number for number, size in sizes.items() if size <= limits.size_bytes] or [min(sizes, key=sizes.__getitem__)]
        narrow = {number: narrow[number] for number in small_enough}
    return candidates[_fastest(climb, limits.speedup, candidates, narrow)]


def _fastest(climb: Climb, asked: float, candidates: Sequence[Form], narrow: Mapping[int, Graph]) -> int:
    """The number of the form whose narrow graph is fastest. Kept in the study."""
    memo = key(*climb.bench.origin, "form", asked, *((candidates[number].recipe, str(candidates[number].execution)) for number in narrow))
    before: int | None = climb.bench.store.noted(memo)
    if before is not None:
        return before
    climb.pace.begin(f"which form is fastest when narrow, of {len(narrow)}")
    raced = climb.bench.race([Subject(graph.to_bytes(), candidates[number].execution) for number, graph in narrow.items()])
    factors = [ratio.value if (ratio := least(one)) else 0.0 for one in raced]
    fastest = [*narrow][factors.index(max(factors))]
    climb.bench.store.note(memo, fastest)
    return fastest


def pruned(climb: Climb) -> Iterator[tuple[str, str, list[Execution]]]:
    """One recipe: prune (gradually, where much goes), distil, then the form's own steps. Nothing where all limits are reached without.

    Where a family's member is out of reach, it is the fastest of those that aren't, which is nearest.
    """
    limits = asked_limits(climb)
    if not limits or not climb.epochs or any(limits.left(form) <= 1 for form in forms(climb)):
        return
    if climb.maker.structure is None:
        climb.notes.append("pruning wasn't tried: it trains, which an exported program can't, and which needs torch (the extra 'workshop')")
        return
    if not forms(climb):
        climb.notes.append("pruning wasn't tried: every form loses more than it may before anything is pruned")
        return
    try:
        chain = planned(climb, limits)
    except EdgewiseError as error:
        climb.notes.append(f"pruning: {error}")
        return
    if chain:
        form = chain[-1].form
        steps = worthwhile(climb, trained(climb, chain))
        served = finest(climb, steps, form.recipe)
        yield "prune", " > ".join([*steps, *([served] if served else [])]), [form.execution]
        for trial in own_forms(climb, form):
            yield "prune", " > ".join([*steps, *([trial.recipe] if trial.recipe else [])]), [trial.execution]


def finest(climb: Climb, steps: Sequence[str], recipe: str) -> str:
    """`recipe` behind `steps`; where it has small tables, with as many of their bits as the size leaves room for once all is trained."""
    if recipe not in SMALL_TABLES or climb.budget.size_bytes is None:
        return recipe
    room = with_room(asked_limits(climb)).size_bytes or 0.0
    size = climb.bench.package_bytes(climb.made(" > ".join([*steps, recipe])).graph)
    trained_graph = climb.made(" > ".join(steps)).graph
    elements = {one.name: math.prod(one.dims) for one in trained_graph.proto.graph.initializer}
    a_bit = sum(elements[name] for name in set(tables(trained_graph).values())) / 8
    given = SMALL_TABLES[recipe]
    for bits in range(8, given, -1):
        if size + (bits - given) * a_bit > room:  # halving the steps costs each element a bit, coded as well
            continue
        finer = f"quantize(embeddings={bits})" if bits < 8 else "quantize()"
        if climb.bench.package_bytes(climb.made(" > ".join([*steps, finer])).graph) <= room:
            return finer
    return recipe


def planned(climb: Climb, limits: Limits) -> list[Planned]:
    """The plans of the family up to `limits`, widest first: each part of the one before. Those that are out of reach are left out.

    The narrowest member is solved for first, and freely; a wider one keeps what it needs.
    """
    family = [limits]
    if limits.speedup is not None:
        others = {one.speedup: one for one in (asked_limits(climb, budget) for budget in climb.family) if one.speedup}
        family = sorted({**others, limits.speedup: limits}.values(), key=lambda one: one.speedup or 0.0)
    found: list[Planned] = []
    least: Mapping[str, int] = {}
    for member in reversed(family):
        form = best_form(climb, member)
        if form is None or member.left(form) <= 1:
            continue
        plan = _plan(climb, form, member, least, own=member == limits)
        if plan is not None:
            found.append(plan)
            least = plan.widths
    return [plan for plan in reversed(found) if (plan.limits.speedup or 0) <= (limits.speedup or 0)]


def _plan(climb: Climb, form: Form, limits: Limits, least: Mapping[str, int], own: bool) -> Planned | None:
    """Kept in the study. own: its record and what there is to say of it belong to this member's study."""
    memo = key(*climb.bench.origin, "pruning plan", form.recipe, str(form.execution), limits, sorted(least.items()), climb.seed)
    kept = climb.bench.store.noted(memo)
    if kept is None:
        said = len(climb.notes)
        widths: dict[str, int] | None = None
        plans: list[PruningPlan] = []
        try:
            room = with_room(limits)
            widths, costs, plans = widths_for(climb, form, costs_of(climb, form, room), room, Bounds(least, {}))
            if costs.tables:
                keep_tables(climb, form, costs.tables)
        except EdgewiseError as error:
            climb.notes.append(f"pruning: {error}")
        kept = {"widths": widths, "plans": [to_json(plan).decode() for plan in plans], "notes": climb.notes[said:]}
        del climb.notes[said:]
        climb.bench.store.note(memo, kept)
    if own:
        climb.plans += [from_json(plan.encode(), PruningPlan) for plan in kept["plans"]]
        climb.notes += kept["notes"]
        if kept["plans"]:  # what is out of reach got no table
            hold_tables(climb, form)
    return Planned(limits, form, kept["widths"]) if kept["widths"] is not None else None


def with_room(limits: Limits) -> Limits:
    """Room in the package for what its verdict will say of it."""
    if limits.size_bytes is None:
        return limits
    return replace(limits, size_bytes=limits.size_bytes - min(VERDICT_BYTES, VERDICT_SHARE * limits.size_bytes))


def trained(climb: Climb, chain: Sequence[Planned]) -> list[str]:
    """The steps of a recipe that goes through the members of `chain`, each pruned from the one before and trained for `climb.epochs`."""
    coupling = parts(climb.dense)
    whole = {part.name: part.units for part in coupling.parts}
    before, reached = whole, chain[0].form.speedup
    seeded = f", seed={climb.seed}" if climb.seed else ""
    from edgewise.steps import native_precision

    how = (TOKENS if of_tokens(climb.dense) else "") + (", precision='bf16'" if native_precision() == "bf16" else "") + seeded
    samples = len(climb.bench.task.split("train"))
    climb.pace.add(-training_seconds(_macs(climb.dense) / 2, climb.epochs * samples))  # planned before anything was known
    steps: list[str] = []
    for number, plan in enumerate(chain):
        stages, counts = [plan.widths], [climb.epochs]
        steep = plan.limits.left(plan.form) if number == 0 else (plan.limits.speedup or reached) / reached
        if steep >= GRADUAL_FROM:
            stages.insert(0, _between(climb, plan, plan.limits.halfway(plan.form, reached), before))
            counts = [max(1, climb.epochs // 3), max(1, climb.epochs - climb.epochs // 3)]
        for widths, epochs in zip(stages, counts, strict=True):
            narrower = {name: width for name, width in widths.items() if width < before.get(name, 0)}
            if narrower:  # a recipe that people may read: only what becomes narrower
                names = found_again(coupling, parts(shrink(climb.dense, {name: range(width) for name, width in before.items()})))
                there = {names[name]: width for name, width in narrower.items() if name in names}
                steps.append(f"prune(widths={there!r}{seeded})")
            steps.append(f"distill(epochs={epochs}{how})")
            before = {**before, **narrower}
            if not climb.maker.made_before(" > ".join(steps)):
                small = shrink(climb.dense, {name: range(width) for name, width in before.items()})
                climb.pace.add(training_seconds(_macs(small), epochs * samples))
        reached = plan.limits.speedup or reached
    return steps


def _macs(graph: Graph) -> int:
    return sum(node.macs for node in cost(graph))


def worthwhile(climb: Climb, steps: Sequence[str]) -> list[str]:
    """`steps` up to the first stage that loses, once trained, far more than may be lost: what is left to prune can't win that back."""
    allowed = climb.budget.allowed_drop(climb.metric)
    split = climb.bench.task.split("validation")
    stages = [number for number, step in enumerate(steps[:-1], 1) if step.startswith("distill(")]
    for number in stages:
        outputs = measure.answers(climb.made(" > ".join(steps[:number])).graph, backends.plain(climb.baseline.execution), split)
        quality = metrics.quality(climb.bench.task.metric, split.name, outputs, split.targets, climb.bench.task.labels)
        lost = climb.metric - quality.value.value
        if lost > allowed + HOPELESS:
            climb.notes.append(
                f"pruning stopped after {number} of {len(steps)} steps: {lost * 100:.1f} points are lost on validation, "
                f"{allowed * 100:.2g} may be, and there is more to prune"
            )
            return list(steps[:number])
    return list(steps)


def _between(climb: Climb, plan: Planned, limits: Limits, most: Mapping[str, int]) -> Mapping[str, int]:
    """Widths on the way to `plan` that meet `limits`. Kept in the study."""
    memo = key(*climb.bench.origin, "on the way", plan.form.recipe, str(plan.form.execution), limits, sorted(plan.widths.items()))
    kept: dict[str, int] | None = climb.bench.store.noted(memo)
    if kept is None:
        costs = costs_of(climb, plan.form, limits)
        bounds = settled(climb, plan.form, costs, limits, Bounds(plan.widths, most))
        kept = solved(plan.form, costs, surveyed(climb), limits, bounds)[0]
        climb.bench.store.note(memo, kept)
    return kept


def hold_tables(climb: Climb, form: Form) -> tuple[LatencyTable, ...]:
    """The form's tables, which the report will show."""
    tables = tables_of(climb, form)
    climb.tables |= {(form.recipe, number): table for number, table in enumerate(tables)}
    return tables


def table_for(climb: Climb, recipe: str, executions: Sequence[Execution]) -> Callable[[Mapping[str, int]], float]:
    """What predicts times for a `prune` within `recipe`: by tables of the form that the steps on the graph make, on its fastest engine.

    Of several shapes, that one counts which gains least: the milliseconds are the largest one's.
    """
    steps = recipes.parse(recipe).steps
    rest = str(recipes.Recipe(tuple(step for step in steps if recipes.level(registry.load("pass", step.name)) == "graph")))
    graph = climb.made(rest).graph
    climb.pace.begin("which engine is fastest in this form")
    # An engine with a form of its own can't be planned for: a table stands on dozens of graphs that are timed.
    within = [*{str(one): one for one in map(backends.plain, executions)}.values()]
    raced = climb.bench.race([Subject(graph.to_bytes(), execution) for execution in within])
    factors = [ratio.value if (ratio := least(one)) else 0.0 for one in raced]
    fastest = within[factors.index(max(factors))]
    form = Form(rest, fastest, graph, (1.0,) * len(climb.bench.shapes), climb.bench.package_bytes(graph))
    times = [latency_predictor(graph, parts(graph), table) for table in hold_tables(climb, form)]
    dense = [time({}) for time in times]
    return lambda widths: dense[-1] * max(time(widths) / before for time, before in zip(times, dense, strict=True))
