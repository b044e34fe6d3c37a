"""What pruning has to reach: a factor over the reference, bytes of the package, bytes of peak memory, one of them or all together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgewise.graph import Graph, parts
from edgewise.measure.sizes import size_predictor
from edgewise.records import Trial
from edgewise.types import SPEED_TOLERANCE, Budget, Execution

if TYPE_CHECKING:
    from edgewise.search.climb import Climb

Widths = Mapping[str, int]
Predict = Callable[[Widths], float]

# Where int8's package is too large: the table of embeddings is half of it, and bears fewer bits than a layer does
# (benchmarks/sst2/tables.py). Recipe -> bits.
SMALL_TABLES = {"quantize(embeddings=4)": 4, "quantize(embeddings=3)": 3}


@dataclass(frozen=True)
class Form:
    """How the pruned model will be served: the recipe that follows on training, the engine, and the dense model's figures in that form.

    speedups: over the reference, at each shape that is timed. memory_bytes: None where it isn't bound, and wasn't measured.
    """

    recipe: str
    execution: Execution
    graph: Graph
    speedups: tuple[float, ...]
    size_bytes: int
    memory_bytes: float | None = None

    @property
    def speedup(self) -> float:
        """At the shape where it is least."""
        return min(self.speedups)


@dataclass(frozen=True)
class Limits:
    """speedup: over the reference; None where time isn't bound. size_bytes: of the package. memory_bytes: as `measure.profile` finds it."""

    speedup: float | None = None
    size_bytes: float | None = None
    memory_bytes: float | None = None

    def __bool__(self) -> bool:
        return any(limit is not None for limit in (self.speedup, self.size_bytes, self.memory_bytes))

    def __str__(self) -> str:
        said = [f"{self.speedup:.3g}x"] if self.speedup is not None else []
        said += [f"{self.size_bytes / 1e3:.4g} kB"] if self.size_bytes is not None else []
        said += [f"{self.memory_bytes / 1e6:.4g} MB of memory"] if self.memory_bytes is not None else []
        return ", ".join(said)

    def excess(self, speedup: float, size_bytes: float, memory_bytes: float | None) -> float:
        """By what factor the limit that is missed most is missed: at most 1 where all are met."""
        found = [0.0]
        if self.speedup is not None:
            found.append(self.speedup / speedup)
        if self.size_bytes is not None:
            found.append(size_bytes / self.size_bytes)
        if self.memory_bytes is not None and memory_bytes is not None:
            found.append(memory_bytes / self.memory_bytes)
        return max(found)

    def left(self, form: Form) -> float:
        """`excess` of the dense model in this form: how much has to go."""
        return self.excess(form.speedup, form.size_bytes, form.memory_bytes)

    def tightened(self, margin: float) -> Limits:
        """The same with room for a race's noise; bytes have none."""
        return replace(self, speedup=None if self.speedup is None else self.speedup * margin)

    def halfway(self, form: Form, reached: float) -> Limits:
        """The geometric middle of the way there. reached: the speedup that it starts from; the others start from the dense model's."""

        def middle(start: float | None, end: float | None) -> float | None:
            return None if start is None or end is None else max(end, (start * end) ** 0.5)

        speedup = None if self.speedup is None else (reached * self.speedup) ** 0.5
        return Limits(speedup, middle(form.size_bytes, self.size_bytes), middle(form.memory_bytes, self.memory_bytes))


def asked_speedup(climb: Climb, budget: Budget | None = None) -> float | None:
    """The factor over the reference that the budget's limits of time and energy come to; None where it has none."""
    budget, measured = budget or climb.budget, climb.baseline.measurement
    factors = [budget.speedup] if budget.speedup else []
    if budget.latency_ms and measured is not None:
        factors.append(measured.latency.percentile(float(budget.percentile.removeprefix("p"))) / budget.latency_ms)
    if budget.energy_mj and measured is not None and measured.energy_mj:
        factors.append(measured.energy_mj / budget.energy_mj)  # of one model at one power: energy goes with time
    return max(factors, default=None)


def foretold(climb: Climb, trial: Trial) -> bool:
    """Whether a trial that was timed, and not measured yet, is as fast as the limits of milliseconds and energy come to."""
    asked = asked_speedup(climb, replace(climb.budget, speedup=None))
    if asked is None or trial.speedup is None or trial.measurement is not None:
        return True
    ratio = trial.shapes[-1].ratio if trial.shapes else trial.speedup.ratio  # those are held at the largest shape
    return ratio.value >= asked * (1 - SPEED_TOLERANCE)


def asked_limits(climb: Climb, budget: Budget | None = None) -> Limits:
    """What `budget` comes to, or the climb's own."""
    budget = budget or climb.budget
    return Limits(asked_speedup(climb, budget), budget.size_bytes, budget.memory_bytes)


@dataclass(frozen=True)
class Bytes:
    """Bytes of a form's package, or of its peak memory, as a function of widths: linear in the bytes of the weights.

    Through the dense form and the narrowest one, both measured; then through whatever was measured last.
    """

    weights: Predict
    slope: float
    at: float  # bytes of weights that were measured last
    found: float  # and what was measured there

    def __call__(self, widths: Widths) -> float:
        return self.found + self.slope * (self.weights(widths) - self.at)

    def corrected(self, widths: Widths, found: float) -> Bytes:
        return replace(self, at=self.weights(widths), found=found)


def bytes_predictor(form: Form, whole: float, narrow: Widths, narrowest: float, shares: Mapping[str, float] | None = None) -> Bytes:
    """whole: bytes of the dense form. narrowest: of the form at the widths `narrow`. shares: as in `size_predictor`."""
    weights = size_predictor(form.graph, parts(form.graph), shares)
    dense, least = weights({}), weights(narrow)
    slope = max(0.0, (whole - narrowest) / (dense - least)) if dense > least else 0.0
    return Bytes(weights, slope, dense, whole)


def smallest_size(climb: Climb) -> int | None:
    """The least bytes that a member of the family may have: plans are one in the other, so that all of them are made in one form."""
    return min((one.size_bytes for one in (climb.budget, *climb.family) if one.size_bytes is not None), default=None)
