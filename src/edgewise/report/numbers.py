"""How figures are written: units, digits, signs, and the interval of a percentile."""

from __future__ import annotations

import math

import numpy as np

from edgewise.records import Interval

NONE = "–"


def significant(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits and no exponent: 2.61, 12.3, 1,234."""
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{min(decimals, 12)}f}"
    # 9.996 rounds up into one digit more than asked.
    if decimals and len(text.replace("-", "").replace(".", "").replace(",", "").lstrip("0")) > digits:
        text = f"{value:,.{decimals - 1}f}"
    return text.replace("-", "−")


def plain(value: float, digits: int = 3) -> str:
    """As `significant`, without trailing zeros: for limits and ticks, which are round numbers."""
    text = significant(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text else text


def ms(value: float | None, digits: int = 3, *, round_number: bool = False) -> str:
    """A time given in milliseconds, in µs, ms or s."""
    if value is None or not math.isfinite(value):
        return NONE
    write = plain if round_number else significant
    if abs(value) < 0.0995:
        return f"{write(value * 1000, digits)} µs"
    return f"{write(value, digits)} ms" if abs(value) < 999.5 else f"{write(value / 1000, digits)} s"


def size(value: float | None, *, round_number: bool = False) -> str:
    """Bytes in decimal units: 1 MB is 1,000,000 bytes, as budgets are given."""
    if value is None or not math.isfinite(value):
        return NONE
    write = plain if round_number else significant
    if abs(value) < 999.5:
        return f"{value:.0f} B"
    unit, scale = next((u, s) for u, s in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)) if abs(value) / s < 999.5 or u == "TB")
    return f"{write(value / scale)} {unit}"


def times(value: float | None) -> str:
    """A ratio: 2.61×, 0.83×."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.2f}×" if 0.1 <= value < 9.995 else f"{significant(value)}×"


def _decimals(half_width: float) -> int:
    """Decimals of a percentage that its interval makes sense of: two below half a point, else one."""
    return 2 if 0 < half_width < 0.005 else 1


def percent(value: float | None, half_width: float = 0.01, *, unit: bool = True) -> str:
    """A share 0..1 as a percentage, with as many decimals as its interval bears."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{100 * value:.{_decimals(half_width)}f}{' %' if unit else ''}"


def points(value: float | None, half_width: float = 0.001, *, sign: bool = True) -> str:
    """A difference of shares in points: 0.01 is one point."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{100 * abs(value):.{_decimals(half_width)}f}"
    zero = float(text) == 0
    return f"{'' if zero or not sign else '−' if value < 0 else '+'}{text}"


def capital(words: str) -> str:
    """The first letter large, the rest as it is."""
    return words[:1].upper() + words[1:]


def count(value: float) -> str:
    return f"{value:,.0f}"


def large(value: float) -> str:
    """A count of many as 31.3 M."""
    unit, scale = next(((u, s) for u, s in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if abs(value) >= 0.9995 * s), ("", 1.0))
    return f"{significant(value / scale)} {unit}" if unit else count(value)


def duration(seconds: float) -> str:
    """How long work took: 0.4 s, 14 s, 3 min 20 s, 1 h 12 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "under 0.1 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    large, small, names = (whole // 60, whole % 60, ("min", "s")) if whole < 3600 else (whole // 3600, whole % 3600 // 60, ("h", "min"))
    return f"{large} {names[0]}" + (f" {small} {names[1]}" if small else "")


def plural(n: int, noun: str, many: str = "") -> str:
    """`1 trial`, `2 trials`."""
    return f"{count(n)} {noun if n == 1 else many or noun + 's'}"


def percentile_interval(samples: tuple[float, ...], q: float, confidence: float = 0.95) -> Interval:
    """The `q`-th percentile (0..100) with its distribution-free interval from order statistics (David & Nagaraja 2003, 7.1).

    The number of samples below the percentile is Binomial(n, q/100). An end that n can't bound is infinite: of 100 calls, none bounds
    the p99 from above. Calls are counted as independent.
    """
    ordered = np.sort(np.asarray(samples, dtype=float))
    n, share = len(ordered), q / 100
    k = np.arange(n + 1)
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_pmf = factorial[n] - factorial[k] - factorial[n - k] + k * math.log(share) + (n - k) * math.log1p(-share)
    cdf = np.cumsum(np.exp(log_pmf))
    tail = (1 - confidence) / 2
    below = int(np.searchsorted(cdf, tail, side="left"))
    above = int(np.searchsorted(cdf, 1 - tail, side="left")) + 1
    low = float(ordered[below - 1]) if below >= 1 else -math.inf
    high = float(ordered[above - 1]) if above <= n else math.inf
    return Interval(float(np.percentile(ordered, q)), low, high, n, confidence)
