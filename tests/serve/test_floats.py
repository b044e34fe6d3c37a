"""The C that reads and writes lists of float32 in JSON, against Python's own arithmetic: the same float, always."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from edgewise.errors import InvalidInput
from edgewise.serve import tensors

kernel = pytest.importorskip("edgewise.serve._floats", reason="the extension wasn't built: no C compiler")

single = st.floats(width=32, allow_nan=False, allow_infinity=False)
double = st.floats(allow_nan=False, allow_infinity=False, min_value=-3e38, max_value=3e38)


def parsed(text: str, count: int) -> list[float] | None:
    out = np.empty(count, np.float32)
    return out.tolist() if kernel.parse(text.encode(), out) else None


def as_python(text: str) -> float:
    return float(np.float32(float(text)))


@settings(max_examples=2000)
@given(st.lists(single, max_size=8))
@example([3.4028234663852886e38, 1.401298464324817e-45, 1.1754943508222875e-38, 16777216.0, 0.1, 9.999999e-05, 1e15, 1e16, 99999.99])
def test_what_is_written_is_read_as_the_same_float(values: list[float]) -> None:
    array = np.array(values, np.float32)
    text = kernel.write(array)
    back = json.loads(text)
    assert np.array_equal(np.array(back, np.float32), array) and all(isinstance(value, float) for value in back)
    assert [math.copysign(1, value) for value in back] == [math.copysign(1, value) for value in array.tolist()]
    assert parsed(text.decode(), len(values)) == array.tolist()
    assert all(len(repr(value)) <= 16 for value in back)


@settings(max_examples=2000)
@given(double)
def test_doubles_are_rounded_as_python_rounds_them(value: float) -> None:
    for text in (repr(value), f"{value:.17g}", f"{value:.20e}", f"{value:.3f}" if abs(value) < 1e20 else repr(value)):
        assert parsed(f"[{text}]", 1) == [as_python(text)], text


@settings(max_examples=2000)
@given(st.integers(0, 10**21), st.integers(-45, 30))
def test_any_digits_and_exponent(digits: int, exponent: int) -> None:
    text = f"{digits}e{exponent}"
    wanted = np.float32(float(text)) if float(text) < 3.4e38 else None
    if wanted is not None:
        assert parsed(f"[{text}]", 1) == [float(wanted)], text
    pointed = f"0.{digits}e{exponent}"
    if float(pointed) < 3.4e38:
        assert parsed(f"[{pointed}]", 1) == [as_python(pointed)]


@settings(max_examples=500)
@given(single)
def test_halfway_between_two_floats(value: float) -> None:
    """Where the nearest double lies in the middle of two floats, and decimals beside it."""
    following = np.nextafter(np.float32(value), np.float32(np.inf))
    if np.isfinite(following):
        middle = (float(np.float32(value)) + float(following)) / 2
        for text in (repr(middle), repr(np.nextafter(middle, math.inf).item()), repr(np.nextafter(middle, -math.inf).item())):
            assert parsed(f"[{text}]", 1) == [as_python(text)]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_any_bits_come_back(bits: list[int]) -> None:
    array = np.frombuffer(struct.pack(f"<{len(bits)}I", *bits), np.float32)
    back = tensors.from_json(json.loads(kernel.write(array)), "FP32", array.shape)
    assert np.array_equal(back, array, equal_nan=True)


@given(st.text(alphabet='0123456789.eE+-[], \n\t"N', max_size=24), st.integers(0, 4))
def test_only_json_is_read(text: str, count: int) -> None:
    """What the C takes, a JSON reader takes, with the same numbers; the rest it leaves to others."""
    found = parsed(text, count)
    if found is None:
        return
    values = json.loads(text)
    assert isinstance(values, list) and [as_python(str(value)) for value in values] == found


@pytest.mark.parametrize(
    "text",
    ["", "[", "[1", "[1,", "[1,]", "[01]", "[1.]", "[.5]", "[+1]", "[1e]", "[-]", "[1 2]", "[1]x", "[[1]]", "[NaN]", "[1e39]", "[0x1]"],
)
def test_what_is_no_flat_list_of_floats(text: str) -> None:
    assert parsed(text, 1) is None


@given(st.lists(st.floats(width=32), max_size=6))
def test_the_same_with_and_without_it(values: list[float]) -> None:
    array = np.array(values, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        fast: Any = tensors.to_text(array)
        patch.setattr(tensors, "_kernel", None)
        slow: Any = tensors.to_text(array)
        text = json.dumps(slow).encode()
        plain = tensors.from_text(text, "FP32", array.shape)
    assert np.array_equal(tensors.from_text(bytes(fast), "FP32", array.shape), plain, equal_nan=True)
    assert np.array_equal(plain, array, equal_nan=True)


def test_a_shape_alone_allocates_nothing() -> None:
    with pytest.raises(InvalidInput):
        tensors.from_text(b"[1,2]", "FP32", [2**30, 100])
