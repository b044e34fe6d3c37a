"""A run of bytes (a manifest, a graph) for whoever has the one that it came from."""

from __future__ import annotations

import zlib

import numpy as np

from edgewise.coding import against
from edgewise.coding.cursor import Cursor, framed, varint
from edgewise.errors import InvalidInput

_SAME, _DEFLATED, _ELEMENTS = range(3)
# Deflate looks back 32 KiB, less 262 bytes. A piece and what it gets of the old run, from around the same place there, take no more.
_PIECE, _WINDOW = 1 << 13, (1 << 15) - (1 << 13) - 512
_RAW_DEFLATE = -15


def encode(data: bytes, known: bytes) -> bytes:
    """`data` for whoever has `known`, lossless."""
    if data == known:
        return bytes([_SAME])
    found = [bytes([_DEFLATED]) + varint(len(data)) + b"".join(map(framed, _deflated(data, known)))]
    if len(data) == len(known) and data:
        found.append(bytes([_ELEMENTS]) + against.encode(_bytes(data), _bytes(known)))
    return min(found, key=len)


def decode(blob: bytes | memoryview, known: bytes, most: int) -> bytes:
    """What `encode` was given, at most `most` bytes. Raises InvalidInput."""
    cursor = Cursor(blob)
    method = cursor.byte()
    if method == _SAME:
        cursor.end()
        return known
    if method == _ELEMENTS:
        return against.decode(cursor.rest(), _bytes(known)).tobytes()
    if method != _DEFLATED:
        raise InvalidInput(f"an update has a run of the unknown kind {method}: it is damaged, or made by a newer edgewise")
    size = cursor.varint(most)
    found = bytearray()
    while len(found) < size:
        found += _inflated(cursor.framed(), _around(known, len(found), size), min(_PIECE, size - len(found)))
    cursor.end()
    return bytes(found)


def _deflated(data: bytes, known: bytes) -> list[bytes]:
    pieces = []
    for start in range(0, len(data), _PIECE):
        window = _around(known, start, len(data))
        packer = zlib.compressobj(9, zlib.DEFLATED, _RAW_DEFLATE, 9, zlib.Z_DEFAULT_STRATEGY, window)
        pieces.append(packer.compress(data[start : start + _PIECE]) + packer.flush())
    return pieces


def _inflated(blob: memoryview, window: bytes, size: int) -> bytes:
    unpacker = zlib.decompressobj(_RAW_DEFLATE, window)
    try:
        found = unpacker.decompress(blob, size + 1)
    except zlib.error as error:
        raise InvalidInput(f"an update's deflated data is damaged or forged ({error}); copy it again") from error
    if len(found) != size or not unpacker.eof or unpacker.unused_data:
        raise InvalidInput("an update's deflated data doesn't end where it should: it is damaged or forged; copy it again")
    return found


def _around(known: bytes, start: int, size: int) -> bytes:
    middle = start * len(known) // max(size, 1) + _PIECE // 2
    first = max(0, min(middle - _WINDOW // 2, len(known) - _WINDOW))
    return known[first : first + _WINDOW]


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)
