"""How the machine was doing while something was measured: steal, frequency, temperature, load. None where the system doesn't tell."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewise.devices import cpu
from edgewise.records import Conditions

# Thermal zones and hwmon chips that mean the processor, of the many that a board has (battery, Wi-Fi, NVMe …).
CPU_SENSORS = ("cpu", "soc", "x86_pkg", "coretemp", "k10temp", "zenpower", "acpitz")


@dataclass(frozen=True)
class Reading:
    """One look at the machine. `steal` and `total` are ticks since boot over the cores asked about."""

    steal: int | None
    total: int | None
    frequency_mhz: float | None
    temperature_c: float | None
    load: float | None


def read(cores: Sequence[int] = (), root: Path = cpu.ROOT) -> Reading:
    """A look at `cores` (all when empty)."""
    steal, total = _ticks(cores, root)
    load = (cpu.text(root / "proc/loadavg") or "").split()
    return Reading(steal, total, frequency_mhz(cores, root), temperature_c(root), float(load[0]) if load else None)


def _ticks(cores: Sequence[int], root: Path) -> tuple[int | None, int | None]:
    """/proc/stat, man 5 proc: user nice system idle iowait irq softirq steal (guest and guest_nice are in user and nice already)."""
    wanted = {f"cpu{core}" for core in cores} or {"cpu"}
    rows = [line.split() for line in (cpu.text(root / "proc/stat") or "").splitlines()]
    ticks = [[int(value) for value in row[1:9]] for row in rows if row and row[0] in wanted]
    if not ticks or any(len(row) < 8 for row in ticks):
        return None, None
    return sum(row[7] for row in ticks), sum(map(sum, ticks))


def frequency_mhz(cores: Sequence[int] = (), root: Path = cpu.ROOT) -> float | None:
    """Mean clock of `cores`, from cpufreq, else from /proc/cpuinfo."""
    folder = root / "sys/devices/system/cpu"
    paths = [folder / f"cpu{core}/cpufreq/scaling_cur_freq" for core in cores] or sorted(folder.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    khz = [value for value in map(cpu.number, paths) if value]
    if khz:
        return sum(khz) / len(khz) / 1000
    mhz: list[float] = []
    lines = (line.partition(":") for line in (cpu.text(root / "proc/cpuinfo") or "").splitlines())
    for key, _, value in lines:
        if key.strip() == "cpu MHz":
            mhz.append(float(value))
    chosen = [mhz[core] for core in cores if core < len(mhz)] or mhz
    return sum(chosen) / len(chosen) if chosen else None


def temperature_c(root: Path = cpu.ROOT) -> float | None:
    """The processor's hottest sensor: thermal zones, else hwmon."""
    found = []
    for kind, pattern in (("type", "sys/class/thermal/thermal_zone*"), ("name", "sys/class/hwmon/hwmon*")):
        for folder in sorted(root.glob(pattern)):
            if (cpu.text(folder / kind) or "").lower().replace("-", "_").startswith(CPU_SENSORS):
                found += [cpu.number(path) for path in (folder.glob("temp") if kind == "type" else folder.glob("temp*_input"))]
        known = [value / 1000 for value in found if value is not None]
        if known:
            return max(known)
    return None


class Watch:
    """Looks at the machine when it is made and again when `conditions` is asked for."""

    def __init__(self, cores: Sequence[int] = (), root: Path = cpu.ROOT) -> None:
        self._cores, self._root = tuple(cores), root
        self._started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._before = read(cores, root)

    def conditions(self, *, device: str, engine: str, threads: int) -> Conditions:
        """Of the time since the watch began: steal as a share of it, the mean of both clock readings, the hotter temperature."""
        before, now = self._before, read(self._cores, self._root)
        steal = None
        if before.steal is not None and now.steal is not None and before.total is not None and now.total is not None:
            elapsed = now.total - before.total
            steal = max(0.0, (now.steal - before.steal) / elapsed) if elapsed > 0 else 0.0
        clocks = [value for value in (before.frequency_mhz, now.frequency_mhz) if value is not None]
        heat = [value for value in (before.temperature_c, now.temperature_c) if value is not None]
        return Conditions(
            device=device,
            engine=engine,
            threads=threads,
            affinity=self._cores,
            frequency_mhz=sum(clocks) / len(clocks) if clocks else None,
            temperature_c=max(heat) if heat else None,
            steal=steal,
            load=before.load,
            started=self._started,
        )
