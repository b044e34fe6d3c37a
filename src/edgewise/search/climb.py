"""The climb: engines, precisions, int8, structured pruning, until the budget is met and no further step can gain more than noise.

Every decision here reads the validation split. Rungs are functions of the climb; later ones join `RUNGS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING

from edgewise import backends, measure
from edgewise.compress.quantize import quantize_within
from edgewise.data import metrics
from edgewise.errors import EdgewiseError, InvalidModel, MeasurementFailed
from edgewise.graph import Graph, cost
from edgewise.records import LatencyTable, PruningPlan, Trial
from edgewise.search import racing
from edgewise.search.bench import Bench, Candidate, Reference
from edgewise.search.choose import best, outcomes_of
from edgewise.search.kinds import of_tokens
from edgewise.search.limits import SMALL_TABLES, asked_speedup, foretold, smallest_size
from edgewise.search.making import Made, Maker
from edgewise.search.pace import Pace
from edgewise.search.pruning import HOPELESS, pruned, table_for
from edgewise.search.sizing import sized
from edgewise.search.store import key
from edgewise.types import Budget, Execution

if TYPE_CHECKING:
    from edgewise.compress.prune.pruning import Survey

# The int8 recipes, most promising first. What differs between them is what no rule decides beforehand: whether the residual sums are
# integer too, whether weights give up a bit, how ranges are read: that is measured.
INT8 = (
    "quantize()",
    "quantize() > lower(to='s8')",
    "quantize(residual='one')",
    "quantize(symmetric=True, residual='one')",
    "quantize(residual='none')",
    "quantize(reduce_range=False)",
    "quantize(estimator='minmax')",
)
DYNAMIC = "quantize(mode='dynamic')"
# Of transformers: their sums stay in float in any case, so what is left to measure is how ranges are read and integers chosen.
TOKENS = (
    "quantize()",
    "quantize(estimator='minmax', rounding='nearest')",
    "quantize(reduce_range=False)",
    "quantize() > lower(to='s8')",
)

# Of the recipes these many are tried in any case; the others only where the best so far is within FAR of the speedup that is asked for.
SURE, FAR = 4, 1.25

# From this share of the multiply-accumulates in matrix products on, quantizing them alone (dynamic) can pay.
MATMUL_SHARE = 0.2


@dataclass
class Climb:
    """The state of one search: trials made so far and the graphs they stand for."""

    bench: Bench
    dense: Graph
    budget: Budget
    engines: tuple[str, ...]
    pace: Pace
    reference: Reference
    baseline: Trial
    trials: list[Trial]
    maker: Maker
    graphs: dict[str, Graph] = field(default_factory=dict)
    epochs: int = 0  # of training after pruning; 0: nothing is trained
    seed: int = 0
    family: tuple[Budget, ...] = ()  # all that this run is asked for
    table_seconds: float = 90.0
    survey: Survey | None = None  # what the parts are worth, once it was looked at
    notes: list[str] = field(default_factory=list)
    plans: list[PruningPlan] = field(default_factory=list)
    tables: dict[tuple[str, int], LatencyTable] = field(default_factory=dict)  # by the form's recipe and the number of the shape

    @property
    def metric(self) -> float:
        return self.reference.quality.value.value

    def satisfied(self) -> bool:
        """Whether some timed trial meets the budget and loses less than the validation split could show."""
        for trial in self.timed():
            lost = -trial.drop.difference.value if trial.drop else float("inf")
            if (lost <= 0 or (trial.drop and lost < trial.drop.detectable)) and self.meets(trial):
                return True
        return False

    def meets(self, trial: Trial) -> bool:
        """Whether a timed trial meets all limits. One that may is measured, where limits are held against its own figures."""

        def met(trial: Trial) -> bool:
            return all(outcome.met for outcome in outcomes_of(trial, self.budget, self.metric))

        if not (met(trial) and foretold(self, trial)):
            return False
        own = (self.budget.latency_ms, self.budget.memory_bytes, self.budget.energy_mj)
        return trial.measurement is not None or own == (None, None, None) or met(self._proved(trial))

    def timed(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.speedup is not None and trial.drop is not None and trial.state != "failed"]

    def judge(self, candidates: Sequence[Candidate]) -> None:
        """Quality first; then time for those with a chance."""
        judged = []
        allowed = self.budget.allowed_drop(self.metric)
        for candidate in candidates:
            trial = self.bench.judge(candidate, self.reference)
            self.graphs[trial.key] = candidate.graph
            if trial.drop and -trial.drop.difference.value > allowed + HOPELESS and trial.speedup is None:
                lost = -trial.drop.difference.value * 100
                trial = self.bench.store.keep(replace(trial, state="failed", reason=f"loses {lost:.1f} points on validation: not timed"))
            judged.append(trial)
        self.trials += self.bench.time(judged, self.graphs, self.reference)

    def made(self, recipe: str) -> Made:
        return self.maker.made(recipe)

    def candidates(self, rung: str, recipe: str, executions: Sequence[Execution]) -> list[Candidate]:
        """One graph under several executions; a recipe that can't be applied becomes a failed trial, with its reason."""
        kept = [self.bench.store.trial(self.bench.key(recipe, execution)) for execution in executions]
        if all(trial is not None and trial.state == "failed" for trial in kept):
            self.trials += [trial for trial in kept if trial is not None]
            return []
        try:
            made = self.made(recipe)
        except EdgewiseError as error:
            for execution in executions:
                name = self.bench.key(recipe, execution)
                self.trials.append(self.bench.store.keep(Trial(name, rung, recipe, execution, "failed", reason=str(error))))
            return []
        return [
            Candidate(rung, recipe, made.graph, execution, made.path, made.touched, made.skipped, made.notes, made.size_bytes)
            for execution in executions
        ]

    def fastest_of(self, recipe: str, max_seconds: float = 40) -> Trial:
        """The fastest trial of `recipe`, proved. Raises InvalidModel with the reason where none of them could be made or run."""
        own = [trial for trial in self.trials if trial.recipe == recipe]
        timed = [trial for trial in own if trial.speedup is not None and trial.state != "failed"]
        if not timed:
            raise InvalidModel(f"{recipe}: {next((trial.reason for trial in own if trial.reason), 'no engine ran it')}")
        fastest = max(timed, key=lambda trial: trial.speedup.ratio.value if trial.speedup else 0.0)
        proved = self.bench.prove(fastest, self.graphs[fastest.key], self.reference, max_seconds=max_seconds)
        self.trials[self.trials.index(fastest)] = proved
        return proved

    def chosen(self, max_seconds: float = 40) -> Trial:
        """The best timed trial, proved: quick figures choose whom to measure well, and only a well measured one is taken."""
        for _ in range(len(self.trials)):
            trial = best(self.timed(), self.budget, self.metric)
            if trial.measurement is not None:
                return trial
            self._proved(trial, max_seconds)
        raise MeasurementFailed("no trial could be measured; see the trials in the study's folder")

    def _proved(self, trial: Trial, max_seconds: float = 40) -> Trial:
        self.pace.add(20)
        self.pace.begin(f"proving {trial.recipe or 'the dense model'} on {trial.execution}")
        proved = self.bench.prove(trial, self.graphs[trial.key], self.reference, max_seconds=max_seconds)
        self.pace.finish(20)
        self.trials[self.trials.index(trial)] = proved
        return proved


