"""Arrays as the coders see them: whole numbers that wrap around, of 8 to 64 bits."""

from __future__ import annotations

import math

import numpy as np

from edgewise.errors import InvalidInput

Shape = tuple[int, ...]


def unsigned(dtype: np.dtype) -> np.dtype:
    """The whole numbers of the same size. Raises InvalidInput for what has none."""
    if dtype.itemsize not in (1, 2, 4, 8) or dtype.hasobject:
        raise InvalidInput(f"dtype {dtype} can't be coded; give elements of 1, 2, 4 or 8 bytes (view others as such)")
    return np.dtype(f"u{dtype.itemsize}")


def patterns(values: np.ndarray) -> np.ndarray:
    """The bits of each element as a whole number."""
    return np.ascontiguousarray(values).view(unsigned(values.dtype))


def is_integer(dtype: np.dtype) -> bool:
    return dtype.kind in "iub"


def whole(values: np.ndarray) -> np.ndarray:
    """`values` as numbers that have an order: themselves, or their bits (floats, booleans)."""
    return values if values.dtype.kind in "iu" else patterns(values)


def above(values: np.ndarray, low: int) -> np.ndarray:
    """values - low, modulo 2**bits."""
    bits = patterns(values)
    return bits - bits.dtype.type(low % 2 ** (8 * bits.itemsize))


def raised(distances: np.ndarray, low: int, dtype: np.dtype) -> np.ndarray:
    """low + distances, modulo 2**bits: undoes `above`."""
    kind = unsigned(dtype)
    return (distances.astype(kind) + kind.type(low % 2 ** (8 * kind.itemsize))).view(dtype)


def matrix(shape: Shape, split: int = 1) -> tuple[int, int]:
    """Rows and columns: the axes before `split`, and the others. A vector is one row."""
    if len(shape) < 2:
        return 1, math.prod(shape)
    return math.prod(shape[:split]), math.prod(shape[split:])
