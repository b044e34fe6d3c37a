"""Energy meters: counters of joules (RAPL, hwmon chips, NVML) and sensors of watts (INA and other hwmon chips, a battery that discharges).

A machine without any says so, with what was looked for: no constant stands in for a meter. Watts that somebody states are no meter: they
are `types.Watts`, and what comes of them is called modelled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from edgewise.devices import cpu, nvml
from edgewise.devices.nvml import Gpu

PERIOD_S = 0.05  # between two looks at a sensor of watts


@dataclass(frozen=True)
class Meter:
    """`start()` begins to count and returns a function that stops and gives the joules since (None when a reading failed).

    All of them count the whole package, board, card or battery, the idle part included.
    """

    name: str
    start: Callable[[], Callable[[], float | None]]


def available(root: Path = cpu.ROOT) -> tuple[Meter, ...]:
    """The meters of what computes on the processor that can be read here, the most precise first."""
    return tuple(meter for meter in (_rapl(root), _hwmon_energy(root), _hwmon_power(root), _battery(root)) if meter is not None)


def best(*, gpu: bool = False, root: Path = cpu.ROOT, gpus: Callable[[], Sequence[Gpu]] = nvml.gpus) -> Meter | None:
    """The meter of what an engine computes on: the first of `available`, and for one that computes on a GPU NVML's before these.

    Never NVML's for the processor's work: it would count a card that waits.
    """
    found = [_nvml(gpus())] if gpu else []
    return next((meter for meter in (*found, *available(root)) if meter is not None), None)


def source(root: Path = cpu.ROOT, gpus: Callable[[], Sequence[Gpu]] = nvml.gpus) -> str:
    """How energy is known here, for `Device.energy`: the best meter's name, or "none: …" with what was looked for."""
    found = available(root)
    if found:
        return found[0].name
    card = _nvml(gpus())
    beside = f"; {card.name} counts a GPU alone, for engines that compute on it" if card is not None else ""
    if list((root / "sys/class/powercap").glob("*-rapl:*")):
        return f"none: RAPL is there, but its counters may be read by root only (chmod a+r /sys/class/powercap/*/energy_uj){beside}"
    return f"none: no RAPL in /sys/class/powercap, no energy or power sensor in /sys/class/hwmon, no battery that discharges{beside}"


def counter(name: str, counters: tuple[tuple[Path, float | None], ...]) -> Meter:
    """A meter over files of microjoules that only grow, each with the range at which it wraps to zero (None: never)."""
    return growing(name, tuple((partial(_scaled, path, 1e-6), wrap and wrap / 1e6) for path, wrap in counters))


def growing(name: str, counters: Sequence[tuple[Callable[[], float | None], float | None]]) -> Meter:
    """A meter over functions that give joules that only grow, each with the joules at which it wraps to zero (None: never)."""

    def start() -> Callable[[], float | None]:
        before = [read() for read, _ in counters]

        def stop() -> float | None:
            total = 0.0
            for (read, wrap), first in zip(counters, before, strict=True):
                last = read()
                if first is None or last is None or (last < first and wrap is None):
                    return None
                total += last - first + (wrap or 0.0 if last < first else 0.0)
            return total

        return stop

    return Meter(name, start)


def sampled(name: str, watts: Callable[[], float | None], period_s: float = PERIOD_S, clock: Callable[[], float] = time.monotonic) -> Meter:
    """A meter over a sensor of watts: a thread looks every `period_s` and adds up by the trapezoid rule. Not fit for milliseconds."""

    def start() -> Callable[[], float | None]:
        points: list[tuple[float, float | None]] = [(clock(), watts())]
        stopped = threading.Event()

        def look() -> None:
            while not stopped.wait(period_s):
                points.append((clock(), watts()))

        thread = threading.Thread(target=look, name="edgewise-meter", daemon=True)
        thread.start()

        def stop() -> float | None:
            stopped.set()
            thread.join()
            points.append((clock(), watts()))
            total = 0.0
            for (t0, w0), (t1, w1) in pairwise(points):
                if w0 is None or w1 is None:
                    return None
                total += (t1 - t0) * (w0 + w1) / 2
            return total

        return stop

    return Meter(name, start)


