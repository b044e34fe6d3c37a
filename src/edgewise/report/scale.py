"""From values to pixels: linear and logarithmic scales with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps `low`..`high` onto `start`..`stop` (pixels; `start` may be the larger, for an axis that points up)."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of `value`, held inside the axis."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        at = math.log(max(value, 1e-300)) if self.log else value
        share = (at - low) / (high - low)
        return self.start + (self.stop - self.start) * min(1.0, max(0.0, share))

    def ticks(self, about: int = 5) -> tuple[float, ...]:
        """Round values inside the scale, roughly `about` of them."""
        if self.log and self.high / self.low > 8:
            return _log_ticks(self.low, self.high, about)
        return _linear_ticks(self.low, self.high, about + 2 if self.log else about)


def _linear_ticks(low: float, high: float, about: int) -> tuple[float, ...]:
    raw = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(round(i * step, 12) for i in range(first, last + 1))


def _log_ticks(low: float, high: float, about: int) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: tuple[float, ...] = ()
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = tuple(d * 10.0**p for p in decades for d in digits if low * 0.9999 <= d * 10.0**p <= high * 1.0001)
        if len(found) <= about + 2:
            return found
    every = math.ceil(len(found) / (about + 1))
    return found[::every]


def log_range(values: Iterable[float], pad: float = 0.08) -> tuple[float, float]:
    """A range for a log axis that holds all `values` (positive), padded by a share of its length, at least a factor 1.5 long."""
    kept = [v for v in values if v > 0 and math.isfinite(v)] or [1.0]
    low, high = math.log(min(kept)), math.log(max(kept))
    short = max(0.0, math.log(1.5) - (high - low)) / 2
    margin = pad * max(high - low, math.log(1.5))
    return math.exp(low - short - margin), math.exp(high + short + margin)


def linear_range(values: Iterable[float], pad: float = 0.08, least: float = 1e-9) -> tuple[float, float]:
    """A range for a linear axis that holds all `values`, padded, at least `least` long."""
    kept = [v for v in values if math.isfinite(v)] or [0.0]
    low, high = min(kept), max(kept)
    short = max(0.0, least - (high - low)) / 2
    margin = pad * max(high - low, least)
    return low - short - margin, high + short + margin
