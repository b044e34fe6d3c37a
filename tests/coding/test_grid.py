"""Floats on a grid are found and coded as integers, to the bit; everything else is left to other coders."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from fractions import Fraction
from functools import cache

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from edgewise import coding
from edgewise.coding import grid
from edgewise.errors import InvalidInput

relaxed = settings(deadline=None, max_examples=120)
STEPS = st.floats(2.0**-100, 2.0**40, width=32)
ONLY = {"grid", "packed", "adaptive"}


def on_grid(values: np.ndarray) -> bytes:
    blob = coding.encode(values, coders=ONLY)
    found = coding.decode(blob, values.shape, values.dtype)
    assert found.dtype == values.dtype and found.tobytes() == values.tobytes()
    return blob


def integers(shape: tuple[int, ...], most: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-most, most + 1, shape)


@given(step=STEPS, most=st.sampled_from([1, 2, 7, 127, 300, 30_000, 2**20]), seed=st.integers(0, 2**32 - 1))
@relaxed
def test_one_step_is_found_and_nothing_is_lost(step: float, most: int, seed: int) -> None:
    whole = integers((20, 30), most, seed)
    whole[3, 4] = 1
    values = whole.astype(np.float32) * np.float32(step)
    blob = on_grid(values)
    assert coding.coder_of(blob) == "grid"
    assert len(blob) <= len(coding.encode(whole.astype(np.int32), coders=ONLY)) + 12


def test_a_step_that_is_a_bfloat16_takes_two_bytes() -> None:
    whole = integers((20, 30), 9)
    short, long = (on_grid(whole.astype(np.float32) * np.float32(step)) for step in (0.1328125, 0.13281251))
    assert len(short) == len(long) - 2


@given(step=STEPS, smallest=st.integers(2, 16), seed=st.integers(0, 2**32 - 1))
@relaxed
def test_a_smallest_magnitude_of_several_steps(step: float, smallest: int, seed: int) -> None:
    whole = np.where(integers((9, 40), 120, seed) > 0, 1, -1) * np.random.default_rng(seed).integers(smallest, smallest + 90, (9, 40))
    whole[0, :3] = smallest, smallest + 1, 0
    assert coding.coder_of(on_grid(whole.astype(np.float32) * np.float32(step))) == "grid"


@pytest.mark.parametrize("axis", ["first", "last"])
@given(steps=st.lists(STEPS, min_size=2, max_size=6, unique=True), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_a_step_for_each_place_of_an_axis(axis: str, steps: list[float], seed: int) -> None:
    whole = integers((len(steps), 5, 25), 127, seed)
    whole[:, 0, 0] = 1
    whole[-1] = 0
    values = whole.astype(np.float32) * np.array(steps, np.float32)[:, None, None]
    values = values + np.float32(0)  # -0.0 of a negative zero times a step
    values = np.ascontiguousarray(values if axis == "first" else np.moveaxis(values, 0, -1))
    assert coding.coder_of(on_grid(values)) == "grid"


def test_a_row_that_never_comes_to_one_shares_the_step_of_the_others() -> None:
    whole = integers((12, 50), 100)
    whole[:, 0] = 1
    whole[5] = np.where(np.arange(50) % 2, 97, 89)
    values = whole.astype(np.float32) * np.float32(0.0137)
    blob = on_grid(values)
    assert coding.coder_of(blob) == "grid"
    # Beside rows with steps of their own, too: each tensor needs integers of two bytes then.
    own = np.full((12, 1), 0.0137, np.float32)
    own[::4] *= np.float32(1.234)
    assert grid._steps(np.abs(whole.astype(np.float32) * own)) is not None


def test_rows_of_zeros_cost_no_step() -> None:
    random = np.random.default_rng(1)
    whole = integers((200, 40), 60)
    whole[:, 0] = 1
    steps = random.uniform(0.01, 0.02, (200, 1)).astype(np.float32)
    dead = whole * (np.arange(200) % 2)[:, None]
    assert len(on_grid(dead.astype(np.float32) * steps)) < 0.55 * len(on_grid(whole.astype(np.float32) * steps))


@given(most=st.integers(1, 2**20), step=STEPS)
@relaxed
def test_products_are_rounded_as_one_ieee_product(most: int, step: float) -> None:
    """Against exact fractions, rounded half to even to 24 bits by Python's own float."""
    exact = Fraction(most) * Fraction(np.float32(step).item())
    scale = Fraction(2) ** (int(np.floor(np.log2(float(exact)))) - 23)
    rounded = round(exact / scale) * scale
    assert Fraction(grid._product(np.array([most]), np.float32([step])).item()) == rounded


