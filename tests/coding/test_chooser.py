"""Any array to bytes and back, by every coder, in both implementations; and what can't be decoded is refused."""

from __future__ import annotations

import contextlib
import tracemalloc
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as arrays

from edgewise import coding
from edgewise.coding import CODERS, core, fallback
from edgewise.errors import InvalidInput

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
any_array = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def examples() -> dict[str, np.ndarray]:
    """One array that each coder is the smallest for."""
    random = np.random.default_rng(0)
    dead = np.rint(random.normal(0, 2, (60, 80))) * (random.random(80) < 0.2) * (random.random((60, 1)) < 0.5)
    return {
        "raw": random.integers(0, 2**64, (5, 7), dtype=np.uint64),
        "constant": np.full((3, 4), -2.5),
        "packed": random.permutation(np.arange(2**12, dtype=np.int32))[:900] - 7,
        "huffman": np.array([0, 1, 0, 2, 0, 1, 0, 3] * 3, np.uint8),
        "rans": np.rint(random.normal(0, 30, 3000)).clip(-128, 127).astype(np.int8),
        "palette": random.normal(0, 1, 9).astype(np.float32)[random.integers(0, 9, (40, 50))],
        "float planes": random.normal(0, 0.05, (40, 60)).astype(np.float32),
        "planes": np.arange(3000, dtype=np.int64) * 5,
        "adaptive": np.rint(random.normal(0, 2, (40, 51)) * (random.random(51) < 0.5)).astype(np.int32),
        "mixing": dead.astype(np.int8),
        "grid": np.rint(random.normal(0, 30, (30, 30))).astype(np.float32) * np.float32(0.013) + np.float32(0),
    }


@given(values=any_array)
@settings(relaxed, max_examples=150)
def test_whatever_it_is_comes_back(kernels: object, values: np.ndarray) -> None:
    blob = coding.encode(values)
    assert len(blob) <= values.nbytes + 1
    assert same(coding.decode(blob, values.shape, values.dtype), values)


@pytest.mark.parametrize("name", CODERS)
@given(values=any_array)
@settings(relaxed, max_examples=25)
def test_every_coder_alone(kernels: object, name: str, values: np.ndarray) -> None:
    blob = coding.encode(values, coders={name, "packed"} if CODERS[name].nests else {name})
    assert same(coding.decode(blob, values.shape, values.dtype), values)


@pytest.mark.parametrize("name", examples())
def test_each_is_the_smallest_for_something(name: str) -> None:
    values = examples()[name]
    blob = coding.encode(values)
    assert same(coding.decode(blob, values.shape, values.dtype), values)
    alone = {each: len(coding.encode(values, coders={*coding.FAST, each})) for each in CODERS}
    assert len(blob) == min(alone.values())
    if name not in ("packed", "huffman", "rans", "adaptive"):  # these are close to others
        assert coding.coder_of(blob) == name


def test_sparse_values_of_any_kind() -> None:
    random = np.random.default_rng(4)
    values = np.where(random.random((300, 40)) < 0.01, random.normal(0, 1, (300, 40)), 0)
    blob = coding.encode(values, coders=coding.FAST)
    assert coding.coder_of(blob) == "sparse"
    assert same(coding.decode(blob, values.shape, values.dtype), values)


@pytest.mark.parametrize("name", examples())
def test_decoded_to_its_place(kernels: object, name: str) -> None:
    values = examples()[name]
    place = bytearray(values.nbytes + 2)
    with memoryview(place)[1:-1] as out:
        coding.decode_into(coding.encode(values, coders={name, "packed", "adaptive"}), values.shape, values.dtype, out)
    assert place[1:-1] == values.astype(values.dtype.newbyteorder("<")).tobytes() and place[0] == place[-1] == 0
    with pytest.raises((InvalidInput, ValueError)):
        coding.decode_into(coding.encode(values), values.shape, values.dtype, memoryview(bytearray(values.nbytes + 1)))


@pytest.mark.skipif(core.native is None, reason="the C extension isn't there")
@pytest.mark.parametrize("name", examples())
def test_both_implementations_write_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = examples()[name]
    blobs = []
    for each in (core.native, fallback):
        monkeypatch.setattr(core, "kernels", each)
        blobs.append(coding.encode(values))
    assert blobs[0] == blobs[1]


