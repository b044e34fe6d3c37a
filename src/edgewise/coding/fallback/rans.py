"""rANS with eight or thirty-two interleaved states (native/rans.c says why it is so)."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewise.coding.fallback.texts import DAMAGED, FULL, IMPOSSIBLE, TRUNCATED
from edgewise.coding.limits import LANES, RANS_BITS

LOWEST = 1 << 16
Buffer = Any  # bytes, a view or an array: typing has no name for it before Python 3.12


def rans_encode(symbols: Buffer, frequencies: Buffer, out: Buffer, bits: int, lanes: int) -> int:
    share, starts = _shares(frequencies, bits, lanes)
    state = [LOWEST] * lanes
    words: list[int] = []
    given = bytes(symbols)
    if any(not share[symbol] for symbol in set(given)):
        raise ValueError(IMPOSSIBLE)
    for i in range(len(given) - 1, -1, -1):
        symbol = given[i]
        frequency = share[symbol]
        x = state[i % lanes]
        if x >= frequency << (32 - bits):
            words.append(x & 0xFFFF)
            x >>= 16
        state[i % lanes] = (x // frequency << bits) + x % frequency + starts[symbol]
    coded = np.array(state, "<u4").tobytes() + np.array(words[::-1], "<u2").tobytes()
    room = memoryview(out).cast("B")
    if len(coded) > len(room):
        raise ValueError(FULL)
    room[: len(coded)] = coded
    return len(coded)


def rans_decode(data: Buffer, frequencies: Buffer, out: Buffer, bits: int, lanes: int) -> int:
    share, starts = _shares(frequencies, bits, lanes)
    given = bytes(data)
    if len(given) < 4 * lanes:
        raise ValueError(TRUNCATED)
    state = np.frombuffer(given, "<u4", lanes).tolist()
    if min(state) < LOWEST:
        raise ValueError(DAMAGED)
    words = iter(np.frombuffer(given, "<u2", (len(given) - 4 * lanes) // 2, 4 * lanes).tolist())
    slots = np.repeat(np.arange(256), share).tolist()
    mask = (1 << bits) - 1
    found = memoryview(out).cast("B")
    lane = 0
    try:
        for i in range(len(found)):
            x = state[lane]
            slot = x & mask
            symbol = slots[slot]
            found[i] = symbol
            x = share[symbol] * (x >> bits) + slot - starts[symbol]
            state[lane] = x if x >= LOWEST else x << 16 | next(words)
            lane = (lane + 1) % lanes
    except StopIteration:
        raise ValueError(TRUNCATED) from None
    if any(x != LOWEST for x in state) or next(words, None) is not None or len(given) % 2:
        raise ValueError(DAMAGED)
    return 0


def _shares(frequencies: Buffer, bits: int, lanes: int) -> tuple[list[int], list[int]]:
    if not RANS_BITS[0] <= bits <= RANS_BITS[1] or lanes not in LANES:
        raise ValueError(IMPOSSIBLE)
    share = np.frombuffer(frequencies, np.uint32).astype(np.int64)[:256]
    if len(share) < 256 or share.sum() != 1 << bits:
        raise ValueError(IMPOSSIBLE)
    return share.tolist(), (np.cumsum(share) - share).tolist()
