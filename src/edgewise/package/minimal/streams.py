"""All weights to the fewest bytes: each by the coder that makes it smallest, vectors of one dtype in one stream where that is smaller.

A stream is what `edgewise.coding.encode` makes of it (the first byte says which coder), or whole numbers as varints: a reshape's target has
two numbers of eight bytes, which take two. Streams stand one after the other, each but the last with its length before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewise import coding
from edgewise.coding.cursor import Cursor, framed, signed
from edgewise.errors import InvalidInput
from edgewise.package import coded
from edgewise.package.minimal.net import Tensor

_VARINTS = 0xFF
_FEW = 1024
# Joining vectors tries the stream with and without the next one; it stops being worth that when it is long.
_LONG = 1 << 14


@dataclass(frozen=True)
class Kind:
    """What is known of a weight before its data is: numpy's dtype name, and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def layout(self) -> tuple[np.dtype, tuple[int, ...]]:
        """What the coders see."""
        return coded.layout(self.dtype, self.shape)

    @property
    def unfolded_bytes(self) -> int:
        """What decoding makes, small elements not yet packed."""
        dtype, shape = self.layout
        return math.prod(shape) * dtype.itemsize


def encode(weights: Sequence[Tensor]) -> bytes:
    arrays = [coded.elements(weight.data, weight.dtype, weight.shape) for weight in weights]
    joins, groups = _groups([Kind(weight.dtype, weight.shape) for weight in weights], arrays)
    streams = [encode_stream(_joined([arrays[i] for i in group])) for group in groups]
    bits = sum(1 << place for place, joined in enumerate(joins) if joined)
    flags = bits.to_bytes(-(-len(joins) // 8), "little")
    return flags + b"".join(map(framed, streams[:-1])) + b"".join(streams[-1:])


def decode(cursor: Cursor, kinds: Sequence[Kind]) -> list[Tensor]:
    """Reads to the end. Allocates what `kinds` take, twice. Raises InvalidInput."""
    choices = _choices(kinds)
    flags = int.from_bytes(cursor.bytes(-(-choices // 8)), "little")
    if flags >> choices:
        raise InvalidInput("a weight is joined that isn't there")
    groups = _grouped(kinds, [bool(flags >> place & 1) for place in range(choices)])
    found: dict[int, bytes] = {}
    for number, group in enumerate(groups):
        stream = cursor.framed() if number < len(groups) - 1 else cursor.rest()
        sizes = [math.prod(kinds[i].layout[1]) for i in group]
        dtype, shape = kinds[group[0]].layout
        array = decode_stream(stream, shape if len(group) == 1 else (sum(sizes),), dtype).ravel()
        for i, own in zip(group, np.split(array, np.cumsum(sizes)[:-1]), strict=True):
            found[i] = bytes(coded.raw(own, kinds[i].dtype))
    cursor.end()
    return [Tensor(kind.dtype, kind.shape, found[i]) for i, kind in enumerate(kinds)]


def encode_stream(values: np.ndarray) -> bytes:
    best = coding.encode(values)
    if values.dtype.kind in "iu" and values.size <= _FEW:
        own = bytes([_VARINTS]) + b"".join(signed(int(each)) for each in values.ravel())
        best = min(best, own, key=len)
    return best


def decode_stream(data: memoryview, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if not len(data) or data[0] != _VARINTS:
        return coding.decode(data, shape, dtype)
    if dtype.kind not in "iu" or math.prod(shape) >= len(data):
        raise InvalidInput("a weight's numbers are none, or too few")
    cursor = Cursor(data[1:])
    numbers = [cursor.signed() for _ in range(math.prod(shape))]
    cursor.end()
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    if not all(low <= number <= high for number in numbers):
        raise InvalidInput(f"a weight has numbers that {dtype} doesn't have")
    return np.array(numbers, dtype).reshape(shape)


def encode_tensor(tensor: Tensor) -> bytes:
    """One alone, with its length before it."""
    return framed(encode_stream(coded.elements(tensor.data, tensor.dtype, tensor.shape)))


def decode_tensor(cursor: Cursor, kind: Kind) -> Tensor:
    dtype, shape = kind.layout
    return Tensor(kind.dtype, kind.shape, bytes(coded.raw(decode_stream(cursor.framed(), shape, dtype), kind.dtype)))


def _groups(kinds: Sequence[Kind], arrays: Sequence[np.ndarray]) -> tuple[list[bool], list[list[int]]]:
    """Greedily: each vector joins the open stream of its dtype, where both together are smaller than one after the other."""
    joins: list[bool] = []
    current: dict[str, tuple[np.ndarray, int]] = {}
    for i in _vectors(kinds):
        dtype, alone = kinds[i].dtype, len(encode_stream(arrays[i]))
        together: tuple[np.ndarray, int] | None = None
        if dtype in current:
            before, cost = current[dtype]
            if before.size + arrays[i].size <= _LONG:
                both = _joined([before, arrays[i]])
                size = len(encode_stream(both))
                # A stream of its own would have a length of its own.
                if size <= cost + alone + 1:
                    together = both, size
            joins.append(together is not None)
        current[dtype] = together or (arrays[i], alone)
    return joins, _grouped(kinds, joins)


def _grouped(kinds: Sequence[Kind], joins: Sequence[bool]) -> list[list[int]]:
    """Which weights share a stream; streams in the order of their first weights."""
    groups: list[list[int]] = []
    current: dict[str, list[int]] = {}
    choice = iter(joins)
    for i, kind in enumerate(kinds):
        vector = len(kind.shape) <= 1
        if vector and kind.dtype in current and next(choice):
            current[kind.dtype].append(i)
            continue
        groups.append([i])
        if vector:
            current[kind.dtype] = groups[-1]
    return groups


def _vectors(kinds: Sequence[Kind]) -> list[int]:
    return [i for i, kind in enumerate(kinds) if len(kind.shape) <= 1]


def _choices(kinds: Sequence[Kind]) -> int:
    """How many vectors could join one before them: all but the first of each dtype."""
    vectors = _vectors(kinds)
    return len(vectors) - len({kinds[i].dtype for i in vectors})


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate([array.ravel() for array in arrays])
