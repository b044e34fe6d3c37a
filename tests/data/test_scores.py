"""Intervals of means and of metrics of a whole split: against scipy, leaving one out by hand, and how often they hold what is true."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from edgewise.data import metrics
from edgewise.data.intervals import wilson
from edgewise.data.scores import correlation_interval, difference, influence, influence_of_counts, mean_interval

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("n", [6, 30, 500])
def test_the_interval_of_a_mean_is_students(n: int) -> None:
    scores = RANDOM.uniform(0.2, 0.8, n)
    found = mean_interval(scores, -10, 10)
    wanted = stats.t.interval(0.95, n - 1, loc=scores.mean(), scale=stats.sem(scores))
    assert (found.low, found.high) == pytest.approx(wanted, abs=0.01 if n < 10 else 1e-4)
    assert (found.value, found.n) == (pytest.approx(scores.mean()), n)
    assert mean_interval(scores, 0.45, 0.55).low >= 0.45


def test_a_difference_is_students_paired_test() -> None:
    before = RANDOM.normal(size=200)
    after = before + RANDOM.normal(0.05, 0.3, 200)
    found, wanted = difference(before, after), stats.ttest_rel(after, before)
    low, high = wanted.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high), abs=1e-4)
    assert found.p_value == pytest.approx(wanted.pvalue, abs=5e-3)
    assert found.candidate_only_right == int((after > before).sum())
    # With what it calls detectable, a test at 5 % has 80 % power.
    sd = (after - before).std(ddof=1) / np.sqrt(200)
    assert stats.norm.cdf(found.detectable / sd - 1.96) == pytest.approx(0.8, abs=0.01)


def test_equal_answers_prove_no_more_than_their_number() -> None:
    scores = RANDOM.uniform(0, 1, 400)
    same = difference(scores, scores)
    assert same.difference.value == 0 and same.p_value == 1.0 and same.detectable > 0
    span = scores.max() - scores.min()
    assert same.difference.high == pytest.approx(span * (1 - wilson(400, 400).low)) and same.difference.low == -same.difference.high
    assert mean_interval(np.ones(50), 0, 1).low == pytest.approx(wilson(50, 50).low)


def test_influence_is_what_leaving_one_out_does() -> None:
    values = RANDOM.normal(size=40)
    left_out = np.array([np.delete(values, i).mean() for i in range(40)])
    np.testing.assert_allclose(influence(float(values.mean()), left_out), values)


@pytest.mark.parametrize("metric", ["f1", "macro-f1", "matthews"])
def test_influence_of_counts(metric: str) -> None:
    known = RANDOM.integers(0, 2, 60)
    outputs = RANDOM.normal(size=(60, 2))
    outputs[np.arange(60), known] += 1

    def value(kept: np.ndarray) -> float:
        return metrics.quality(metric, "s", outputs[kept], known[kept], ()).value.value

    every = np.arange(60)
    wanted = influence(value(every), np.array([value(np.delete(every, i)) for i in every]))
    found = metrics.quality(metric, "s", outputs, known, ())
    np.testing.assert_allclose(found.scores, wanted, atol=1e-9)
    assert np.mean(found.scores) == pytest.approx(found.value.value)


def test_it_agrees_with_the_bootstrap() -> None:
    known = RANDOM.integers(0, 2, 400)
    predicted = np.where(RANDOM.random(400) < 0.8, known, 1 - known)
    scores = influence_of_counts(metrics.matthews, known, predicted, 2)

    def of(a: np.ndarray, b: np.ndarray) -> float:
        return metrics.matthews(np.bincount(a * 2 + b, minlength=4).reshape(2, 2))

    found = correlation_interval(of(known, predicted), scores)
    drawn = stats.bootstrap((known, predicted), of, paired=True, vectorized=False, n_resamples=600, random_state=0, method="percentile")
    assert (found.low, found.high) == pytest.approx(tuple(drawn.confidence_interval), abs=0.02)


def test_95_percent_of_the_intervals_of_a_difference_hold_it() -> None:
    random, held, n = np.random.default_rng(1), 0, 300
    for _ in range(300):
        x = random.normal(size=n)
        models = [x + random.normal(0, sd, n) for sd in (0.6, 0.8)]
        scores = [np.array(metrics.quality("pearson", "s", model, x, ()).scores) for model in models]
        found = difference(scores[0], scores[1]).difference
        held += found.low <= 1 / np.sqrt(1 + 0.64) - 1 / np.sqrt(1 + 0.36) <= found.high
    assert 0.92 < held / 300 < 0.98
