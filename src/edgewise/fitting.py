"""The main job: a model, a task, a budget and a device in; the most accurate model within the budget, as measured there, and the proof."""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise import __version__, backends, devices, measure, package, report, search
from edgewise.data import metrics
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, summary
from edgewise.measure import Subject
from edgewise.models import Intake, intake
from edgewise.records import Device, Outcome, Study, Trial, Verdict
from edgewise.search.choose import outcomes
from edgewise.search.climb import INT8
from edgewise.search.pace import Progress
from edgewise.search.store import key, write
from edgewise.types import Budget, Execution

if TYPE_CHECKING:
    import torch

    from edgewise.tasks import TrainingTask

STUDY_FORMAT = 1

# Seconds, for the estimate that is given before the work: samples through engine and quantizer, per 10⁹ multiply-accumulates; one race; the
# verdict. Measured on two x86 cores; the pace corrects them as the work goes on.
SECONDS_PER_GMAC = 0.12
RACE_SECONDS = 8.0
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
    seed: int = 0,
    timing_seconds: float = 90.0,
    progress: Progress | None = None,
) -> Result:
    """Find the most accurate form of `model` that meets `budget` on `device`.

    model: a torch module, a `Graph`, or what `models.intake` reads. task: see `edgewise.tasks`; its validation split decides, its test
    split is read once, for the verdict. device: `devices.local()` unless given. threads: for the reference and everything held against it;
    left out, the count at which the dense model is fastest. engines: the reference set, and what may be chosen; all installed unless given.
    weights: a .safetensors file for a model that is built by a callable.
    out: the study's folder; the same call there goes on where it was interrupted. Without it nothing is kept.
    seed: of everything that draws at random. timing_seconds: the longest that the verdict's interleaved timing may take to come within 1 %
    (a candidate's gets half); what is wider after that is called inconclusive.

    Raises InvalidInput and its kind for what was given. A missed budget is no error here: `result.met` is False.
    """
    began = time.perf_counter()
    device = device or devices.local()
    if budget.energy_mj is not None and device.energy.startswith("none"):
        raise InvalidInput(f"energy_mj={budget.energy_mj} can't be held on {device.name}: energy is {device.energy}. Leave this limit out")
    if not timing_seconds > 0:
        raise InvalidInput(f"timing_seconds={timing_seconds}: give a number above 0")
    if threads is not None and not 1 <= threads <= device.cores:
        raise InvalidInput(f"threads={threads}: {device.name} has {device.cores} usable cores; give 1 to {device.cores}")
    names = _engines(engines)
    source, dense = dense_of(model, task, weights)
    task = bound_to(task, dense)
    with tempfile.TemporaryDirectory() as scratch:
        store = search.Store(Path(out) / "study" if out is not None else Path(scratch))
        versions = _versions(names)
        counts = (threads,) if threads else _thread_counts(device.cores)
        origin = (dense.sha256, task.fingerprint(), device.key, repr(versions), str(seed), repr(names), repr(counts))
        study_key = key(*origin, budget)
        before = store.study()
        if before is not None and before.verdict is not None and before.notes[:1] == (study_key,):
            kept = Path(out) / "model.edgew" if out is not None else None
            if kept is not None and kept.exists():
                return Result(package.open(kept), before)
        if task.split("validation").targets is None:
            task = _self_labelled(task, dense, names, counts[-1], ("validation",))
        bench = search.Bench(
            store=store,
            task=task,
            device=device,
            inputs=task.example_inputs(1),
            origin=origin,
            package_bytes=lambda graph: _package(graph, task, source.name).size_bytes,
            calibration=task.calibration,
        )
        model_summary = summary(dense, source.name)
        samples = task.summary().samples
        cost_s = _estimate(model_summary.operations, samples)
        pace = search.Pace(cost_s * len(INT8) * len(names) + VERDICT_SECONDS, progress)
        pace.begin(f"about {_minutes(pace.planned)}: racing the dense model on {', '.join(names)}")
        climb = search.start(bench, dense, budget, names, counts, pace)
        study = Study(
            format=STUDY_FORMAT,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            budget=budget,
            model=model_summary,
            data=task.summary(),
            device=_with_peaks(device, climb.baseline.execution.threads, pace),
            reference_set=tuple(trial.execution for trial in climb.trials if trial.rung == "engine"),
            reference=climb.baseline.key,
            trials=tuple(climb.trials),
            verdict=None,
            versions=versions,
            notes=(study_key,),
        )
        store.close(study)
        search.run(climb, lambda recipe: cost_s * len(names))
        chosen = climb.chosen(timing_seconds / 2)
        pace.begin("the verdict: interleaved timing, and the test split, read once")
        verdict = _verdict(climb, chosen, task, study.device, timing_seconds)
        study = replace(study, trials=tuple(climb.trials), verdict=verdict, seconds=time.perf_counter() - began)
        best, study = _packed(climb.graphs[chosen.key], task, study, chosen, seed)
        store.close(study)
        if out is not None:
            best.save(Path(out) / "model.edgew")
            Result(best, study).report(Path(out) / "report.html")
        return Result(best, study)


