"""Intervals and tests on counts, in closed form or by bisection: nothing here needs scipy, so a device can say how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean

from edgewise.errors import InvalidInput
from edgewise.records import Interval


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927). Of no samples at all: 0 in [0, 1], n=0.

    centre = (p + z²/2n) / (1 + z²/n);   half = z · sqrt(p(1 − p)/n + z²/4n²) / (1 + z²/n)
    """
    if not 0 <= successes <= n:
        raise InvalidInput(f"{successes} of {n}: successes must lie in 0..n")
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 0, confidence)
    z = _z(confidence)
    p = successes / n
    denominator = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / denominator
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / denominator
    # At 0 and n one bound is exact; floating point would miss it by 1e-18.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(p, low, high, n, confidence)


def f1_interval(true_positive: int, false_positive: int, false_negative: int, confidence: float = 0.95) -> Interval:
    """F1 = 2TP / (2TP + FP + FN), with an interval.

    F1 is no proportion, but J = TP / (TP + FP + FN) is one, and F1 = 2J / (1 + J) rises with J: Wilson's interval of J, mapped
    (Hand, Christen, Kirielle 2021, "F*: an interpretable transformation of the F-measure").
    """
    jaccard = wilson(true_positive, true_positive + false_positive + false_negative, confidence)
    value, low, high = (2 * j / (1 + j) for j in (jaccard.value, jaccard.low, jaccard.high))
    return Interval(value, low, high, jaccard.n, confidence)


def mean_of(intervals: Sequence[Interval], n: int, *, together: float = 1.0) -> Interval:
    """The mean of estimates that have intervals of their own, such as the classes' recalls; all of them stand on `n` samples.

    half = sqrt(together · Σ ((value − low)² + (high − value)²) / 2) / k: variances recovered from the single intervals (MOVER; for
    proportions Zou, Huang, Zhang 2009), here from both ends alike: each end from its own side is too short towards 1 (86 to 93 % coverage
    where one in a hundred answers is wrong). A bootstrap is shorter still there, and 0 without errors. Where classes have one or two
    samples each, the mean itself is off, and this doesn't say so.
    together: the variance of the sum to that of estimates that are independent.
    """
    value = fmean(each.value for each in intervals)
    spread = sum((each.value - each.low) ** 2 + (each.high - each.value) ** 2 for each in intervals) / 2
    half = math.sqrt(together * spread) / len(intervals)
    return Interval(value, max(0.0, value - half), min(1.0, value + half), n, intervals[0].confidence)


def tango(gained: int, lost: int, n: int, confidence: float = 0.95) -> Interval:
    """Interval of the difference of two paired proportions, (gained − lost) / n: Tango's score interval (1998).

    It inverts the score test of "the difference is d", which at d = 0 is McNemar's, so interval and test agree; it keeps its coverage
    for few discordant pairs, and keeps a width when there are none (Fagerland, Lydersen, Laake 2014 recommend it; the bootstrap gives a
    width of zero there, which would call 500 samples proof of equality).
    """
    if gained < 0 or lost < 0 or gained + lost > n or n == 0:
        raise InvalidInput(f"{gained} gained and {lost} lost of {n} pairs: counts must be at least 0 and sum to at most n, and n above 0")
    z = _z(confidence)
    estimate = (gained - lost) / n

    def statistic(d: float) -> float:
        """Falls as d rises; +z at the lower bound, −z at the upper one."""
        b = -gained - lost + (2 * n - gained + lost) * d
        c = -lost * d * (1 - d)
        lost_share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)  # maximum likelihood of P(lost) given d
        variance = n * (2 * lost_share + d * (1 - d))
        distance = gained - lost - n * d
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)

    low = -1.0 if lost == n else _bisect(lambda d: statistic(d) > z, -1.0, estimate)
    high = 1.0 if gained == n else _bisect(lambda d: statistic(d) > -z, estimate, 1.0)
    return Interval(estimate, low, high, n, confidence)


def mcnemar(gained: int, lost: int) -> float:
    """McNemar's exact two-sided p: the discordant pairs against a fair coin, 2 · P(X ≤ min), at most 1."""
    n, fewer = gained + lost, min(gained, lost)
    term, total = 1, 0  # integers: binomial coefficients of thousands overflow floats
    for k in range(fewer + 1):
        total += term
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * total / 2**n)


def detectable(discordant: int, n: int, *, confidence: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference of two paired proportions that n pairs show with this power, at this share of discordant pairs.

    Connor 1987: n = (z_α · sqrt(ψ) + z_β · sqrt(ψ − d²))² / d², solved for d. The share ψ is the observed one, but never below d itself: a
    difference can't be larger than the share of pairs that differ.
    """
    alpha, beta = _z(confidence), NormalDist().inv_cdf(power)

    def needed(d: float) -> float:
        share = max(discordant / n, d)
        return (alpha * math.sqrt(share) + beta * math.sqrt(max(0.0, share - d * d))) ** 2 / (d * d)

    return _bisect(lambda d: d == 0 or needed(d) > n, 0.0, 1.0)


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InvalidInput(f"confidence={confidence}: give a share between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _bisect(true_below: Callable[[float], bool], low: float, high: float) -> float:
    """Where `true_below` turns from true to false between `low` and `high`."""
    for _ in range(80):
        middle = (low + high) / 2
        if true_below(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2
