from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgewise.report import numbers


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.003, "3.00 µs"),
        (0.0994, "99.4 µs"),
        (0.25, "0.250 ms"),
        (4.18, "4.18 ms"),
        (9.999, "10.0 ms"),
        (123.4, "123 ms"),
        (3000.0, "3.00 s"),
        (None, "–"),
        (math.inf, "–"),
    ],
)
def test_ms(value: float | None, shown: str) -> None:
    assert numbers.ms(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(12, "12 B"), (999, "999 B"), (298_000, "298 kB"), (1_092_000, "1.09 MB"), (8e9, "8.00 GB"), (3e15, "3,000 TB"), (None, "–")],
)
def test_size(value: float | None, shown: str) -> None:
    assert numbers.size(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(2.614, "2.61×"), (0.83, "0.83×"), (12.34, "12.3×"), (0.0123, "0.0123×"), (9.999, "10.0×"), (1.0, "1.00×")]
)
def test_times(value: float, shown: str) -> None:
    assert numbers.times(value) == shown


def test_decimals_follow_the_interval() -> None:
    assert numbers.percent(0.93214, 0.004) == "93.21 %"
    assert numbers.percent(0.93214, 0.02) == "93.2 %"
    assert numbers.points(-0.00123, 0.002) == "−0.12"
    assert numbers.points(0.0123, 0.02) == "+1.2"
    assert numbers.points(-0.00001, 0.002) == "0.00"  # no sign on what is shown as nothing


@given(st.floats(1e-6, 1e9))
def test_significant_is_near_and_has_no_exponent(value: float) -> None:
    text = numbers.significant(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize("q", [50, 90, 99])
@pytest.mark.parametrize("n", [5, 30, 300, 2000])
def test_percentile_interval_against_scipy(q: float, n: int) -> None:
    samples = tuple(np.random.default_rng(n).gamma(2.0, 1.0, n))
    found = numbers.percentile_interval(samples, q)
    ordered = sorted(samples)
    low_rank, high_rank = int(stats.binom.ppf(0.025, n, q / 100)), int(stats.binom.ppf(0.975, n, q / 100)) + 1
    assert found.low == (ordered[low_rank - 1] if low_rank >= 1 else -math.inf)
    assert found.high == (ordered[high_rank - 1] if high_rank <= n else math.inf)
    assert found.value == pytest.approx(np.percentile(samples, q))


def test_percentile_interval_covers() -> None:
    random = np.random.default_rng(0)
    truth = stats.gamma.ppf(0.9, 2.0)
    covered = 0
    for _ in range(400):
        found = numbers.percentile_interval(tuple(random.gamma(2.0, 1.0, 120)), 90)
        covered += found.low <= truth <= found.high
    assert covered / 400 >= 0.93


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (272_474, "272 k"), (999_600, "1.00 M"), (31_250_000, "31.2 M"), (4.1e9, "4.10 G")],
)
def test_a_count_of_many(value: float, said: str) -> None:
    assert numbers.large(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "under 0.1 s"), (4.2, "4.2 s"), (9.97, "10 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3599.7, "1 h"), (4320, "1 h 12 min")],
)
def test_how_long_it_took(seconds: float, said: str) -> None:
    assert numbers.duration(seconds) == said
