"""All weights in a row: to the bit, whatever the dtype, joined where that is smaller, and bounded when forged."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from edgewise.coding.cursor import Cursor, framed, varint
from edgewise.errors import InvalidInput
from edgewise.package import coded
from edgewise.package.manifest import BITS, stored_bytes
from edgewise.package.minimal import streams
from edgewise.package.minimal.net import Tensor
from edgewise.package.minimal.streams import Kind


def tensor(values: np.ndarray) -> Tensor:
    return Tensor(values.dtype.name, values.shape, values.tobytes())


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(sorted(BITS)) | st.sampled_from(["float32", "int64", "uint8"]))
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=3)))
    size = (math.prod(shape) * BITS[dtype] + 7) // 8
    random = np.random.default_rng(draw(st.integers(0, 99)))
    few = draw(st.sampled_from([1, 3, 256]))
    data = random.integers(0, few, size, dtype=np.uint8).tobytes()
    if BITS[dtype] < 8:
        data = bytes(coded.raw(coded.elements(data, dtype, shape), dtype))
    return Tensor(dtype, shape, data)


@given(weights=st.lists(tensors(), max_size=7))
@settings(deadline=None, max_examples=60)
def test_weights_come_back_to_the_bit(weights: list[Tensor]) -> None:
    coded = streams.encode(weights)
    assert streams.decode(Cursor(coded), [Kind(weight.dtype, weight.shape) for weight in weights]) == weights


def test_vectors_that_are_alike_share_a_stream() -> None:
    zeros = [tensor(np.zeros(8, np.float32)) for _ in range(20)]
    assert len(streams.encode(zeros)) <= len(streams.encode(zeros[:1])) + 3
    random = np.random.default_rng(0)
    palettes = [tensor(random.choice([-0.5, 0.25, 1.5, 3.0], 12).astype(np.float32)) for _ in range(6)]
    assert len(streams.encode(palettes)) < sum(len(streams.encode([one])) for one in palettes)


def test_vectors_that_are_not_alike_do_not() -> None:
    """Unlike ones would cost each other's statistics; the greedy choice never makes the file larger than one stream each."""
    random = np.random.default_rng(1)
    weights = [tensor(random.standard_normal(64).astype(np.float32)), tensor(np.zeros(500, np.float32)), tensor(np.ones(500, np.float32))]
    alone = 1 + sum(len(framed(streams.encode_stream(np.frombuffer(weight.data, np.float32)))) for weight in weights)
    assert len(streams.encode(weights)) <= alone


def test_shapes_for_reshape_take_a_byte_a_number() -> None:
    assert len(streams.encode([tensor(np.array([-1, 128], np.int64))])) == 1 + 1 + 2
    assert len(streams.encode([tensor(np.array([0, -1], np.int64)), tensor(np.array([1], np.int64))])) <= 1 + 1 + 3


@pytest.mark.parametrize(
    ("kinds", "coded", "message"),
    [
        ([Kind("float32", (2,))], b"", "ends too early"),
        ([Kind("float32", (2,))], b"\0abc", "8 bytes were expected"),
        ([Kind("float32", (2,))], b"\0abcdefghi", "behind its end"),
        ([Kind("float32", (2,))], b"\x63", "names no coder"),
        ([Kind("float32", (2,))], b"\xff\0\0", "numbers are none"),
        ([Kind("int8", (2,))], b"\xff\0", "none, or too few"),
        ([Kind("int8", (2,))], b"\xff" + varint(600) + b"\0", "that int8 doesn't have"),
        ([Kind("int8", (2,))], b"\xff\0\0\0", "behind its end"),
        ([Kind("uint8", (2,))], b"\xff\1\0", "that uint8 doesn't have"),
        ([Kind("int8", (2,))] * 2, b"\2\xff\0\0", "joined that isn't there"),
        ([Kind("int8", (2,))] * 2, b"\0" + varint(99) + b"\xff\0\0", "at most"),
        ([], b"\0", "behind its end"),
    ],
)
def test_damage_is_told(kinds: list[Kind], coded: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        streams.decode(Cursor(coded), kinds)


@given(
    coded=st.binary(max_size=60),
    kinds=st.lists(st.sampled_from([Kind("float32", (3, 4)), Kind("int64", (2,)), Kind("int4", (3,))]), max_size=4),
)
@settings(deadline=None, max_examples=150)
def test_any_bytes_give_weights_or_an_error(coded: bytes, kinds: list[Kind]) -> None:
    try:
        found = streams.decode(Cursor(coded), kinds)
    except InvalidInput:
        return
    assert [(one.dtype, one.shape, len(one.data)) for one in found] == [
        (kind.dtype, kind.shape, stored_bytes(kind.dtype, kind.shape)) for kind in kinds
    ]
