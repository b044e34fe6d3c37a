"""rANS with one table of frequencies per array: within hundredths of a percent of the entropy, and the fastest to decode."""

from __future__ import annotations

import math

import numpy as np

from edgewise.coding import core
from edgewise.coding.alphabet import by_symbol, decode_table, encode_table, restored, symbols
from edgewise.coding.cursor import Cursor
from edgewise.coding.limits import LANES, RANS_BITS
from edgewise.coding.numbers import Shape
from edgewise.errors import InvalidInput

# Frequencies of more bits come closer to the entropy, and take a longer table.
_BITS = (8, 10, 12, 13, 14)
# Set in the byte of the bits: thirty-two states instead of eight, which vectors decode. From so many symbols on: the states take 72 bytes.
_WIDE, _MANY = 0x20, 1 << 16


def encode(values: np.ndarray) -> bytes | None:
    found = symbols(values)
    if found is None:
        return None
    tried: dict[int, tuple[float, np.ndarray, bytes]] = {}
    for bits in _BITS:
        if np.count_nonzero(found.counts) <= 1 << bits:
            table = frequencies(found.counts, bits)
            head = encode_table(found.low, table)
            tried[bits] = (8 * len(head) + cost(found.counts, table, bits), table, head)
    wide = len(found.symbols) >= _MANY
    bits, (_, table, head) = min(tried.items(), key=lambda each: each[1][0])
    lanes = LANES[wide]
    out = np.empty(2 * len(found.symbols) + 4 * lanes, np.uint8)
    size = core.call("rans_encode", found.symbols, by_symbol(table, found.low, values.dtype), out, bits, lanes)
    return bytes([bits | wide * _WIDE]) + head + out[:size].tobytes()


def decode(cursor: Cursor, shape: Shape, dtype: np.dtype, out: np.ndarray | None = None) -> np.ndarray:
    """out: (count,) uint8, where elements of one byte go instead of to an array of their own."""
    said = cursor.byte()
    bits, lanes = said & ~_WIDE, LANES[bool(said & _WIDE)]
    if not RANS_BITS[0] <= bits <= RANS_BITS[1]:
        raise InvalidInput(f"coded data has frequencies of {bits} bits: it is damaged or forged; copy it again")
    low, table = decode_table(cursor, 1 << bits)
    found = np.empty(math.prod(shape), np.uint8) if out is None or dtype.itemsize != 1 else out
    core.call("rans_decode", cursor.rest(), by_symbol(table.astype(np.uint32), low, dtype), found, bits, lanes)
    return restored(found, low, dtype)


def frequencies(counts: np.ndarray, bits: int) -> np.ndarray:
    """(256,) uint32 that sum to 1 << bits: the cheapest to code `counts` with, and none 0 that occurs.

    Rounded shares first; then, as long as the sum is off, one is moved where that costs least: by one step, symbol s changes the code
    by counts[s] log2((f + 1) / f) bits.
    """
    whole = 1 << bits
    occurs = counts > 0
    table = np.where(occurs, np.maximum(np.rint(counts * (whole / counts.sum())), 1), 0).astype(np.int64)
    while (off := whole - int(table.sum())) != 0:
        with np.errstate(divide="ignore", invalid="ignore"):
            gains = np.where(occurs, counts * (np.log2(table + 1) - np.log2(table)), -1)
            losses = np.where(table > 1, counts * (np.log2(table) - np.log2(table - 1)), np.inf)
        if off > 0:
            table[int(gains.argmax())] += 1
        else:
            table[int(losses.argmin())] -= 1
    return table.astype(np.uint32)


def cost(counts: np.ndarray, table: np.ndarray, bits: int) -> float:
    """Bits that coding `counts` takes."""
    occurs = counts > 0
    return float((counts[occurs] * (bits - np.log2(table[occurs]))).sum())