def start(
    bench: Bench,
    dense: Graph,
    budget: Budget,
    engines: Sequence[str],
    threads: Sequence[int],
    pace: Pace,
    *,
    structure: Callable[[], Graph] | None = None,
    epochs: int = 0,
    seed: int = 0,
    family: Sequence[Budget] = (),
    table_seconds: float = 90.0,
) -> Climb:
    """Race the dense model in true fp32 on every engine of the reference set; the fastest one is 1.0x, its thread count everybody's.

    structure: gives the model's training form, where it can be trained, for `epochs` epochs after pruning. family: all budgets that the
    run is asked for, `budget` among them. table_seconds: about how long a latency table may take.
    Raises InvalidInput when no engine of the set is installed or can run the model.
    """
    split = bench.task.split("validation")
    executions = [Execution(engine, "fp32", count) for engine in engines for count in threads]
    kept = [bench.store.trial(bench.key("", execution)) for execution in executions]
    _, path = bench.store.graph(key(*bench.origin, ""), lambda: dense)
    if all(kept):
        trials = [trial for trial in kept if trial is not None]
    else:
        trials = racing.engines(bench, dense, executions, path)
    baseline = next(trial for trial in trials if trial.reason == racing.REFERENCE)
    subjects = racing.fastest(bench, dense, executions, baseline)
    outputs = bench.answers(dense, baseline.execution, split)
    quality = metrics.quality(bench.task.metric, split.name, outputs, split.targets, bench.task.labels)
    reference = Reference(subjects, outputs, quality)
    if baseline.measurement is None:
        work = measure.work(dense, bench.inputs)
        measured = measure.profile(bench.model(dense, baseline.execution), baseline.execution, bench.inputs, bench.device, work=work)
        size = bench.package(dense, bench.forms(dense, baseline.execution)).size_bytes
        baseline = replace(
            baseline, quality=quality, drop=metrics.paired(quality, quality), divergence=0.0, measurement=measured, size_bytes=size
        )
        bench.store.keep(baseline)
    maker = Maker(bench, dense, pace, structure)
    climb = Climb(
        bench, dense, budget, tuple(engines), pace, reference, baseline, [baseline], maker, {baseline.key: dense}, epochs, seed,
        tuple(family), table_seconds,
    )  # fmt: skip
    for trial in trials:
        if trial.key == baseline.key:
            continue
        if trial.state != "failed" and trial.quality is None:
            found = bench.answers(dense, trial.execution, split)
            own = metrics.quality(bench.task.metric, split.name, found, split.targets, bench.task.labels)
            apart = measure.divergence(outputs, found)
            drop = metrics.paired(quality, own)
            size = bench.package(dense, bench.forms(dense, trial.execution)).size_bytes
            trial = replace(trial, quality=own, drop=drop, divergence=apart, size_bytes=size)
            bench.store.keep(trial)
        climb.trials.append(trial)
        climb.graphs[trial.key] = dense
    return climb


