"""How far a search is and how long it still takes: planned pieces of work, corrected by what they really took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Progress = Callable[[str, float, float | None], None]

# Seconds: samples through engine and quantizer, per 10⁹ multiply-accumulates; one race. Measured on two x86 cores;
# the pace corrects them as the work goes on.
SECONDS_PER_GMAC = 0.12
RACE_SECONDS = 8.0
# A forward and a backward pass per 10⁹ multiply-accumulates; a step of a recipe that doesn't train; what parts are worth; a plan, timed.
SECONDS_PER_TRAINED_GMAC = 0.1
STEP_SECONDS = 10.0
SURVEY_SECONDS = 70.0
PLAN_SECONDS = 20.0


class Pace:
    """Tells `progress` of each piece of work as it starts. `planned` is in seconds, as estimated before; pieces may be added or dropped."""

    def __init__(self, planned: float, progress: Progress | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.planned = max(planned, 1e-9)
        self.clock = clock
        self.started = clock()
        self.done = 0.0
        self.shown = 0.0
        self.progress = progress or (lambda what, share, left: None)

    def begin(self, what: str, inner: float = 0.0) -> None:
        """inner: planned seconds of the piece that is under way, as far as they are over."""
        done = self.done + inner
        self.shown = max(self.shown, min(done / self.planned, 0.99))  # more may be planned on the way: it never goes back
        rate = (self.clock() - self.started) / done if done else 1.0
        self.progress(what, self.shown, rate * max(self.planned - done, 0.0))

    @contextmanager
    def piece(self, seconds: float) -> Iterator[Callable[[str, float], None]]:
        """A piece of work planned to take `seconds` that tells by itself how far it is: yields a function of (what, share 0..1)."""
        yield lambda what, share: self.begin(what, seconds * share)
        self.finish(seconds)

    def finish(self, seconds: float) -> None:
        """A piece that was planned to take `seconds` is done (or was not needed)."""
        self.done += seconds

    def add(self, seconds: float) -> None:
        self.planned += seconds


def trial_seconds(operations: int, samples: Mapping[str, int]) -> float:
    """One recipe on one engine: quantizing on the calibration samples, answering the validation split, racing."""
    fed = 6 * samples.get("calibration", 0) + samples.get("validation", 0)
    return RACE_SECONDS + fed * operations / 1e9 * SECONDS_PER_GMAC


def training_seconds(operations: float, samples: int) -> float:
    """Pruning, and training on so many samples; operations: multiply-accumulates of one."""
    return 2 * STEP_SECONDS + SECONDS_PER_TRAINED_GMAC * samples * operations / 1e9


def pruning_seconds(operations: float, samples: int, table_seconds: float) -> float:
    """A plan and its training, before it is known how narrow the model becomes: half of the dense one, say."""
    return SURVEY_SECONDS + table_seconds + 2 * PLAN_SECONDS + training_seconds(operations / 2, samples)


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