@pytest.mark.parametrize(
    "values",
    [
        np.float32([0.5, 1.0, -0.0, 1.5] * 8),
        np.float32([0.5, 1.0, np.nan, 1.5] * 8),
        np.float32([0.5, 1.0, -np.inf, 1.5] * 8),
        np.float32([1e-45, 2e-45, 3e-45] * 8),
        np.float32([2.0**-130, 2.0**-126] * 8),
        np.float32([1.0, 2.0**21] * 8),
        np.random.default_rng(0).normal(size=500).astype(np.float32),
        np.arange(32, dtype=np.float64),
        np.arange(32, dtype=np.float16),
        np.arange(32, dtype=np.int32),
        np.zeros(9, np.float32),
        np.zeros((0, 3), np.float32),
    ],
)
def test_what_is_on_no_grid_is_left_alone(values: np.ndarray) -> None:
    assert coding.coder_of(on_grid(values)) != "grid"
    if values.size:
        assert grid.encode(values, coding.encode) is None


def test_scalars_and_single_rows() -> None:
    for values in (
        np.float32(3.5),
        np.float32([1.5] * 3 + [3.0]),
        np.float32([[0.25, 0.5, -0.75, 1e-5 * 0]]),
        np.float32([[2.0], [4.0], [8.0]]),
    ):
        values = np.asarray(values)
        blob = grid.encode(values, coding.encode)
        assert blob is not None
        number = bytes([coding.CODERS["grid"].number])
        assert coding.decode(number + blob, values.shape, np.float32).tobytes() == values.tobytes()


def test_ordinary_weights_are_refused_at_once() -> None:
    values = np.random.default_rng(0).normal(size=(2000, 1000)).astype(np.float32)
    tracemalloc.start()
    started = time.process_time()
    assert grid.encode(values, coding.encode) is None
    seconds = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 2
    assert peak < 4 * values.nbytes


@cache
def sample() -> tuple[np.ndarray, bytes]:
    whole = integers((6, 30), 90)
    whole[:, 0] = 1
    values = whole.astype(np.float32) * np.linspace(0.011, 0.017, 6, dtype=np.float32)[:, None]
    blob = coding.encode(values, coders={"grid", "rans", "packed", "float planes"})
    assert coding.coder_of(blob) == "grid"
    return values, blob


@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_damage_ends_in_an_error_or_in_an_array(data: st.DataObject) -> None:
    values, blob = sample()
    damaged = bytearray(blob)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    for wrong in (damaged, damaged[: data.draw(st.integers(0, len(blob)))], damaged + b"\0"):
        with contextlib.suppress(InvalidInput):
            found = coding.decode(bytes(wrong), values.shape, np.float32)
            assert found.shape == values.shape and found.dtype == np.float32


@pytest.mark.parametrize("step", [0.0, -0.0, -1.0, np.nan, np.inf, 1e-40])
def test_a_step_that_no_grid_has(step: float) -> None:
    whole = coding.encode(np.arange(8, dtype=np.int8))
    number = bytes([coding.CODERS["grid"].number])
    with pytest.raises(InvalidInput, match="no positive number"):
        coding.decode(number + b"\0" + np.float32(step).tobytes() + whole, (8,), np.float32)


def test_kinds_that_do_not_exist() -> None:
    whole = coding.encode(np.ones((2, 4), np.int8))
    number = bytes([coding.CODERS["grid"].number])
    for kind, shape, dtype in ((12, (2, 4), np.float32), (255, (2, 4), np.float32), (3, (8,), np.float32), (0, (2, 4), np.int32)):
        with pytest.raises(InvalidInput, match="grid"):
            coding.decode(number + bytes([kind]) + np.float32(1).tobytes() + whole, shape, dtype)


def test_integers_that_are_too_large_become_infinite_and_warn_of_nothing() -> None:
    whole = coding.encode(np.full(4, 2**30, np.int32), coders={"raw"})
    number = bytes([coding.CODERS["grid"].number])
    assert np.isinf(coding.decode(number + b"\2" + np.float32(3e38).tobytes() + whole, (4,), np.float32)).all()
