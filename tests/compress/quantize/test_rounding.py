import itertools

import numpy as np

from edgewise.compress.quantize.rounding import adaptive


def problem(seed: int, groups: int, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(groups, rows, columns))
    factor = rng.normal(size=(groups, columns, columns))
    hessian = factor @ np.swapaxes(factor, 1, 2) + 0.1 * np.eye(columns)
    return weight, hessian, np.full((groups, rows), 0.3)


def cost(weight: np.ndarray, integers: np.ndarray, scale: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    error = weight - integers * scale[:, :, None]
    return np.einsum("grk,gkl,grl->gr", error, hessian, error)


def test_close_to_the_best_of_all_roundings_on_small_rows() -> None:
    weight, hessian, scale = problem(0, groups=3, rows=4, columns=4)
    found = cost(weight, adaptive(weight, hessian, scale, -7, 7), scale, hessian)
    near = np.rint(weight / scale[:, :, None])
    candidates = [cost(weight, np.clip(near + np.array(d), -7, 7), scale, hessian) for d in itertools.product((-2, -1, 0, 1, 2), repeat=4)]
    best = np.min(candidates, axis=0)
    assert found.sum() <= 1.2 * best.sum()
    assert found.sum() < 0.6 * cost(weight, np.clip(near, -7, 7), scale, hessian).sum()


def test_moments_without_correlation_give_the_nearest_integers() -> None:
    weight, _, scale = problem(1, groups=2, rows=3, columns=6)
    hessian = np.broadcast_to(np.diag(np.arange(1.0, 7.0)), (2, 6, 6))
    assert (adaptive(weight, hessian, scale, -127, 127) == np.rint(weight / 0.3)).all()


def test_blocks_and_the_integers_limits() -> None:
    weight, hessian, scale = problem(2, groups=1, rows=2, columns=300)
    integers = adaptive(weight, hessian, scale, -5, 5)
    assert integers.min() >= -5 and integers.max() <= 5
    assert cost(weight, integers, scale, hessian).sum() < 0.7 * cost(weight, np.clip(np.rint(weight / 0.3), -5, 5), scale, hessian).sum()
