"""The bench of a search: what a trial needs to be judged, held in one place, and the two ways to judge it (quality, then time)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgewise import backends, measure
from edgewise import recipe as recipes
from edgewise.backends import signature as signatures
from edgewise.data import metrics
from edgewise.errors import EdgewiseError, InvalidModel
from edgewise.export.forms import model_for
from edgewise.graph import Graph
from edgewise.measure import Contender, Subject
from edgewise.package import OwnForm, Package
from edgewise.records import Conditions, Device, Interval, Quality, Speedup, Trial
from edgewise.search.store import Store, key
from edgewise.types import Execution, Inputs, Split, Task

Forms = Mapping[str, OwnForm]

# Engines held side by side in one race: each is a process with the model in it.
MOST_IN_A_RACE = 6


@dataclass(frozen=True)
class Candidate:
    """A graph under an execution, before it was judged. size_bytes: of its package, where a step on that was asked for."""

    rung: str
    recipe: str
    graph: Graph
    execution: Execution
    artifact: str
    touched: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    size_bytes: int | None = None


@dataclass(frozen=True)
class Reference:
    """What is 1.0x, and what it answers on the validation split: every candidate is held against it."""

    subject: Subject
    outputs: np.ndarray  # (samples, classes)
    quality: Quality


@dataclass(frozen=True)
class Bench:
    """task: its validation split decides. inputs: one sample, the shape that is timed. origin: what every key covers besides the recipe.

    package: makes of a graph, and of engines' own forms of it, what a trial's size is read from.
    """

    store: Store
    task: Task
    device: Device
    inputs: Inputs
    origin: tuple[str, ...]
    package: Callable[[Graph, Forms], Package]
    calibration: Callable[[], list[Inputs]]
    refused: dict[str, str] = field(default_factory=dict)  # forms that couldn't be made, by key, and why

    def package_bytes(self, graph: Graph) -> int:
        return self.package(graph, {}).size_bytes

    def model(self, graph: Graph, execution: Execution, split: Split | None = None) -> bytes:
        """What the execution's engine loads: the graph, or a form of its own, made once and kept.

        Such a form is for the shape that is timed; with `split`, for the longest of its samples where they are longer. Raises what its
        maker does, at once where that failed before.
        """
        if backends.form(execution.backend) == backends.ONNX:
            return graph.to_bytes()
        sizes = signatures.bound_axes(graph.signature, self.inputs)
        if split is not None:
            sizes = self._longest(graph, split, sizes)
        name = key("form", execution.backend, graph.sha256, sorted(sizes.items()))
        if name in self.refused:
            raise InvalidModel(self.refused[name])
        try:
            return self.store.form(name, lambda: model_for(graph, self.calibration(), execution, sizes))
        except InvalidModel as error:
            self.refused[name] = str(error)
            raise

    def _longest(self, graph: Graph, split: Split, sizes: Mapping[str, int]) -> dict[str, int]:
        """`sizes`, or what the axes behind the batch are at most in the split's samples."""
        batch = graph.signature.inputs[0].shape[:1]
        found = dict(sizes)
        if all(axis in batch for axis in sizes):
            return found
        for inputs, _ in split.batches(64):
            for axis, size in signatures.bound_axes(graph.signature, inputs).items():
                found[axis] = max(found[axis], size) if axis not in batch else found[axis]
        return found

    def subject(self, graph: Graph, execution: Execution) -> Subject:
        """What is timed. Raises as `model` does."""
        return Subject(self.model(graph, execution), execution)

    def answers(self, graph: Graph, execution: Execution, split: Split) -> np.ndarray:
        """`measure.answers`, with the engine's own form where it has one."""
        return measure.answers(graph, execution, split, self.model(graph, execution, split))

    def forms(self, graph: Graph, execution: Execution) -> dict[str, OwnForm]:
        """What goes into a package beside the graph: a form for the shape that is timed, and one for the longest in validation."""
        engine = execution.backend
        if backends.form(engine) == backends.ONNX:
            return {}
        made = dict.fromkeys((self.model(graph, execution), self.model(graph, execution, self.task.split("validation"))))
        return {f"{engine}-{number}" if number else engine: OwnForm(data, engine) for number, data in enumerate(made)}

    def _size_bytes(self, candidate: Candidate) -> int:
        """Of the candidate's package, with the steps of its recipe that are done to that."""
        forms = self.forms(candidate.graph, candidate.execution)
        if candidate.size_bytes is not None and not forms:
            return candidate.size_bytes
        _, packing = recipes.divided(recipes.parse(candidate.recipe))
        packed: Package = recipes.apply(packing, self.package(candidate.graph, forms)).model
        return packed.size_bytes

    def key(self, recipe: str, execution: Execution) -> str:
        return key(*self.origin, recipe, str(execution))

    def judge(self, candidate: Candidate, reference: Reference) -> Trial:
        """The candidate's quality on the validation split, paired with the reference; kept. Not timed yet (state "screened")."""
        name = self.key(candidate.recipe, candidate.execution)
        before = self.store.trial(name)
        if before is not None:
            return before
        started = time.perf_counter()
        trial = Trial(
            key=name,
            rung=candidate.rung,
            recipe=candidate.recipe,
            execution=candidate.execution,
            state="screened",
            reason="not timed",
            touched=candidate.touched,
            skipped=candidate.skipped,
            notes=candidate.notes,
            artifact=candidate.artifact,
        )
        try:
            trial = replace(trial, size_bytes=self._size_bytes(candidate))
            split = self.task.split("validation")
            outputs = self.answers(candidate.graph, candidate.execution, split)
            quality = metrics.quality(self.task.metric, split.name, outputs, split.targets, self.task.labels)
            trial = replace(
                trial,
                quality=quality,
                drop=metrics.paired(reference.quality, quality),
                divergence=measure.divergence(reference.outputs, outputs),
            )
        except EdgewiseError as error:
            trial = replace(trial, state="failed", reason=str(error))
        return self.store.keep(replace(trial, seconds=time.perf_counter() - started))

    def time(self, trials: Sequence[Trial], graphs: dict[str, Graph], reference: Reference) -> list[Trial]:
        """`trials` with a quick speedup against the reference, a race of a few at a time. Those timed before stay as they are."""
        done = {trial.key: trial for trial in trials}
        waiting = [trial for trial in trials if trial.state == "screened" and trial.speedup is None]
        size = MOST_IN_A_RACE - 1
        for start in range(0, len(waiting), size):
            group, subjects = [], [reference.subject]
            for trial in waiting[start : start + size]:
                try:
                    subjects.append(self.subject(graphs[trial.key], trial.execution))
                    group.append(trial)
                except EdgewiseError as error:
                    done[trial.key] = self.store.keep(replace(trial, state="failed", reason=str(error)))
            if not group:
                continue
            started = time.perf_counter()
            first, *others = measure.race(subjects, self.inputs, self.device)
            spent = (time.perf_counter() - started) / len(group)
            for trial, other in zip(group, others, strict=True):
                done[trial.key] = self.store.keep(raced(trial, first, other, spent))
        return [done[trial.key] for trial in trials]

    def prove(self, trial: Trial, graph: Graph, reference: Reference, *, max_seconds: float = 40) -> Trial:
        """The same trial with a speedup from interleaved pairs, to a half-width of 1 % if that much time is enough; and its own figures."""
        if trial.measurement is not None and trial.speedup is not None:
            return trial
        started = time.perf_counter()
        subject = self.subject(graph, trial.execution)
        speedup = measure.compare(reference.subject, subject, self.inputs, self.device, max_seconds=max_seconds)
        found = measure.profile(subject.model, subject.execution, self.inputs, self.device, work=measure.work(graph, self.inputs))
        spent = trial.seconds + time.perf_counter() - started
        return self.store.keep(replace(trial, state="measured", reason="", speedup=speedup, measurement=found, seconds=spent))


