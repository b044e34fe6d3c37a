"""Small numbers before coded data, and a reader that never goes past the end."""

from __future__ import annotations

from edgewise.errors import InvalidInput


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first; a set highest bit says that more follow."""
    coded = bytearray()
    while value > 0x7F:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def signed(value: int) -> bytes:
    """0, -1, 1, -2, 2 … as 0, 1, 2, 3, 4 …"""
    return varint(2 * value if value >= 0 else -2 * value - 1)


def framed(blob: bytes) -> bytes:
    """With its length before it."""
    return varint(len(blob)) + blob


class Cursor:
    """Reads coded data from the front. Every method raises InvalidInput where it ends too early."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = memoryview(data)

    def bytes(self, length: int) -> memoryview:
        if length > len(self.data):
            raise InvalidInput(f"coded data ends too early: {length:,} bytes were expected, {len(self.data):,} are there; copy it again")
        taken, self.data = self.data[:length], self.data[length:]
        return taken

    def byte(self) -> int:
        return self.bytes(1)[0]

    def rest(self) -> memoryview:
        return self.bytes(len(self.data))

    def varint(self, limit: int = 2**66) -> int:
        """Refused over `limit`, which is what the reader knows to be the most that it can be."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
            if shift > 70:
                raise InvalidInput("coded data has a number of over 70 bits: it is damaged or forged; copy it again")
        if value > limit or (not byte and shift > 7):
            raise InvalidInput(f"coded data says {value:,} where at most {limit:,} can be: it is damaged or forged; copy it again")
        return value

    def signed(self) -> int:
        value = self.varint()
        return value // 2 if value % 2 == 0 else -(value + 1) // 2

    def framed(self) -> memoryview:
        return self.bytes(self.varint(len(self.data)))

    def end(self) -> None:
        if len(self.data):
            raise InvalidInput(f"coded data has {len(self.data):,} bytes behind its end: it is damaged or forged; copy it again")
