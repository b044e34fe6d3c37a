"""Mostly zeros: how many come before each value, and the values (the relative index of Deep Compression, Han 2016, section 2)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgewise.coding.cursor import Cursor, framed, varint
from edgewise.coding.numbers import Shape, patterns
from edgewise.errors import InvalidInput

LIMIT = 255  # zeros that a gap of one byte can span: the highest one stands for as many zeros, with no value behind

Nest = Callable[[np.ndarray], bytes]
Unnest = Callable[[memoryview, Shape, np.dtype], np.ndarray]


def encode(values: np.ndarray, nest: Nest) -> bytes | None:
    flat = patterns(values).ravel()
    places = np.flatnonzero(flat)
    if not 0 < len(places) <= values.size // 2:
        return None
    steps = gaps(places, LIMIT)
    return varint(len(steps)) + framed(nest(steps.astype(np.uint8))) + nest(values.ravel()[places])


def decode(cursor: Cursor, shape: Shape, dtype: np.dtype, unnest: Unnest) -> np.ndarray:
    count = math.prod(shape)
    # Every step goes on by one place at least.
    many = cursor.varint(count)
    steps = unnest(cursor.framed(), (many,), np.dtype(np.uint8))
    found = places(steps, LIMIT)
    if len(found) and found[-1] >= count:
        raise InvalidInput(f"coded data has a value at {found[-1]:,} of {count:,}: it is damaged or forged; copy it again")
    values = np.zeros(count, dtype)
    values[found] = unnest(cursor.rest(), found.shape, dtype)
    return values


def gaps(places: np.ndarray, limit: int) -> np.ndarray:
    """Zeros before each place, in steps of at most `limit`: a step of `limit` is followed by no value.

    places: ascending indices, (values,). Returns (steps,).
    """
    zeros = np.diff(places, prepend=-1) - 1
    ends = np.cumsum(zeros // limit + 1)
    steps = np.full(int(ends[-1]) if len(ends) else 0, limit, np.int64)
    steps[ends - 1] = zeros % limit
    return steps


def places(steps: np.ndarray, limit: int) -> np.ndarray:
    """Undoes `gaps`."""
    wide = steps.astype(np.int64)
    return (np.cumsum(np.where(wide == limit, limit, wide + 1)) - 1)[wide != limit]
