"""Which trial to take: pure functions of records, so that a choice can be checked without measuring anything."""

from __future__ import annotations

from collections.abc import Iterable

from edgewise.records import Interval, Measurement, Outcome, PairedDifference, Speedup, Trial
from edgewise.types import SPEED_TOLERANCE, Budget


def outcomes(
    budget: Budget, speedup: Speedup, measurement: Measurement | None, size_bytes: int, drop: PairedDifference, reference_metric: float
) -> tuple[Outcome, ...]:
    """Every limit that binds, against what was reached. A speed target counts as met from 2 % below.

    `reference_metric`: of the reference on the same split, for a relative drop. Limits that need a `measurement` are left out without one.
    """
    found = []
    if budget.speedup is not None:
        met = speedup.ratio.value >= budget.speedup * (1 - SPEED_TOLERANCE)
        found.append(Outcome("speedup", budget.speedup, speedup.ratio, met, "x"))
    if measurement is not None:
        n = len(measurement.latency.samples_ms)
        if budget.latency_ms is not None:
            reached = measurement.latency.percentile(float(budget.percentile.removeprefix("p")))
            met = reached <= budget.latency_ms * (1 + SPEED_TOLERANCE)
            found.append(Outcome("latency_ms", budget.latency_ms, _exact(reached, n), met, "ms"))
        if budget.memory_bytes is not None:
            memory = measurement.peak_memory_bytes
            found.append(Outcome("memory_bytes", budget.memory_bytes, _exact(memory, 1), memory <= budget.memory_bytes, "bytes"))
        if budget.energy_mj is not None:
            spent = measurement.energy_mj
            got = _exact(spent, n) if spent is not None else Interval(float("inf"), float("inf"), float("inf"), 0)
            met = spent is not None and spent <= budget.energy_mj
            found.append(Outcome("energy_mj", budget.energy_mj, got, met, "mJ", measurement.energy_source))
    if budget.size_bytes is not None:
        found.append(Outcome("size_bytes", budget.size_bytes, _exact(size_bytes, 1), size_bytes <= budget.size_bytes, "bytes"))
    lost = drop.difference
    got = Interval(-lost.value, -lost.high, -lost.low, lost.n, lost.confidence)
    allowed = budget.allowed_drop(reference_metric)
    # A drop is a count over n: a billionth more than the limit is floating point, not a sample.
    found.append(Outcome("max_drop", allowed, got, got.value <= allowed + 1e-9, "points"))
    return tuple(found)


def _exact(value: float, n: int) -> Interval:
    return Interval(value, value, value, n)


def shortfall(found: Iterable[Outcome]) -> float:
    """How far from the budget: the sum of the relative misses, 0 when all limits are met. A drop counts per point allowed, at least one."""
    total = 0.0
    for outcome in found:
        if outcome.met:
            continue
        if outcome.limit == "speedup":
            total += outcome.asked / outcome.got.value - 1
        elif outcome.limit == "max_drop":
            total += (outcome.got.value - outcome.asked) / max(outcome.asked, 0.01)
        else:
            total += outcome.got.value / outcome.asked - 1
    return total


def accuracy_first(trial: Trial) -> tuple[float, float, float]:
    """Sort key among trials that meet the budget: most accurate, then nearest to the reference, then fastest."""
    if trial.quality is None or trial.speedup is None:
        raise ValueError(f"trial {trial.key} is not measured")
    return (-trial.quality.value.value, trial.divergence if trial.divergence is not None else 0.0, -trial.speedup.ratio.value)


def best(trials: Iterable[Trial], budget: Budget, reference_metric: float) -> Trial:
    """The most accurate trial within the budget, or the one nearest to it. All of `trials` are measured, and there is at least one."""
    rated = [(shortfall(outcomes_of(trial, budget, reference_metric)), trial) for trial in trials]
    return min(rated, key=lambda pair: (pair[0], *accuracy_first(pair[1])))[1]


def outcomes_of(trial: Trial, budget: Budget, reference_metric: float) -> tuple[Outcome, ...]:
    """`outcomes` on what a trial measured."""
    if trial.speedup is None or trial.drop is None or trial.size_bytes is None:
        raise ValueError(f"trial {trial.key} is not measured")
    return outcomes(budget, trial.speedup, trial.measurement, trial.size_bytes, trial.drop, reference_metric)
