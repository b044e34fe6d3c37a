"""How the machine is, in a few system calls and without numpy: for a worker that waits."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/")


def memory_free_bytes(root: Path = ROOT) -> int | None:
    return next((int(value.split()[0]) * 1024 for name, value in _pairs(root / "proc/meminfo") if name == "MemAvailable"), None)


def temperature_c(root: Path = ROOT) -> float | None:
    """The hottest thermal zone."""
    found = []
    for path in root.glob("sys/class/thermal/thermal_zone*/temp"):
        try:
            found.append(int(path.read_text()) / 1000)
        except (OSError, ValueError):
            continue
    return max(found, default=None)


def boot(root: Path = ROOT) -> str:
    """Another one after every start of the machine; "" where the system doesn't tell."""
    try:
        return (root / "proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pairs(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    return [(name, value.strip()) for name, colon, value in (line.partition(":") for line in lines) if colon and value.strip()]
