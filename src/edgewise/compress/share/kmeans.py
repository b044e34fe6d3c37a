"""k-means in one dimension. Sorted values and their running sums make a round of Lloyd's algorithm cost k binary searches."""

from __future__ import annotations

import numpy as np

from edgewise.errors import InvalidInput

ROUNDS = 300


def kmeans(values: np.ndarray, k: int, rounds: int = ROUNDS) -> tuple[np.ndarray, np.ndarray]:
    """(centroids, labels): at most k centroids, ascending float64, and the nearest one of each value, int64 of the shape of `values`.

    Centroids begin evenly spaced from the least to the largest value: large weights are few and matter most, and beginning where weights
    are dense leaves them badly represented (Deep Compression, 1510.00149, section 3.2). Lloyd's rounds until nothing moves. Where nothing
    is near a centroid (pruned weights have none around zero), the cluster with the largest error is cut at its mean instead. With k or
    fewer different values each is its own centroid. No randomness. Raises InvalidInput for k below 1, no values, or ones not finite.
    """
    flat = np.asarray(values, np.float64).ravel()
    if k < 1 or not flat.size or not np.isfinite(flat).all():
        raise InvalidInput(f"k={k} centroids of {flat.size} values: give 1 or more, of finite values")
    different = np.unique(flat)
    if len(different) <= k:
        return different, np.searchsorted(different, values).astype(np.int64)
    ordered = _Sorted(np.sort(flat))
    centroids = np.linspace(different[0], different[-1], k)
    for _ in range(rounds):
        moved = ordered.means(ordered.filled(ordered.edges(centroids), k))
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    labels = np.searchsorted(_between(centroids), flat, side="left")
    # Rounding of sums could have left one without values.
    used, labels = np.unique(labels, return_inverse=True)
    return centroids[used], labels.reshape(np.shape(values))


def _between(centroids: np.ndarray) -> np.ndarray:
    return (centroids[1:] + centroids[:-1]) / 2


class _Sorted:
    """Ascending values, cut into clusters by `edges`: indices from 0 to their count."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        # About the middle, so that running sums lose no digits to a common offset.
        self.middle = values.mean()
        shifted = values - self.middle
        self.sums = np.concatenate(([0.0], np.cumsum(shifted)))
        self.squares = np.concatenate(([0.0], np.cumsum(shifted**2)))

    def edges(self, centroids: np.ndarray) -> np.ndarray:
        """Of the clusters that are nearest to each centroid, without empty ones."""
        cuts = np.searchsorted(self.values, _between(centroids), side="right")
        return np.unique(np.concatenate(([0], cuts, [len(self.values)])))

    def filled(self, edges: np.ndarray, k: int) -> np.ndarray:
        """Edges of k clusters: the one with the largest error is cut in two until there are as many."""
        while len(edges) - 1 < k:
            errors = np.diff(self.squares[edges]) - np.diff(self.sums[edges]) ** 2 / np.diff(edges)
            # One value alone, or many equal ones, can't be cut, whatever rounding says of its error.
            errors[self.values[edges[:-1]] == self.values[edges[1:] - 1]] = -1.0
            worst = int(errors.argmax())
            low, high = edges[worst], edges[worst + 1]
            mean = self.values[low:high].mean()
            cut = low + np.searchsorted(self.values[low:high], mean, side="right")
            edges = np.insert(edges, worst + 1, min(max(cut, low + 1), high - 1))
        return edges

    def means(self, edges: np.ndarray) -> np.ndarray:
        return np.asarray(np.diff(self.sums[edges]) / np.diff(edges) + self.middle)


def distortion(values: np.ndarray, centroids: np.ndarray, labels: np.ndarray) -> float:
    """Sum of the squared distances to the centroids."""
    return float(((np.asarray(values, np.float64) - centroids[labels]) ** 2).sum())
