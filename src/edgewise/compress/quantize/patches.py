"""A weighted node as a matrix product: rows of weights, and the columns of its input that they meet (im2col, at chosen positions)."""

from __future__ import annotations

import numpy as np
import onnx

from edgewise.compress.quantize.place import Weighted


def rows(weight: np.ndarray, layer: Weighted) -> np.ndarray:
    """Weights as (groups, rows, columns): one row per output channel, in the order of `patches`' columns."""
    if layer.op in ("Gemm", "MatMul"):
        return (weight if layer.axis == 0 else weight.T)[None]
    return weight.reshape(layer.groups, weight.shape[0] // layer.groups, -1)


def unrows(matrix: np.ndarray, layer: Weighted, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `rows`."""
    if layer.op in ("Gemm", "MatMul"):
        return np.ascontiguousarray(matrix[0] if layer.axis == 0 else matrix[0].T)
    return matrix.reshape(shape)


def patches(values: np.ndarray, layer: Weighted, node: onnx.NodeProto, kernel: tuple[int, ...], positions: int, seed: int) -> np.ndarray:
    """Columns that the weights meet, as (groups, positions, columns) float32: at most about `positions` of them, evenly drawn by `seed`.

    values: (batch, channels, *space) for Conv; (..., features) for Gemm and MatMul. kernel: the weight's spatial shape.
    The same seed draws the same positions, so that two versions of one input can be compared.
    """
    rng = np.random.default_rng(seed)
    if layer.op in ("Gemm", "MatMul"):
        flat = values.reshape(-1, values.shape[-1])
        return flat[_draw(rng, len(flat), positions)][None]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    space = values.shape[2:]
    strides = attributes.get("strides") or [1] * len(space)
    dilations = attributes.get("dilations") or [1] * len(space)
    before, after = padding(attributes, space, kernel, strides, dilations)
    padded = np.pad(values, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    counts = [(p - d * (k - 1) - 1) // s + 1 for p, d, k, s in zip(padded.shape[2:], dilations, kernel, strides, strict=True)]
    chosen = _draw(rng, int(np.prod(counts)), max(positions // len(values), 1))
    corners = np.unravel_index(chosen, counts)
    index = []
    for axis, corner in enumerate(corners):
        shape = [1] * len(space)
        shape[axis] = -1
        taps = (np.arange(kernel[axis]) * dilations[axis]).reshape(shape)
        index.append((corner * strides[axis]).reshape(-1, *([1] * len(space))) + taps)
    picked = padded[(slice(None), slice(None), *index)]  # (batch, channels, positions, *kernel)
    picked = np.moveaxis(picked, 1, 2)  # (batch, positions, channels, *kernel)
    batch, count, channels = picked.shape[:3]
    columns = picked.reshape(batch * count, layer.groups, channels // layer.groups * int(np.prod(kernel)))
    return np.ascontiguousarray(np.moveaxis(columns, 1, 0))


def padding(
    attributes: dict[str, object], space: tuple[int, ...], kernel: tuple[int, ...], strides: list[int], dilations: list[int]
) -> tuple[list[int], list[int]]:
    """Zeros before and after each spatial axis (ONNX Conv: `pads`, or `auto_pad`)."""
    how = attributes.get("auto_pad", b"NOTSET")
    how = how.decode() if isinstance(how, bytes) else how
    if how in ("SAME_UPPER", "SAME_LOWER"):
        total = [max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0) for n, k, s, d in zip(space, kernel, strides, dilations, strict=True)]
        small = [t // 2 for t in total]
        large = [t - h for t, h in zip(total, small, strict=True)]
        return (small, large) if how == "SAME_UPPER" else (large, small)
    given = attributes.get("pads")
    if how == "VALID" or not isinstance(given, list | tuple) or not given:
        return [0] * len(space), [0] * len(space)
    return list(given[: len(space)]), list(given[len(space) :])


def _draw(rng: np.random.Generator, available: int, wanted: int) -> np.ndarray:
    return np.arange(available) if available <= wanted else np.sort(rng.choice(available, wanted, replace=False))
