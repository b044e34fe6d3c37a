"""`edgewise doctor`: this device, what is installed on it, how fast it can be, and what to beware of."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgewise.records import Conditions, Device

STEAL_MATTERS = 0.02
LIBRARIES = ("edgewise", "numpy", "onnx", "torch", "onnxscript", "safetensors")


def command(
    peaks: Annotated[bool, typer.Option(help="Measure what the device reaches, once; kept in the cache folder.")] = True,
    again: Annotated[bool, typer.Option(help="Measure it anew.")] = False,
) -> None:
    """Show this device: cores, instruction sets, memory, engines, meters, measured peaks, and what to beware of.

    Example: edgewise doctor
    """
    from edgewise import devices, measure, report
    from edgewise.cli.progress import telling
    from edgewise.cli.terminal import clean, console, facts, section
    from edgewise.measure.roofs import cache_folder

    device = devices.local()
    watch = devices.Watch()
    if peaks:
        counts = sorted({1, device.cores})
        found = []
        with telling() as tell:
            for done, threads in enumerate(counts):
                tell(f"peaks with {threads} thread{'s' * (threads > 1)}", done / len(counts), 6.0 * (len(counts) - done))
                found.append(measure.peaks(device, threads, again=again))
        device = replace(device, peaks=tuple(found))
    else:
        time.sleep(0.3)  # long enough for a look at what others take of this machine
    seen = watch.conditions(device=device.name, engine="", threads=device.cores)
    out = console()
    out.print(report.device_table(device))
    section(out, "Engines", facts(engines(device)))
    section(out, "Installed", facts(installed()))
    out.print(clean(f"  kept in {cache_folder()} (EDGEWISE_CACHE chooses another folder)"), style="dim")
    said = warnings(device, seen)
    section(out, "Beware" if said else "Nothing to beware of", facts(said))


def engines(device: Device) -> list[tuple[str, str]]:
    """Every engine that edgewise knows: its version and precisions, or the line that brings it."""
    from edgewise import backends, registry
    from edgewise.cli import pip_line
    from edgewise.export.forms import obstacle

    present = backends.installed()
    rows = []
    for name in registry.names("backend"):
        if name in present:
            precisions = ", ".join(present[name].precisions())
            own = backends.form(name) != backends.ONNX
            rows.append(
                (f"✓ {name}", f"{device.backends.get(name, 'unknown')}: {precisions}, and int8 in {'its form' if own else 'the graph'}")
            )
            if own and (why := obstacle(name)):
                rows.append(("", f"runs packages that have its form; none can be made here: {why}"))
        else:
            rows.append((f"✗ {name}", f"not installed: {pip_line(registry.EXTRAS.get(registry.module_of(name), name))}"))
    return rows


def version(name: str) -> str | None:
    """Of a library, or of Python itself; None when it isn't installed."""
    if name == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed() -> list[tuple[str, str]]:
    from edgewise import coding
    from edgewise.cli import WORKSHOP, lacking, pip_line

    found = [f"{name} {version(name)}" for name in LIBRARIES if version(name)]
    rows = [("Python", platform.python_version()), ("libraries", ", ".join(found)), ("coding", coding.implementation())]
    for name, what in (("demo", "demo"), ("compress", "compress; fit and reproduce of anything but an .onnx")):
        if lacking(name):
            rows.append(("not here", f"{what}: {pip_line(WORKSHOP[name].extras)}"))
    return rows


def warnings(device: Device, seen: Conditions, *, quota: float | None = None) -> list[tuple[str, str]]:
    """What makes figures of this device misleading, and what follows from it. `quota` stands in for the system's in tests."""
    from edgewise.devices import cpu

    isa = set(device.isa)
    allowed = quota if quota is not None else cpu.quota()
    rows = []
    if seen.steal is not None and seen.steal > STEAL_MATTERS:
        rows.append(
            (
                "steal",
                f"{seen.steal:.0%} of the time went to other guests of this machine: trust ratios and medians, not tails, or come back",
            )
        )
    if seen.load is not None and seen.load > 0.5 * device.cores:
        rows.append(("load", f"{seen.load:.1f} processes were busy on {device.cores} cores in the last minute: times will be too long"))
    if allowed is not None and allowed < len(cpu.affinity()):
        rows.append(("quota", f"a control group allows {allowed:g} CPUs: what is used beyond is paid back in pauses, which shows in p99"))
    if "x86" in device.arch.lower() or device.arch.upper() == "AMD64":
        if not {"avx512_vnni", "avx_vnni", "avx_vnni_int8"} & isa:
            rows.append(
                (
                    "no VNNI",
                    "8-bit products are added up in 16 bits by some kernels and may saturate: fit tries weights of 7 bits too, and takes "
                    "what measures best. int8 gains less here than on newer CPUs",
                )
            )
    elif device.arch in ("aarch64", "arm64") and not {"asimddp", "i8mm"} & isa:
        rows.append(("no dot product", "this core has no int8 dot product: int8 saves memory, but may not be faster than fp32"))
    if cpu.multiplies_bf16(isa):
        rows.append(
            (
                "bf16",
                "some engines compute in bf16 here unless told otherwise: edgewise asks for true fp32; figures from elsewhere may not be",
            )
        )
    if device.energy.startswith("none"):
        rows.append(
            (
                "energy",
                "it can't be measured here, so there is no figure, unless --watts states what the board takes: then figures are modelled",
            )
        )
    return rows
