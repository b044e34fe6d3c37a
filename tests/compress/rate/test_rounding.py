"""Rounding with error feedback against the quadratic form that it stands for, and against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgewise.compress.rate.price import activities, learned
from edgewise.compress.rate.rounding import BLOCK, Layer, factor, rounded, steps


def problem(seed: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4 * columns, columns)) @ rng.normal(size=(columns, columns)) / columns**0.5
    return rng.normal(size=(rows, columns)), x.T @ x / len(x)


def distortion(error: np.ndarray, hessian: np.ndarray, damping: float = 0.01) -> float:
    whole = hessian + damping * np.trace(hessian) / len(hessian) * np.eye(len(hessian))
    return float(np.einsum("ij,jk,ik->", error, whole, error))


def test_the_factor_is_that_of_the_inverse() -> None:
    _, hessian = problem(0, 1, 6)
    upper = factor(hessian, 1e-9)
    assert np.allclose(np.tril(upper, -1), 0) and upper.T @ upper @ hessian == pytest.approx(np.eye(6), abs=1e-5)
    assert factor(np.zeros((3, 3))).tolist() == np.eye(3).tolist()


def test_without_data_or_price_it_is_plain_rounding() -> None:
    weights = np.random.default_rng(1).normal(size=(5, 7))
    step = np.linspace(0.2, 0.6, 5)
    found = rounded(Layer(weights, np.ones(5)), step, 0.0)
    assert (found == np.rint(weights / step[:, None])).all()


@pytest.mark.parametrize("columns", [9, BLOCK + 40])  # within a block, and across one
def test_feedback_makes_the_rows_output_better(columns: int) -> None:
    weights, hessian = problem(2, 6, columns)
    layer, step = Layer(weights, np.ones(6), factor(hessian)), np.full(6, 0.5)
    plain = distortion(weights - 0.5 * np.rint(weights / 0.5), hessian)
    fed = distortion(weights - 0.5 * rounded(layer, step, 0.0), hessian)
    assert fed < 0.8 * plain


def test_of_a_tiny_row_little_is_left_to_brute_force() -> None:
    gaps = []
    for seed in range(12):
        weights, hessian = problem(seed + 10, 1, 4)
        found = rounded(Layer(weights, np.ones(1), factor(hessian)), np.full(1, 0.7), 0.0)
        base = np.floor(weights / 0.7)
        around = itertools.product(range(-1, 3), repeat=4)
        best = min(distortion(weights - 0.7 * (base + np.array([each])), hessian) for each in around)
        gaps.append(distortion(weights - 0.7 * found, hessian) / best)
    assert min(gaps) == pytest.approx(1.0) and np.median(gaps) < 1.5  # greedy: often the best, seldom far from it


def test_a_price_buys_bits_with_error() -> None:
    weights, hessian = problem(3, 40, 60)
    layer, step = Layer(weights, np.ones(40), factor(hessian)), np.full(40, 0.4)
    bits, errors = [], []
    for slope in (0.0, 0.02, 0.1, 0.4):
        found = rounded(layer, step, slope)
        bits.append(learned(found, activities(found)).total(found))
        errors.append(distortion(weights - 0.4 * found, hessian))
    assert bits == sorted(bits, reverse=True) and errors == sorted(errors)


def test_at_a_small_price_without_correlation_the_bargain_is_better_than_plain_rounding() -> None:
    weights, hessian = problem(4, 60, 80)
    hessian = np.diag(np.diag(hessian))
    layer, step, slope = Layer(weights, np.ones(60), factor(hessian)), np.full(60, 1.0), 0.05

    def total(found: np.ndarray) -> float:
        return distortion(weights - found, hessian) + slope * learned(found, activities(found)).total(found)

    assert total(rounded(layer, step, slope)) < total(rounded(layer, step, 0.0))


def test_rows_that_matter_more_get_finer_steps() -> None:
    layer = Layer(np.ones((3, 40)), np.array([1.0, 4.0, 16.0]))
    assert steps(layer, 0.5).tolist() == [0.5, 0.25, 0.125]
    assert len(np.unique(steps(Layer(np.ones((50, 32)), np.random.default_rng(0).uniform(1, 4, 50)), 1.0))) <= 4
    assert steps(Layer(np.ones((2, 4)), np.array([1.0, 7.0])), 1.0).tolist() == [0.5, 0.5]  # short rows share theirs


def test_a_channel_that_no_sample_woke_keeps_a_step() -> None:
    """Of a depthwise convolution each channel is a group: one that is dead on the samples may be alive elsewhere."""
    factors = np.stack([factor(np.eye(9) * size) for size in (1.0, 1e-12, 1.0)])
    layer = Layer(np.ones((3, 9)), np.array([1.0, 1.0, 1e-30]), factors)
    found = steps(layer, 1e-4)
    assert found.max() <= 200 * found.min()
    integers = rounded(layer, found, 0.03 * 1e-8)
    np.testing.assert_allclose(integers * found[:, None], layer.weights, atol=0.05)
