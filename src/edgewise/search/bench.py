"""The bench of a search: what a trial needs to be judged, held in one place, and the two ways to judge it (quality, then time).

A task may name several shapes (a text's lengths): a model is then timed at each, and has to be as fast as asked at all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
from edgewise.records import Conditions, Device, Interval, Quality, ShapeSpeedup, Speedup, Trial
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
    """What is 1.0x, and what it answers on the validation split: every candidate is held against it.

    subjects: for each of the bench's shapes the dense model on the engine that is fastest there, all with one thread count.
    """

    subjects: tuple[Subject, ...]
    outputs: np.ndarray  # (samples, classes)
    quality: Quality

    @property
    def subject(self) -> Subject:
        """At the bench's `inputs`."""
        return self.subjects[-1]


# What is timed: the same at every shape, one for each, or the reference.
Side = Subject | tuple[Subject, ...] | Reference


@dataclass(frozen=True)
class Bench:
    """task: its validation split decides. shapes: one sample each, smallest first, all of them timed. origin: what every key covers
    besides the recipe.

    package: makes of a graph, and of engines' own forms of it, what a trial's size is read from.
    """

    store: Store
    task: Task
    device: Device
    shapes: tuple[Inputs, ...]
    origin: tuple[str, ...]
    package: Callable[[Graph, Forms], Package]
    calibration: Callable[[], list[Inputs]]
    refused: dict[str, str] = field(default_factory=dict)  # forms that couldn't be made, by key, and why

    @property
    def inputs(self) -> Inputs:
        """The largest shape: latency in milliseconds, memory and energy are measured at it."""
        return self.shapes[-1]

    def race(self, sides: Sequence[Side], **options: Any) -> list[tuple[Contender, ...]]:
        """A race (see `measure.race`) at every shape: for each side its part in each. Ratios are to the first side."""
        races = [measure.race([_at(side, i) for side in sides], shape, self.device, **options) for i, shape in enumerate(self.shapes)]
        return [*zip(*races, strict=True)]

    def compare(self, reference: Side, candidate: Side, *, max_seconds: float, **options: Any) -> tuple[Speedup, ...]:
        """A speedup (see `measure.compare`) at every shape; max_seconds: for all of them."""
        each = max_seconds / len(self.shapes)
        return tuple(
            measure.compare(_at(reference, i), _at(candidate, i), shape, self.device, max_seconds=each, **options)
            for i, shape in enumerate(self.shapes)
        )

    def told(self, fastest: Sequence[Subject], speedups: Sequence[Speedup]) -> tuple[ShapeSpeedup, ...]:
        """What is recorded of several shapes; nothing of one. fastest: what was held against, at each."""
        if len(self.shapes) < 2:
            return ()
        return tuple(
            ShapeSpeedup(
                {name: array.shape for name, array in shape.items()},
                subject.execution,
                one.ratio,
                float(np.median(one.reference_ms)),
                float(np.median(one.candidate_ms)),
            )
            for shape, subject, one in zip(self.shapes, fastest, speedups, strict=True)
        )

    def package_bytes(self, graph: Graph) -> int:
        """Kept in the study: to code a table of words takes longer than much else that a resumed search goes through again."""
        name = key(*self.origin, "package bytes", graph.sha256)
        known: int | None = self.store.noted(name)
        if known is None:
            known = self.package(graph, {}).size_bytes
            self.store.note(name, known)
        return known

    def model(self, graph: Graph, execution: Execution, split: Split | None = None, *, shape: Inputs | None = None) -> bytes:
        """What the execution's engine loads: the graph, or a form of its own, made once and kept.

        Such a form is for `shape` (the largest that is timed, unless given); with `split`, for the longest of its samples where they are
        longer. Raises what its maker does, at once where that failed before.
        """
        if backends.form(execution.backend) == backends.ONNX:
            return graph.to_bytes()
        sizes = signatures.bound_axes(graph.signature, self.inputs if shape is None else shape)
        if split is not None:
            sizes = self._longest(graph, split, sizes)
        name = key("form", execution.backend, graph.sha256, sorted(sizes.items()))
        if name in self.refused:
            raise InvalidModel(self.refused[name])
        try:
            return self.store.form(name, lambda: model_for(graph, self._samples(graph, sizes), execution, sizes))
        except InvalidModel as error:
            self.refused[name] = str(error)
            raise

    def _samples(self, graph: Graph, sizes: Mapping[str, int]) -> list[Inputs]:
        """What a form of these sizes is held against: the timed shapes, then calibration samples, cut where they are longer."""
        batch = graph.signature.inputs[0].shape[:1]
        most = {axis: size for axis, size in sizes.items() if axis not in batch}
        found: list[Inputs] = []
        for inputs in (*self.shapes, *self.calibration()):
            own = signatures.bound_axes(graph.signature, inputs)
            found.append(signatures.resized(graph.signature, inputs, {axis: min(size, own[axis]) for axis, size in most.items()}))
        return found

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

    def subjects(self, graph: Graph, execution: Execution) -> tuple[Subject, ...]:
        """What is timed, at each shape: a form of the engine's own is one for just that shape. Raises as `model` does."""
        if backends.form(execution.backend) == backends.ONNX:
            return (Subject(graph.to_bytes(), execution),) * len(self.shapes)
        return tuple(Subject(self.model(graph, execution, shape=shape), execution) for shape in self.shapes)

    def answers(self, graph: Graph, execution: Execution, split: Split) -> np.ndarray:
        """`measure.answers`, with the engine's own form where it has one."""
        return measure.answers(graph, execution, split, self.model(graph, execution, split))

    def forms(self, graph: Graph, execution: Execution) -> dict[str, OwnForm]:
        """What goes into a package beside the graph: a form for each shape that is timed, and one for the longest in validation.

        The smallest first: whoever runs the package takes the first that an input fits into.
        """
        engine = execution.backend
        if backends.form(engine) == backends.ONNX:
            return {}
        timed = (self.model(graph, execution, shape=shape) for shape in self.shapes)
        made = dict.fromkeys((*timed, self.model(graph, execution, self.task.split("validation"))))
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
            group: list[Trial] = []
            sides: list[Side] = [reference]
            for trial in waiting[start : start + size]:
                try:
                    sides.append(self.subjects(graphs[trial.key], trial.execution))
                    group.append(trial)
                except EdgewiseError as error:
                    done[trial.key] = self.store.keep(replace(trial, state="failed", reason=str(error)))
            if not group:
                continue
            started = time.perf_counter()
            first, *others = self.race(sides)
            spent = (time.perf_counter() - started) / len(group)
            for trial, other in zip(group, others, strict=True):
                done[trial.key] = self.store.keep(self.raced(trial, reference, first, other, spent))
        return [done[trial.key] for trial in trials]

    def prove(self, trial: Trial, graph: Graph, reference: Reference, *, max_seconds: float = 40) -> Trial:
        """The same trial with a speedup from interleaved pairs, to a half-width of 1 % if that much time is enough; and its own figures."""
        if trial.measurement is not None and trial.speedup is not None:
            return trial
        started = time.perf_counter()
        subjects = self.subjects(graph, trial.execution)
        speedups = self.compare(reference, subjects, max_seconds=max_seconds)
        subject = subjects[-1]
        found = measure.profile(subject.model, subject.execution, self.inputs, self.device, work=measure.work(graph, self.inputs))
        spent = trial.seconds + time.perf_counter() - started
        proved = replace(trial, state="measured", reason="", speedup=worst(speedups), measurement=found, seconds=spent)
        return self.store.keep(replace(proved, shapes=self.told(reference.subjects, speedups)))

    def raced(self, trial: Trial, reference: Reference, first: Sequence[Contender], own: Sequence[Contender], seconds: float) -> Trial:
        """`trial` with what its race told of it."""
        spent = trial.seconds + seconds
        if failed := [one.failed or "no block could be timed" for one in own if one.ratio is None or one.failed]:
            return replace(trial, state="failed", reason=failed[0], seconds=spent)
        speedups = [race_speedup(before, one, seconds / len(own)) for before, one in zip(first, own, strict=True)]
        reason = "clearly slower than another in its race" if any(one.dropped for one in own) else "quick timing only"
        return replace(trial, speedup=worst(speedups), reason=reason, seconds=spent, shapes=self.told(reference.subjects, speedups))


