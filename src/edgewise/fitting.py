"""The main job: a model, a task, a budget and a device in; the most accurate model within the budget, as measured there, and the proof."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise import devices, measure, package, report, search, tasks
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, summary
from edgewise.interrupts import interruptible
from edgewise.models import Intake
from edgewise.recipe import epochs, parse
from edgewise.records import Device, Study, Trial
from edgewise.search import beside as others
from edgewise.search.account import effects, widths
from edgewise.search.asked import Asked, chosen_engines, left_out, usual_epochs, versions
from edgewise.search.climb import INT8
from edgewise.search.origin import Teacher, dense_of, structure_of
from edgewise.search.pace import SURVEY_SECONDS, Progress, minutes, pruning_seconds, training_seconds, trial_seconds
from edgewise.search.packing import packed, plain_package
from edgewise.search.store import key, write
from edgewise.search.verdict import opened, self_labelled
from edgewise.search.verdict import verdict as judged
from edgewise.types import Budget

if TYPE_CHECKING:
    import torch

    from edgewise.tasks import TrainingTask

STUDY_FORMAT = 1

# For the estimate that is given before the work.
VERDICT_SECONDS = 60.0


@dataclass(frozen=True)
class Result:
    """What `fit` found. `best` is there whether or not the budget was met: then it is the nearest point (`study.verdict` says)."""

    best: package.Package
    study: Study

    @property
    def met(self) -> bool:
        return self.study.verdict is not None and self.study.verdict.met

    def report(self, path: str | Path) -> None:
        """Write the report: one HTML file that needs no network."""
        write(Path(path), report.html(self.study).encode())


def fit(
    model: str | Path | Intake | Graph | torch.nn.Module,
    task: TrainingTask,
    *,
    budget: Budget,
    device: Device | None = None,
    threads: int | None = None,
    engines: Sequence[str] | None = None,
    out: str | Path | None = None,
    weights: str | Path | None = None,
    epochs: int | None = None,
    seed: int = 0,
    timing_seconds: float = 90.0,
    table_seconds: float = 90.0,
    beside: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Result:
    """Find the most accurate form of `model` that meets `budget` on `device`.

    model: a torch module, a `Graph`, or what `models.intake` reads. task: see `edgewise.tasks`; its validation split decides, its test
    split is read once, for the verdict. device: `devices.local()` unless given. threads: for the reference and everything held against it;
    left out, the count at which the dense model is fastest. engines: the reference set, and what may be chosen; all installed unless given.
    weights: a .safetensors file for a model that is built by a callable.
    out: the study's folder; the same call there goes on where it was interrupted. Without it nothing is kept.
    epochs: of training after pruning, which is tried where engines and int8 alone don't reach the speedup; 0 never trains. Left out, 8, or
    as many as make 1,500 steps (at most 60).
    seed: of everything that draws at random. timing_seconds: the longest that the verdict's interleaved timing may take to come within 1 %
    (a candidate's gets half); what is wider after that is called inconclusive. table_seconds: about how long the latency table may take,
    which pruning is planned by; the less, the coarser. beside: .onnx files that other tools made of the same model: each is measured on its
    fastest engine as the verdict measures what was chosen, and stands beside it in the report.

    Raises InvalidInput and its kind for what was given. A missed budget is no error here: `result.met` is False.
    """
    trained = usual_epochs(task) if epochs is None else epochs
    here = device or devices.local()
    asked = Asked(
        budget, here, threads, chosen_engines(engines, here), out, weights, trained, seed, timing_seconds, table_seconds, "", (),
        tuple(beside),
    )  # fmt: skip
    return _found(model, task, [asked], progress)[0]


def follow(
    model: str | Path | Intake | Graph | torch.nn.Module,
    task: TrainingTask,
    *,
    recipe: str,
    device: Device | None = None,
    threads: int | None = None,
    engines: Sequence[str] | None = None,
    out: str | Path | None = None,
    weights: str | Path | None = None,
    seed: int = 0,
    timing_seconds: float = 90.0,
    table_seconds: float = 90.0,
    progress: Progress | None = None,
) -> Result:
    """Make what `recipe` says of `model`, on the engine where it is fastest, and measure it against the reference as `fit` does.

    recipe: steps and their arguments, as prune(speedup=2) > distill(epochs=3) > quantize(). A speedup that `prune` is asked for is by a
    latency table of the form that the rest of the recipe makes, measured here. The other arguments are those of `fit`.

    Raises InvalidInput and its kind.
    """
    parse(recipe)
    nothing_lost = Budget(max_drop=1.0)
    here = device or devices.local()
    asked = Asked(nothing_lost, here, threads, chosen_engines(engines, here), out, weights, 0, seed, timing_seconds, table_seconds, recipe)
    return _found(model, task, [asked], progress)[0]


def family(
    model: str | Path | Intake | Graph | torch.nn.Module,
    task: TrainingTask,
    *,
    speedups: Sequence[float],
    budget: Budget | Sequence[Budget] | None = None,
    device: Device | None = None,
    threads: int | None = None,
    engines: Sequence[str] | None = None,
    out: str | Path | None = None,
    weights: str | Path | None = None,
    epochs: int | None = None,
    seed: int = 0,
    timing_seconds: float = 90.0,
    table_seconds: float = 90.0,
    beside: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> tuple[Result, ...]:
    """`fit` for several speedups in one run: each model is pruned from the one before and trained on, so that they share most of the work.

    speedups: ascending order is not needed. budget: what else binds every member, or one for each of `speedups`, where faster ones have to
    be smaller too; their own speedups are ignored. epochs: for each member.
    out: members go to folders in it, 2x/ and so on, the trials that they share to out/study, a page of them all to out/report.html. The
    test split is read after the last choice.
    The other arguments are those of `fit`.

    Returns a `Result` for each speedup, ascending. Raises InvalidInput and its kind.
    """
    if not speedups:
        raise InvalidInput("speedups is empty; give one or more, as [2, 4, 8]")
    each = [budget or Budget()] * len(speedups) if budget is None or isinstance(budget, Budget) else list(budget)
    if len(each) != len(speedups):
        raise InvalidInput(f"{len(each)} budgets for {len(speedups)} speedups; give one for all, or one for each")
    targets = {speed: replace(base, speedup=speed) for speed, base in sorted(zip(speedups, each, strict=True), key=lambda pair: pair[0])}
    trained = usual_epochs(task) if epochs is None else epochs
    here = device or devices.local()
    many = tuple(
        Asked(
            target, here, threads, chosen_engines(engines, here), out, weights, trained, seed,
            timing_seconds, table_seconds, "", tuple(targets.values()), tuple(beside),
        )
        for target in targets.values()
    )  # fmt: skip
    results = _found(model, task, many, progress)
    if out is not None:
        write(Path(out) / "report.html", report.family_html([result.study for result in results]).encode())
    return results


def _found(model: Any, task: Any, many: Sequence[Asked], progress: Progress | None) -> tuple[Result, ...]:
    """The main job for each of `many`, which differ in their budgets: reference, search (or the one recipe), verdict, package.

    Verdicts come after the last choice: they read the test split.
    """
    out = many[0].out
    with interruptible() as check, tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as open_until_done:
        source, dense = dense_of(model, task, many[0].weights)
        task = tasks.bound(task, dense.signature)
        named = others.read(many[0].beside, dense)
        folder = Path(out) / "study" if out is not None else Path(scratch)
        teacher: Teacher | None = None
        survey: Any = None
        searched: list[Result | _Searched] = []
        for asked in many:
            store = search.Store(folder, check, asked.member / "study.json" if asked.family and asked.member else None)
            told = [(name, graph.sha256) for name, graph, _ in named]
            study_key = key(*_origin(dense, task, asked), asked.budget, asked.epochs, asked.recipe, asked.family, told)
            done = _finished(store, study_key, asked)
            if done is not None:
                searched.append(done)
                continue
            if task.split("validation").targets is None:
                task = self_labelled(task, dense, asked.engines, asked.counts[-1], ("validation",))
            one = _searched(source, dense, task, asked, store, study_key, teacher, survey, progress)
            survey = one.climb.survey
            if teacher is None:
                teacher = one.climb.maker.supplies["teacher"]
                open_until_done.callback(teacher.close)
            searched.append(one)
        results = tuple(one if isinstance(one, Result) else _judged(one, named) for one in searched)
        store.tidy()
        return results


@dataclass
class _Searched:
    """A search that has chosen, before its verdict."""

    asked: Asked
    task: Any
    climb: search.Climb
    chosen: Trial
    study: Study
    began: float


def _origin(dense: Graph, task: Any, asked: Asked) -> tuple[str, ...]:
    """What every key of the study covers."""
    told = (versions(asked.engines), asked.seed, asked.engines, asked.counts)
    return dense.sha256, task.fingerprint(), asked.device.key, *map(repr, told)


def _finished(store: search.Store, study_key: str, asked: Asked) -> Result | None:
    """What the same call left there before."""
    before = store.study()
    if asked.member is None or before is None or before.verdict is None or before.key != study_key:
        return None
    kept = asked.member / "model.edgew"
    return Result(package.open(kept), before) if kept.exists() else None


def _searched(
    source: Intake,
    dense: Graph,
    task: Any,
    asked: Asked,
    store: search.Store,
    study_key: str,
    teacher: Teacher | None,
    survey: Any,
    progress: Progress | None,
) -> _Searched:
    """The reference, then the search, or the one recipe; a teacher that was loaded before is taken on, and a survey of the dense model."""
    began = time.perf_counter()
    names = asked.engines
    bench = search.Bench(
        store=store,
        task=task,
        device=asked.device,
        shapes=search.shapes_of(task),
        origin=_origin(dense, task, asked),
        package=lambda graph, forms: plain_package(graph, task, source.name, forms),
        calibration=task.calibration,
    )
    model_summary = summary(dense, source.name)
    cost_s = trial_seconds(model_summary.operations, task.summary().samples)
    sizes = model_summary.operations, len(task.split("train"))
    quick_s = VERDICT_SECONDS + (_recipe_seconds(asked, *sizes) + cost_s if asked.recipe else cost_s * len(INT8) * len(names))
    pruning_s = _pruning_seconds(asked, *sizes)
    pace = search.Pace(quick_s + pruning_s, progress)
    what = f"{asked.budget.speedup:g}x: about" if asked.family else "about"
    more = f" if int8 will do, {minutes(pace.planned)} if it has to be pruned and trained" if pruning_s else ""
    pace.begin(f"{what} {minutes(quick_s)}{more}: racing the dense model on {', '.join(names)}")
    climb = search.start(
        bench, dense, asked.budget, names, asked.counts, pace,
        structure=structure_of(source, task), epochs=asked.epochs, seed=asked.seed, family=asked.family,
        table_seconds=asked.table_seconds,
    )  # fmt: skip
    climb.survey = survey
    climb.notes += left_out(names)
    own = Teacher(dense, climb.baseline.execution, structure=climb.maker.structure, answers=store.folder / "answers")
    climb.maker.supplies["teacher"] = teacher or own
    study = Study(
        format=STUDY_FORMAT,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        budget=asked.budget,
        model=model_summary,
        data=task.summary(),
        device=_with_peaks(asked.device, climb.baseline.execution.threads, pace),
        reference_set=tuple(trial.execution for trial in climb.trials if trial.rung == "engine"),
        reference=climb.baseline.key,
        trials=tuple(climb.trials),
        verdict=None,
        versions=versions(names),
        key=study_key,
    )
    store.close(study)
    if asked.recipe:
        search.follow(climb, asked.recipe)
        chosen = climb.fastest_of(asked.recipe, asked.timing_seconds / 2)
    else:
        search.run(climb, lambda recipe: cost_s * len(names))
        chosen = climb.chosen(asked.timing_seconds / 2)
    study = replace(study, steps=effects(climb, chosen), widths=widths(climb, chosen))
    return _Searched(asked, task, climb, chosen, study, began)


def _pruning_seconds(asked: Asked, operations: int, samples: int) -> float:
    """What pruning would take, where some limit may ask for it."""
    budget = asked.budget
    bound = any((budget.speedup, budget.latency_ms, budget.size_bytes, budget.memory_bytes, budget.energy_mj))
    return pruning_seconds(operations, asked.epochs * samples, asked.table_seconds) if bound and asked.epochs else 0.0


def _recipe_seconds(asked: Asked, operations: int, samples: int) -> float:
    """What the steps of the one recipe take: those that train, about as long as they would on the dense model."""
    steps = parse(asked.recipe).steps
    prunes = [step.arguments for step in steps if step.name == "prune" and step.arguments.get("of") != "weights"]
    survey_s = SURVEY_SECONDS if prunes else 0.0
    table_s = asked.table_seconds if any("speedup" in arguments for arguments in prunes) else 0.0
    return survey_s + table_s + sum(training_seconds(operations, count * samples) for step in steps if (count := epochs(step)))


def _judged(one: _Searched, named: Sequence[others.Named]) -> Result:
    """The verdict, what is held beside, the package, the report."""
    asked, climb, study = one.asked, one.climb, one.study
    climb.pace.begin("the verdict: interleaved timing, and the test split, read once")
    verdict = judged(climb, one.chosen, one.task, study.device, asked.timing_seconds)
    held = others.measured(climb, opened(one.task, climb), named, verdict.reference_quality, asked.timing_seconds) if named else ()
    study = replace(
        study,
        trials=tuple(climb.trials),
        verdict=verdict,
        seconds=time.perf_counter() - one.began,
        notes=(*study.notes, *climb.notes, *measure.interruptions(study.device)),
        tables=tuple(climb.tables.values()),
        plans=tuple(climb.plans),
        beside=held,
    )
    graph = climb.graphs[one.chosen.key]
    best, study = packed(graph, one.task, study, one.chosen, asked.seed, climb.bench.forms(graph, one.chosen.execution))
    climb.bench.store.close(study)
    found = Result(best, study)
    if asked.member is not None:
        best.save(asked.member / "model.edgew")
        found.report(asked.member / "report.html")
    return found


def _with_peaks(device: Device, threads: int, pace: search.Pace) -> Device:
    if any(peaks.threads == threads for peaks in device.peaks):
        return device
    pace.begin("the device's peaks, for the roofline")
    return replace(device, peaks=(*device.peaks, measure.peaks(device, threads)))
