"""Rounding that looks at what the layer reads: errors of one weight are made up for by those not yet rounded (GPTQ, Frantar 2023)."""

from __future__ import annotations

import numpy as np

BLOCK = 128


def adaptive(weight: np.ndarray, hessian: np.ndarray, scale: np.ndarray, low: int, high: int, *, sweeps: int = 2) -> np.ndarray:
    """Integers q that make (w - scale q)ᵀ H (w - scale q) small, row by row.

    weight: (groups, rows, columns); hessian: (groups, columns, columns), positive definite: the second moments of the layer's input;
    scale: (groups, rows). Columns are rounded from the largest moment to the smallest; each one's error is spread over those left by the
    Cholesky factor of the inverse. Then `sweeps` of coordinate descent move single integers while that lowers the error.
    """
    groups, _, columns = weight.shape
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")
    left = np.take_along_axis(weight, order[:, None, :], 2).astype(np.float64)
    h = np.take_along_axis(np.take_along_axis(hessian, order[:, :, None], 1), order[:, None, :], 2).astype(np.float64)
    upper = _upper(h)
    step = scale[:, :, None].astype(np.float64)
    target = left.copy()
    integers = np.empty_like(left)
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = np.empty((groups, weight.shape[1], stop - start))
        for k in range(start, stop):
            integers[:, :, k] = np.clip(np.rint(left[:, :, k] / step[:, :, 0]), low, high)
            errors[:, :, k - start] = (left[:, :, k] - integers[:, :, k] * step[:, :, 0]) / upper[:, k, k][:, None]
            left[:, :, k + 1 : stop] -= errors[:, :, k - start, None] * upper[:, None, k, k + 1 : stop]
        left[:, :, stop:] -= errors @ upper[:, start:stop, stop:]
    for _ in range(sweeps):
        residue = (target - integers * step) @ h  # (groups, rows, columns): half the gradient, negated
        moved = False
        for k in range(columns):
            wish = np.rint(residue[:, :, k] / (h[:, k, k][:, None] * step[:, :, 0]))
            new = np.clip(integers[:, :, k] + wish, low, high)
            change = new - integers[:, :, k]
            if change.any():
                moved = True
                integers[:, :, k] = new
                residue -= (change * step[:, :, 0])[:, :, None] * h[:, None, k, :]
        if not moved:
            break
    result = np.empty_like(integers)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], integers.shape), integers, 2)
    return result.astype(np.int32)


def _upper(h: np.ndarray) -> np.ndarray:
    """U with H⁻¹ = Uᵀ U. A matrix that rounding left just short of positive definite gets more on its diagonal."""
    eye = np.eye(h.shape[1])
    size = np.diagonal(h, axis1=1, axis2=2).mean(1)[:, None, None] + 1e-30
    for extra in (0.0, 1e-4, 1e-2, 1.0):
        try:
            return np.swapaxes(np.linalg.cholesky(np.linalg.inv(h + extra * size * eye)), 1, 2)
        except np.linalg.LinAlgError:
            continue
    return np.broadcast_to(eye, h.shape)
