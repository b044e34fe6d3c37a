"""Latency in this process, for callers that have a Runner already. What is reported is measured by `profile`, in a process of its own."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

from edgewise.errors import InvalidInput, MeasurementFailed
from edgewise.records import Latency
from edgewise.types import Inputs, Runner


def latency(runner: Runner, inputs: Inputs, *, runs: int = 100, warmup: int = 10, clock: Callable[[], float] = perf_counter) -> Latency:
    """Time `runner` on `inputs`, one call at a time (MLPerf SingleStream).

    Returns every sample in milliseconds, in order. `clock` gives seconds.
    Raises MeasurementFailed when the median of the last half is over 20 % above that of the first (a device that throttles).
    """
    if runs < 1 or warmup < 0:
        raise InvalidInput(f"runs={runs}, warmup={warmup}: give at least one run, and a warm-up of 0 or more")
    for _ in range(warmup):
        runner.run(inputs)
    samples = []
    for _ in range(runs):
        start = clock()
        runner.run(inputs)
        samples.append((clock() - start) * 1e3)
    check_stable(samples)
    return Latency(tuple(samples))


def check_stable(samples: list[float], tolerance: float = 0.2) -> None:
    """Raises MeasurementFailed when calls got slower by over `tolerance` from the first half to the last. Under ten samples say nothing."""
    half = len(samples) // 2
    if half < 5:
        return
    first, last = statistics.median(samples[:half]), statistics.median(samples[-half:])
    if last > (1 + tolerance) * first:
        raise MeasurementFailed(
            f"calls took {first:.3g} ms in the first half and {last:.3g} ms in the last: the device throttles, "
            "or something else runs on it; let it cool down or idle, and measure again"
        )
