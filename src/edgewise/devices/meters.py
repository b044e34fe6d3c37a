"""Energy meters: counters of joules (RAPL, some hwmon chips) and sensors of watts (INA and other hwmon chips, a battery that discharges).

A machine without any says so, with what was looked for: no constant stands in for a meter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from edgewise.devices import cpu

PERIOD_S = 0.05  # between two looks at a sensor of watts


@dataclass(frozen=True)
class Meter:
    """`start()` begins to count and returns a function that stops and gives the joules since (None when a reading failed).

    All of them count the whole package, board or battery, the idle part included.
    """

    name: str
    start: Callable[[], Callable[[], float | None]]


def available(root: Path = cpu.ROOT) -> tuple[Meter, ...]:
    """The meters that can be read here, the most precise first."""
    return tuple(meter for meter in (_rapl(root), _hwmon_energy(root), _hwmon_power(root), _battery(root)) if meter is not None)


def source(root: Path = cpu.ROOT) -> str:
    """How energy is known here, for `Device.energy`: the best meter's name, or "none: …" with what was looked for."""
    found = available(root)
    if found:
        return found[0].name
    if list((root / "sys/class/powercap").glob("*-rapl:*")):
        return "none: RAPL is there, but its counters may be read by root only (chmod a+r /sys/class/powercap/*/energy_uj)"
    return "none: no RAPL in /sys/class/powercap, no energy or power sensor in /sys/class/hwmon, no battery that discharges"


def counter(name: str, counters: tuple[tuple[Path, float | None], ...]) -> Meter:
    """A meter over files of microjoules that only grow, each with the range at which it wraps to zero (None: never)."""

    def start() -> Callable[[], float | None]:
        before = [cpu.number(path) for path, _ in counters]

        def stop() -> float | None:
            total = 0.0
            for (path, wrap), first in zip(counters, before, strict=True):
                last = cpu.number(path)
                if first is None or last is None or (last < first and wrap is None):
                    return None
                total += last - first + (wrap or 0.0 if last < first else 0.0)
            return total / 1e6

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


def _scaled(path: Path, unit: float) -> float | None:
    value = cpu.number(path)
    return None if value is None else value * unit


def _product(left: Path, right: Path, unit: float) -> float | None:
    a, b = cpu.number(left), cpu.number(right)
    return None if a is None or b is None else abs(a * b) * unit
