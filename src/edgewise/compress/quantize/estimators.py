"""Ranges of activations: a histogram that grows with what it sees, and four ways to read a range from one.

A histogram holds a tensor's values in bounded memory, however much calibration data streams by.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgewise.compress.quantize.grid import activation_grid

BINS = 8192  # growing doubles the bin's width, so at least a quarter of the bins covers the data: 2,048, eight for each of 256 integers
PERCENTILE = 99.99
COUNTED = 1 << 16  # values of one array that are counted; the extremes are taken over all of them


class Histogram:
    """Counts of the values seen, over equal bins of `start .. start + BINS * width`. Not frozen: it is what streaming fills."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.counts = np.zeros(BINS, np.int64)
        self.start = self.width = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count `values`. Raises ValueError when any is NaN or infinite."""
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("values that are NaN or infinite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self.width == 0:
            span = max(high - low, abs(low) * 1e-6, 1e-30)
            self.start, self.width = low, span * (1 + 1e-6) / BINS
        while self.low < self.start or self.high >= self.start + BINS * self.width:
            self._double(downwards=self.low < self.start)
        flat = values.reshape(-1)
        flat = flat[:: (len(flat) // COUNTED) | 1]  # an odd step meets every column of even-sized images
        index = ((flat.astype(np.float64) - self.start) * (1 / self.width)).astype(np.int32)
        self.counts += np.bincount(np.clip(index, 0, BINS - 1, out=index), minlength=BINS)

    def _double(self, *, downwards: bool) -> None:
        merged = self.counts.reshape(-1, 2).sum(1)
        self.counts = np.zeros(BINS, np.int64)
        if downwards:
            self.start -= BINS * self.width
            self.counts[BINS // 2 :] = merged
        else:
            self.counts[: BINS // 2] = merged
        self.width *= 2

    @property
    def filled(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres and counts of the bins that hold anything."""
        (index,) = np.nonzero(self.counts)
        return np.clip(self.start + (index + 0.5) * self.width, self.low, self.high), self.counts[index].astype(np.float64)


def minmax(histogram: Histogram, symmetric: bool) -> tuple[float, float]:
    """All that was seen."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, symmetric: bool) -> tuple[float, float]:
    """All but the 0.01 % farthest out on each side (of magnitudes, when symmetric). Interpolated inside the bin."""
    if symmetric:
        values, counts = histogram.filled
        order = np.argsort(np.abs(values))
        total = np.cumsum(counts[order])
        bound = float(np.abs(values[order])[np.searchsorted(total, total[-1] * PERCENTILE / 100)])
        return max(-bound, histogram.low), min(bound, histogram.high)
    edges = histogram.start + np.arange(BINS + 1) * histogram.width
    total = np.concatenate([[0], np.cumsum(histogram.counts)])
    low, high = np.interp([total[-1] * (1 - PERCENTILE / 100), total[-1] * PERCENTILE / 100], total, edges)
    return max(float(low), histogram.low), min(float(high), histogram.high)


def mse(histogram: Histogram, symmetric: bool) -> tuple[float, float]:
    """The range whose grid has the least mean squared error on what was seen: clipping against rounding (Banner 2019; Nagel 2021, 3.1)."""
    values, counts = histogram.filled

    def loss(low: float, high: float) -> float:
        return float(counts @ (values - activation_grid(low, high, symmetric=symmetric).fake(values)) ** 2)

    return _search(histogram, loss)


def entropy(histogram: Histogram, symmetric: bool) -> tuple[float, float]:
    """The range whose 256 levels lose the least information: least KL divergence from the clipped distribution (Migacz 2017, TensorRT)."""
    values, counts = histogram.filled

    def loss(low: float, high: float) -> float:
        inside = (values >= low - histogram.width) & (values <= high + histogram.width)
        if not inside.any():
            return np.inf
        level = activation_grid(low, high, symmetric=symmetric).quantize(values)[inside]
        # Reference: outliers fall into the ends' bins. Candidate: each level's mass without them, spread evenly over its bins.
        first, last = np.flatnonzero(inside)[[0, -1]]
        reference = counts[inside]
        reference[0] += counts[:first].sum()
        reference[-1] += counts[last + 1 :].sum()
        mass = np.bincount(level, counts[inside], minlength=256)
        bins = np.bincount(level, minlength=256)
        candidate = (mass / np.maximum(bins, 1))[level]
        p, q = reference / reference.sum(), candidate / candidate.sum()
        return float(p @ np.log(p / q))

    return _search(histogram, loss)


def _search(histogram: Histogram, loss: Callable[[float, float], float]) -> tuple[float, float]:
    """The range of least `loss`: each end in turn, coarse to fine, from all that was seen inwards."""
    best = min(histogram.low, 0.0), max(histogram.high, 0.0)
    least = loss(*best)
    for shares in (np.linspace(0.1, 1.0, 37), np.linspace(0.94, 1.06, 13), np.linspace(0.985, 1.015, 7)):
        base = best
        for end in (0, 1, 0, 1):
            for share in shares:
                trial = (base[0] * share, best[1]) if end == 0 else (best[0], base[1] * share)
                trial = (max(trial[0], min(histogram.low, 0.0)), min(trial[1], max(histogram.high, 0.0)))
                if (found := loss(*trial)) < least:
                    best, least = trial, found
    return best


ESTIMATORS: dict[str, Callable[[Histogram, bool], tuple[float, float]]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}
