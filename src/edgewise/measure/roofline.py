"""The roofline (Williams, Waterman, Patterson 2009): the least time that a device's measured peaks allow for a model's work."""

from __future__ import annotations

from dataclasses import dataclass

from edgewise.types import Peaks


@dataclass(frozen=True)
class Work:
    """One call's work: multiply-accumulates in float and in int8, and the bytes that must move at least (weights, inputs, outputs)."""

    float_macs: int = 0
    int8_macs: int = 0
    moved_bytes: int = 0


def roofline_ms(peaks: Peaks, work: Work) -> float:
    """The bound: the longer of computing and moving, in milliseconds.

    Measured time beats the bound (a share above 1) when the data never leaves the caches: the memory peak is that of main memory.
    """
    computing = 2 * work.float_macs / (peaks.fp32_gflops * 1e9)
    if work.int8_macs:
        computing += 2 * work.int8_macs / (peaks.int8_gops * 1e9)
    return max(computing, work.moved_bytes / (peaks.memory_gbps * 1e9)) * 1e3
