"""The main job: a model, a task, a budget and a device in; the most accurate model within the budget, as measured there, and the proof."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise import __version__, backends, devices, measure, package, report, search, tasks
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, summary
from edgewise.interrupts import interruptible
from edgewise.models import Intake
from edgewise.recipe import parse
from edgewise.records import Device, Outcome, Study, Trial
from edgewise.search.climb import INT8
from edgewise.search.origin import dense_of, structure_of, teacher_of
from edgewise.search.pace import Progress
from edgewise.search.store import key, write
from edgewise.search.verdict import self_labelled, sentence
from edgewise.search.verdict import verdict as judged
from edgewise.types import Budget

if TYPE_CHECKING:
    import torch

    from edgewise.tasks import TrainingTask

STUDY_FORMAT = 1

# Training after pruning, unless told otherwise: distill's batches.
BATCH, LEAST_EPOCHS, MOST_EPOCHS, LEAST_STEPS = 128, 8, 60, 1500

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
    epochs: int | None = None,
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
    epochs: of training after pruning, which is tried where engines and int8 alone don't reach the speedup; 0 never trains. Left out, 8, or
    as many as make 1,500 steps (at most 60).
    seed: of everything that draws at random. timing_seconds: the longest that the verdict's interleaved timing may take to come within 1 %
    (a candidate's gets half); what is wider after that is called inconclusive.

    Raises InvalidInput and its kind for what was given. A missed budget is no error here: `result.met` is False.
    """
    trained = _epochs(task) if epochs is None else epochs
    asked = _Asked(budget, device or devices.local(), threads, _engines(engines), out, weights, trained, seed, timing_seconds, "")
    return _found(model, task, asked, progress)


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
    progress: Progress | None = None,
) -> Result:
    """Make what `recipe` says of `model`, on the engine where it is fastest, and measure it against the reference as `fit` does.

    recipe: steps and their arguments, as prune(speedup=2) > distill(epochs=3) > quantize(). A speedup that `prune` is asked for is by a
    latency table of the form that the rest of the recipe makes, measured here. The other arguments are those of `fit`.

    Raises InvalidInput and its kind.
    """
    parse(recipe)
    nothing_lost = Budget(max_drop=1.0)
    asked = _Asked(nothing_lost, device or devices.local(), threads, _engines(engines), out, weights, 0, seed, timing_seconds, recipe)
    return _found(model, task, asked, progress)


@dataclass(frozen=True)
class _Asked:
    """What `fit` and `follow` were given; recipe: "" searches for one."""

    budget: Budget
    device: Device
    threads: int | None
    engines: tuple[str, ...]
    out: str | Path | None
    weights: str | Path | None
    epochs: int
    seed: int
    timing_seconds: float
    recipe: str

    def __post_init__(self) -> None:
        budget, device, threads = self.budget, self.device, self.threads
        if budget.energy_mj is not None and device.energy.startswith("none"):
            raise InvalidInput(
                f"energy_mj={budget.energy_mj} can't be held on {device.name}: energy is {device.energy}. Leave this limit out"
            )
        if not self.timing_seconds > 0:
            raise InvalidInput(f"timing_seconds={self.timing_seconds}: give a number above 0")
        if self.epochs < 0:
            raise InvalidInput(f"epochs={self.epochs}: give 0 (never train) or more")
        if threads is not None and not 1 <= threads <= device.cores:
            raise InvalidInput(f"threads={threads}: {device.name} has {device.cores} usable cores; give 1 to {device.cores}")


def _found(model: Any, task: Any, asked: _Asked, progress: Progress | None) -> Result:
    """The main job: reference, search (or the one recipe), verdict, package."""
    began = time.perf_counter()
    device, names, out = asked.device, asked.engines, asked.out
    with interruptible() as check, tempfile.TemporaryDirectory() as scratch:
        source, dense = dense_of(model, task, asked.weights)
        task = tasks.bound(task, dense.signature)
        store = search.Store(Path(out) / "study" if out is not None else Path(scratch), check)
        versions = _versions(names)
        counts = (asked.threads,) if asked.threads else _thread_counts(device.cores)
        origin = (dense.sha256, task.fingerprint(), device.key, repr(versions), str(asked.seed), repr(names), repr(counts))
        study_key = key(*origin, asked.budget, asked.epochs, asked.recipe)
        before = store.study()
        if before is not None and before.verdict is not None and before.notes[:1] == (study_key,):
            kept = Path(out) / "model.edgew" if out is not None else None
            if kept is not None and kept.exists():
                return Result(package.open(kept), before)
        if task.split("validation").targets is None:
            task = self_labelled(task, dense, names, counts[-1], ("validation",))
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
        structure = structure_of(source, task)
        climb = search.start(bench, dense, asked.budget, names, counts, pace, structure=structure, epochs=asked.epochs)
        climb.maker.supplies["teacher"] = teacher_of(dense, climb.baseline.execution)
        study = Study(
            format=STUDY_FORMAT,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            budget=asked.budget,
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
        if asked.recipe:
            search.follow(climb, asked.recipe)
            chosen = climb.fastest_of(asked.recipe, asked.timing_seconds / 2)
        else:
            search.run(climb, lambda recipe: cost_s * len(names))
            chosen = climb.chosen(asked.timing_seconds / 2)
        pace.begin("the verdict: interleaved timing, and the test split, read once")
        verdict = judged(climb, chosen, task, study.device, asked.timing_seconds)
        study = replace(
            study,
            trials=tuple(climb.trials),
            verdict=verdict,
            seconds=time.perf_counter() - began,
            notes=(study_key, *climb.notes),
            tables=tuple(climb.tables.values()),
            plans=tuple(climb.plans),
        )
        best, study = _packed(climb.graphs[chosen.key], task, study, chosen, asked.seed)
        store.close(study)
        if out is not None:
            best.save(Path(out) / "model.edgew")
            Result(best, study).report(Path(out) / "report.html")
        return Result(best, study)


def _epochs(task: TrainingTask) -> int:
    """Enough to recover from pruning: pictures in the ten thousands need few passes, a small set many."""
    steps = max(1, len(task.split("train")) // BATCH)
    return min(MOST_EPOCHS, max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps)))


def _engines(engines: Sequence[str] | None) -> tuple[str, ...]:
    installed = tuple(backends.installed())
    if engines is None:
        return installed
    for name in engines:
        backends.get(name)  # an unknown name has its own error
        if name not in installed and ":" not in name:
            raise InvalidInput(f"engine {name!r} isn't installed; installed are {', '.join(installed)}")
    return tuple(engines)


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