def precisions(climb: Climb) -> Iterator[tuple[str, str, list[Execution]]]:
    """The dense model in every precision below fp32 that an engine runs natively here."""
    threads = climb.baseline.execution.threads
    for name in climb.engines:
        known = backends.precisions(name, climb.bench.device.isa)
        lower = [Execution(name, precision, threads) for precision in known if precision != "fp32"]
        if lower:
            yield "precision", "", lower


def int8(climb: Climb) -> Iterator[tuple[str, str, list[Execution]]]:
    """Post-training int8, one recipe after the other, on every engine."""
    if any(trial.rung == "precision" and climb.meets(trial) for trial in climb.timed()):
        return  # a shorter float does it, and integers are coarser than that
    threads = climb.baseline.execution.threads
    executions = [Execution(name, "fp32", threads) for name in climb.engines]
    share, tokens = _matmul_share(climb), of_tokens(climb.dense)
    if share >= MATMUL_SHARE:
        yield "int8", DYNAMIC, executions
    if tokens:  # what stays float there, attention above all, takes as long as the integers do
        sets = climb.bench.device.isa
        executions += [Execution(name, "bf16", threads) for name in climb.engines if "bf16" in backends.precisions(name, sets)]
    plain = [execution for execution in executions if backends.form(execution.backend) == backends.ONNX]
    seen: set[str] = set()
    for number, recipe in enumerate(TOKENS if tokens else INT8):
        if number >= SURE and far_from(climb, asked_speedup(climb)):
            return  # recipes differ by percents; pruning has to bring what is missing, and needs one of them
        on = executions if number == 0 else plain  # a form takes its time, and recipes differ by percents
        try:
            graph = climb.made(recipe).graph
        except EdgewiseError:
            yield "int8", recipe, on  # becomes a failed trial, with the reason
            continue
        if graph.sha256 not in seen and on:
            seen.add(graph.sha256)
            yield "int8", recipe, on
        if number == 0 and tokens:
            for smaller in _small_tables(climb, graph):
                yield "int8", smaller, plain


def _small_tables(climb: Climb, graph: Graph) -> Iterator[str]:
    """Four bits where the package of `graph`, in int8, is over the limit; three where a table of four would be over half of that."""
    limit, whole = smallest_size(climb), climb.bench.package_bytes(graph)
    if limit is None or whole <= limit:
        return
    four, three = SMALL_TABLES
    yield four
    try:
        saved = whole - climb.bench.package_bytes(climb.made(four).graph)
    except EdgewiseError:
        return  # the failed trial says why
    if 2 * saved > limit:
        yield three


