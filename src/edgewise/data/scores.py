"""Intervals and paired differences of metrics that are no share of right answers.

A metric that is a mean has a score for each sample. One that only a whole split has (a correlation, F1) gets scores too: its value plus
what each sample does to it, the empirical influence values of the jackknife (Efron 1982, "The jackknife, the bootstrap and other resampling
plans", chapters 3 and 6). Their mean is the metric, their spread its error, and those of two models on the same samples are paired like
any others. That needs no draws, so a figure comes out the same everywhere; for smooth metrics it agrees with the bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from edgewise.records import Interval, PairedDifference


def mean_interval(scores: np.ndarray, low: float, high: float, confidence: float = 0.95) -> Interval:
    """Student's interval of the mean of `scores` (samples,), within low … high."""
    n, value = len(scores), float(scores.mean())
    half = _half(scores, high - low, confidence)
    return Interval(value, max(low, value - half), min(high, value + half), n, confidence)


def correlation_interval(value: float, scores: np.ndarray, confidence: float = 0.95) -> Interval:
    """Of a correlation: on Fisher's scale, z = atanh r, where its error hardly depends on r and no end passes ±1."""
    n = len(scores)
    if abs(value) > 1 - 1e-12 or not scores.std():
        half = _half(scores, 2.0, confidence)
        return Interval(value, max(-1.0, value - half), min(1.0, value + half), n, confidence)
    middle, half = math.atanh(value), _half(scores, 2.0, confidence) / (1 - value * value)
    return Interval(value, math.tanh(middle - half), math.tanh(middle + half), n, confidence)


def difference(before: np.ndarray, after: np.ndarray, confidence: float = 0.95, power: float = 0.8) -> PairedDifference:
    """After minus before, (samples,) scores of the same samples: Student's interval, and a two-sided p of no difference."""
    apart = after - before
    n, value = len(apart), float(apart.mean())
    half = _half(apart, float(np.ptp(before)) or 1.0, confidence)
    normal = NormalDist()
    error = half / _student(n, confidence)
    p = 2 * (1 - normal.cdf(abs(value) / error)) if error and value else 1.0
    larger = 1e-9 * (1 + np.abs(before))
    return PairedDifference(
        difference=Interval(value, value - half, value + half, n, confidence),
        candidate_only_right=int((apart > larger).sum()),
        reference_only_right=int((apart < -larger).sum()),
        p_value=p,
        detectable=error * (normal.inv_cdf(0.5 + confidence / 2) + normal.inv_cdf(power)),
    )


def influence(value: float, left_out: np.ndarray) -> np.ndarray:
    """Scores of a metric from its values with one sample left out each (samples,): value + (n − 1)(mean − left_out)."""
    scores: np.ndarray = value + (len(left_out) - 1) * (left_out.mean() - left_out)
    return scores


def influence_of_counts(statistic: Callable[[np.ndarray], float], known: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The same of a metric of a confusion matrix (known, predicted): samples of one cell do the same to it, so each cell is asked once."""
    cells = known * classes + predicted
    counts = np.bincount(cells, minlength=classes * classes)
    without = np.zeros(len(counts))
    for cell in np.flatnonzero(counts):
        counts[cell] -= 1
        without[cell] = statistic(counts.reshape(classes, classes))
        counts[cell] += 1
    return influence(statistic(counts.reshape(classes, classes)), without[cells])


def _half(scores: np.ndarray, span: float, confidence: float) -> float:
    """Half of the interval of a mean. Scores without any spread prove nothing beyond their number: what is rarer than z² / (n + z²)
    wasn't seen (as Wilson's interval has it), and a sample may be off by `span`.
    """
    n = len(scores)
    deviation = float(scores.std(ddof=1)) if n > 1 else 0.0
    if deviation <= 1e-12 * (1 + abs(float(scores.mean()))):
        z = NormalDist().inv_cdf(0.5 + confidence / 2)
        return span * z * z / (n + z * z)
    return _student(n, confidence) * deviation / math.sqrt(n)


def _student(n: int, confidence: float) -> float:
    """Student's quantile for n samples, by its expansion around the normal one (Abramowitz and Stegun, 26.7.5)."""
    z, v = NormalDist().inv_cdf(0.5 + confidence / 2), max(n - 1, 1)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / v + second / v**2
