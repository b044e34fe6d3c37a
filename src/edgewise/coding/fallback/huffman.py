"""Canonical Huffman codes of at most 12 bits (native/huffman.c says why)."""

from __future__ import annotations

import numpy as np

from edgewise.coding.fallback.rans import Buffer
from edgewise.coding.fallback.texts import DAMAGED, FULL, IMPOSSIBLE, TRUNCATED
from edgewise.coding.limits import HUFFMAN_BITS

_AT_ONCE = 1 << 16


def huffman_encode(symbols: Buffer, lengths: Buffer, out: Buffer) -> int:
    of = np.frombuffer(lengths, np.uint8)[:256]
    codes = canonical(of)
    given = np.frombuffer(symbols, np.uint8)
    if not of[given].all():
        raise ValueError(IMPOSSIBLE)
    # Each code's bits in a row of 12, the unused ones in front left out.
    places = np.arange(HUFFMAN_BITS - 1, -1, -1)
    parts = []
    for i in range(0, len(given), _AT_ONCE):
        some = given[i : i + _AT_ONCE]
        rows = (codes[some][:, None] >> places & 1).astype(np.uint8)
        parts.append(rows[places < of[some][:, None]])
    coded = np.packbits(np.concatenate(parts)).tobytes() if parts else b""
    room = memoryview(out).cast("B")
    if len(coded) > len(room):
        raise ValueError(FULL)
    room[: len(coded)] = coded
    return len(coded)


def huffman_decode(data: Buffer, lengths: Buffer, out: Buffer) -> int:
    of = np.frombuffer(lengths, np.uint8)[:256].astype(np.int64)
    codes = canonical(of)
    table = np.zeros((1 << HUFFMAN_BITS, 2), np.int64)
    for symbol in np.flatnonzero(of):
        start = codes[symbol] << (HUFFMAN_BITS - of[symbol])
        table[start : start + (1 << (HUFFMAN_BITS - of[symbol]))] = symbol, of[symbol]
    symbols, used = table[:, 0].tolist(), table[:, 1].tolist()
    given = bytes(data)
    found = memoryview(out).cast("B")
    padded = given + bytes(3)
    bit, whole, mask = 0, 8 * len(given), (1 << HUFFMAN_BITS) - 1
    for i in range(len(found)):
        byte = bit >> 3
        window = padded[byte] << 16 | padded[byte + 1] << 8 | padded[byte + 2]
        code = window >> (24 - HUFFMAN_BITS - (bit & 7)) & mask
        found[i] = symbols[code]
        bit += used[code]
        if bit > whole:
            raise ValueError(TRUNCATED)
    if -(-bit // 8) != len(given) or (bit % 8 and given[-1] << bit % 8 & 0xFF):
        raise ValueError(DAMAGED)
    return 0


def canonical(lengths: np.ndarray) -> np.ndarray:
    """Each symbol's code: ordered by length, then by symbol (RFC 1951, 3.2.2)."""
    if len(lengths) < 256 or lengths.max() > HUFFMAN_BITS:
        raise ValueError(IMPOSSIBLE)
    counts = np.bincount(lengths, minlength=HUFFMAN_BITS + 1)
    counts[0] = 0
    if sum(int(counts[length]) << (HUFFMAN_BITS - length) for length in range(1, HUFFMAN_BITS + 1)) != 1 << HUFFMAN_BITS:
        raise ValueError(IMPOSSIBLE)
    codes = np.zeros(256, np.int64)
    code = 0
    for length in range(1, HUFFMAN_BITS + 1):
        code = (code + int(counts[length - 1])) << 1
        members = np.flatnonzero(lengths == length)
        codes[members] = code + np.arange(len(members))
    return codes