def test_what_floats_are_to_the_bit() -> None:
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, np.finfo(np.float64).max] * 9)
    odd[4::7].view(np.uint64)[:] += np.arange(9, dtype=np.uint64)  # NaNs with payloads
    for dtype in (np.float64, np.float32, np.float16):
        with np.errstate(over="ignore"):
            values = odd.astype(dtype)
        assert same(coding.decode(coding.encode(values), values.shape, dtype), values)


def test_views_and_byte_orders_of_the_caller() -> None:
    turned = np.arange(60, dtype=np.int16).reshape(6, 10)[::-1, ::2].T
    assert np.array_equal(coding.decode(coding.encode(turned), turned.shape, np.int16), turned)


@given(data=st.binary(max_size=300), dtype=st.sampled_from(DTYPES), shape=arrays.array_shapes(min_dims=0, max_dims=3, max_side=9))
@settings(relaxed, max_examples=300)
def test_random_bytes_end_in_an_error_or_in_an_array(kernels: object, data: bytes, dtype: str, shape: tuple[int, ...]) -> None:
    for number in (*(coder.number for coder in CODERS.values()), 255):
        with contextlib.suppress(InvalidInput):
            found = coding.decode(bytes([number]) + data, shape, dtype)
            assert found.shape == shape and found.dtype == dtype


@given(data=st.data(), name=st.sampled_from(list(examples())))
@settings(relaxed, max_examples=250)
def test_damage_ends_in_an_error_or_in_an_array(data: Any, name: str) -> None:
    values = examples()[name]
    blob = bytearray(coding.encode(values, coders={name, "raw", "rans", "adaptive"}))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(blob)))
    for damaged in (blob, blob[:cut], blob + b"\0"):
        with contextlib.suppress(InvalidInput):
            found = coding.decode(bytes(damaged), values.shape, values.dtype)
            assert found.shape == values.shape and found.dtype == values.dtype


@pytest.mark.parametrize("name", ["raw", "constant", "packed", "huffman", "rans"])
def test_what_is_cut_or_longer_is_refused(kernels: object, name: str) -> None:
    values = examples()[name]
    blob = coding.encode(values, coders={name})
    assert coding.coder_of(blob) == name
    for wrong in (blob[:-1], blob[: len(blob) // 2], blob + b"\1", b""):
        with pytest.raises(InvalidInput):
            coding.decode(wrong, values.shape, values.dtype)
    with pytest.raises(InvalidInput, match="can't be negative"):
        coding.decode(blob, (-1,), values.dtype)


@pytest.mark.parametrize("name", CODERS)
def test_what_a_blob_claims_allocates_nothing(name: str) -> None:
    """Huge counts and lengths inside: refused, or bounded by the shape that the caller states."""
    huge = b"\xff" * 9 + b"\x01"
    tracemalloc.start()
    for rest in (huge * 3, b"\x00" + huge * 3, b"\x0e\x00\xff" + huge * 3, b"\x00\x0e" + huge * 3, b"\x00\x02" + bytes(range(200))):
        with contextlib.suppress(InvalidInput):
            coding.decode(bytes([CODERS[name].number]) + rest, (10, 10), np.float32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_nesting_ends() -> None:
    blob = coding.encode(np.arange(4, dtype=np.uint8))
    for depth in range(5):
        if depth <= 2:
            assert coding.decode(blob, (4,), np.uint8).tolist() == [0, 1, 2, 3]
        blob = bytes([CODERS["planes"].number, len(blob)]) + blob
    with pytest.raises(InvalidInput, match="nests too deeply"):
        coding.decode(blob, (4,), np.uint8)


def test_what_is_given_must_make_sense() -> None:
    with pytest.raises(InvalidInput, match="use some of raw"):
        coding.encode(np.zeros(3), coders={"zip"})
    with pytest.raises(InvalidInput, match="1, 2, 4 or 8 bytes"):
        coding.encode(np.zeros(3, np.complex128))
    with pytest.raises(InvalidInput, match="names no coder"):
        coding.decode(b"\x63", (1,), np.int8)
