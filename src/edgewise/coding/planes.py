"""Wide elements byte by byte: all highest bytes, then all second ones, each coded by what suits it.

Of a float, the sign is moved behind the rest first, so that the exponent, which says most, is not spread over two bytes (of float32 and
bfloat16 it then is the highest byte, alone).
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from edgewise.coding.cursor import Cursor, framed
from edgewise.coding.numbers import Shape, patterns, unsigned
from edgewise.coding.sparse import Nest, Unnest


def _encode(values: np.ndarray, nest: Nest, *, turned: bool) -> bytes | None:
    if values.itemsize == 1 or turned != (values.dtype.kind not in "iu"):
        return None
    bits = patterns(values)
    if turned:
        bits = bits << _of(bits, 1) | bits >> _of(bits, 8 * bits.itemsize - 1)
    planes = [(bits >> _of(bits, 8 * byte)).astype(np.uint8) for byte in reversed(range(bits.itemsize))]
    return b"".join(framed(nest(plane)) for plane in planes)


def _decode(cursor: Cursor, shape: Shape, dtype: np.dtype, unnest: Unnest, *, turned: bool) -> np.ndarray:
    kind = unsigned(dtype)
    planes = np.empty((math.prod(shape), kind.itemsize), np.uint8)
    for byte in reversed(range(kind.itemsize)):
        planes[:, byte] = unnest(cursor.framed(), shape, np.dtype(np.uint8)).reshape(-1)
    bits = planes.view(kind.newbyteorder("<"))[:, 0].astype(kind, copy=False)
    if turned:
        bits = bits >> _of(bits, 1) | bits << _of(bits, 8 * bits.itemsize - 1)
    return bits.view(dtype)


encode, decode = partial(_encode, turned=False), partial(_decode, turned=False)
encode_floats, decode_floats = partial(_encode, turned=True), partial(_decode, turned=True)


def _of(bits: np.ndarray, value: int) -> np.generic:
    return bits.dtype.type(value)
