"""Rate-distortion rounding with error feedback: each weight takes the integer that is the best bargain, the later ones make up for it.

CERWU (2505.18758): in the frame of GPTQ (2210.17323), which rounds a matrix W column by column and moves the columns to come by the error
times a row of the Cholesky factor U of H⁻¹, the integer q of each weight minimises

    gain · (w - step · q)² / U_jj²  +  λ · bits(q)

instead of the error alone. H is the second moment of what the matrix reads; without data it is the identity, and nothing is fed back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.compress.rate.price import Prices, activities, joined, learned, lengths

BLOCK = 128  # columns that are updated at once before the rest is (as GPTQ does: one product of matrices instead of many of vectors)
ROW_SHARE = 1 / 64  # of the newest integer in the activity of its row, as the coder has it
SHORT = 32  # columns
ROUNDS = 2  # of prices: they are learned from integers, which change with the prices


@dataclass(frozen=True, eq=False)
class Layer:
    """A matrix to round. weights: (rows, columns) float64. factor: (columns, columns) upper Cholesky factor of H⁻¹, or None for H = 1.

    gain: (rows,) how much a squared error of each row's output weighs. A grouped convolution has a factor for each group, (groups, columns,
    columns), and its rows group by group: it is coded as one matrix, and a depthwise one has a thousand groups of one row.
    """

    weights: np.ndarray
    gain: np.ndarray
    factor: np.ndarray | None = None

    @property
    def groups(self) -> int:
        return 1 if self.factor is None or self.factor.ndim == 2 else len(self.factor)

    @property
    def unit(self) -> np.ndarray:
        """(groups, 1) mean over columns of what a squared error of a weight weighs once the later columns have made up for it."""
        if self.factor is None:
            return np.ones((1, 1))
        diagonals = np.diagonal(self.factor, axis1=-2, axis2=-1).reshape(self.groups, -1)
        return np.asarray(np.mean(1 / diagonals**2, 1, keepdims=True))

    @property
    def felt(self) -> np.ndarray:
        """(rows,) `gain`, never so little that a row's errors are free: one that the samples never woke, as a channel of a depthwise
        convolution may be, other inputs will."""
        weight = self.gain.reshape(self.groups, -1) * self.unit
        return np.asarray(np.maximum(weight, max(weight.max() * 1e-4, 1e-30)) / self.unit).ravel()


def factor(hessian: np.ndarray, damping: float = 0.01) -> np.ndarray:
    """The upper Cholesky factor U of H⁻¹ = Uᵀ U. hessian: (columns, columns); `damping` of its mean diagonal is added to it."""
    size = len(hessian)
    mean = float(np.trace(hessian)) / size
    if mean <= 0:
        return np.eye(size)  # nothing ever comes in
    damped = hessian + damping * mean * np.eye(size)
    inverse = np.linalg.inv(damped)
    return np.asarray(np.linalg.cholesky((inverse + inverse.T) / 2).T)


def steps(layer: Layer, step: float, quantum: float = 2.0) -> np.ndarray:
    """(rows,) step of each row: `step` over the root of what its errors weigh, rounded to powers of 2^(1/quantum), so that few are stored.

    Equal slopes of rate and distortion in all rows of all layers (reverse water-filling) ask for exactly that. Short rows share one step:
    a byte for each would be much of what they take.
    """
    gain = layer.felt.reshape(layer.groups, -1)
    if layer.weights.shape[1] < SHORT:
        gain = np.broadcast_to(gain.mean(1, keepdims=True), gain.shape)
    ideal = step / np.sqrt(gain * layer.unit).ravel()
    return np.asarray(2.0 ** (np.round(np.log2(ideal) * quantum) / quantum))


def rounded(layer: Layer, step: np.ndarray, slope: float, prices: Prices | None = None) -> np.ndarray:
    """(rows, columns) int64 that minimise distortion + slope · bits, column after column.

    step: (rows,). prices: learned from the integers themselves unless given.
    """
    plain = np.rint(layer.weights / step[:, None]).astype(np.int64)
    if slope <= 0:
        return _walked(layer, step, 0.0, learned(plain, activities(plain)), activities(plain).mean(0))
    found = plain
    for _ in range(1 if prices else ROUNDS):
        known = prices or learned(found, activities(found))
        found = _walked(layer, step, slope, known, lengths(found).mean(0))
    return found


def _walked(layer: Layer, step: np.ndarray, slope: float, prices: Prices, across: np.ndarray) -> np.ndarray:
    """across: (columns,) activity of each column."""
    weights = layer.weights.copy()
    rows, columns = weights.shape
    integers = np.zeros((rows, columns), np.int64)
    along = np.full(rows, float(across.mean()))
    mean = max(float(across.mean()), 1e-9)
    own, gain = layer.factor, layer.felt
    rows_each = rows // layer.groups

    def spread(part: np.ndarray) -> np.ndarray:
        """A part of the factor's row, for each row of the matrix."""
        return np.repeat(part, rows_each, 0) if layer.groups > 1 else part

    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        errors = np.zeros((rows, end - start))
        for j in range(start, end):
            pivot = 1.0 if own is None else spread(own[..., j, j])
            level = joined(along, np.full(rows, across[j]), mean)
            q = _chosen(weights[:, j] / step, gain * (step / pivot) ** 2, slope, prices, level)
            integers[:, j] = q
            along += (lengths(q) - along) * max(ROW_SHARE, 1 / (j + 1.5))
            if own is not None:
                errors[:, j - start] = (weights[:, j] - step * q) / pivot
                weights[:, j + 1 : end] -= errors[:, j - start, None] * spread(own[..., j, j + 1 : end])
        if own is not None and end < columns:
            later = errors.reshape(layer.groups, rows_each, -1) @ own[..., start:end, end:]
            weights[:, end:] -= later.reshape(rows, -1)
    return integers


def _chosen(x: np.ndarray, weight: np.ndarray, slope: float, prices: Prices, activity: np.ndarray) -> np.ndarray:
    """Of the nearest integers to x: (rows,), the next ones towards zero, and zero, the best bargain each. weight: of a squared step."""
    nearest = np.rint(x)
    if slope <= 0:
        return nearest.astype(np.int64)
    inward = np.sign(nearest) * np.maximum(np.abs(nearest) - 1, 0)
    further = np.sign(nearest) * np.maximum(np.abs(nearest) - 2, 0)
    candidates: Sequence[np.ndarray] = (nearest, inward, further, np.zeros_like(x))
    costs = np.stack([weight * (x - q) ** 2 + slope * prices.of(q, activity) for q in candidates])
    best = np.argmin(costs, 0)
    return np.choose(best, candidates).astype(np.int64)
