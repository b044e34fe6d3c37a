"""Canonical Huffman codes: what Deep Compression (Han 2016) ends with. No state to store: some short tensors are smallest so."""

from __future__ import annotations

import math

import numpy as np

from edgewise.coding import core
from edgewise.coding.alphabet import SYMBOLS, by_symbol, decode_table, encode_table, restored, symbols
from edgewise.coding.cursor import Cursor
from edgewise.coding.limits import HUFFMAN_BITS
from edgewise.coding.numbers import Shape


def encode(values: np.ndarray) -> bytes | None:
    found = symbols(values)
    if found is None:
        return None
    lengths = code_lengths(found.counts)
    out = np.empty(len(found.symbols) * HUFFMAN_BITS // 8 + 1, np.uint8)
    size = core.call("huffman_encode", found.symbols, by_symbol(lengths, found.low, values.dtype), out)
    return encode_table(found.low, lengths) + out[:size].tobytes()


def decode(cursor: Cursor, shape: Shape, dtype: np.dtype) -> np.ndarray:
    low, lengths = decode_table(cursor, HUFFMAN_BITS)
    found = np.empty(math.prod(shape), np.uint8)
    core.call("huffman_decode", cursor.rest(), by_symbol(lengths.astype(np.uint8), low, dtype), found)
    return restored(found, low, dtype)


def code_lengths(counts: np.ndarray, longest: int = HUFFMAN_BITS) -> np.ndarray:
    """The code lengths, at most `longest`, with the fewest bits in all; 0 for what doesn't occur.

    Package-merge (Larmore and Hirschberg, JACM 1990): `longest` rounds of pairing the cheapest coins; a symbol's length is the number of
    coins of it among the cheapest 2 n - 2. counts: (256,), at least two of them over 0.
    """
    single: list[tuple[int, tuple[int, ...]]] = sorted((int(counts[symbol]), (symbol,)) for symbol in np.flatnonzero(counts).tolist())
    coins = single
    for _ in range(longest - 1):
        pairs = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(coins[::2], coins[1::2], strict=False)]
        coins = sorted(single + pairs, key=lambda coin: coin[0])
    chosen = [symbol for _, held in coins[: 2 * len(single) - 2] for symbol in held]
    return np.bincount(chosen, minlength=SYMBOLS).astype(np.uint8)
