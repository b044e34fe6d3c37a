"""Integers for weights: the grid of each output channel, and the layer as it will be written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgewise.compress.quantize.grid import SMALLEST_SCALE, Grid

# Of the whole range, from which the search for the least squared error starts; at 8 bits the optimum lies above 0.8 in nearly every layer.
SHARES = np.linspace(1.0, 0.5, 51)


@dataclass(frozen=True, eq=False)
class Layer:
    """Quantized weights of one node: `integers` in the weight's own shape; `bias` in float, (channels,), None where there is none.

    Of a MatMul, `bias` is what the Add behind it adds.
    """

    grid: Grid
    integers: np.ndarray
    bias: np.ndarray | None

    @property
    def real(self) -> np.ndarray:
        return self.grid.dequantize(self.integers)


def weight_grid(
    weight: np.ndarray,
    axis: int | None,
    *,
    bound: int,
    symmetric: bool = True,
    search: bool = True,
    importance: np.ndarray | None = None,
    floor: np.ndarray | float = 0.0,
) -> Grid:
    """A grid of signed integers for `weight`, one scale per channel of `axis` (None: one for all).

    search: clip the range where that lowers the squared error (weighed by `importance`, broadcast to the weight's shape).
    floor: the least scale allowed per channel, so that an int32 bias of scale(input) * scale(weight) holds the bias.
    """
    flat = weight.reshape(1, -1) if axis is None else np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    if not symmetric:
        low, high = min(float(weight.min()), 0.0), max(float(weight.max()), 0.0)
        scale = max((high - low) / (2 * bound), SMALLEST_SCALE)
        zero = int(np.clip(np.rint(-bound - low / scale), -bound, bound))
        return Grid(np.array(scale, np.float32), np.array(zero, np.int32), -bound, bound)
    weights_of = np.ones_like(flat) if importance is None else _rows(np.broadcast_to(importance, weight.shape), axis)
    largest = np.abs(flat).max(1) / bound
    best, least = largest, np.full(len(flat), np.inf)
    for share in SHARES if search else SHARES[:1]:
        scale = np.maximum(largest * share, np.maximum(floor, SMALLEST_SCALE)).astype(np.float32)
        rounded = np.clip(np.rint(flat / scale[:, None]), -bound, bound) * scale[:, None]
        error = np.einsum("rk,rk->r", weights_of, (flat - rounded) ** 2)
        better = error < least
        best, least = np.where(better, scale, best), np.where(better, error, least)
    scale = best.astype(np.float32)
    if axis is None:
        return Grid(scale[0:1].reshape(()), np.array(0, np.int32), -bound, bound)
    return Grid(scale, np.zeros(len(scale), np.int32), -bound, bound, axis)


def least_scale(bias: np.ndarray | None, input_scale: float) -> np.ndarray | float:
    """The scale of weights below which `bias` would leave int32: near-dead channels with large biases reach it. Half the range is kept free
    for what correction adds."""
    return 0.0 if bias is None else np.abs(bias) / (input_scale * 2.0**29)


def _rows(values: np.ndarray, axis: int | None) -> np.ndarray:
    return values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
