"""One look at the counters that tell what disturbs measured processes. `health` judges what happened between two.

It is taken while those processes are idle, between blocks of 15 to 50 ms, so it has to be cheap: some tens of microseconds. Hence bare
system calls, and the places of the counters found once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from edgewise.devices import cpu
from edgewise.devices.watch import CPU_SENSORS

TICKS_PER_S = 100  # USER_HZ, which /proc counts in on every Linux
FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"  # Raspberry Pi: the bits of `vcgencmd get_throttled`


@dataclass(frozen=True)
class Look:
    """Counters at one moment; None or an empty mapping where the system doesn't tell. Ticks are since boot, by core."""

    at_s: float
    idle: Mapping[int, int]
    steal: Mapping[int, int]
    pids: tuple[int, ...] = ()
    used_s: float | None = None  # by our processes, all threads
    waited_s: float | None = None  # that these threads were ready to run and weren't let
    throttled: int | None = None  # events of heat since boot (x86)
    firmware: int | None = None  # see FIRMWARE
    clock_mhz: float | None = None  # of the slowest core
    temperature_c: float | None = None

    @property
    def tells(self) -> bool:
        return bool(self.steal) or any(value is not None for value in (self.used_s, self.throttled, self.firmware, self.clock_mhz))


@dataclass(frozen=True)
class Sources:
    """Where the counters of `cores` lie."""

    root: Path
    cores: tuple[int, ...]
    beside: tuple[int, ...]  # other hyper-threads of those cores
    limited: bool  # by a cgroup's quota
    throttled: tuple[str, ...]
    firmware: str | None
    clocks: tuple[str, ...]
    zone: str | None
    trip_c: float | None  # from which on the kernel slows the processor


def sources(cores: Sequence[int], root: Path = cpu.ROOT) -> Sources:
    folders = [root / f"sys/devices/system/cpu/cpu{core}" for core in cores]
    siblings = {other for folder in folders for other in _listed(cpu.text(folder / "topology/thread_siblings_list") or "")}
    throttled = [folder / "thermal_throttle/core_throttle_count" for folder in folders]
    throttled += [folder / "thermal_throttle/package_throttle_count" for folder in folders[:1]]
    clocks = {(folder / "cpufreq").resolve() / "scaling_cur_freq" for folder in folders}  # cores that share a clock share a folder
    zone, trip_c = _zone(root)
    return Sources(
        root,
        tuple(cores),
        tuple(sorted(siblings - {*cores})),
        cpu.quota(root) is not None,
        tuple(str(path) for path in throttled if path.is_file()),
        str(root / FIRMWARE) if (root / FIRMWARE).is_file() else None,
        tuple(str(path) for path in sorted(clocks) if path.is_file()),
        zone,
        trip_c,
    )


def look(where: Sources, pids: Sequence[int] = (), clock: Callable[[], float] = monotonic) -> Look:
    """The counters now. pids: the measured processes."""
    idle, steal = _ticks(where)
    used_s, waited_s = _times(where.root, pids)
    counts = [_integer(path) for path in where.throttled]
    khz = [value for value in map(_integer, where.clocks) if value]
    heat = _integer(where.zone) if where.zone else None
    return Look(
        clock(),
        idle,
        steal,
        tuple(pids),
        used_s,
        None if where.limited else waited_s,
        sum(count or 0 for count in counts) if counts else None,
        _integer(where.firmware, 16) if where.firmware else None,
        min(khz) / 1000 if khz else None,
        None if heat is None else heat / 1000,
    )


def _ticks(where: Sources) -> tuple[dict[int, int], dict[int, int]]:
    """/proc/stat, man 5 proc: user nice system idle iowait irq softirq steal. Waiting for a disk is idling, to us."""
    idle: dict[int, int] = {}
    steal: dict[int, int] = {}
    wanted = {f"cpu{core}": core for core in (*where.cores, *where.beside)}
    for line in _read(f"{where.root}/proc/stat").split("\nintr", 1)[0].splitlines():
        name, *fields = line.split()
        if name in wanted and len(fields) >= 8:
            idle[wanted[name]], steal[wanted[name]] = int(fields[3]) + int(fields[4]), int(fields[7])
    return idle, steal


def _times(root: Path, pids: Sequence[int]) -> tuple[float | None, float | None]:
    """Seconds that the processes' threads have run, and have waited to. Kernels that don't count the latter give zeros, or no such file."""
    used = waited = 0.0
    counted = True
    for pid in pids:
        rows = [_read(f"{root}/proc/{pid}/task/{thread}/schedstat").split() for thread in _threads(root, pid)]
        times = [(int(row[0]) / 1e9, int(row[1]) / 1e9) for row in rows if len(row) >= 2]
        ran = sum(ran for ran, _ in times)
        if not ran:
            counted = False
            fields = _read(f"{root}/proc/{pid}/stat").rpartition(")")[2].split()  # a name may hold spaces
            if len(fields) < 13:
                return None, None
            ran = (int(fields[11]) + int(fields[12])) / TICKS_PER_S  # utime, stime
        used += ran
        waited += sum(wait for _, wait in times)
    return (used, waited if counted else None) if pids else (None, None)


def _threads(root: Path, pid: int) -> list[str]:
    try:
        return os.listdir(f"{root}/proc/{pid}/task")  # noqa: PTH208 (pathlib would double its time)
    except OSError:
        return []


def _zone(root: Path) -> tuple[str | None, float | None]:
    """The processor's thermal zone with the lowest passive trip point. Not ACPI's: its firmware takes milliseconds for an answer."""
    found: list[tuple[float, str]] = []
    for folder in root.glob("sys/class/thermal/thermal_zone*"):
        kind = (cpu.text(folder / "type") or "").lower().replace("-", "_")
        if not kind.startswith(CPU_SENSORS) or kind.startswith("acpi"):
            continue
        for path in folder.glob("trip_point_*_type"):
            trip = cpu.number(path.with_name(path.name.replace("_type", "_temp"))) if cpu.text(path) == "passive" else None
            if trip and trip > 20_000:  # some drivers say 0 where there is none
                found.append((trip / 1000, str(folder / "temp")))
    if not found:
        return None, None
    trip_c, zone = min(found)
    return zone, trip_c


def _listed(text: str) -> Iterable[int]:
    """Numbers in a list as the kernel writes it: "0-2,5"."""
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        yield from range(int(low), int(high or low) + 1)


def _read(path: str) -> str:
    """The file's text, "" where the system doesn't tell. What `open` builds around a file takes longer than these calls."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.read(file, 1 << 16).decode("ascii", "replace")
    except OSError:
        return ""
    finally:
        os.close(file)


def _integer(path: str, base: int = 10) -> int | None:
    try:
        return int(_read(path), base)
    except ValueError:
        return None
