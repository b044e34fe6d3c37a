"""k-means in one dimension against Lloyd's algorithm written out, scipy's, and the optimum over all partitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.cluster.vq import kmeans2

from edgewise.compress.share.kmeans import distortion, kmeans
from edgewise.errors import InvalidInput

VALUES = arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats(-9, 9, width=32))


def lloyd(values: np.ndarray, centroids: np.ndarray, rounds: int = 300) -> np.ndarray:
    for _ in range(rounds):
        nearest = np.abs(values[:, None] - centroids).argmin(1)
        centroids = np.array([values[nearest == i].mean() for i in range(len(centroids)) if (nearest == i).any()])
    return centroids


def best(values: np.ndarray, k: int) -> float:
    """The least distortion of all ways to cut the sorted values into k pieces."""
    ordered = np.sort(values)
    cuts = combinations(range(1, len(values)), k - 1)
    return min(sum(float(((p - p.mean()) ** 2).sum()) for p in np.split(ordered, list(cut))) for cut in cuts)


@settings(deadline=None)
@given(VALUES, st.integers(1, 8))
def test_every_value_gets_the_nearest_of_at_most_k(values: np.ndarray, k: int) -> None:
    centroids, labels = kmeans(values, k)
    assert 1 <= len(centroids) <= k and (np.diff(centroids) > 0).all()
    assert set(labels.tolist()) == set(range(len(centroids)))
    gaps = np.abs(values[:, None] - centroids)
    np.testing.assert_allclose(gaps[np.arange(len(values)), labels], gaps.min(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("k", [2, 5, 16])
def test_it_is_lloyds_algorithm_from_an_even_beginning(k: int) -> None:
    values = np.random.default_rng(k).uniform(-1, 2, 500) ** 3
    begin = np.linspace(values.min(), values.max(), k)
    centroids, labels = kmeans(values, k)
    np.testing.assert_allclose(centroids, lloyd(values, begin), rtol=1e-9)
    theirs, _ = kmeans2(values, begin, iter=300, minit="matrix")
    np.testing.assert_allclose(centroids, theirs, rtol=1e-6)
    for i, centroid in enumerate(centroids):
        assert centroid == pytest.approx(values[labels == i].mean())


@pytest.mark.parametrize("seed", range(4))
def test_well_parted_clusters_are_found_as_the_best_partition_has_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(at, 0.05, 4) for at in (-2.0, 0.5, 3.0)])
    assert distortion(values, *kmeans(values, 3)) == pytest.approx(best(values, 3))


@settings(deadline=None, max_examples=30)
@given(arrays.arrays(np.float64, st.integers(3, 9), elements=st.floats(-9, 9, width=16)), st.integers(1, 3))
def test_it_is_no_better_than_the_best(values: np.ndarray, k: int) -> None:
    assert distortion(values, *kmeans(values, k)) >= best(values, min(k, len(values))) - 1e-9


def test_more_rounds_are_no_worse_and_shapes_stay() -> None:
    values = np.random.default_rng(0).normal(size=(20, 30)) + 1000
    found = [kmeans(values, 8, rounds) for rounds in (1, 3, 300)]
    assert all(labels.shape == values.shape for _, labels in found)
    errors = [distortion(values, *each) for each in found]
    assert errors == sorted(errors, reverse=True)


def test_no_centroid_stays_where_no_value_is() -> None:
    rng = np.random.default_rng(1)
    pruned = np.concatenate([rng.normal(-1, 0.1, 300), rng.normal(1, 0.1, 200)])  # nothing about zero
    centroids, labels = kmeans(pruned, 5)
    assert len(centroids) == 5 and np.bincount(labels).min() > 10
    apart = distortion(pruned[:300], *kmeans(pruned[:300], 3)) + distortion(pruned[300:], *kmeans(pruned[300:], 2))
    assert distortion(pruned, centroids, labels) < 1.02 * apart


def test_few_different_values_are_kept_as_they_are() -> None:
    values = np.array([0.25, -1.0, 0.25, 3.0])
    centroids, labels = kmeans(values, 4)
    assert centroids.tolist() == [-1.0, 0.25, 3.0] and (centroids[labels] == values).all()


@pytest.mark.parametrize(("values", "k"), [([1.0], 0), ([], 2), ([np.nan, 1.0], 2)])
def test_bad_arguments(values: list[float], k: int) -> None:
    with pytest.raises(InvalidInput, match="give 1 or more, of finite values"):
        kmeans(np.array(values), k)
