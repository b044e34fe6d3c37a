"""The binary range coder (native/range.h), one class per direction with the same two verbs."""

from __future__ import annotations

from edgewise.coding.fallback.texts import DAMAGED

WHOLE = 1 << 48
LOW = 1 << 32


class Writer:
    """Codes the bits that it is given."""

    def __init__(self) -> None:
        self.range, self.low = WHOLE, 0
        self.out = bytearray()

    def bit(self, one: int, bit: int) -> int:
        """Code `bit`, whose probability of being 1 is one / 65536, and return it."""
        bound = (self.range >> 16) * one
        if bit:
            self.range = bound
        else:
            self.low += bound
            self.range -= bound
        if self.range < LOW:
            self._refill()
        return bit

    def raw(self, count: int, bits: int) -> int:
        """Code `count` bits that no model can tell, and return them."""
        self.range >>= count
        self.low += bits * self.range
        if self.range < LOW:
            self._refill()
        return bits

    def end(self) -> bytes:
        """The shortest bytes that say it all: trailing zeros are left out."""
        for free in range(48, -1, -8):
            below = (1 << free) - 1
            chosen = (self.low + below) & ~below
            if chosen < self.low + self.range:
                break
        self.low = chosen
        self._carry()
        self.out += (self.low >> free).to_bytes((48 - free) // 8, "big") if free < 48 else b""
        return bytes(self.out).rstrip(b"\0")

    def _refill(self) -> None:
        self._carry()
        self.out += (self.low >> 32).to_bytes(2, "big")
        self.low = (self.low & LOW - 1) << 16
        self.range <<= 16

    def _carry(self) -> None:
        if self.low < WHOLE:
            return
        at = len(self.out) - 1
        while at >= 0 and self.out[at] == 255:
            self.out[at] = 0
            at -= 1
        self.out[at] += 1
        self.low -= WHOLE


class Reader:
    """Finds the bits again; what it is given for them counts for nothing."""

    def __init__(self, data: bytes) -> None:
        self.range = WHOLE
        self.data, self.at = data, 6
        self.low = int.from_bytes(data[:6].ljust(6, b"\0"), "big")

    def bit(self, one: int, bit: int = 0) -> int:
        bound = (self.range >> 16) * one
        found = self.low < bound
        if found:
            self.range = bound
        else:
            self.low -= bound
            self.range -= bound
        if self.range < LOW:
            self._refill()
        return int(found)

    def raw(self, count: int, bits: int = 0) -> int:
        self.range >>= count
        found = min(self.low // self.range, (1 << count) - 1)
        self.low = min(self.low - found * self.range, self.range - 1)
        if self.range < LOW:
            self._refill()
        return found

    def check(self) -> None:
        """Raises ValueError where bytes were left over, or end as no writer ends them."""
        if self.at < len(self.data) or self.data[-1:] == b"\0":
            raise ValueError(DAMAGED)

    def _refill(self) -> None:
        more = self.data[self.at : self.at + 2].ljust(2, b"\0")
        self.low = self.low << 16 | more[0] << 8 | more[1]
        self.range <<= 16
        self.at += 2