def far_from(climb: Climb, asked: float | None) -> bool:
    """Whether pruning will be tried because nothing so far comes near the speedup."""
    reached = max((trial.speedup.ratio.value for trial in climb.timed() if trial.speedup), default=1.0)
    return asked is not None and bool(climb.epochs) and climb.maker.structure is not None and asked > FAR * reached


def mixed(climb: Climb) -> Iterator[tuple[str, str, list[Execution]]]:
    """Where int8 loses more than the budget allows on an engine: the most sensitive nodes left in float (accuracy control)."""
    allowed = climb.budget.allowed_drop(climb.metric)
    whole = [trial for trial in climb.trials if trial.recipe == INT8[0] and trial.state != "failed" and trial.drop]
    for trial in whole:
        if trial.drop is None or -trial.drop.difference.value <= allowed:
            continue
        execution = trial.execution
        if backends.form(execution.backend) != backends.ONNX:
            continue  # accuracy control tries dozens of graphs, and a form of each takes its time
        memo = key(*climb.bench.origin, "within", str(execution), allowed)
        skip = climb.bench.store.noted(memo)
        if skip is None:
            skip = _sensitive(climb, execution, allowed)
            climb.bench.store.note(memo, skip)
        if skip:
            yield "mixed", f"quantize(skip={tuple(skip)!r})", [execution]


def _sensitive(climb: Climb, execution: Execution, allowed: float) -> list[str]:
    """Names of the nodes that accuracy control leaves in float on this engine."""
    split = climb.bench.task.split("validation")

    def evaluate(graph: Graph) -> float:
        outputs = climb.bench.answers(graph, execution, split)
        return metrics.quality(climb.bench.task.metric, split.name, outputs, split.targets, climb.bench.task.labels).value.value

    done = quantize_within(
        climb.dense,
        calibration=climb.bench.calibration(),
        evaluate=evaluate,
        reference=climb.metric,
        max_drop=allowed,
        device=climb.bench.device,
        progress=lambda what, share: climb.pace.begin(f"accuracy control on {execution}: {what}"),
    )
    whole = next(trial for trial in climb.trials if trial.recipe == INT8[0] and trial.execution == execution)
    return [name for name in done.skipped if name not in whole.skipped] if done.touched else []


def _matmul_share(climb: Climb) -> float:
    try:
        costs = cost(climb.dense)
    except EdgewiseError:
        return 0.0
    whole = sum(node.macs for node in costs)
    return sum(node.macs for node in costs if node.op in ("MatMul", "Gemm")) / whole if whole else 0.0


# In order of what they change; a rung yields (rung, recipe, executions).
RUNGS: tuple[Callable[[Climb], Iterator[tuple[str, str, list[Execution]]]], ...] = (precisions, int8, mixed, sized, pruned, sized)


def run(climb: Climb, seconds: Callable[[str], float]) -> None:
    """Go up rung by rung until the climb is satisfied. `seconds` estimates a recipe's cost, for the pace."""
    for rung in RUNGS:
        steps = rung(climb)
        while not climb.satisfied() and (step := next(steps, None)) is not None:
            name, recipe, executions = step
            climb.pace.begin(f"{name}: {recipe or 'as it is'} on {', '.join(str(execution) for execution in executions)}")
            climb.judge(climb.candidates(name, recipe, executions))
            climb.pace.finish(seconds(recipe))


def follow(climb: Climb, recipe: str) -> None:
    """Judge one recipe on every engine, whatever it loses. A speedup that its `prune` asks for is by a table of the rest of the recipe."""
    threads = climb.baseline.execution.threads
    executions = [Execution(name, "fp32", threads) for name in climb.engines]
    # Measured when it is first asked: that takes minutes, and no `prune` reads it but one for a speedup.
    predictor = cache(lambda: table_for(climb, recipe, executions))
    climb.maker.supplies["table"] = lambda widths: predictor()(widths)
    climb.pace.begin(recipe)
    climb.judge(climb.candidates("recipe", recipe, executions))
