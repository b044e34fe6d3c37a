"""The race that finds the reference: the dense model in true fp32 on every engine of the set. The fastest is 1.0x."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from edgewise.errors import EdgewiseError, InvalidInput, InvalidModel, MeasurementFailed
from edgewise.graph import Graph
from edgewise.measure import Contender, Subject
from edgewise.measure.interleave import ratio_to
from edgewise.records import Interval, Trial
from edgewise.search.bench import Bench, least, race_speedup, worst
from edgewise.search.store import key
from edgewise.types import Execution

REFERENCE = "the reference: 1.0x"
FASTEST = "fastest"  # the note of which execution is fastest at each shape


def engines(bench: Bench, dense: Graph, executions: Sequence[Execution], path: str) -> list[Trial]:
    """Trials of the dense model, each with its speedup over the fastest, at each shape over the one that is fastest there.

    The baseline is the fastest over all shapes (by the mean of its ratios' logarithms); its thread count is everybody's.
    """
    sides: list[tuple[Subject, ...]] = []
    trials: list[Trial] = []
    for execution in executions:
        try:
            sides.append(bench.subjects(dense, execution))
        except EdgewiseError as error:
            if len(executions) == 1:
                raise
            trials.append(bench.store.keep(Trial(bench.key("", execution), "engine", "", execution, "failed", reason=str(error))))
    if not sides:
        raise InvalidModel(f"no engine can take the model: {trials[0].reason}")
    while True:
        try:
            raced = bench.race(sides, min_rounds=12, rounds=24)
            break
        except (InvalidInput, MeasurementFailed) as error:
            # A race ends with its first subject's error; without that engine the others may still run.
            if len(sides) == 1:
                raise
            execution = sides.pop(0)[0].execution
            trials.append(bench.store.keep(Trial(bench.key("", execution), "engine", "", execution, "failed", reason=str(error))))
    ran = [one for one in raced if least(one) is not None]
    best = max(ran, key=lambda one: math.prod(_factor(contender) for contender in one))
    alike = [one for one in ran if one[0].subject.execution.threads == best[0].subject.execution.threads]
    first = [max((one[i] for one in alike), key=_factor) for i in range(len(bench.shapes))]
    bench.store.note(key(*bench.origin, FASTEST), [executions.index(one.subject.execution) for one in first])
    for own in raced:
        execution = own[0].subject.execution
        trial = Trial(bench.key("", execution), "engine", "", execution, "screened", artifact=path, reason="quick timing only")
        if failed := [one.failed or "no block could be timed" for one in own if one.ratio is None]:
            trials.append(bench.store.keep(replace(trial, state="failed", reason=failed[0])))
            continue
        pairs = [(a, replace(one, ratio=_ratio(a.block_ms, one.block_ms))) for a, one in zip(first, own, strict=True)]
        speedups = [race_speedup(a, one, 0.0) for a, one in pairs]
        trial = replace(trial, speedup=worst(speedups), shapes=bench.told([one.subject for one in first], speedups))
        if own is best:
            one = race_speedup(own[-1], own[-1], 0.0)
            whole = Interval(1.0, 1.0, 1.0, len(own[-1].block_ms))
            trial = replace(trial, state="measured", reason=REFERENCE, speedup=replace(one, ratio=whole, conclusive=True))
        trials.append(bench.store.keep(trial))
    return trials


def fastest(bench: Bench, dense: Graph, executions: Sequence[Execution], baseline: Trial) -> tuple[Subject, ...]:
    """For each shape the dense model on the engine that `engines` found fastest there; executions: the same that it was given."""
    numbers: list[int] = bench.store.noted(key(*bench.origin, FASTEST)) or [executions.index(baseline.execution)] * len(bench.shapes)
    subjects = {number: bench.subjects(dense, executions[number]) for number in numbers}
    return tuple(subjects[number][i] for i, number in enumerate(numbers))


def _factor(contender: Contender) -> float:
    return contender.ratio.value if contender.ratio else 0.0


def _ratio(first: Sequence[float], other: Sequence[float]) -> Interval:
    return ratio_to(list(first), list(other))
