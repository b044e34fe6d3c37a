"""Settle one layer: weights that make up for rounded inputs, integers for them, and a bias that restores each channel's mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from edgewise.compress.quantize.grid import Grid
from edgewise.compress.quantize.patches import patches, rows, unrows
from edgewise.compress.quantize.place import Weighted
from edgewise.compress.quantize.rounding import adaptive
from edgewise.compress.quantize.single import Pieces
from edgewise.compress.quantize.walk import Run
from edgewise.compress.quantize.weights import Layer, least_scale, weight_grid

POSITIONS = (8192, 16384)  # least and most positions of a layer's input from which its moments are estimated …
PER_COLUMN = 32  # … and how many for each column of its weights
TOGETHER = 1024
LARGEST_COLUMNS = 4608  # 512 channels of 3×3: beyond it, inverting the moments takes minutes


@dataclass(frozen=True, kw_only=True)
class Settler:
    """How layers are settled; called by the walk for each."""

    constants: Mapping[str, np.ndarray]
    grids: Mapping[str, Grid]
    bound: int
    per_channel: bool
    symmetric: bool
    search: bool
    adaptive: bool
    bias_correction: bool
    ridge: float = 0.05

    def __call__(self, layer: Weighted, node: onnx.NodeProto, exact: Pieces, rounded: Pieces, outputs: Pieces, run: Run) -> Layer:
        weight = self.constants[layer.weight]
        held = layer.bias or layer.added
        bias = self.constants[held].reshape(-1) if held else None
        integers = None
        wanted = rows(weight, layer) if layer.op != "ConvTranspose" else None
        if self.adaptive and wanted is not None and wanted.shape[2] <= LARGEST_COLUMNS:
            hessian, cross, power = moments(layer, node, weight.shape[2:], wanted.shape[2], exact, rounded)
            # Where rounding swallowed what the input had, weights must not grow to bring it back: hence the float input's power, too.
            ridge = self.ridge * np.maximum(np.diagonal(hessian, axis1=1, axis2=2), power).mean(1)[:, None, None] + 1e-12
            damped = hessian + ridge * np.eye(hessian.shape[1])
            # min over W of E|W xq - W0 xf|² + ridge |W - W0|²
            aimed = wanted @ np.swapaxes(np.linalg.solve(damped, np.swapaxes(cross, 1, 2) + ridge * np.eye(hessian.shape[1])), 1, 2)
            aimed = aimed.astype(np.float32)
            importance = np.broadcast_to(np.diagonal(damped, axis1=1, axis2=2)[:, None, :], wanted.shape)
            grid = self._grid(layer, unrows(aimed, layer, weight.shape), bias, unrows(importance, layer, weight.shape))
            if grid.zero_point.any():
                integers = grid.quantize(unrows(aimed, layer, weight.shape))
            else:
                scale = np.broadcast_to(grid.scale, (weight.shape[layer.axis],)).reshape(wanted.shape[:2])
                integers = unrows(adaptive(aimed, damped, scale, grid.low, grid.high), layer, weight.shape)
        else:
            grid = self._grid(layer, weight, bias, None)
            integers = grid.quantize(weight)
        found = Layer(grid, integers, bias)
        if self.bias_correction and layer.shifts:
            reached = run(found.real, bias if layer.op != "MatMul" else None)
            channel = 1 if layer.op.startswith("Conv") else -1
            error = mean(outputs, channel) - mean(reached, channel)
            found = Layer(grid, integers, (error if bias is None else bias + error).astype(np.float32))
        return found

    def _grid(self, layer: Weighted, weight: np.ndarray, bias: np.ndarray | None, importance: np.ndarray | None) -> Grid:
        # Scales of a grouped transposed convolution would belong to (group, channel) pairs, which no engine reads.
        axis = layer.axis if self.per_channel and not (layer.op == "ConvTranspose" and layer.groups > 1) else None
        # What an Add behind the layer adds is never an integer.
        floor = least_scale(None if layer.adder else bias, float(self.grids[layer.input].scale))
        floor = float(np.max(floor)) if axis is None else floor
        return weight_grid(weight, axis, bound=self.bound, symmetric=self.symmetric, search=self.search, importance=importance, floor=floor)


def moments(
    layer: Weighted, node: onnx.NodeProto, kernel: tuple[int, ...], columns: int, exact: Pieces, rounded: Pieces
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariance of the rounded input's columns, and of the float's with the rounded's: (groups, columns, columns); and the variance of
    the float's, (groups, columns). All float64.

    Means are left out where the layer has a place for them: its bias takes care of them.
    """
    per_piece = max(int(np.clip(PER_COLUMN * columns, *POSITIONS)) // len(exact), 1)
    count = 0
    square = cross = first = second = power = np.zeros(())
    shift = None
    for a, b in _together(layer, node, kernel, per_piece, exact, rounded):
        if shift is None:  # near the mean: squares of what is left of large constants would lose their digits in float32
            shift = a.mean(1, keepdims=True)
        same = b is a
        a = a - shift
        b = a if same else b - shift
        count += a.shape[1]
        transposed = np.swapaxes(b, 1, 2)
        square = square + transposed @ b
        cross = cross + np.swapaxes(a, 1, 2) @ b
        power = power + np.square(a).sum(1, dtype=np.float64)
        first = first + a.sum(1, dtype=np.float64)
        second = second + b.sum(1, dtype=np.float64)
    mean_a, mean_b = first / count, second / count
    square = square / count - mean_b[:, :, None] * mean_b[:, None, :]
    cross = cross / count - mean_a[:, :, None] * mean_b[:, None, :]
    if not layer.shifts and shift is not None:
        mean_a, mean_b = mean_a + shift[:, 0], mean_b + shift[:, 0]
        square = square + mean_b[:, :, None] * mean_b[:, None, :]
        cross = cross + mean_a[:, :, None] * mean_b[:, None, :]
        return square, cross, power / count - (mean_a - shift[:, 0]) ** 2
    return square, cross, power / count - mean_a**2


def _together(
    layer: Weighted, node: onnx.NodeProto, kernel: tuple[int, ...], per_piece: int, exact: Pieces, rounded: Pieces
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Columns of the float input and of the rounded one, of as many pieces at once as make TOGETHER positions: a sentence has few."""
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for seed, (x, y) in enumerate(zip(exact, rounded, strict=True)):
        a = patches(x, layer, node, kernel, per_piece, seed)
        held.append((a, a if y is x else patches(y, layer, node, kernel, per_piece, seed)))
        if sum(a.shape[1] for a, _ in held) >= TOGETHER or seed == len(exact) - 1:
            same = all(b is a for a, b in held)
            a = np.concatenate([a for a, _ in held], 1) if len(held) > 1 else held[0][0]
            yield a, a if same else np.concatenate([b for _, b in held], 1) if len(held) > 1 else held[0][1]
            held = []


def mean(pieces: Pieces, channel: int) -> np.ndarray:
    """Mean of each channel over all pieces."""
    total = sum(np.moveaxis(x, channel, -1).reshape(-1, x.shape[channel]).sum(0, dtype=np.float64) for x in pieces)
    return np.asarray(total) / sum(x.size // x.shape[channel] for x in pieces)
