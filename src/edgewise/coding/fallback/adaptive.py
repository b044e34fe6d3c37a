"""The adaptive coder (native/adaptive.c says how it sees a matrix)."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from edgewise.coding.fallback.models import Bit, Mixer, moved, rates
from edgewise.coding.fallback.range import Reader, Writer
from edgewise.coding.fallback.rans import Buffer
from edgewise.coding.fallback.texts import FULL

UNIT, FIRST_ACTIVITY, ACTIVITY_SHARE = 65536, 24576, 64
FLAG_LEVELS, LONGEST, SIGN_SEEN = 8, 31, 12
LEVEL_ENDS = (1, 2, 4, 7, 11, 16, 24, 36, 54, 80, 115, 160, 215, 280, 350, 430, 520, 620, 730, 840, 950, 1060, 1170, 1280, 1390, 1500, 1610,
              1720, 1830, 2000, 2300)  # fmt: skip


def adaptive_encode(values: Buffer, rows: int, columns: int, mixing: bool, out: Buffer) -> int:
    writer = Writer()
    _walk(Coder(writer, mixing), np.frombuffer(values, np.int32)[: rows * columns].tolist(), rows, columns)
    coded = writer.end()
    room = memoryview(out).cast("B")
    if len(coded) > len(room):
        raise ValueError(FULL)
    room[: len(coded)] = coded
    return len(coded)


def adaptive_decode(data: Buffer, rows: int, columns: int, mixing: bool, values: Buffer) -> int:
    reader = Reader(bytes(data))
    found = [0] * (rows * columns)
    _walk(Coder(reader, mixing), found, rows, columns)
    reader.check()
    np.frombuffer(values, np.int32)[: rows * columns] = found
    return 0


@dataclass
class Around:
    """Levels of activities; bit lengths to the left, above, two to the left and above to the left; signs."""

    row: int = 0
    column: int = 0
    level: int = 0
    left: int = 0
    above: int = 0
    before: int = 0
    corner: int = 0
    left_sign: int = 0
    above_sign: int = 0


class Coder:
    """Integers through a range coder, in either direction. Models are made where they are first asked for."""

    def __init__(self, coder: Writer | Reader, mixing: bool) -> None:
        self.coder, self.mixing = coder, mixing
        self.models: defaultdict[tuple[object, ...], Bit] = defaultdict(Bit)
        self.signs: defaultdict[tuple[object, ...], Bit] = defaultdict(lambda: Bit(SIGN_SEEN))
        self.mixers: defaultdict[tuple[object, ...], Mixer] = defaultdict(Mixer)

    def code(self, slots: list[Bit], mixer: tuple[object, ...], bit: int) -> int:
        """One bit: by the first estimate alone, or by all."""
        if self.mixing:
            return self.mixers[mixer].code(self.coder, slots, bit)
        bit = self.coder.bit(slots[0].chance(), bit)
        slots[0].learn(bit)
        return bit

    def integer(self, a: Around, value: int) -> tuple[int, int]:
        """The value, and the bit length of its magnitude."""
        if not self._flag(a, int(value != 0)):
            return 0, 0
        sign = [self.signs[a.left_sign, a.above_sign]] + ([self.signs["all",]] if self.mixing else [])
        negative = self.code(sign, ("sign",), int(value < 0))
        magnitude, length = self._magnitude(a, abs(value))
        return -magnitude if negative else magnitude, length

    def _flag(self, a: Around, bit: int) -> int:
        m = self.models
        near = (a.left > 0) + (a.above > 0)
        wider = near + (a.before > 0) + (a.corner > 0)
        slots = [m["flag", min(a.row // 2, FLAG_LEVELS - 1), min(a.column // 2, FLAG_LEVELS - 1), near]]
        if self.mixing:
            pattern = (min(a.left, 2), min(a.above, 2), min(a.before, 2), min(a.corner, 2))
            slots += [m["flag row", a.row, wider], m["flag column", a.column, wider], m["flag pattern", pattern], m["flag level", a.level]]
            slots += [m["flag fine", a.row, a.column]]
        return self.code(slots, ("flag", wider), bit)

    def _longer(self, a: Around, length: int, bit: int) -> int:
        m = self.models
        slots = [m["length", a.level, length]]
        if self.mixing:
            slots += [m["length sides", a.row // 2, a.column // 2, length], m["length next", min(a.left, 5), min(a.above, 5), length]]
            slots += [m["length any", length]]
        return self.code(slots, ("length", length), bit)

    def _tail(self, a: Around, length: int, node: int, bit: int) -> int:
        slots = [self.models["tail", a.level // 8, length, node]] + ([self.models["tail any", length, node]] if self.mixing else [])
        return self.code(slots, ("tail", node), bit)

    def _magnitude(self, a: Around, magnitude: int) -> tuple[int, int]:
        length = node = 1
        given = magnitude.bit_length()
        while length < LONGEST and self._longer(a, length, int(length < given)):
            length += 1
        left = length - 1
        while left > 0 and node < 8:
            left -= 1
            node = node << 1 | self._tail(a, length, node, magnitude >> left & 1)
        while left > 0:
            some = min(left, 16)
            left -= some
            node = node << some | self.coder.raw(some, magnitude >> left & (1 << some) - 1)
        return node, length


def _walk(coder: Coder, values: list[int], rows: int, columns: int) -> None:
    """Code `values`, or fill them with what is read."""
    shares = rates(ACTIVITY_SHARE)
    activities, lengths, signs = [FIRST_ACTIVITY] * columns, [0] * columns, [0] * columns
    for row in range(rows):
        share = shares[min(row, len(shares) - 1)]
        activity = FIRST_ACTIVITY
        a = Around()
        for j in range(columns):
            a.above, a.above_sign = lengths[j], signs[j]
            a.row, a.column = _level(activity), _level(activities[j])
            a.level = _level((3 * (activities[j] + activity) + (a.left + a.above) * UNIT) // 8)
            value, length = coder.integer(a, values[row * columns + j])
            values[row * columns + j] = value
            a.before, a.corner, a.left, a.left_sign = a.left, a.above, length, (value > 0) - (value < 0)
            lengths[j], signs[j] = length, a.left_sign
            activities[j] = moved(activities[j], length * UNIT, share)
            activity = moved(activity, length * UNIT, shares[min(j, len(shares) - 1)])


def _level(activity: int) -> int:
    return bisect_right(LEVEL_ENDS, activity >> 8)
