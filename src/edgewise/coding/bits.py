"""Whole numbers of 1 to 16 bits without gaps: the first in the lowest bits (as ONNX packs elements of 4 and 2 bits)."""

from __future__ import annotations

import numpy as np

from edgewise.errors import InvalidInput

_GROUP = 8  # numbers, which fill `bits` bytes


def packed_bytes(count: int, bits: int) -> int:
    """Over 8 bits, the low bytes come first, then what is above them, packed."""
    return (count * bits + 7) // 8 if bits <= 8 else count + packed_bytes(count, bits - 8)


def pack(values: np.ndarray, bits: int) -> bytes:
    """values: (count,), unsigned, each under 2**bits."""
    if bits > 8:
        return (values & 0xFF).astype(np.uint8).tobytes() + pack(values >> 8, bits - 8)
    if bits == 8:
        return values.astype(np.uint8).tobytes()
    groups = -(-len(values) // _GROUP)
    padded = np.zeros(groups * _GROUP, np.uint64)
    padded[: len(values)] = values
    window = np.zeros(groups, "<u8")
    for i in range(_GROUP):
        window |= padded[i::_GROUP] << np.uint64(i * bits)
    return window.view(np.uint8).reshape(groups, 8)[:, :bits].tobytes()[: packed_bytes(len(values), bits)]


def unpack(data: bytes | memoryview, bits: int, count: int) -> np.ndarray:
    """The numbers that `pack` was given, as uint16 (over 8 bits) or uint8. Raises InvalidInput when there are more or fewer bytes."""
    if len(data) != packed_bytes(count, bits):
        raise InvalidInput(f"{count:,} numbers of {bits} bits take {packed_bytes(count, bits):,} bytes; {len(data):,} were given")
    given = np.frombuffer(data, np.uint8)
    if bits > 8:
        return given[:count] | unpack(data[count:], bits - 8, count).astype(np.uint16) << 8
    if bits == 8:
        return given.copy()
    groups = -(-count // _GROUP)
    window = np.zeros((groups, 8), np.uint8)
    padded = np.zeros(groups * bits, np.uint8)
    padded[: len(given)] = given
    window[:, :bits] = padded.reshape(groups, bits)
    whole = window.view("<u8").ravel()
    values = np.empty(groups * _GROUP, np.uint8)
    for i in range(_GROUP):
        values[i::_GROUP] = whole >> np.uint64(i * bits) & np.uint64((1 << bits) - 1)
    return values[:count]
