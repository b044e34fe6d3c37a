"""An array to bytes by whichever coder makes it smallest, and back.

The first byte says which coder it was; shape and dtype are the caller's to keep, and bound what decoding may allocate. Damage is found
where the code says more than it must (rANS and Huffman end in a known state, lengths add up); the adaptive coder decodes almost anything to
something. Whoever must know that data is whole keeps a hash, as packages do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgewise.coding import adaptive, grid, huffman, palette, plain, planes, rans, sparse
from edgewise.coding.cursor import Cursor
from edgewise.coding.numbers import Shape, unsigned
from edgewise.errors import InvalidInput

# How deep coders of parts may nest: sparse floats are values (planes) of bytes.
DEPTH = 2
# An array of more elements is tried on some of its first rows before a slow coder takes all of it.
_LARGE, _SAMPLE = 1 << 19, 1 << 17


@dataclass(frozen=True)
class Coder:
    """encode: values -> bytes, or None where it can't; decode: (cursor, shape, dtype) -> values.

    nests: both take one more argument, which codes a part. slow: decodes far under 100 M elements a second.
    """

    number: int
    encode: Callable[..., bytes | None]
    decode: Callable[..., np.ndarray]
    nests: bool = False
    slow: bool = False


CODERS = {
    "raw": Coder(0, plain.encode_raw, plain.decode_raw),
    "constant": Coder(1, plain.encode_constant, plain.decode_constant),
    "packed": Coder(2, plain.encode_packed, plain.decode_packed),
    "huffman": Coder(3, huffman.encode, huffman.decode),
    "rans": Coder(4, rans.encode, rans.decode),
    "sparse": Coder(5, sparse.encode, sparse.decode, nests=True),
    "palette": Coder(6, palette.encode, palette.decode, nests=True),
    "planes": Coder(7, planes.encode, planes.decode, nests=True),
    "float planes": Coder(8, planes.encode_floats, planes.decode_floats, nests=True),
    "adaptive": Coder(9, adaptive.encode, adaptive.decode, slow=True),
    "mixing": Coder(10, adaptive.encode_mixing, adaptive.decode_mixing, slow=True),
    "grid": Coder(11, grid.encode, grid.decode, nests=True),
}
ALL = tuple(CODERS)
FAST = tuple(name for name, coder in CODERS.items() if not coder.slow)
_BY_NUMBER = {coder.number: coder for coder in CODERS.values()}
_RANS = bytes([CODERS["rans"].number])


def encode(values: np.ndarray, *, coders: Collection[str] = ALL) -> bytes:
    """The fewest bytes that any of `coders` makes of `values`, lossless; FAST leaves out those that are slow to decode.

    values: any shape, elements of 1, 2, 4 or 8 bytes. The first axis counts as rows, all others as columns. Raises InvalidInput.
    """
    unsigned(values.dtype)
    if unknown := set(coders) - set(CODERS):
        raise InvalidInput(f"coders={sorted(unknown)} aren't known; use some of {', '.join(CODERS)}")
    return _encode(np.ascontiguousarray(values), coders, DEPTH)


def decode(data: bytes | memoryview, shape: Shape, dtype: Any) -> np.ndarray:
    """What `encode` was given; its shape and dtype are the caller's to know. Allocates in proportion to them, whatever `data` claims.

    Raises InvalidInput for data that `encode` didn't write, where that shows.
    """
    if any(axis < 0 for axis in shape):
        raise InvalidInput(f"shape={shape!r}: an axis can't be negative")
    return _decode(memoryview(data), tuple(shape), np.dtype(dtype), DEPTH).reshape(shape)


def decode_into(data: bytes | memoryview, shape: Shape, dtype: Any, out: memoryview) -> None:
    """`decode` to its place in memory, little-endian: what is large and decoded straight to there takes no memory, and no time, twice.

    out: writable, of as many bytes as shape and dtype take. What it holds after an error is undefined.
    """
    data, kind = memoryview(data), np.dtype(dtype)
    if data[:1] == _RANS and kind.itemsize == 1 and 0 < math.prod(shape) == len(out) and all(axis > 0 for axis in shape):
        cursor = Cursor(data[1:])
        rans.decode(cursor, tuple(shape), kind, np.frombuffer(out, np.uint8))
        cursor.end()
        return
    found = decode(data, shape, kind)
    out[:] = found.astype(kind.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data


def coder_of(data: bytes | memoryview) -> str:
    """The name of the coder that wrote `data`. Raises InvalidInput."""
    number = Cursor(data).byte()
    return next((name for name, coder in CODERS.items() if coder.number == number), None) or _unknown(number)


def _encode(values: np.ndarray, coders: Collection[str], depth: int) -> bytes:
    if not values.size:
        return bytes([CODERS["raw"].number])
    nest = partial(_encode, coders=coders, depth=depth - 1)
    best = bytes([CODERS["raw"].number]) + plain.encode_raw(values)
    by_fast = len(best)
    for name, coder in CODERS.items():
        if name not in coders or (coder.nests and not depth) or (coder.slow and not _promising(values, coder, by_fast)):
            continue
        blob = coder.encode(values, nest) if coder.nests else coder.encode(values)
        if blob is not None and len(blob) + 1 < len(best):
            best = bytes([coder.number]) + blob
        if not coder.slow:
            by_fast = len(best)
    return best


def _promising(values: np.ndarray, coder: Coder, by_fast: int) -> bool:
    """Whether a slow coder is worth its time on a large array: it does about as well on the beginning as the best fast one on the whole."""
    if values.size <= _LARGE:
        return True
    some = values[: max(1, _SAMPLE * len(values) // values.size)] if values.ndim > 1 else values
    if some.size > 2 * _SAMPLE:
        some = some.ravel()[:_SAMPLE]
    blob = coder.encode(some)
    return blob is not None and len(blob) / some.size < 1.01 * by_fast / values.size


def _decode(data: memoryview, shape: Shape, dtype: np.dtype, depth: int) -> np.ndarray:
    unsigned(dtype)
    cursor = Cursor(data)
    coder = _BY_NUMBER.get(number := cursor.byte()) or _unknown(number)
    if coder.nests and not depth:
        raise InvalidInput("coded data nests too deeply: it is damaged or forged; copy it again")
    if not math.prod(shape):
        cursor.end()
        return np.zeros(shape, dtype)
    unnest = partial(_decode, depth=depth - 1)
    found = coder.decode(cursor, shape, dtype, unnest) if coder.nests else coder.decode(cursor, shape, dtype)
    cursor.end()
    return found


def _unknown(number: int) -> Any:
    raise InvalidInput(f"coded data begins with {number}, which names no coder; it is damaged, or written by a newer edgewise")