def shapes_of(task: Any) -> tuple[Inputs, ...]:
    """One sample of every shape that the task wants timed, smallest first: `task.timed_inputs()`, else its example."""
    named: Sequence[Inputs] = task.timed_inputs() if hasattr(task, "timed_inputs") else ()
    return tuple(sorted(named, key=lambda inputs: sum(array.size for array in inputs.values()))) or (task.example_inputs(1),)


def _at(side: Side, shape: int) -> Subject:
    each = side.subjects if isinstance(side, Reference) else side
    return each[shape] if isinstance(each, tuple) else each


def worst(speedups: Sequence[Speedup]) -> Speedup:
    """The one that decides whether a model is fast enough."""
    return min(speedups, key=lambda one: one.ratio.value)


def least(contenders: Sequence[Contender]) -> Interval | None:
    """A side's ratio where it is least; None where it couldn't run at some shape."""
    ratios = [one.ratio for one in contenders]
    return None if None in ratios else min((ratio for ratio in ratios if ratio), key=lambda ratio: ratio.value)


def race_speedup(first: Contender, other: Contender, seconds: float) -> Speedup:
    rounds = min(len(first.block_ms), len(other.block_ms))
    pairs = tuple(a / b for a, b in zip(first.block_ms[:rounds], other.block_ms[:rounds], strict=True))
    ratio = other.ratio or Interval(1.0, 1.0, 1.0, rounds)
    conditions: tuple[Conditions | None, Conditions | None] = (first.conditions, other.conditions)
    if conditions[0] is None or conditions[1] is None:
        raise ValueError("a contender that ran has conditions")
    conclusive = ratio.half_width <= 0.01 * ratio.value
    return Speedup(ratio, pairs, first.block_ms[:rounds], other.block_ms[:rounds], conclusive, seconds, conditions[0], conditions[1])
