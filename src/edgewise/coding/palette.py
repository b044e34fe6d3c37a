"""Few different values, whatever they are (shared weights, Han 2016): a list of them, and which one stands where."""

from __future__ import annotations

import math

import numpy as np

from edgewise.coding.cursor import Cursor, framed, varint
from edgewise.coding.numbers import Shape, patterns
from edgewise.coding.sparse import Nest, Unnest
from edgewise.errors import InvalidInput

COLOURS = 256
_LOOK = 1 << 14


def encode(values: np.ndarray, nest: Nest) -> bytes | None:
    flat = values.ravel()
    bits = patterns(flat)
    # Sorting millions of elements to find that they are too many would take seconds.
    if values.itemsize == 1 or len(np.unique(bits[:_LOOK])) > COLOURS:
        return None
    _, first, which = np.unique(bits, return_index=True, return_inverse=True)
    if not 1 < len(first) <= min(COLOURS, values.size // 2):
        return None
    # In the order of their size, so that indices are near each other where values are.
    colours = flat[first]
    order = np.argsort(colours, kind="stable")
    rank = np.empty(len(order), np.uint8)
    rank[order] = np.arange(len(order))
    return varint(len(order)) + framed(nest(colours[order])) + nest(rank[which.ravel()].reshape(values.shape))


def decode(cursor: Cursor, shape: Shape, dtype: np.dtype, unnest: Unnest) -> np.ndarray:
    many = cursor.varint(min(COLOURS, math.prod(shape)))
    colours = unnest(cursor.framed(), (many,), dtype)
    which = unnest(cursor.rest(), shape, np.dtype(np.uint8)).ravel()
    if int(which.max()) >= many:
        raise InvalidInput(f"coded data has the value {which.max()} of {many}: it is damaged or forged; copy it again")
    return colours[which]
