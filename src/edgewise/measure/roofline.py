"""The roofline (Williams, Waterman, Patterson 2009): the least time that a device's measured peaks allow for a model's work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewise.errors import EdgewiseError
from edgewise.records import Peaks
from edgewise.types import Inputs

if TYPE_CHECKING:
    from edgewise.graph import Graph


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


def roofline_share(peaks: Sequence[Peaks], work: Work | None, threads: int, latency_ms: float) -> float | None:
    """The bound over what was measured; None where the work or the peaks with as many threads aren't known."""
    roofs = next((found for found in peaks if found.threads == threads), None)
    return roofline_ms(roofs, work) / latency_ms if roofs and work else None


def work(graph: Graph, inputs: Inputs) -> Work | None:
    """What one call on `inputs` has to do; None where the graph's operations can't be counted."""
    from edgewise.graph import compulsory_bytes, cost, total  # a measuring process needs no graphs

    axes = {
        axis: size
        for spec in graph.signature.inputs
        for axis, size in zip(spec.shape, inputs[spec.name].shape, strict=True)
        if isinstance(axis, str)
    }
    try:
        costs = cost(graph, **axes)
        moved = compulsory_bytes(graph, **axes)
    except EdgewiseError:
        return None
    small = total(node for node in costs if node.integer).macs
    return Work(float_macs=total(costs).macs - small, int8_macs=small, moved_bytes=moved)
