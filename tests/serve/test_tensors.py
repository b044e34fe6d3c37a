"""Tensors on the wire: golden bytes of the protocol, round trips, and damage."""

from __future__ import annotations

import math
import struct

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from edgewise.errors import InvalidInput
from edgewise.serve import tensors

PLAIN = sorted(set(tensors.DTYPES) - {"BYTES", "BF16"})


@given(st.data(), st.sampled_from(PLAIN))
def test_what_is_sent_as_bytes_comes_back_to_the_bit(data: st.DataObject, datatype: str) -> None:
    array = data.draw(arrays(tensors.DTYPES[datatype], array_shapes(max_dims=4, max_side=5, min_side=0)))
    raw = bytes(tensors.to_bytes(array))
    assert raw == array.tobytes()
    back = tensors.from_bytes(raw, datatype, array.shape)
    assert back.dtype == array.dtype and back.shape == array.shape and back.tobytes() == raw


@given(st.data(), st.sampled_from(PLAIN))
def test_what_is_sent_as_json_comes_back_to_the_bit(data: st.DataObject, datatype: str) -> None:
    array = data.draw(arrays(tensors.DTYPES[datatype], array_shapes(max_dims=3, max_side=5)))
    back = tensors.from_json(tensors.to_json(array), datatype, array.shape)
    assert back.dtype == array.dtype and np.array_equal(back, array, equal_nan=array.dtype.kind == "f")
    if not np.isnan(array).any() if array.dtype.kind == "f" else True:
        assert np.array_equal(tensors.from_json(array.tolist(), datatype, array.shape), array) or not np.isfinite(array).all()


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_bytes_elements_come_back(values: list[bytes]) -> None:
    array = np.empty(len(values), object)
    array[:] = values
    back = tensors.from_bytes(tensors.to_bytes(array), "BYTES", array.shape)
    assert back.tolist() == values


@given(st.binary(max_size=64), st.sampled_from(sorted(tensors.DTYPES)), st.lists(st.integers(-2, 9), max_size=4))
def test_bytes_that_do_not_fit_are_refused_or_right(raw: bytes, datatype: str, shape: list[int]) -> None:
    try:
        found = tensors.from_bytes(raw, datatype, shape)
    except InvalidInput:
        return
    assert bytes(tensors.to_bytes(found)) == raw and list(found.shape) == shape


def test_golden_bytes() -> None:
    assert bytes(tensors.to_bytes(np.array([1, -2], np.int16))) == b"\x01\x00\xfe\xff"
    assert bytes(tensors.to_bytes(np.array([True, False]))) == b"\x01\x00"
    assert bytes(tensors.to_bytes(np.array(["é", b"\x00"], object))) == b"\x02\x00\x00\x00\xc3\xa9\x01\x00\x00\x00\x00"
    assert tensors.from_bytes(struct.pack("<2f", 1.5, -0.0), "FP32", (2,)).tolist() == [1.5, -0.0]
    bf16 = tensors.from_bytes(b"\x80\x3f", "BF16", (1,))
    assert float(bf16[0]) == 1.0 and bytes(tensors.to_bytes(bf16)) == b"\x80\x3f" and tensors.to_json(bf16) == [1.0]
    assert tensors.datatype_of(bf16.dtype) == "BF16"


def test_a_view_where_that_may_be_and_an_aligned_copy_elsewhere() -> None:
    raw = bytearray(struct.pack("<x2f", 1.0, 2.0))
    assert tensors.from_bytes(memoryview(raw)[1:], "FP32", (2,)).flags.aligned


def test_what_is_not_finite_goes_by_name() -> None:
    array = np.array([math.nan, math.inf, -math.inf, 1.0], np.float32)
    assert tensors.to_json(array) == ["NaN", "Infinity", "-Infinity", 1.0]
    assert np.array_equal(tensors.from_json(tensors.to_json(array), "FP32", (4,)), array, equal_nan=True)


@pytest.mark.parametrize(
    ("data", "datatype", "shape"),
    [
        ([1.5], "INT32", [1]),
        ([300], "INT8", [1]),
        ([-1], "UINT8", [1]),
        ([2], "BOOL", [1]),
        (["1.5"], "FP32", [1]),
        ([None], "FP32", [1]),
        ([True], "FP32", [1]),
        ([1e39], "FP32", [1]),
        ([1, 2], "FP32", [3]),
        ([[1, 2], [3]], "FP32", [2, 2]),
        ([[1, 2, 3, 4]], "FP32", [2, 2]),
        ([1], "FP33", [1]),
        ([1], "FP32", [-1]),
        ([1], "FP32", [1] * 65),
        ([], "FP32", [2**40, 2**40]),
        ([], "FP32", [0, 2**63 - 1]),
        ([], "INT8", [2**40, 0, 2**40]),
        ([], "BYTES", [0, 2**64 - 1]),
        ("abc", "BYTES", [3]),
        (["\ud800"], "BYTES", [1]),
    ],
)
def test_nothing_is_cast_that_would_change_it(data: object, datatype: str, shape: list[int]) -> None:
    with pytest.raises(InvalidInput):
        tensors.from_json(data, datatype, shape)


@pytest.mark.parametrize("datatype", ["FP32", "BOOL", "BYTES"])
def test_an_empty_tensor_is_no_way_around_the_limit(datatype: str) -> None:
    for shape in ([0, 2**63 - 1], [2**64 - 1, 0]):
        for make in (lambda: tensors.from_bytes(b"", datatype, shape), lambda: tensors.from_text(b"[]", datatype, shape)):  # noqa: B023
            with pytest.raises(InvalidInput, match="any memory"):
                make()
    assert tensors.from_bytes(b"", datatype, [0, 4]).shape == (0, 4)
