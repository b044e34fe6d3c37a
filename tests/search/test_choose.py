import itertools

import pytest

from edgewise.records import Conditions, Interval, Latency, Measurement, PairedDifference, Quality, Speedup, Trial
from edgewise.search.choose import best, outcomes, outcomes_of, shortfall
from edgewise.types import Budget, Execution

CONDITIONS = Conditions("here", "engine 1", 1, (0,), None, None, None, None, "2026-01-01")
count = itertools.count()


def interval(value: float) -> Interval:
    return Interval(value, value - 0.01, value + 0.01, 100)


def speedup(value: float) -> Speedup:
    return Speedup(interval(value), (value,), (1.0,), (1.0,), True, 1.0, CONDITIONS, CONDITIONS)


def measurement(ms: float = 1.0, memory: int = 1000, energy: float | None = None) -> Measurement:
    return Measurement(Execution("e"), CONDITIONS, Latency((ms,) * 10), 1.0, 1.0, 10, memory, energy_mj=energy)


def trial(faster: float, accuracy: float, size: int = 100, reference: float = 0.9, **more) -> Trial:
    drop = PairedDifference(interval(accuracy - reference), 0, 0, 1.0, 0.01)
    quality = Quality("accuracy", "validation", interval(accuracy), ())
    return Trial(
        str(next(count)), "int8", "r", Execution("e"), "measured", size_bytes=size, quality=quality, drop=drop,
        speedup=speedup(faster), **more,
    )  # fmt: skip


def test_most_accurate_within_the_budget_not_the_fastest():
    slow, good, fast = trial(1.9, 0.9), trial(2.1, 0.895), trial(4.0, 0.892)
    assert best([slow, fast, good], Budget(speedup=2, max_drop=0.01), 0.9) is good


def test_a_faster_one_wins_only_a_tie():
    one, two = trial(2.1, 0.89), trial(3.0, 0.89)
    assert best([one, two], Budget(speedup=2), 0.9) is two


def test_speed_is_met_from_two_percent_below():
    limits = outcomes_of(trial(1.96, 0.9), Budget(speedup=2), 0.9)
    assert [outcome.met for outcome in limits] == [True, True]
    assert not outcomes_of(trial(1.959, 0.9), Budget(speedup=2), 0.9)[0].met


def test_the_nearest_point_when_nothing_fits():
    near, far, poor = trial(1.5, 0.9), trial(1.2, 0.9), trial(3.0, 0.5)
    assert best([far, poor, near], Budget(speedup=2), 0.9) is near


def test_every_limit_is_held_together():
    budget = Budget(speedup=2, latency_ms=1, size_bytes=100, memory_bytes=1000, energy_mj=5, max_drop=0.01)
    fits = outcomes(budget, speedup(2), measurement(1.0, 1000, 5.0), 100, trial(2, 0.89).drop, 0.9)
    assert {outcome.limit for outcome in fits} == {"speedup", "latency_ms", "size_bytes", "memory_bytes", "energy_mj", "max_drop"}
    assert all(outcome.met for outcome in fits)
    misses = outcomes(budget, speedup(1), measurement(2.0, 2000, None), 200, trial(2, 0.8).drop, 0.9)
    assert not any(outcome.met for outcome in misses)
    assert shortfall(misses) > shortfall(fits) == 0


def test_a_percentile_is_the_one_asked_for():
    spread = Measurement(Execution("e"), CONDITIONS, Latency(tuple(range(1, 101))), 1.0, 1.0, 10, 1)
    got = {
        percentile: outcomes(Budget(latency_ms=60, percentile=percentile), speedup(1), spread, 1, trial(1, 0.9).drop, 0.9)[0]
        for percentile in ("p50", "p95")
    }
    assert got["p50"].met and not got["p95"].met
    assert got["p95"].got.value == pytest.approx(95.05)


def test_a_relative_drop_is_a_share_of_the_reference():
    budget = Budget(max_drop=0.01, relative_drop=True)
    assert outcomes_of(trial(1, 0.896, reference=0.9), budget, 0.5)[0].asked == pytest.approx(0.005)
    assert outcomes_of(trial(1, 0.8951, reference=0.9), budget, 0.5)[0].met
    assert not outcomes_of(trial(1, 0.8949, reference=0.9), budget, 0.5)[0].met


def test_a_trial_that_was_not_timed_is_no_choice():
    with pytest.raises(ValueError, match="not measured"):
        outcomes_of(Trial("k", "int8", "", Execution("e"), "screened"), Budget(), 0.9)
