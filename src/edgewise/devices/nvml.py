"""NVIDIA's management library, through nvidia-ml-py where that is installed: what each GPU has taken so far, or takes now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """A GPU as NVML sees it: the card alone, without the processor and the memory of the machine around it.

    joules: since the driver was loaded; None where the card has no such counter (those before Volta). watts: on cards since Ampere an
    average over the last second, so short work is smeared.
    """

    name: str
    joules: Callable[[], float | None] | None
    watts: Callable[[], float | None]


def gpus(library: Any = None) -> tuple[Gpu, ...]:
    """All that can be read; none where nvidia-ml-py, a driver or a card is missing. `library` stands in for the installed one in tests."""
    found = library or _installed()
    if found is None:
        return ()
    try:
        found.nvmlInit()
        handles = [found.nvmlDeviceGetHandleByIndex(i) for i in range(found.nvmlDeviceGetCount())]
        each = [_gpu(found, handle) for handle in handles]
    except found.NVMLError:
        return ()
    return tuple(gpu for gpu in each if gpu.joules is not None or gpu.watts() is not None)


def _installed() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def _gpu(library: Any, handle: Any) -> Gpu:
    joules = partial(_read, library, library.nvmlDeviceGetTotalEnergyConsumption, handle)
    name = library.nvmlDeviceGetName(handle)
    return Gpu(
        name.decode() if isinstance(name, bytes) else str(name),
        None if joules() is None else joules,
        partial(_read, library, library.nvmlDeviceGetPowerUsage, handle),
    )


def _read(library: Any, ask: Callable[[Any], int], handle: Any) -> float | None:
    """NVML counts in millijoules and milliwatts. None where the card doesn't tell."""
    try:
        return ask(handle) / 1e3
    except library.NVMLError:
        return None