def _engines(engines: Sequence[str] | None) -> tuple[str, ...]:
    installed = tuple(backends.installed())
    if engines is None:
        return installed
    for name in engines:
        backends.get(name)  # an unknown name has its own error
        if name not in installed and ":" not in name:
            raise InvalidInput(f"engine {name!r} isn't installed; installed are {', '.join(installed)}")
    return tuple(engines)


def dense_of(model: Any, task: TrainingTask, weights: str | Path | None) -> tuple[Intake, Graph]:
    """The model as it came and as a float graph; a torch model's graph is held against torch on real samples."""
    if isinstance(model, Graph):
        return Intake("graph", "model", graph=model), model
    if isinstance(model, Intake):
        source = model
    elif isinstance(model, str | Path):
        source = intake(model, weights=weights)
    else:
        source = Intake("module", type(model).__name__, module=model)
    if source.graph is not None:
        return source, source.graph
    from edgewise import export

    if source.program is not None:
        graph = export.export_program(source.program)
        runs: Any = source.program
    elif source.module is not None:
        graph = export.export(source.module, task.example_inputs(2), output_names=["logits"])
        runs = source.module
    else:
        raise InvalidInput(f"{source.name}: neither a module, a graph nor a program; see models.intake")
    names = [spec.name for spec in graph.signature.inputs]
    example = dict(zip(names, task.example_inputs(8).values(), strict=True))
    export.parity(runs, graph, example)
    return source, graph


def bound_to(task: Any, dense: Graph) -> Any:
    """The task as this model takes it: its input's name, its layout; a task without such a way only gets the name."""
    if hasattr(task, "for_model"):
        return task.for_model(dense.signature)
    return task.with_input(dense.signature.inputs[0].name)


def _self_labelled(task: Any, dense: Graph, names: Sequence[str], threads: int, splits: Sequence[str]) -> Any:
    """Without labels, what the dense model answers in true fp32 stands as the truth: the metric becomes agreement with it."""
    runner = backends.load(dense.to_bytes(), Execution(names[0], "fp32", threads))
    try:
        answers = {name: measure.collect(runner, task.split(name)) for name in splits}
    finally:
        runner.close()
    classes = next(iter(answers.values())).shape[1]
    labels = task.labels or tuple(str(i) for i in range(classes))
    return task.with_targets({name: outputs.argmax(axis=1) for name, outputs in answers.items()}, labels)


def _verdict(climb: search.Climb, chosen: Trial, task: Any, device: Device, timing_seconds: float) -> Verdict:
    """The chosen model against the reference: fresh interleaved timing, and the test split, opened here and nowhere else."""
    graph, reference = climb.graphs[chosen.key], climb.reference.subject
    open_task = task.unsealed()
    if open_task.split("test").targets is None:
        open_task = _self_labelled(open_task, climb.dense, [reference.execution.backend], reference.execution.threads, ("test",))
    split = open_task.split("test")
    dense_outputs = climb.bench.outputs(climb.dense, reference.execution, split)
    chosen_outputs = climb.bench.outputs(graph, chosen.execution, split)
    dense_quality = metrics.quality(open_task.metric, split.name, dense_outputs, split.targets, open_task.labels)
    chosen_quality = metrics.quality(open_task.metric, split.name, chosen_outputs, split.targets, open_task.labels)
    drop = metrics.paired(dense_quality, chosen_quality)
    subject = Subject(graph.to_bytes(), chosen.execution)
    # New processes every ten pairs: where memory happens to lie in one moves a tiny model's time by a percent or two.
    speedup = measure.compare(reference, subject, climb.bench.inputs, device, max_seconds=timing_seconds, min_pairs=40, renew_pairs=10)
    profiles = [
        measure.profile(side.model, side.execution, climb.bench.inputs, device, work=measure.work(of, climb.bench.inputs))
        for side, of in ((subject, graph), (reference, climb.dense))
    ]
    limits = outcomes(climb.budget, speedup, profiles[0], chosen.size_bytes or 0, drop, dense_quality.value.value)
    return Verdict(
        trial=chosen.key,
        met=all(outcome.met for outcome in limits),
        outcomes=limits,
        speedup=speedup,
        measurement=profiles[0],
        reference_measurement=profiles[1],
        quality=chosen_quality,
        reference_quality=dense_quality,
        drop=drop,
        summary="",
    )