def _rapl(root: Path) -> Meter | None:
    """Intel's and AMD's package counters. "intel-rapl:0:1" is a part of "intel-rapl:0", and psys holds the packages again."""
    zones = []
    for folder in sorted((root / "sys/class/powercap").glob("*-rapl:*")):
        label = cpu.text(folder / "name") or ""
        if folder.name.count(":") == 1 and label.startswith("package") and cpu.number(folder / "energy_uj") is not None:
            zones.append((folder / "energy_uj", cpu.number(folder / "max_energy_range_uj")))
    return counter(f"RAPL ({len(zones)} package{'s' * (len(zones) > 1)})", tuple(zones)) if zones else None


def _hwmon_energy(root: Path) -> Meter | None:
    found = []
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        sockets = [path for path in sorted(folder.glob("energy*_input")) if "socket" in (cpu.text(_label(path)) or "").lower()]
        found += [(path, None) for path in sockets or sorted(folder.glob("energy1_input")) if cpu.number(path) is not None]
    return counter("hwmon energy counter", tuple(found)) if found else None


def _label(path: Path) -> Path:
    return path.with_name(path.name.replace("_input", "_label"))


def _hwmon_power(root: Path) -> Meter | None:
    """A sensor of watts for the whole board: `power1_input` (µW), or current × voltage of an INA3221 (mA, mV), its first channel."""
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        chip = cpu.text(folder / "name") or folder.name
        power, current, voltage = folder / "power1_input", folder / "curr1_input", folder / "in1_input"
        if cpu.number(power) is not None:
            return sampled(f"hwmon {chip} power1", partial(_scaled, power, 1e-6))
        if chip.startswith("ina") and cpu.number(current) is not None and cpu.number(voltage) is not None:
            return sampled(f"hwmon {chip} channel 1", partial(_product, current, voltage, 1e-6))
    return None


def _battery(root: Path) -> Meter | None:
    """A battery's own reading of what it gives, µW or µA × µV: only while it discharges, otherwise the mains feed the load."""
    for folder in sorted((root / "sys/class/power_supply").glob("*")):
        if cpu.text(folder / "type") != "Battery" or cpu.text(folder / "status") != "Discharging":
            continue
        power, current, voltage = folder / "power_now", folder / "current_now", folder / "voltage_now"
        if cpu.number(power) is not None:
            return sampled(f"battery {folder.name}", partial(_scaled, power, 1e-6))
        if cpu.number(current) is not None and cpu.number(voltage) is not None:
            return sampled(f"battery {folder.name}", partial(_product, current, voltage, 1e-12))
    return None


def _nvml(gpus: Sequence[Gpu]) -> Meter | None:
    """All cards together, by their counters where every one has such, else by their watts."""
    if not gpus:
        return None
    names = ", ".join(dict.fromkeys(gpu.name for gpu in gpus))
    which = names if len(gpus) == 1 else f"{len(gpus)} cards: {names}"
    counted = [(gpu.joules, None) for gpu in gpus if gpu.joules is not None]
    if len(counted) == len(gpus):
        return growing(f"NVML energy counter ({which})", counted)

    def watts() -> float | None:
        each = [gpu.watts() for gpu in gpus]
        known = [value for value in each if value is not None]
        return sum(known) if len(known) == len(each) else None

    return sampled(f"NVML power ({which})", watts)


def _scaled(path: Path, unit: float) -> float | None:
    value = cpu.number(path)
    return None if value is None else value * unit


def _product(left: Path, right: Path, unit: float) -> float | None:
    a, b = cpu.number(left), cpu.number(right)
    return None if a is None or b is None else abs(a * b) * unit
