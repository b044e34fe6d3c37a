"""The verdict: the chosen model against the reference, on the test split, which is opened here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgewise import backends, measure
from edgewise.data import metrics
from edgewise.errors import EdgewiseError
from edgewise.graph import Graph
from edgewise.measure import Subject
from edgewise.records import Device, Interval, Outcome, Study, Trial, Verdict
from edgewise.search.bench import worst
from edgewise.search.choose import outcomes
from edgewise.search.climb import Climb
from edgewise.types import Execution, Split


def verdict(climb: Climb, chosen: Trial, task: Any, device: Device, timing_seconds: float) -> Verdict:
    """The chosen model against the reference: fresh interleaved timing, and the test split, opened here and nowhere else."""
    graph, bench, reference = climb.graphs[chosen.key], climb.bench, climb.reference.subject
    open_task = opened(task, climb)
    split = open_task.split("test")
    dense_outputs = bench.answers(climb.dense, reference.execution, split)
    chosen_outputs = bench.answers(graph, chosen.execution, split)
    dense_quality = metrics.quality(open_task.metric, split.name, dense_outputs, split.targets, open_task.labels)
    chosen_quality = metrics.quality(open_task.metric, split.name, chosen_outputs, split.targets, open_task.labels)
    drop = metrics.paired(dense_quality, chosen_quality)
    subjects = bench.subjects(graph, chosen.execution)
    # New processes every ten pairs: where memory happens to lie in one moves a tiny model's time by a percent or two.
    seconds = timing_seconds * len(bench.shapes)
    speedups = [
        # The reference itself is 1x by definition; what the clock sees between two copies of it is the clock's own.
        replace(one, ratio=Interval(1.0, 1.0, 1.0, one.ratio.n, one.ratio.confidence), conclusive=True)
        if (graph.sha256, chosen.execution) == (climb.dense.sha256, side.execution)
        else one
        for side, one in zip(
            climb.reference.subjects,
            bench.compare(climb.reference, subjects, max_seconds=seconds, min_pairs=40, renew_pairs=10),
            strict=True,
        )
    ]
    speedup = worst(speedups)
    profiles = [
        measure.profile(side.model, side.execution, bench.inputs, device, work=measure.work(of, bench.inputs))
        for side, of in ((subjects[-1], graph), (reference, climb.dense))
    ]
    climb.notes += _checked(subjects[-1], split, device, open_task.labels)
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
        shapes=bench.told(climb.reference.subjects, speedups),
    )


def _checked(subject: Subject, split: Split, device: Device, labels: Sequence[str]) -> list[str]:
    """Whether the device gives the answers that accuracy was taken of, in words; nothing of this machine."""
    try:
        spot = measure.spot_check(subject, split, device, labels)
    except EdgewiseError as error:
        return [f"its answers on {device.name} were not checked: {error}"]
    return [] if spot is None else [spot.told(device.name)]


def opened(task: Any, climb: Climb) -> Any:
    """The task with its test split, labelled by the dense model where nobody else did."""
    execution, open_task = climb.reference.subject.execution, task.unsealed()
    if open_task.split("test").targets is None:
        return self_labelled(open_task, climb.dense, [execution.backend], execution.threads, ("test",))
    return open_task


def self_labelled(task: Any, dense: Graph, names: Sequence[str], threads: int, splits: Sequence[str]) -> Any:
    """Without labels, what the dense model answers in true fp32 stands as the truth: the metric becomes agreement with it."""
    execution = backends.plain(Execution(names[0], "fp32", threads))
    answers = {name: measure.answers(dense, execution, task.split(name)) for name in splits}
    if hasattr(task, "with_answers"):
        return task.with_answers(answers)
    classes = next(iter(answers.values())).shape[1]
    labels = task.labels or tuple(str(i) for i in range(classes))
    return task.with_targets({name: outputs.argmax(axis=1) for name, outputs in answers.items()}, labels)


def sentence(verdict: Verdict, study: Study) -> str:
    """The verdict in one sentence."""
    ratio, drop = verdict.speedup.ratio, verdict.drop.difference
    chosen = study.trial(verdict.trial)
    figures = (
        f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] faster, {drop.value * 100:+.2f} points "
        f"[{drop.low * 100:+.2f}, {drop.high * 100:+.2f}] of {verdict.quality.metric} on {drop.n} test samples"
    )
    figures += "".join(
        f", {_energy(outcome)} per inference" for outcome in verdict.outcomes if outcome.limit == "energy_mj" and outcome.met
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
            return f"{asked:g} mJ were allowed and {_energy(outcome)} spent"
        case _:
            return f"{outcome.limit.removesuffix('_bytes')}: {asked / 1e3:,.0f} kB were allowed and {got / 1e3:,.0f} kB needed"


def _energy(outcome: Outcome) -> str:
    """With how it is known: a meter's name, or the model that was stated."""
    return f"{outcome.got.value:.3g} mJ" + (f" ({outcome.source})" if outcome.source else "")