def _packed(graph: Graph, task: Any, study: Study, chosen: Trial, seed: int) -> tuple[package.Package, Study]:
    """The package with its own size in its verdict: built again until the size that it states is the size that it has."""
    verdict = study.verdict
    if verdict is None:
        raise ValueError("a study is packed after its verdict")
    size = chosen.size_bytes or 0
    provenance = package.Provenance(
        model=study.model.name,
        source_sha256=study.model.sha256,
        recipe=chosen.recipe,
        study=study.notes[0],
        data=study.data,
        device=replace(study.device, peaks=()),
        versions=dict(study.versions),
        reference=study.trial(study.reference).execution,
        reference_sha256=study.model.sha256,
        seed=seed,
    )
    best: package.Package | None = None
    for _ in range(8):
        if best is not None and best.size_bytes == size:
            break
        size = best.size_bytes if best is not None else size
        limits = tuple(_sized(outcome, size) for outcome in verdict.outcomes)
        measurement = replace(verdict.measurement, size_bytes=size)
        verdict = replace(verdict, outcomes=limits, met=all(outcome.met for outcome in limits), measurement=measurement)
        verdict = replace(verdict, summary=sentence(verdict, study))
        best = package.build(
            graph,
            created=study.created,
            preprocess=getattr(task, "preprocess", None),
            postprocess=getattr(task, "postprocess", None),
            labels=task.labels if getattr(task, "postprocess", None) is None else (),
            execution=chosen.execution,
            provenance=provenance,
            measured=package.Measured.of(verdict),
        )
    if best is None:
        raise ValueError("the package was not built")
    return best, replace(study, verdict=verdict)


def _package(graph: Graph, task: Any, name: str) -> package.Package:
    """A package around `graph` without a verdict: what a trial's size is read from (the verdict's figures add about 4 kB)."""
    return package.build(
        graph,
        created="",
        preprocess=getattr(task, "preprocess", None),
        postprocess=getattr(task, "postprocess", None),
        provenance=package.Provenance(model=name, data=task.summary()),
    )


def _sized(outcome: Outcome, size: int) -> Outcome:
    if outcome.limit != "size_bytes":
        return outcome
    return replace(outcome, got=replace(outcome.got, value=size, low=size, high=size), met=size <= outcome.asked)


def sentence(verdict: Verdict, study: Study) -> str:
    """The verdict in one sentence."""
    ratio, drop = verdict.speedup.ratio, verdict.drop.difference
    chosen = study.trial(verdict.trial)
    figures = (
        f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] faster, {drop.value * 100:+.2f} points "
        f"[{drop.low * 100:+.2f}, {drop.high * 100:+.2f}] of {verdict.quality.metric} on {drop.n} test samples"
    )
    made = f"{chosen.recipe or 'the dense model'} on {chosen.execution}"
    if verdict.met:
        return f"The budget is met: {figures} ({made})."
    missed = "; ".join(_missed(outcome) for outcome in verdict.outcomes if not outcome.met)
    return f"The budget is missed: {missed}. The nearest point: {figures} ({made})."


def _missed(outcome: Outcome) -> str:
    got, asked = outcome.got.value, outcome.asked
    match outcome.limit:
        case "speedup":
            return f"{asked:g}x was asked and {got:.2f}x reached"
        case "max_drop":
            return f"a drop of {asked * 100:.2f} points was allowed and {got * 100:.2f} were lost"
        case "latency_ms":
            return f"{asked:g} ms were allowed and {got:.3g} ms taken"
        case "energy_mj":
            return f"{asked:g} mJ were allowed and {got:.3g} mJ spent"
        case _:
            return f"{outcome.limit.removesuffix('_bytes')}: {asked / 1e3:,.0f} kB were allowed and {got / 1e3:,.0f} kB needed"


def _thread_counts(cores: int) -> tuple[int, ...]:
    """1, 2, 4 … up to all cores."""
    counts = [1]
    while counts[-1] * 2 <= cores:
        counts.append(counts[-1] * 2)
    return tuple(sorted({*counts, cores}))


def _versions(names: Sequence[str]) -> dict[str, str]:
    found = {"edgewise": __version__, "python": platform.python_version()}
    for name in ("numpy", "onnx", "torch", *names):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _with_peaks(device: Device, threads: int, pace: search.Pace) -> Device:
    if any(peaks.threads == threads for peaks in device.peaks):
        return device
    pace.begin("the device's peaks, for the roofline")
    return replace(device, peaks=(*device.peaks, measure.peaks(device, threads)))


def _estimate(operations: int, samples: Any) -> float:
    """Seconds for one recipe on one engine: quantizing on the calibration samples, answering the validation split, racing."""
    fed = 6 * samples.get("calibration", 0) + samples.get("validation", 0)
    return RACE_SECONDS + fed * operations / 1e9 * SECONDS_PER_GMAC


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
