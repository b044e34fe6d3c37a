"""A LiteRT file in a package: its large constants taken out, put back, and stored once where the graph has them too."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from edgewise import tflite
from edgewise.errors import InvalidModel, InvalidPackage
from edgewise.package.coded import elements, raw
from edgewise.package.manifest import Entry, Tensor, stored_bytes
from edgewise.package.weights import Weight, written
from edgewise.types import Signature

FORMAT = "tflite"

# Engines turn a weight's axes around; those of convolutions have four.
_MOST_TURNED = 4


def signature_of(model: bytes) -> Signature:
    """Raises InvalidModel."""
    return tflite.interface(model).signature


def take_out(model: bytes, at_least: int, known: Sequence[Weight]) -> tuple[bytes, list[Weight]]:
    """The file without its constants of `at_least` bytes, and these, in the order in which they lie there.

    A weight's name says where it begins in the whole file; where `known` (the graph's) has it with its axes in another order, it is given
    as it is there, and the name says how to turn it ("1184:1,0": numpy's transpose, of the axes longer than 1). Raises InvalidModel.
    """
    alike: dict[tuple[str, bytes], list[Weight]] = {}
    for weight in known:
        alike.setdefault(_fingerprint(weight.dtype, weight.data), []).append(weight)
    left: list[bytes] = []
    weights: list[Weight] = []
    end = 0
    for constant in sorted(tflite.constants(model, at_least), key=lambda found: found.offset):
        data = model[constant.offset : constant.offset + constant.length]
        if not constant.dtype or constant.offset < end or len(data) != stored_bytes(constant.dtype, constant.shape):
            continue  # of a type without whole bytes, or a second name for the same bytes: it stays where it is
        own = Weight(str(constant.offset), constant.dtype, constant.shape, data)
        weights.append(next(_turned(own, alike.get(_fingerprint(constant.dtype, data), ())), own))
        left.append(model[end : constant.offset])
        end = constant.offset + constant.length
    return b"".join([*left, model[end:]]), weights


def model_bytes(left: bytes, entry: Entry, read: Callable[[Tensor], bytes | memoryview], what: str) -> bytes:
    """The entry's file with its constants back in their places. Raises InvalidPackage where they don't fit."""
    where = f"{what}: entry {entry.name!r}"
    places = sorted((_parsed(tensor, where), tensor) for tensor in entry.tensors)
    total = len(left) + sum(stored_bytes(tensor.dtype, tensor.shape) for _, tensor in places)
    pieces: list[bytes | Tensor] = []
    order: dict[str, tuple[int, ...]] = {}
    at = used = 0
    for (offset, axes), tensor in places:
        if offset < at or used + offset - at > len(left):
            raise InvalidPackage(f"{where}: the constant {tensor.name[:80]!r} has no place in its file; it is damaged or forged")
        pieces += [left[used : used + offset - at], tensor]
        used += offset - at
        at = offset + stored_bytes(tensor.dtype, tensor.shape)
        order[tensor.name] = axes
    pieces.append(left[used:])

    def read_into(tensor: Tensor, place: memoryview) -> None:
        place[:] = _turn(read(tensor), tensor, order[tensor.name])

    model = written(pieces, total, read_into)
    try:
        said = signature_of(model)
    except InvalidModel as error:
        raise InvalidPackage(f"{where} is {error}; pack it again") from error
    if said != entry.signature:
        raise InvalidPackage(f"{where} takes and gives something else than its manifest says; pack it again")
    return model


def _fingerprint(dtype: str, data: bytes) -> tuple[str, bytes]:
    """The same for the same elements in any order."""
    width = min(stored_bytes(dtype, (1,)), 8)
    return dtype, np.sort(np.frombuffer(data, f"<u{width}")).tobytes()[:4096]


def _turned(own: Weight, known: Sequence[Weight]) -> Iterator[Weight]:
    """`own` as one of `known` has it."""
    for weight in known:
        long = _long(weight.shape)
        if len(weight.data) != len(own.data) or len(long) > _MOST_TURNED:
            continue
        for axes in itertools.permutations(range(len(long))):
            if tuple(long[axis] for axis in axes) != _long(own.shape):
                continue
            name = own.name if axes == tuple(range(len(long))) else f"{own.name}:{','.join(map(str, axes))}"
            stored = Tensor(name, weight.dtype, weight.shape, "", 0, 0)
            if bytes(_turn(weight.data, stored, axes)) == own.data:
                yield Weight(name, weight.dtype, weight.shape, weight.data)


def _long(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _turn(data: bytes | memoryview, tensor: Tensor, axes: tuple[int, ...]) -> bytes | memoryview:
    if axes == tuple(range(len(axes))):
        return data
    values = elements(data, tensor.dtype, tensor.shape).reshape(_long(tensor.shape))
    return raw(np.ascontiguousarray(values.transpose(axes)), tensor.dtype)


def _parsed(tensor: Tensor, where: str) -> tuple[int, tuple[int, ...]]:
    """Where the constant begins, and how its axes are turned."""
    start, _, turned = tensor.name.partition(":")
    numbers = [start, *turned.split(",")] if turned else [start]
    axes = tuple(range(len(_long(tensor.shape))))
    if all(number.isascii() and number.isdecimal() and len(number) <= 16 for number in numbers):
        found = tuple(map(int, numbers[1:])) if turned else axes
        if tuple(sorted(found)) == axes:
            return int(start), found
    raise InvalidPackage(f"{where}: {tensor.name[:80]!r} says no place of a constant; the file is damaged or forged")
