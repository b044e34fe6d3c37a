"""Estimates of the next bit, and their mixture (native/model.h, native/mixing.h)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from edgewise.coding.fallback.range import Reader, Writer

SURE = 1 << 24
RATES, SLOWEST_SHARE, FASTEST_SHARE, LEAST = 1024, 800, 80, 3
WEIGHED, FIRST_WEIGHT = 65536, 18000
LEARN_FIRST, LEARN_FALL, LEARN_LEAST = 3000, 16, 100
ROOTS = (3037000500, 3611622603, 3938502376, 4112874773, 4202935003, 4248701965, 4271771996, 4283353945)


@cache
def rates(limit: int) -> list[int]:
    return [max(131072 // (2 * seen + 3), 65536 // limit) for seen in range(RATES)]


def moved(start: int, target: int, share: int) -> int:
    if target > start:
        return start + ((target - start) * share >> 16)
    return start - ((start - target) * share >> 16)


class Bit:
    """A slow and a fast estimate of the probability of a 1, in units of 2^-24, and how many bits they have seen."""

    __slots__ = ("fast", "seen", "slow")

    def __init__(self, seen: int = 0) -> None:
        self.slow = self.fast = SURE // 2
        self.seen = seen

    def chance(self) -> int:
        return min(max(self.slow + self.fast >> 9, LEAST), 65536 - LEAST)

    def learn(self, bit: int) -> None:
        target = SURE if bit else 0
        self.slow = moved(self.slow, target, rates(SLOWEST_SHARE)[self.seen])
        self.fast = moved(self.fast, target, rates(FASTEST_SHARE)[self.seen])
        self.seen += self.seen < RATES - 1


class Mixer:
    """Weights of the estimates of one bit."""

    def __init__(self) -> None:
        self.weights = [FIRST_WEIGHT] * 6
        self.seen = 0

    def code(self, coder: Writer | Reader, slots: Sequence[Bit], bit: int) -> int:
        inputs = [stretched((slot.slow + slot.fast) // 2) for slot in slots]
        one = squashed(sum(x * weight for x, weight in zip(inputs, self.weights, strict=False)) >> 16)
        bit = coder.bit(one, bit)
        error = (bit << 16) - one
        step = max(LEARN_FIRST // (self.seen // LEARN_FALL + 1), LEARN_LEAST)
        for i, (slot, x) in enumerate(zip(slots, inputs, strict=True)):
            self.weights[i] = min(max(self.weights[i] + (x * error * step >> 24), -8 * WEIGHED), 8 * WEIGHED)
            slot.learn(bit)
        self.seen += self.seen < 65535
        return bit


@cache
def logarithms() -> list[int]:
    """256 log2(1 + i / 512): squaring doubles a logarithm, so its bits appear one by one."""
    table = []
    for i in range(512):
        y, log = (1 << 30) + (i << 21), 0
        for _ in range(8):
            y = y * y >> 30
            log = log << 1 | y >> 31
            y >>= y >> 31
        table.append(log)
    return table


@cache
def powers() -> list[int]:
    """2^32 2^(-i / 256), less 1 where that doesn't fit in 32 bits."""
    table = []
    for i in range(256):
        power = 2**32 - 1
        for bit, root in enumerate(ROOTS):
            if i >> 7 - bit & 1:
                power = power * root >> 32
        table.append(power)
    return table


def log_of(value: int) -> int:
    length = value.bit_length()
    return (length - 1) * 256 + logarithms()[(value << 33 - length >> 23) & 511]


def stretched(probability: int) -> int:
    p = min(max(probability, 64), SURE - 64)
    return log_of(p) - log_of(SURE - p)


def squashed(x: int) -> int:
    size = abs(x)
    p = 65536 - LEAST
    if size < 16 * 256:
        p = min(p, (1 << 48) // ((1 << 32) + (powers()[size % 256] >> size // 256)))
    return 65536 - p if x < 0 else p
