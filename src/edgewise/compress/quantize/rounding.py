"""Rounding that looks at what the layer reads: errors of one weight are made up for by those not yet rounded (GPTQ, Frantar 2023)."""

from __future__ import annotations

import numpy as np

BLOCK = 128  # columns that are brought up to date one by one; what they did to the others follows in one matrix product


def adaptive(weight: np.ndarray, hessian: np.ndarray, scale: np.ndarray, low: int, high: int, *, sweeps: int = 2) -> np.ndarray:
    """Integers q that make (w - scale q)ᵀ H (w - scale q) small, row by row.

    weight: (groups, rows, columns); hessian: (groups, columns, columns), positive definite: the second moments of the layer's input;
    scale: (groups, rows). Columns are rounded from the largest moment to the smallest; each one's error is spread over those left by the
    Cholesky factor of the inverse. Then `sweeps` of coordinate descent move single integers while that lowers the error.
    """
    order = np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")
    # (groups, columns, rows): what is read together, a column of all rows, lies together
    target = np.take_along_axis(np.swapaxes(weight, 1, 2), order[:, :, None], 1).astype(np.float64, order="C")
    h = np.take_along_axis(np.take_along_axis(hessian, order[:, :, None], 1), order[:, None, :], 2).astype(np.float64)
    step = scale[:, None, :].astype(np.float64)
    integers = _spread(target.copy(), _upper(h), step[:, 0], low, high)
    for _ in range(sweeps):
        if not _sweep(integers, target, h, step, low, high):
            break
    result = np.empty_like(integers)
    np.put_along_axis(result, np.broadcast_to(order[:, :, None], integers.shape), integers, 1)
    return np.ascontiguousarray(np.swapaxes(result, 1, 2)).astype(np.int32)


def _spread(left: np.ndarray, upper: np.ndarray, step: np.ndarray, low: int, high: int) -> np.ndarray:
    """Round `left` (groups, columns, rows) column by column, and add each one's error to those that follow. `left` is used up."""
    integers = np.empty_like(left)
    columns = left.shape[1]
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        errors = np.empty_like(left[:, start:stop])
        for k in range(start, stop):
            integers[:, k] = np.minimum(np.maximum(np.rint(left[:, k] / step), low), high)
            errors[:, k - start] = (left[:, k] - integers[:, k] * step) / upper[:, k, k, None]
            left[:, k + 1 : stop] -= upper[:, k, k + 1 : stop, None] * errors[:, k - start, None]
        left[:, stop:] -= np.swapaxes(upper[:, start:stop, stop:], 1, 2) @ errors
    return integers


def _sweep(integers: np.ndarray, target: np.ndarray, h: np.ndarray, step: np.ndarray, low: int, high: int) -> bool:
    """Move single integers, in place, where that lowers the error. Whether any moved."""
    columns = target.shape[1]
    residue = h @ (target - integers * step)  # (groups, columns, rows): half the gradient, negated
    moved = False
    for start in range(0, columns, BLOCK):
        stop = min(start + BLOCK, columns)
        changes = np.zeros_like(residue[:, start:stop])
        here = residue[:, start:stop].copy()
        for k in range(start, stop):
            wish = np.rint(here[:, k - start] / (h[:, k, k, None] * step[:, 0]))
            new = np.minimum(np.maximum(integers[:, k] + wish, low), high)
            change = new - integers[:, k]
            if change.any():
                integers[:, k] = new
                changes[:, k - start] = change * step[:, 0]
                here -= h[:, start:stop, k, None] * changes[:, k - start, None]
        if changes.any():
            moved = True
            residue -= h[:, :, start:stop] @ changes
    return moved


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
