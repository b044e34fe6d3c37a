"""Numbers that lie within 256 of each other as bytes, and tables of 256 counts or lengths as a few bytes: what Huffman and rANS share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgewise.coding import core
from edgewise.coding.cursor import Cursor, framed, signed
from edgewise.coding.numbers import above, patterns, raised, whole
from edgewise.errors import InvalidInput

SYMBOLS = 256


@dataclass(frozen=True)
class Symbols:
    """symbols: (count,) uint8: of one-byte elements their own bits, of others the distance from `low`; counts: (256,) of each distance."""

    low: int
    symbols: np.ndarray
    counts: np.ndarray


def symbols(values: np.ndarray) -> Symbols | None:
    """None where the numbers span more than a byte, or are all the same."""
    numbers = whole(values)
    low, high = int(numbers.min()), int(numbers.max())
    if not 0 < high - low < SYMBOLS:
        return None
    if values.itemsize == 1:
        own = patterns(values).ravel()
        return Symbols(low, own, np.roll(np.bincount(own, minlength=SYMBOLS), -low))
    distances = above(numbers, low).ravel().astype(np.uint8)
    return Symbols(low, distances, np.bincount(distances, minlength=SYMBOLS))


def by_symbol(table: np.ndarray, low: int, dtype: np.dtype) -> np.ndarray:
    """A table of distances from `low` as one of symbols. One-byte elements are their own symbols: that saves a pass over all of them."""
    turn = -low % SYMBOLS
    return np.concatenate((table[turn:], table[:turn])) if dtype.itemsize == 1 and turn else table


def restored(found: np.ndarray, low: int, dtype: np.dtype) -> np.ndarray:
    """The elements that the symbols stand for."""
    return found.view(dtype) if dtype.itemsize == 1 else raised(found, low, dtype)


def encode_table(low: int, table: np.ndarray) -> bytes:
    """`low`, then the entries up to the last that isn't 0, through the adaptive coder."""
    entries = table[: int(np.flatnonzero(table)[-1]) + 1].astype(np.int32)
    out = np.empty(16 * SYMBOLS, np.uint8)
    size = core.call("adaptive_encode", entries, 1, len(entries), False, out)
    return signed(low) + bytes([len(entries) - 1]) + framed(out[:size].tobytes())


def decode_table(cursor: Cursor, most: int) -> tuple[int, np.ndarray]:
    """`low` and the 256 entries, none over `most`."""
    low = cursor.signed()
    entries = np.empty(cursor.byte() + 1, np.int32)
    core.call("adaptive_decode", cursor.framed(), 1, len(entries), False, entries)
    if entries.min() < 0 or entries.max() > most or not entries[-1]:
        raise InvalidInput("coded data has an impossible table: it is damaged or forged; copy it again")
    table = np.zeros(SYMBOLS, np.int32)
    table[: len(entries)] = entries
    return low, table
