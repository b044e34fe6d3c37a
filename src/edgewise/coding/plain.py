"""Without a model: as it is, one value for all, or packed into as few bits as the range takes."""

from __future__ import annotations

import math

import numpy as np

from edgewise.coding.bits import pack, unpack
from edgewise.coding.cursor import Cursor, signed
from edgewise.coding.numbers import Shape, above, patterns, raised, unsigned, whole
from edgewise.errors import InvalidInput


def encode_raw(values: np.ndarray) -> bytes:
    """Little-endian, element by element."""
    bits = patterns(values)
    return bits.astype(bits.dtype.newbyteorder("<"), copy=False).tobytes()


def decode_raw(cursor: Cursor, shape: Shape, dtype: np.dtype) -> np.ndarray:
    kind = unsigned(dtype)
    data = cursor.bytes(math.prod(shape) * kind.itemsize)
    return np.frombuffer(data, kind.newbyteorder("<")).astype(kind).view(dtype)


def encode_constant(values: np.ndarray) -> bytes | None:
    numbers = whole(values)
    low = int(numbers.min())
    return signed(low) if low == int(numbers.max()) else None


def decode_constant(cursor: Cursor, shape: Shape, dtype: np.dtype) -> np.ndarray:
    return raised(np.zeros(math.prod(shape), unsigned(dtype)), cursor.signed(), dtype)


def encode_packed(values: np.ndarray) -> bytes | None:
    numbers = whole(values)
    low = int(numbers.min())
    bits = (int(numbers.max()) - low).bit_length()
    if not 1 <= bits <= min(16, 8 * values.itemsize - 1):
        return None
    return signed(low) + bytes([bits]) + pack(above(numbers, low).ravel(), bits)


def decode_packed(cursor: Cursor, shape: Shape, dtype: np.dtype) -> np.ndarray:
    low, bits = cursor.signed(), cursor.byte()
    if not 1 <= bits <= 16:
        raise InvalidInput(f"coded data has numbers of {bits} bits where 1 to 16 can be: it is damaged or forged; copy it again")
    return raised(unpack(cursor.rest(), bits, math.prod(shape)), low, dtype)
