"""Metrics of numbers against numbers: correlations, and errors as shares of what a constant would have."""

from __future__ import annotations

import numpy as np

from edgewise.data.scores import correlation_interval, mean_interval
from edgewise.errors import InvalidData, InvalidModel
from edgewise.records import Interval, Quality

# Higher is better, and 1 the best. "r2" is 1 − MSE / the targets' variance, "mae-skill" 1 − MAE / the targets' mean distance from their
# median: 0 is what the best constant gets (a skill score; Murphy 1988).
METRICS = ("spearman", "pearson", "r2", "mae-skill")


def quality(metric: str, split_name: str, outputs: np.ndarray, targets: np.ndarray | None) -> Quality:
    """outputs: (samples,) or (samples, 1); targets: (samples,) numbers. `also` has the other metrics, and MSE and MAE as they are.

    Raises InvalidData for missing targets and for targets that are all the same, InvalidModel for outputs of another shape, or NaN.
    """
    given = np.asarray(outputs, np.float64)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1 or not np.isfinite(given).all():
        told = "NaN or infinity" if given.ndim == 1 else f"an output of shape {given.shape}"
        raise InvalidModel(f"the model gave {told}; a regression gives (samples, 1) finite numbers")
    if targets is None:
        raise InvalidData(f"split {split_name!r} has no targets; give data with a score for each sample")
    known = np.asarray(targets, np.float64)
    if known.shape != given.shape or len(known) < 2 or not known.std() or not np.isfinite(known).all():
        raise InvalidData(
            f"targets of split {split_name!r} are {known.shape} for {len(given)} samples; expected a number each, not all the same"
        )
    squares, distances = (given - known) ** 2, np.abs(given - known)
    scores = {
        "spearman": spearman(given, known)[1],
        "pearson": pearson(given, known)[1],
        "r2": 1 - squares / known.var(),
        "mae-skill": 1 - distances / np.abs(known - np.median(known)).mean(),
    }
    found = {name: _interval(name, each) for name, each in scores.items()}
    errors = {name: mean_interval(each, 0.0, np.inf) for name, each in (("mse", squares), ("mae", distances))}
    also = {name: interval for name, interval in (found | errors).items() if name != metric}
    return Quality(metric=metric, split=split_name, value=found[metric], scores=tuple(scores[metric].tolist()), also=also)


def _interval(name: str, scores: np.ndarray) -> Interval:
    if name in ("spearman", "pearson"):
        return correlation_interval(float(scores.mean()), scores)
    return mean_interval(scores, -np.inf, 1.0)


def pearson(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """r, and (samples,) scores (see `scores`): r + u·v − r (u² + v²) / 2, where u, v are x, y less their mean over their deviation.

    Two samples without any spread have no correlation: 0.
    """
    if not x.std() or not y.std():
        return 0.0, np.zeros(len(x))
    u, v = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    r = float((u * v).mean())
    return r, r + u * v - r * (u * u + v * v) / 2


def spearman(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """ρ with mean ranks for ties, and (samples,) scores (see `scores`).

    A sample counts by its own ranks, and by the ranks that it gives to others: with U = F(x) and V = G(y) less their means,
    dC_uv(i) = U_i V_i + A_i(x, V) + A_i(y, U) − 3 C_uv, where A_i(x, V) is the mean over j of h(x_i, x_j) V_j, and h is 1 for x_i < x_j and
    ½ for equal ones.
    """
    u, v = (_ranks(each) / len(each) for each in (x, y))
    u, v = u - u.mean(), v - v.mean()
    if not u.std() or not v.std():
        return 0.0, np.zeros(len(x))
    uv, uu, vv = (u * v).mean(), (u * u).mean(), (v * v).mean()
    rho = float(uv / np.sqrt(uu * vv))
    d_uv = u * v + _above(x, v) + _above(y, u) - 3 * uv
    d_uu, d_vv = u * u + 2 * _above(x, u) - 3 * uu, v * v + 2 * _above(y, v) - 3 * vv
    return rho, rho + d_uv / np.sqrt(uu * vv) - rho / 2 * (d_uu / uu + d_vv / vv)


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 … n; equal ones have the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: np.ndarray = (last - (counts - 1) / 2)[group]
    return found


def _above(x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each i the mean over j of h(x_i, x_j) · values_j."""
    _, group = np.unique(x, return_inverse=True)
    sums = np.bincount(group, values)
    higher = np.cumsum(sums[::-1])[::-1] - sums / 2
    found: np.ndarray = higher[group] / len(x)
    return found
