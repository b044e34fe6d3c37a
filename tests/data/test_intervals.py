"""Intervals and tests against scipy, published examples and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from edgewise.data.intervals import detectable, f1_interval, mcnemar, mean_of, tango, wilson
from edgewise.errors import InvalidInput


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_is_scipys(n: int, share: float, confidence: float) -> None:
    k = round(share * n)
    expected = binomtest(k, n).proportion_ci(confidence, method="wilson")
    got = wilson(k, n, confidence)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert got.low <= got.value <= got.high


def test_wilson_of_nothing_knows_nothing() -> None:
    nothing = wilson(0, 0)
    assert (nothing.value, nothing.low, nothing.high, nothing.n) == (0.0, 0.0, 1.0, 0)
    with pytest.raises(InvalidInput):
        wilson(3, 2)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_test(gained: int, lost: int) -> None:
    expected = binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_many_pairs_does_not_overflow() -> None:
    assert mcnemar(5000, 5100) == pytest.approx(binomtest(5000, 10100, 0.5).pvalue, rel=1e-9)


def score(d: float, gained: int, lost: int, n: int) -> float:
    """Tango's statistic with the restricted likelihood maximised by a search on a grid, instead of in closed form."""
    grid = np.linspace(max(0.0, -d) + 1e-12, (1 - abs(d)) / 2 + max(0.0, -d) - 1e-12, 200_001)  # P(lost); P(gained) = P(lost) + d
    likelihood = gained * np.log(grid + d) + lost * np.log(grid) + (n - gained - lost) * np.log(np.maximum(1 - 2 * grid - d, 1e-300))
    share = grid[likelihood.argmax()]
    return (gained - lost - n * d) / np.sqrt(n * (2 * share + d - d * d))


@pytest.mark.parametrize(("gained", "lost", "n"), [(9, 4, 50), (3, 12, 200), (1, 7, 1000), (30, 28, 400)])
def test_tango_bounds_solve_the_score_equation(gained: int, lost: int, n: int) -> None:
    interval = tango(gained, lost, n)
    assert score(interval.low, gained, lost, n) == pytest.approx(1.959964, abs=2e-3)
    assert score(interval.high, gained, lost, n) == pytest.approx(-1.959964, abs=2e-3)


def test_tango_mirrors_keeps_a_width_and_reaches_the_ends() -> None:
    here, there = tango(3, 12, 200), tango(12, 3, 200)
    assert (here.low, here.high) == pytest.approx((-there.high, -there.low), abs=1e-12)
    none = tango(0, 0, 500)
    assert none.value == 0 and none.high == pytest.approx(-none.low) and 0.005 < none.high < 0.01
    assert tango(10, 0, 10).high == 1.0 and tango(0, 10, 10).low == -1.0
    with pytest.raises(InvalidInput):
        tango(3, 3, 5)


@pytest.mark.parametrize(("gains", "losses"), [(0.02, 0.03), (0.001, 0.004), (0.1, 0.1)])
def test_tango_covers(gains: float, losses: float) -> None:
    n, rng = 400, np.random.default_rng(0)
    draws = rng.multinomial(n, (gains, losses, 1 - gains - losses), size=600)
    inside = [i.low <= gains - losses <= i.high for i in (tango(int(g), int(b), n) for g, b, _ in draws)]
    assert 0.92 <= np.mean(inside) <= 0.995


def power(d: float, share: float, n: int) -> float:
    """Exact power of McNemar's exact test: sum over the count of discordant pairs, and which way they go."""
    up = (share + d) / 2 / share
    total = 0.0
    for m in range(int(binom.ppf(1e-6, n, share)), int(binom.ppf(1 - 1e-6, n, share)) + 1):
        k = np.arange(m + 1)
        rejects = np.minimum(1, 2 * binom.cdf(np.minimum(k, m - k), m, 0.5)) < 0.05
        total += binom.pmf(m, n, share) * binom.pmf(k, m, up)[rejects].sum()
    return total


@pytest.mark.parametrize(("discordant", "n"), [(40, 1000), (300, 10_000)])
def test_detectable_has_about_the_power_that_it_says(discordant: int, n: int) -> None:
    d = detectable(discordant, n)
    assert 0.72 <= power(d, discordant / n, n) <= 0.84  # the exact test is a little conservative


def test_detectable_without_discordant_pairs_needs_about_eight() -> None:
    assert detectable(0, 1000) == pytest.approx(7.85 / 1000, rel=0.02)
    assert detectable(20, 1000) > 0.003  # 1,000 samples can't show three tenths of a point
    assert detectable(200, 100_000) < detectable(20, 10_000)


def test_f1_interval_holds_the_value_and_covers() -> None:
    value = f1_interval(30, 10, 20)
    assert value.value == pytest.approx(2 * 30 / (60 + 10 + 20)) and value.low < value.value < value.high and value.n == 60
    assert f1_interval(0, 0, 0).high == 1.0
    shares = np.array([0.15, 0.05, 0.1, 0.7])  # TP, FP, FN, TN
    true = 2 * shares[0] / (2 * shares[0] + shares[1] + shares[2])
    draws = np.random.default_rng(0).multinomial(500, shares, size=600)
    inside = [i.low <= true <= i.high for i in (f1_interval(int(a), int(b), int(c)) for a, b, c, _ in draws)]
    assert 0.92 <= np.mean(inside) <= 0.98


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=30), st.floats(1, 2))
def test_the_interval_of_a_mean_holds_it_and_is_wider_for_what_moves_together(counts: list[tuple[int, int]], together: float) -> None:
    single = [wilson(min(pair), max(pair)) for pair in counts]
    alone, moved = mean_of(single, 7), mean_of(single, 7, together=together)
    assert alone.value == pytest.approx(np.mean([each.value for each in single]))
    assert 0 <= moved.low <= alone.low <= alone.value <= alone.high <= moved.high <= 1
    assert (alone.n, alone.confidence) == (7, 0.95)
    assert alone.high > alone.low


def test_the_interval_of_a_mean_shrinks_with_the_root_of_their_number() -> None:
    one = wilson(17, 20)
    alone, four = mean_of([one], 20), mean_of([one] * 4, 80)
    assert four.value - four.low == pytest.approx((alone.value - alone.low) / 2)
    assert alone.value - alone.low == pytest.approx(one.half_width, rel=0.1)
