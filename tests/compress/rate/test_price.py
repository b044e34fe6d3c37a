"""Prices before coding against what the coder takes, and bit lengths against Python's own."""

from __future__ import annotations

import numpy as np
import pytest

from edgewise import coding
from edgewise.compress.rate.price import LENGTHS, activities, learned, lengths


def laplace(seed: int, rows: int, columns: int, scale: float) -> np.ndarray:
    """Integers whose size falls along both axes, as in a network that was pruned."""
    rng = np.random.default_rng(seed)
    fall = np.exp(-rng.uniform(0, 3, rows))[:, None] * np.exp(-rng.uniform(0, 3, columns))
    return np.rint(rng.laplace(0, scale, (rows, columns)) * fall).astype(np.int64)


def test_lengths_are_pythons() -> None:
    values = np.array([0, 1, -1, 2, 3, -4, 7, 8, 255, -256, 10**9])
    assert lengths(values).tolist() == [min(abs(int(v)).bit_length(), LENGTHS - 1) for v in values]


def test_activities_are_means_of_the_others() -> None:
    values = np.array([[1, 0, 0], [3, 0, 1], [0, 0, 0]])
    column = values[:, :1]
    assert activities(column).ravel() == pytest.approx([1.0, 0.5, 1.5])  # one column: the mean of the other rows
    assert activities(values)[2, 1] == 0 and activities(values)[1, 0] > activities(values)[0, 1] > 0


@pytest.mark.parametrize("scale", [0.5, 2.0, 12.0])
def test_the_price_of_a_matrix_is_near_what_the_coder_takes(scale: float) -> None:
    values = laplace(0, 120, 200, scale)
    taken = 8 * len(coding.encode(values.astype(np.int16), coders=("adaptive", "mixing")))
    assert learned(values, activities(values)).total(values) == pytest.approx(
        taken, rel=0.25
    )  # the prices know what the coder learns on its way


def test_larger_numbers_and_quieter_places_cost_more() -> None:
    values = laplace(1, 100, 100, 3.0)
    prices = learned(values, activities(values))
    quiet, loud = np.full(4, 0.05), np.full(4, 2.0)
    numbers = np.array([0, 1, 3, 9])
    assert (np.diff(prices.of(numbers, quiet)) > 0).all()
    assert (prices.of(numbers[1:], quiet[1:]) > prices.of(numbers[1:], loud[1:])).all()
    assert prices.of(numbers[:1], quiet[:1]) < prices.of(numbers[:1], loud[:1])
