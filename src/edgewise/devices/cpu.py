"""What the processor is and how much of it this process may use: /proc, the affinity mask and the cgroup quota.

Every function takes `root`, the folder under which `proc` and `sys` lie, so that tests (and other devices' dumps) can stand in for it.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Collection
from pathlib import Path

ROOT = Path("/")

# What decides an engine's kernels, in the spelling of /proc/cpuinfo on x86 ("flags") and on ARM ("Features").
ISA = (
    # x86
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx_vnni_int8", "avx_ne_convert", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    # ARM
    "neon", "asimd", "fphp", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "svei8mm", "svebf16", "sme",
)  # fmt: skip


def text(path: Path) -> str | None:
    """The file's text, or None where the system does not tell (absent, forbidden, or an error of the driver behind it)."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> float | None:
    """The file's single number, or None."""
    try:
        return float(text(path) or "")
    except ValueError:
        return None


def _cpuinfo(root: Path) -> list[tuple[str, str]]:
    lines = (text(root / "proc/cpuinfo") or "").splitlines()
    return [(key.strip(), value.strip()) for key, colon, value in (line.partition(":") for line in lines) if colon]


def isa(root: Path = ROOT) -> tuple[str, ...]:
    """Instruction sets that matter to inference, in ISA's order; empty where /proc/cpuinfo is absent (macOS)."""
    flags = {flag for key, value in _cpuinfo(root) if key in ("flags", "Features") for flag in value.split()}
    return tuple(name for name in ISA if name in flags)


def multiplies_bf16(sets: Collection[str]) -> bool:
    """Whether an x86 core with these instruction sets multiplies bfloat16 itself; others emulate it, slower than fp32."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(sets)


def name(root: Path = ROOT) -> str:
    """The processor's name as people know it: "AMD EPYC", "Raspberry Pi 4 Model B Rev 1.4 (Cortex-A72)"."""
    pairs = dict(reversed(_cpuinfo(root)))  # the first core's entries win
    if "model name" in pairs:
        return pairs["model name"]
    board = (text(root / "proc/device-tree/model") or pairs.get("Model") or "").rstrip("\0")
    core = ARM_PARTS.get((pairs.get("CPU implementer", ""), pairs.get("CPU part", "")), "")
    if board and core:
        return f"{board} ({core})"
    return board or core or pairs.get("Hardware") or platform.processor() or platform.machine() or "unknown"


# ARM's numbers for the cores of common boards (arch/arm64/include/asm/cputype.h in Linux).
ARM_PARTS = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
    ("0x41", "0xd4d"): "Cortex-A715",
    ("0x61", "0x022"): "Apple Icestorm",
    ("0x61", "0x023"): "Apple Firestorm",
}


def affinity() -> tuple[int, ...]:
    """The cores that this process may run on, in order; all of them where the system has no affinity (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cgroup_folders(root: Path, controller: str) -> list[Path]:
    """Folders that may hold `controller`'s limits for this process, from its own group up to the top (a limit above binds too).

    cgroup v1 mounts each controller apart; v2 has one tree. Inside a container the path in /proc/self/cgroup is the host's and
    doesn't exist here: then only the mount's top is left, which is the container's own group.
    """
    folders: list[Path] = []
    for line in (text(root / "proc/self/cgroup") or "").splitlines():
        number_, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number_ == "0" and not controllers:
            mounts = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif controller in controllers.split(","):
            mounts = [root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup" / controller]
        else:
            continue
        for mount in mounts:
            inside = mount / path.strip("/")
            folders += [folder for folder in (inside, *inside.parents) if folder == mount or mount in folder.parents]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def quota(root: Path = ROOT) -> float | None:
    """CPUs that the cgroup allows (0.25 is a quarter of one), or None when unlimited: cpu.max (v2), cpu.cfs_quota_us (v1)."""
    limits = []
    for folder in cgroup_folders(root, "cpu"):
        share, _, period = (text(folder / "cpu.max") or "").partition(" ")
        if share.isdigit() and period.isdigit() and int(period):
            limits.append(int(share) / int(period))
        v1, v1_period = number(folder / "cpu.cfs_quota_us"), number(folder / "cpu.cfs_period_us")
        if v1 is not None and v1 > 0 and v1_period:
            limits.append(v1 / v1_period)
    return min(limits) if limits else None


def cores(root: Path = ROOT) -> int:
    """Whole cores that can work at once: the affinity mask, cut by the cgroup's quota (rounded up, at least one)."""
    allowed = quota(root)
    usable = len(affinity())
    return max(1, min(usable, math.ceil(allowed))) if allowed else usable
