import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.compress.quantize.estimators import BINS, ESTIMATORS, Histogram, entropy, minmax, mse, percentile
from edgewise.compress.quantize.grid import activation_grid


def filled(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part.astype(np.float32))
    return histogram


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(-1000, 1000), st.floats(0.001, 100)), min_size=1, max_size=5), st.integers(0, 2**31))
def test_a_growing_histogram_counts_like_one_made_at_once(parts: list[tuple[float, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = [(middle + size * rng.normal(size=200)).astype(np.float32) for middle, size in parts]
    histogram = filled(*data)
    every = np.concatenate(data)
    assert histogram.counts.sum() == every.size
    assert (histogram.low, histogram.high) == (every.min(), every.max())
    edges = histogram.start + np.arange(BINS + 1) * histogram.width
    # A value on an edge may fall to either side by rounding, and merging moves none: compare the running totals one bin apart.
    below = np.searchsorted(np.sort(every.astype(np.float64)), edges)
    ours = np.concatenate([[0], np.cumsum(histogram.counts)])
    assert (ours[1:] >= below[:-1]).all() and (ours[:-1] <= below[1:]).all()


def test_minmax_is_all_that_was_seen() -> None:
    assert minmax(filled(np.array([1.0, 2.0]), np.array([-3.0])), False) == (-3.0, 2.0)


def test_percentile_is_numpys() -> None:
    data = np.random.default_rng(0).normal(size=200_000)
    low, high = percentile(filled(*np.split(data, 4)), False)
    np.testing.assert_allclose([low, high], np.percentile(data, [0.01, 99.99]), atol=0.01)
    low, high = percentile(filled(*np.split(data, 4)), True)
    np.testing.assert_allclose(high, np.percentile(np.abs(data), 99.99), atol=0.01)
    assert low == pytest.approx(-high)


@pytest.mark.parametrize("symmetric", [False, True])
def test_mse_is_as_good_as_a_brute_force_over_both_ends(symmetric: bool) -> None:
    rng = np.random.default_rng(0)
    data = np.concatenate([rng.laplace(0.5, 1, 20_000), [30.0, -12.0]])

    def error(low: float, high: float) -> float:
        return float(np.mean((data - activation_grid(low, high, symmetric=symmetric).fake(data)) ** 2))

    found = error(*mse(filled(data), symmetric))
    best = min(error(low, high) for low in np.linspace(data.min(), 0, 40) for high in np.linspace(0.5, data.max(), 60))
    assert found <= best * 1.02
    assert found < 0.97 * error(data.min(), data.max())


def test_entropy_drops_a_far_outlier_and_keeps_a_uniform_range() -> None:
    rng = np.random.default_rng(0)
    _, high = entropy(filled(rng.normal(size=60_000), np.array([60.0])), False)
    assert high < 30
    _, high = entropy(filled(rng.uniform(0, 1, 60_000)), False)
    assert high > 0.95


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "data", [np.zeros(10), np.full(10, 3.0), np.full(10, -2.5), np.array([1e-30, 0.0])], ids=["zero", "3", "-2.5", "tiny"]
)
def test_degenerate_tensors_have_a_range(name: str, symmetric: bool, data: np.ndarray) -> None:
    low, high = ESTIMATORS[name](filled(data), symmetric)
    grid = activation_grid(low, high, symmetric=symmetric)
    np.testing.assert_allclose(grid.fake(data), data, rtol=0.02, atol=1e-6)


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        filled(np.array([1.0, np.nan]))
