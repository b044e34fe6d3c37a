"""Inputs of a model's signature, drawn at random: for whoever has to call a model and has nothing to ask it."""

from __future__ import annotations

import numpy as np

from edgewise.data.padding import Padding
from edgewise.errors import InvalidData
from edgewise.types import Signature


def inputs(signature: Signature, *, batch: int = 1, tokens: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """One call's inputs. Leading axes that are open become `batch`, other open ones `tokens`.

    Floats are of a normal distribution, bytes of any value, wider integers 0 or 1, which any table of tokens or classes has; a mask, by
    name and rank as `Padding` knows it, is all ones: holes in it are no sentence's, and whatever shares a row with them looks dependent.
    Raises InvalidData for a dtype that can't be drawn.
    """
    generator = np.random.default_rng(seed)
    axes = {axis: tokens for spec in signature.inputs for axis in spec.shape[1:] if isinstance(axis, str)}
    axes |= {spec.shape[0]: batch for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], str)}
    found = {spec.name: _drawn(spec.concrete(**axes), np.dtype(spec.dtype), generator) for spec in signature.inputs}
    if (mask := Padding.of(signature, ()).mask) is not None:
        found[mask] = np.ones_like(found[mask])
    return found


def _drawn(shape: tuple[int, ...], dtype: np.dtype, generator: np.random.Generator) -> np.ndarray:
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return np.ones(shape, dtype)
    if dtype.kind not in "iu":
        raise InvalidData(f"no {dtype} can be drawn at random; give inputs with --data")
    high = 2 if dtype.itemsize > 1 else 256 if dtype.kind == "u" else 128
    return generator.integers(0, high, shape).astype(dtype)
