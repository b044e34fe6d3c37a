"""Control groups that hold a device's processes to a share of a processor and an amount of memory: cgroup v1, v2, or both mounted.

Groups stand at the top of the mount, beside those of the system: inside a container that is the container's own group, whose limits bind
on top of these. `root` is the folder under which `proc` and `sys` lie, as in `edgewise.devices.cpu`.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from edgewise.devices.cpu import ROOT, cgroup_folders, text
from edgewise.errors import EdgewiseError

CONTROLLERS = ("cpu", "memory")
# A quota is paid out once a period: at the usual 100 ms, a quarter of a CPU runs 25 ms at full speed and then stands still for 75, which
# is no slower device, but one that stalls. The kernel takes no quota under 1 ms, so that shares under a fifth get a longer period.
PERIOD_US = 5_000
SMALLEST_QUOTA_US = 1_000


def tops(root: Path = ROOT) -> dict[str, Path]:
    """Controller -> the top of the mount that has it, v1 before v2 where both are mounted; without those that this machine lacks."""
    found = {}
    for controller in CONTROLLERS:
        folders = [folder for folder in cgroup_folders(root, controller) if (folder / "cgroup.procs").exists()]
        heads = [folder for folder in folders if not set(folder.parents) & set(folders)]
        having = [folder for folder in heads if not _unified(folder) or controller in (text(folder / "cgroup.controllers") or "").split()]
        if having:
            found[controller] = min(having, key=_unified)
    return found


def _unified(top: Path) -> bool:
    return (top / "cgroup.controllers").exists()


def obstacle(root: Path = ROOT) -> str | None:
    """Why no device can be held to limits here, or None."""
    found = tops(root)
    lacking = [controller for controller in CONTROLLERS if controller not in found]
    if lacking:
        return f"no control groups for {' and '.join(lacking)} are mounted under {root / 'sys/fs/cgroup'}; mount cgroup2 there"
    for top in found.values():
        if not os.access(top, os.W_OK) or text(top / "cgroup.procs") is None:
            return f"{top} can't be written; in a container, start it privileged"
    try:
        _hand_down(found)
    except OSError as error:
        return f"control groups under {error.filename} can't be given limits ({error.strerror}); run outside of a container, or on its host"
    return None


def _hand_down(found: dict[str, Path]) -> None:
    """v2 gives a group's children only the controllers that it is told to; systemd has told it, as a rule."""
    for controller, top in found.items():
        control = top / "cgroup.subtree_control"
        if _unified(top) and controller not in (text(control) or "").split():
            control.write_text(f"+{controller}")


def make(tag: str, *, cpu: float | None, memory_bytes: int | None, root: Path = ROOT) -> tuple[Path, ...]:
    """New groups named `tag` under these limits (None: unlimited); to join the device, a process joins every one of the folders.

    The processor's comes first. cpu: a share of one core, 0.25 is a quarter. Raises EdgewiseError where the kernel refuses.
    """
    found = tops(root)
    _hand_down(found)
    folders = {controller: top / tag for controller, top in found.items()}
    for folder in dict.fromkeys(folders.values()):
        folder.mkdir()
    if memory_bytes is not None:
        limit_memory(folders["memory"], memory_bytes)
    if cpu is not None:
        limit_cpu(folders["cpu"], cpu)
    return tuple(dict.fromkeys(folders.values()))


def limit_cpu(folder: Path, share: float) -> None:
    period = max(PERIOD_US, math.ceil(SMALLEST_QUOTA_US / share))
    quota = round(share * period)
    if _unified(folder.parent):
        _write(folder / "cpu.max", f"{quota} {period}")
    else:
        _write(folder / "cpu.cfs_period_us", str(period))
        _write(folder / "cpu.cfs_quota_us", str(quota))


def limit_memory(folder: Path, size: int) -> None:
    """Memory without swap: a small device has none, and one that swaps would be slow where it should fail."""
    if _unified(folder.parent):
        _write(folder / "memory.max", str(size))
        if (folder / "memory.swap.max").exists():
            _write(folder / "memory.swap.max", "0")
    else:
        _write(folder / "memory.limit_in_bytes", str(size))
        if (folder / "memory.memsw.limit_in_bytes").exists():  # of memory and swap together
            _write(folder / "memory.memsw.limit_in_bytes", str(size))


def memory_kills(folders: tuple[Path, ...]) -> int:
    """How many processes of the groups the kernel has ended because their memory was used up."""
    for folder in folders:
        for file in ("memory.events", "memory.oom_control"):
            for line in (text(folder / file) or "").splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    return 0


def _write(file: Path, value: str) -> None:
    try:
        file.write_text(value)
    except OSError as error:
        raise EdgewiseError(f"the kernel refuses {value!r} for {file} ({error.strerror}); a group above it may be held to less") from error
