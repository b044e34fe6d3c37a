"""Operators that move elements of maps and images about: Pad, Resize, and blocks between space and depth."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edgewise.models.binding import Function, Node, numbers, optional_numbers

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
_COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn")


def pad(node: Node) -> Function:
    mode = node.attribute("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise node.refuse(f"mode {mode!r} is unknown; use constant, reflect, edge or wrap")
    read, read_value, read_axes = numbers(node, 1), optional_numbers(node, 2), optional_numbers(node, 3)

    def padded(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        amounts = read(pads)
        which = [axis % x.dim() for axis in read_axes(axes) or range(x.dim())]
        ends = dict(zip(which, zip(amounts[: len(which)], amounts[len(which) :], strict=True), strict=True))
        if mode == "constant":
            flat = [amount for axis in reversed(range(x.dim())) for amount in ends.get(axis, (0, 0))]
            given = read_value(value)
            return F.pad(x, flat, value=given[0] if isinstance(given, list) else given or 0)
        for axis, (begin, end) in ends.items():
            if begin or end:
                x = x.index_select(axis, _border(x.shape[axis], begin, end, mode).to(x.device))
        return x

    return padded


@lru_cache(maxsize=64)
def _border(size: int, begin: int, end: int, mode: Any) -> Tensor:
    """Where each element along an axis comes from; negative amounts are cut off first."""
    kept = np.arange(size)[max(-begin, 0) : size - max(-end, 0)]
    return torch.from_numpy(np.pad(kept, (max(begin, 0), max(end, 0)), mode))


def depth_to_space(node: Node) -> Function:
    block = node.attribute("blocksize", 1)
    if node.attribute("mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, block)

    def spread(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return y.reshape(n, c // block**2, h * block, w * block)

    return spread


def space_to_depth(node: Node) -> Function:
    block = node.attribute("blocksize", 1)
    if node.attribute("mode", "DCR") == "CRD":
        return lambda x: F.pixel_unshuffle(x, block)

    def gathered(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
        return y.reshape(n, c * block**2, h // block, w // block)

    return gathered


def resize(node: Node) -> Function:
    """Separable: along one axis after the other, except where torch's own interpolation is the same."""
    coordinates = node.attribute("coordinate_transformation_mode", "half_pixel")
    mode, rounding = node.attribute("mode", "nearest"), node.attribute("nearest_mode", "round_prefer_floor")
    if coordinates not in _COORDINATES:
        raise node.refuse(f"coordinate_transformation_mode={coordinates!r} isn't supported; use one of {', '.join(_COORDINATES)}")
    if node.attribute("antialias", 0):
        raise node.refuse("antialias=1 isn't supported; export the model without it")
    cubic, exclude = node.attribute("cubic_coeff_a", -0.75), bool(node.attribute("exclude_outside", 0))
    policy, stated = node.attribute("keep_aspect_ratio_policy", "stretch"), node.attribute("axes", None)
    read_scales, read_sizes = optional_numbers(node, 2), optional_numbers(node, 3)  # of these, one is left out or empty

    def resized(x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        axes = [axis % x.dim() for axis in stated or range(x.dim())]
        before = [x.shape[axis] for axis in axes]
        after, ratios = read_sizes(sizes), read_scales(scales)
        if after:
            ratios = [new / old for new, old in zip(after, before, strict=True)]
            if policy != "stretch":
                ratio = min(ratios) if policy == "not_larger" else max(ratios)
                ratios, after = [ratio] * len(axes), [int(ratio * old + 0.5) for old in before]
        else:
            after = [int(ratio * old) for ratio, old in zip(ratios, before, strict=True)]
        changed = [
            (axis, new, ratio) for axis, old, new, ratio in zip(axes, before, after, ratios, strict=True) if (new, ratio) != (old, 1)
        ]
        if quick := _torch_mode(x, changed, mode, coordinates, rounding):
            target = {axis: new for axis, new, _ in changed}
            size = [target.get(axis, x.shape[axis]) for axis in range(2, x.dim())]
            corners = coordinates == "align_corners" if mode == "linear" else None
            return F.interpolate(x, size, mode=quick, align_corners=corners)
        for axis, new, ratio in changed:
            indices, weights = _taps(x.shape[axis], new, ratio, mode, coordinates, rounding, cubic, exclude)
            parts = [x.index_select(axis, row.to(x.device)) for row in indices]
            shape = [-1 if axis == other else 1 for other in range(x.dim())]
            if mode != "nearest":
                parts = [part * weight.to(x.device, x.dtype).reshape(shape) for part, weight in zip(parts, weights, strict=True)]
            x = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        return x

    return resized


def _torch_mode(x: Tensor, changed: list[tuple[int, int, float]], mode: str, coordinates: str, rounding: str) -> str | None:
    """The mode of F.interpolate that gives the same; None where there is none."""
    if not changed or not 3 <= x.dim() <= 5 or any(axis < 2 for axis, _, _ in changed):
        return None
    if any(not math.isclose(new, x.shape[axis] * ratio, rel_tol=1e-6) for axis, new, ratio in changed):
        return None  # torch goes by sizes alone
    if mode == "linear":
        plain = coordinates in ("half_pixel", "align_corners") or (
            coordinates == "pytorch_half_pixel" and all(new > 1 for _, new, _ in changed)
        )
        return _LINEAR[x.dim() - 2] if plain else None
    twice = all(new == 2 * x.shape[axis] for axis, new, _ in changed)  # at other factors torch rounds where ONNX does not
    repeats = (coordinates == "asymmetric" and rounding == "floor") or (coordinates == "half_pixel" and rounding.startswith("round"))
    return "nearest" if mode == "nearest" and twice and repeats else None


@lru_cache(maxsize=64)
def _taps(
    size: int, new: int, ratio: float, mode: str, coordinates: str, rounding: str, cubic: float, exclude: bool
) -> tuple[Tensor, Tensor]:
    """What each of `new` elements along an axis is made of: indices (taps, new) and weights (taps, new)."""
    at = _places(size, new, ratio, coordinates)
    if mode == "nearest":
        rounded = {
            "round_prefer_floor": np.ceil(at - 0.5),
            "round_prefer_ceil": np.floor(at + 0.5),
            "floor": np.floor(at),
            "ceil": np.ceil(at),
        }[rounding]
        found, weights = rounded[None], np.ones((1, new))
    else:
        low = np.floor(at)
        t = at - low
        if mode == "linear":
            found, weights = low + np.array([[0], [1]]), np.stack([1 - t, t])
        else:  # Keys 1981, with A for a in equation 4
            A = cubic
            found = low + np.array([[-1], [0], [1], [2]])
            near = [((A + 2) * d - (A + 3)) * d * d + 1 for d in (t, 1 - t)]
            far = [((A * d - 5 * A) * d + 8 * A) * d - 4 * A for d in (1 + t, 2 - t)]
            weights = np.stack([far[0], *near, far[1]])
        if exclude:
            weights = np.where((found < 0) | (found >= size), 0, weights)
            weights = weights / weights.sum(0)
    return torch.from_numpy(np.clip(found, 0, size - 1).astype(np.int64)), torch.from_numpy(weights)


def _places(size: int, new: int, ratio: float, coordinates: str) -> np.ndarray:
    """Where the elements of the result lie on the input's axis, in the specification's terms (Resize, coordinate_transformation_mode)."""
    y = np.arange(new, dtype=np.float64)
    if coordinates == "align_corners":
        return y * (size - 1) / (new - 1) if new > 1 else np.zeros(new)
    if coordinates == "asymmetric":
        return y / ratio
    if coordinates == "tf_half_pixel_for_nn":
        return (y + 0.5) / ratio
    if coordinates == "pytorch_half_pixel" and new == 1:
        return np.zeros(new)
    centred = (y + 0.5) / ratio - 0.5
    if coordinates == "half_pixel_symmetric":
        centred += size / 2 * (1 - new / (ratio * size))
    return centred
