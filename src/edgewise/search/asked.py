"""What a search was asked for, checked, and what follows from it: epochs, engines, thread counts, versions."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise import __version__, backends, registry
from edgewise.errors import InvalidInput, MissingExtra
from edgewise.export.forms import obstacle
from edgewise.records import Device
from edgewise.types import Budget

if TYPE_CHECKING:
    from edgewise.tasks import TrainingTask

# Training after pruning, unless told otherwise: distill's batches.
BATCH, LEAST_EPOCHS, MOST_EPOCHS, LEAST_STEPS = 128, 8, 60, 1500


@dataclass(frozen=True)
class Asked:
    """What `fit` and its like were given; recipe: "" searches for one. family: all budgets of the run.

    beside: files of models that are held beside what is found.
    """

    budget: Budget
    device: Device
    threads: int | None
    engines: tuple[str, ...]
    out: str | Path | None
    weights: str | Path | None
    epochs: int
    seed: int
    timing_seconds: float
    table_seconds: float
    recipe: str
    family: tuple[Budget, ...] = ()
    beside: tuple[str | Path, ...] = ()

    def __post_init__(self) -> None:
        budget, device, threads = self.budget, self.device, self.threads
        if budget.energy_mj is not None and device.energy.startswith("none"):
            raise InvalidInput(
                f"energy_mj={budget.energy_mj} can't be held on {device.name}: energy is {device.energy}. Leave this limit out, or state "
                "what the board takes: --watts idle=1.9,busy=4.2 (in Python: devices.stated(device, Watts(busy=4.2, idle=1.9)))"
            )
        for name in ("timing_seconds", "table_seconds"):
            if not getattr(self, name) > 0:
                raise InvalidInput(f"{name}={getattr(self, name)}: give a number above 0")
        if self.epochs < 0:
            raise InvalidInput(f"epochs={self.epochs}: give 0 (never train) or more")
        if threads is not None and not 1 <= threads <= device.cores:
            raise InvalidInput(f"threads={threads}: {device.name} has {device.cores} usable cores; give 1 to {device.cores}")

    @property
    def counts(self) -> tuple[int, ...]:
        """Thread counts that the reference is tried with."""
        return (self.threads,) if self.threads else _doubling(self.device.cores)

    @property
    def member(self) -> Path | None:
        """The folder of this package and report: `out`, or one in it for each member of a family."""
        if self.out is None:
            return None
        return Path(self.out) / f"{self.budget.speedup:g}x" if self.family else Path(self.out)


def usual_epochs(task: TrainingTask) -> int:
    """Enough to recover from pruning: pictures in the ten thousands need few passes, a small set many."""
    steps = max(1, len(task.split("train")) // BATCH)
    return min(MOST_EPOCHS, max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps)))


def chosen_engines(engines: Sequence[str] | None, device: Device) -> tuple[str, ...]:
    """Those that were named, else all that are installed, here and on the device, and whose form can be made here (see `left_out`)."""
    installed = tuple(backends.installed())
    if device.address != "local":  # there it is timed, and here what it answers is judged
        if missing := [name for name in engines or () if name not in device.backends]:
            there = ", ".join(device.backends) or "none"
            raise InvalidInput(f"engine {missing[0]!r} isn't installed on {device.name}; installed there: {there}")
        installed = tuple(name for name in installed if name in device.backends)
        if not installed:
            raise InvalidInput(
                f"{device.name} has {', '.join(device.backends) or 'no engine'}, this machine {', '.join(backends.installed())}: "
                "an engine has to be installed on both"
            )
    if engines is None:
        return tuple(name for name in installed if not obstacle(name))
    for name in engines:
        backends.get(name)  # an unknown name has its own error
        if name not in installed and ":" not in name:
            raise InvalidInput(f"engine {name!r} isn't installed; installed are {', '.join(installed)}")
        if why := obstacle(name):
            raise MissingExtra(f"engine {name!r} can't be used here: {why}")
    return tuple(engines)


def left_out(engines: Sequence[str]) -> list[str]:
    """A note for every installed engine that isn't among `engines` because the form that it loads can't be made here."""
    return [f"{name} was left out: {why}" for name in backends.installed() if name not in engines and (why := obstacle(name))]


def _doubling(cores: int) -> tuple[int, ...]:
    """1, 2, 4 … up to all cores."""
    counts = [1]
    while counts[-1] * 2 <= cores:
        counts.append(counts[-1] * 2)
    return tuple(sorted({*counts, cores}))


def versions(names: Sequence[str]) -> dict[str, str]:
    found = {"edgewise": __version__, "python": platform.python_version()}
    for name in ("numpy", "onnx", "torch", *names):
        try:
            found[name] = importlib.metadata.version(registry.module_of(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