def raced(trial: Trial, first: Contender, other: Contender, seconds: float) -> Trial:
    """`trial` with what a race told of it."""
    spent = trial.seconds + seconds
    if other.failed or other.ratio is None or other.conditions is None or first.conditions is None:
        return replace(trial, state="failed", reason=other.failed or "no block could be timed", seconds=spent)
    speedup = race_speedup(first, other, seconds)
    reason = "clearly slower than another in its race" if other.dropped else "quick timing only"
    return replace(trial, speedup=speedup, reason=reason, seconds=spent)


def race_speedup(first: Contender, other: Contender, seconds: float) -> Speedup:
    rounds = min(len(first.block_ms), len(other.block_ms))
    pairs = tuple(a / b for a, b in zip(first.block_ms[:rounds], other.block_ms[:rounds], strict=True))
    ratio = other.ratio or Interval(1.0, 1.0, 1.0, rounds)
    conditions: tuple[Conditions | None, Conditions | None] = (first.conditions, other.conditions)
    if conditions[0] is None or conditions[1] is None:
        raise ValueError("a contender that ran has conditions")
    conclusive = ratio.half_width <= 0.01 * ratio.value
    return Speedup(ratio, pairs, first.block_ms[:rounds], other.block_ms[:rounds], conclusive, seconds, conditions[0], conditions[1])
