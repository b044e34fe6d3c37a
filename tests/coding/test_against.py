"""An array for whoever has another one: lossless whatever the two are, small where they are near, and bounded when damaged."""

from __future__ import annotations

import contextlib
from functools import cache

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from edgewise.coding import against, chooser
from edgewise.errors import InvalidInput

DTYPES = ("int8", "uint8", "int16", "int32", "int64", "uint16", "float16", "float32", "float64", "bool")


def entropy_bytes(values: np.ndarray) -> float:
    counts = np.unique(values, return_counts=True)[1]
    return float((counts * np.log2(counts.sum() / counts)).sum() / 8)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())


@given(data=st.data(), dtype=st.sampled_from(DTYPES), shape=arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
@settings(deadline=None, max_examples=300)
def test_any_two_arrays(data: st.DataObject, dtype: str, shape: tuple[int, ...]) -> None:
    values, known = (data.draw(arrays.arrays(dtype, shape)) for _ in range(2))
    assert same_bits(against.decode(against.encode(values, known), known), values)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_numbers_that_are_hard(dtype: str) -> None:
    hard = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 6e-8, 1.0, 65504.0] * 4, dtype).reshape(8, 5)
    for known in (hard[::-1].copy(), np.zeros_like(hard), hard):
        assert same_bits(against.decode(against.encode(hard, known), known), hard)
    assert same_bits(against.decode(against.encode(np.zeros_like(hard), hard), hard), np.zeros_like(hard))


def test_the_same_costs_a_byte() -> None:
    known = np.random.default_rng(0).normal(size=(30, 40))
    assert len(against.encode(known.copy(), known)) == 1


def test_integers_that_moved_cost_their_movement() -> None:
    """Held against the empirical entropy of the differences, which is what a static coder of differences could reach."""
    random = np.random.default_rng(0)
    known = np.rint(random.normal(0, 30, (200, 300))).clip(-127, 127).astype(np.int8)
    moved = (random.random(known.shape) < 0.1) * random.choice([-1, 1], known.shape)
    values = (known + moved).clip(-127, 127).astype(np.int8)
    size = len(against.encode(values, known))
    assert size < 1.01 * entropy_bytes(values.astype(int) - known) + 100
    assert size < 0.15 * len(chooser.encode(values))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_scale_that_moved_costs_a_number_for_each_place(axis: int) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(0, 1, (150, 200))
    scales = np.abs(weights).max(axis=1 - axis, keepdims=True) / 100
    other = scales * random.uniform(0.9, 1.1, scales.shape)
    known, values = (np.rint(weights / scale).clip(-127, 127).astype(np.int8) for scale in (scales, other))
    size = len(against.encode(values, known))
    # The rounding of both is left: without the scales, differences would be over 2 bits an element.
    assert size < 0.8 * entropy_bytes(values.astype(int) - known)


@pytest.mark.parametrize("rows", ["whole", "first", "last"])
def test_a_grid_whose_step_moved_costs_what_moved_on_it(rows: str) -> None:
    random = np.random.default_rng(0)
    integers = np.rint(random.normal(0, 6, (60, 80)))
    integers[7] = 0  # a row without a step
    step = {"whole": np.float32(0.01), "first": random.uniform(0.01, 0.02, (60, 1)), "last": random.uniform(0.01, 0.02, 80)}[rows]
    known = (integers.astype(np.float32) * np.float32(step)).astype(np.float32)
    moved = integers + (random.random(integers.shape) < 0.02) * (integers != 0)
    values = moved.astype(np.float32) * np.asarray(np.float32(1.004) * step, np.float32)
    size = len(against.encode(values, known))
    # (0.02 moved: 0.14 bits each; a step is 4 bytes and not a number that fits in fewer.)
    assert size < 0.2 * values.size / 8 + 4 * np.size(step) + 60
    assert same_bits(against.decode(against.encode(values, known), known), values)


def test_values_that_became_few_are_expected_at_the_nearest() -> None:
    """Weight sharing after the fact: the known array is dense, the new one has 16 values."""
    random = np.random.default_rng(0)
    known = random.normal(0, 1, (60, 80)).astype(np.float32)
    colours = np.sort(random.normal(0, 1, 16)).astype(np.float32)
    values = colours[np.abs(known[..., None] - colours).argmin(-1)]
    assert len(against.encode(values, known)) < 150
    values[random.random(values.shape) < 0.05] = colours[3]
    assert same_bits(against.decode(against.encode(values, known), known), values)
    assert len(against.encode(values, known)) < 0.25 * len(chooser.encode(values))


def test_floats_that_moved_a_little_cost_the_low_bits() -> None:
    random = np.random.default_rng(0)
    known = random.normal(0, 1, (60, 80)).astype(np.float32)
    values = known * (1 + 1e-4 * random.normal(size=known.shape)).astype(np.float32)
    assert len(against.encode(values, known)) < 0.55 * len(chooser.encode(values))


def test_two_of_a_kind_are_asked_for() -> None:
    with pytest.raises(InvalidInput, match=r"int8 \[2\], the known one int8 \[3\]"):
        against.encode(np.zeros(2, np.int8), np.zeros(3, np.int8))
    with pytest.raises(InvalidInput, match="elements of"):
        against.encode(np.zeros(2, complex), np.zeros(2, complex))


@given(data=st.binary(max_size=80), dtype=st.sampled_from(DTYPES[:-1]))
@settings(deadline=None, max_examples=300)
def test_any_bytes_give_an_array_or_an_error(data: bytes, dtype: str) -> None:
    known = np.arange(24).reshape(4, 6).astype(dtype)
    for number in range(8):
        with contextlib.suppress(InvalidInput):
            found = against.decode(bytes([number]) + data, known)
            assert (found.shape, found.dtype) == (known.shape, known.dtype)


@cache
def coded_pairs() -> list[tuple[bytes, np.ndarray]]:
    known = np.random.default_rng(0).normal(0, 1, (6, 8)).astype(np.float32)
    grid = (np.rint(known * 10) * np.float32(0.125)).astype(np.float32)
    integers = (known * 40).astype(np.int8)
    pairs = [(known * np.float32(1.001), known), (grid, known), (np.sign(known), known), (integers + np.int8(1), integers)]
    return [(against.encode(values, of), of) for values, of in pairs]


@given(at=st.integers(0, 10_000), by=st.integers(1, 255), cut=st.integers(0, 40))
@settings(deadline=None, max_examples=200)
def test_damage_gives_an_array_or_an_error(at: int, by: int, cut: int) -> None:
    for blob, known in coded_pairs():
        damaged = bytearray(blob)
        damaged[at % len(damaged)] ^= by
        with contextlib.suppress(InvalidInput):
            assert against.decode(bytes(damaged[: len(damaged) - cut]), known).shape == known.shape
