"""This machine as a Device."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from dataclasses import replace
from pathlib import Path

import psutil

from edgewise import registry
from edgewise.devices import cpu, meters
from edgewise.records import Device
from edgewise.types import Watts


def local(root: Path = cpu.ROOT) -> Device:
    """What this machine is, as far as this process may use it: cores and memory are cut by affinity and cgroup, as in a container.

    Engines are found by their installed packages and not imported. `peaks` are empty: `edgewise.measure.peaks` measures them.
    """
    return Device(
        name=platform.node() or "local",
        arch=platform.machine(),
        cpu=cpu.name(root),
        cores=cpu.cores(root),
        isa=cpu.isa(root),
        memory_bytes=memory(root),
        os=system(root),
        backends=backends(),
        energy=meters.source(root),
    )


def stated(device: Device, watts: Watts) -> tuple[Device, str]:
    """`device` with its energy modelled by `watts`, and what has to be said about it, "" for nothing.

    A meter is better than any statement: where there is one, `device` stays as it is, and that the watts weren't needed is said.
    """
    if not device.energy.startswith(("none", "modelled")):
        return device, f"{watts.text} W weren't needed: energy is measured on {device.name} ({device.energy})"
    return replace(device, energy=str(watts), watts=watts), ""


def memory(root: Path = cpu.ROOT) -> int:
    """Bytes of memory that this process may use: the machine's, or the tightest cgroup limit above it when that is lower."""
    limits = [_total(root)]
    for folder in cpu.cgroup_folders(root, "memory"):
        for file in ("memory.max", "memory.limit_in_bytes"):  # v2, v1; "max" and absence aren't numbers
            limit = cpu.number(folder / file)
            if limit is not None and limit > 0:
                limits.append(int(limit))
    return min(limits)


def _total(root: Path) -> int:
    for line in (cpu.text(root / "proc/meminfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key == "MemTotal":
            return int(value.split()[0]) * 1024
    return int(psutil.virtual_memory().total)


def system(root: Path = cpu.ROOT) -> str:
    """The distribution and the kernel's series: "Debian GNU/Linux 12, Linux 6.1"; a patch level would split caches for nothing."""
    kernel = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    for line in (cpu.text(root / "etc/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return f"{value.strip().strip(chr(34))}, {kernel}"
    return kernel


def backends() -> dict[str, str]:
    """Name -> version of every registered engine that is installed here."""
    found = {}
    for name in registry.names("backend"):
        module = registry.module_of(name)
        if importlib.util.find_spec(module) is not None:
            found[name] = _version(module)
    return found


def _version(module: str) -> str:
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:  # a variant under another name, as onnxruntime-gpu
        packages = importlib.metadata.packages_distributions().get(module, [])
        return importlib.metadata.version(packages[0]) if packages else "unknown"
