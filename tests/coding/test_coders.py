"""The coders against what is known of them otherwise: the entropy, brute force, big integers."""

from __future__ import annotations

import heapq

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from edgewise import coding
from edgewise.coding import bits, huffman, rans, sparse
from edgewise.errors import InvalidInput


def entropy_bytes(values: np.ndarray) -> float:
    _, counts = np.unique(values, return_counts=True)
    return float((counts * np.log2(counts.sum() / counts)).sum() / 8)


@pytest.mark.parametrize("sigma", [62.0, 4.0, 0.7])
def test_rans_is_within_a_thousandth_of_the_entropy(sigma: float) -> None:
    """Of a million symbols, table included (at sigma 62, the entropy is 8 bits)."""
    values = np.rint(np.random.default_rng(0).normal(0, sigma, 1_000_000)).clip(-128, 127).astype(np.int8)
    blob = coding.encode(values, coders={"rans"})
    assert coding.coder_of(blob) == "rans"
    assert len(blob) <= 1.001 * entropy_bytes(values)
    assert np.array_equal(coding.decode(blob, values.shape, values.dtype), values)


@pytest.mark.parametrize(("sigma", "over"), [(62.0, 1.006), (4.0, 1.006), (0.3, 1.01)])
def test_adaptive_comes_close_to_the_entropy_of_what_has_no_structure(sigma: float, over: float) -> None:
    values = np.rint(np.random.default_rng(0).normal(0, sigma, (500, 400))).astype(np.int16)
    assert len(coding.encode(values, coders={"adaptive"})) <= over * entropy_bytes(values)


@pytest.mark.parametrize("coder", ["adaptive", "mixing"])
def test_dead_rows_and_columns_cost_next_to_nothing(coder: str) -> None:
    random = np.random.default_rng(1)
    alive = np.rint(random.normal(0, 3, (40, 50))).astype(np.int8)
    values = np.zeros((300, 784), np.int8)
    values[np.ix_(np.sort(random.choice(300, 40, replace=False)), np.sort(random.choice(784, 50, replace=False)))] = alive
    alone = len(coding.encode(alive, coders={coder}))
    assert len(coding.encode(values, coders={coder})) < alone + 200
    assert entropy_bytes(values) > alone + 1000


def test_zeros_alone_are_bytes() -> None:
    values = np.zeros((1000, 1000), np.int8)
    values[0, 0] = 1
    assert len(coding.encode(values, coders={"adaptive"})) < 40


@given(counts=st.lists(st.integers(1, 10_000), min_size=2, max_size=60))
@settings(deadline=None, max_examples=60)
def test_code_lengths_are_those_of_huffman(counts: list[int]) -> None:
    """The cost of Huffman's own algorithm, where no code gets too long."""
    table = np.zeros(256, np.int64)
    table[: len(counts)] = counts
    lengths = huffman.code_lengths(table, 59)
    assert sum(2.0 ** -int(length) for length in lengths if length) == 1
    heap, cost = list(counts), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        cost += both
        heapq.heappush(heap, both)
    assert int((table * lengths).sum()) == cost


@given(counts=st.lists(st.integers(1, 1000), min_size=3, max_size=6))
@settings(deadline=None, max_examples=40)
def test_limited_code_lengths_are_the_best_there_are(counts: list[int]) -> None:
    def best(left: list[int], room: int) -> float:
        """Cheapest lengths of at most 3 bits within `room` eighths, by trying all."""
        if not left:
            return 0
        fits = [length for length in (1, 2, 3) if 8 >> length <= room]
        return min((left[0] * length + best(left[1:], room - (8 >> length)) for length in fits), default=float("inf"))

    table = np.zeros(256, np.int64)
    table[: len(counts)] = counts
    lengths = huffman.code_lengths(table, 3)
    assert lengths.max() <= 3 and int((table * lengths).sum()) == best(counts, 8)


@given(counts=st.lists(st.integers(0, 100_000), min_size=256, max_size=256), size=st.sampled_from([8, 10, 14]))
@settings(deadline=None, max_examples=40)
def test_frequencies_fill_the_range_and_leave_nothing_out(counts: list[int], size: int) -> None:
    given_counts = np.array(counts)
    if not given_counts.any():
        given_counts[3] = 1
    table = rans.frequencies(given_counts, size)
    assert table.sum() == 1 << size
    assert ((table > 0) == (given_counts > 0)).all()
    # No single step from one symbol to another makes it cheaper.
    if size == 8:
        return
    step = rans.cost(given_counts, table, size)
    random = np.random.default_rng(0)
    for give, take in random.integers(0, 256, (50, 2)):
        if table[give] > 1 and table[take] > 0 and give != take:
            moved = table.copy()
            moved[give] -= 1
            moved[take] += 1
            assert rans.cost(given_counts, moved, size) >= step * (1 - 1e-6) - 2 * given_counts.max() / table.max()


@given(data=st.data(), width=st.integers(1, 16))
@settings(deadline=None, max_examples=80)
def test_packed_bits_are_those_of_one_big_number(data: st.DataObject, width: int) -> None:
    numbers = data.draw(st.lists(st.integers(0, 2**width - 1), max_size=40))
    packed = bits.pack(np.array(numbers, np.uint16), width)
    assert len(packed) == bits.packed_bytes(len(numbers), width)
    if width <= 8:
        assert int.from_bytes(packed, "little") == sum(number << width * i for i, number in enumerate(numbers))
    assert bits.unpack(packed, width, len(numbers)).tolist() == numbers
    with pytest.raises(InvalidInput):
        bits.unpack(packed + b"\0", width, len(numbers))


@given(places=st.sets(st.integers(0, 3000), max_size=40), limit=st.integers(1, 300))
@settings(deadline=None, max_examples=100)
def test_gaps_of_any_limit(places: set[int], limit: int) -> None:
    given_places = np.array(sorted(places), np.int64)
    steps = sparse.gaps(given_places, limit)
    assert not len(steps) or (steps.min() >= 0 and steps.max() <= limit)
    assert np.array_equal(sparse.places(steps, limit), given_places)
