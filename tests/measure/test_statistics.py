import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from edgewise.measure.interleave import paired
from edgewise.measure.statistics import median_interval


@pytest.mark.parametrize("n", [6, 7, 12, 51, 200, 999, 1000, 2500])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_rank_is_the_binomial_quantile(n, confidence):
    interval = median_interval(list(range(n)), confidence)
    k = int(interval.low) + 1
    assert interval.high == n - k
    assert binom.cdf(k - 1, n, 0.5) <= (1 - confidence) / 2 < binom.cdf(k, n, 0.5)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_values_say_what_their_range_is_worth(n):
    interval = median_interval([float(i) for i in range(n)])
    assert (interval.low, interval.high) == (0, n - 1)
    assert interval.confidence == pytest.approx(1 - 2 * 0.5**n)


def test_nothing_has_no_median():
    with pytest.raises(ValueError, match="nothing"):
        median_interval([])


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=60), st.randoms())
def test_interval_holds_the_median_in_any_order(values, random):
    interval = median_interval(values)
    assert interval.low <= interval.value <= interval.high
    random.shuffle(values)
    assert median_interval(values) == interval


@pytest.mark.parametrize("n", [8, 20, 51])
def test_coverage_of_a_skewed_distribution(n):
    """At least 95 % whatever the distribution; three standard errors of 2,000 trials below that would be a fault."""
    random = np.random.default_rng(n)
    samples = random.exponential(size=(2000, n))
    intervals = [median_interval(row) for row in samples]
    covered = np.mean([interval.low <= math.log(2) <= interval.high for interval in intervals])
    assert covered >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_coverage_survives_stopping_when_narrow():
    """`paired` stops at a look that pleases; with outliers and a steady drift the interval holds the truth nearly as often as it says."""
    random = np.random.default_rng(0)
    truth, covered, trials = 2.5, 0, 300
    for _ in range(trials):
        drift = iter(np.linspace(1.0, 1.3, 4000))

        def block(milliseconds, drift=drift):
            disturbed = 1.3 if random.random() < 0.04 else 1.0
            return milliseconds * next(drift) * disturbed * math.exp(random.normal(0, 0.02))

        found = paired(lambda _, block=block: block(truth), lambda _, block=block: block(1.0), max_seconds=1e9, clock=lambda: 0.0)
        assert found.conclusive
        covered += found.ratio.low <= truth <= found.ratio.high
    assert covered / trials >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / trials) - 0.01
