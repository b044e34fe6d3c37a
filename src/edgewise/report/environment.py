"""The sections that say on what a study stands: data, device and conditions, and how to make it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from edgewise.records import Conditions, Device, Study
from edgewise.report import figures, numbers, tables, words
from edgewise.report.markup import Markup, join, tag
from edgewise.types import Watts

STEAL_MATTERS = 0.05  # from this share of CPU time on, tails can't be trusted
FEW = 6  # more lines than this are folded away


def moment(stamp: str) -> str:
    """An ISO 8601 time in UTC, easier to read."""
    return stamp.replace("T", " ").replace("Z", " UTC")


def _lines(lines: Sequence[str], what: str) -> Markup | None:
    """Short lists open, long ones folded."""
    if not lines:
        return None
    listed = tag("ul", *(tag("li", said) for said in lines))
    return listed if len(lines) <= FEW else tag("details", tag("summary", f"{len(lines)} {what}"), listed)


def data(study: Study) -> Markup:
    found = study.data
    splits = ", ".join(f"{name} {numbers.count(n)}" for name, n in found.samples.items())
    rows: list[tuple[str, Markup | str]] = [
        ("Task", found.task),
        ("Metric", found.metric),
        ("Source", tag("code", found.source)),
        ("Samples per split", splits),
        ("Classes", numbers.count(len(found.labels)) if found.labels else "no labels"),
        ("Fingerprint", tag("code", found.fingerprint)),
    ]
    cleaning = _lines(found.cleaning, "notes from cleaning") or tag("p", "Cleaning found nothing to note.")
    return join([tables.pairs("Data", rows), tag("h3", "Cleaning"), cleaning])


def _known(value: float | None, unit: str, factor: float = 1) -> str:
    return "not told by the system" if value is None else f"{numbers.significant(factor * value)} {unit}".strip()


def conditions_rows(found: Conditions) -> tuple[tuple[str, str], ...]:
    """Every condition of a measurement in words; what the system doesn't tell is said."""
    steal = _known(found.steal, "%", 100)
    if found.steal is not None and found.steal > STEAL_MATTERS:
        steal += ": a neighbour took time, so tails are too long"
    return (
        ("Engine", found.engine),
        ("Threads", str(found.threads)),
        ("Bound to CPUs", ", ".join(map(str, found.affinity)) or "not bound"),
        ("Frequency", _known(found.frequency_mhz, "MHz")),
        ("Temperature", _known(found.temperature_c, "°C")),
        ("Steal (time taken by the hypervisor)", steal),
        ("Disturbed", words.disturbed(found) or "not looked at"),
        ("Load before", _known(found.load, "")),
        ("Started", moment(found.started)),
    )


def _conditions(study: Study) -> Markup | None:
    verdict = study.verdict
    if verdict is None:
        return None
    sides = (("reference", verdict.speedup.reference_conditions), ("chosen", verdict.speedup.candidate_conditions))
    columns = [dict(conditions_rows(found)) for _, found in sides]
    rows = [(tag("th", name, scope="row"), *(tag("td", column[name]) for column in columns)) for name in columns[0]]
    return tables.plain_table("Conditions of the verdict's timing", ("", *(name for name, _ in sides)), rows)


def device_rows(device: Device) -> tuple[tuple[str, str], ...]:
    """A device in words: for the page's environment and for `edgewise doctor`."""
    peaks = [
        f"{numbers.plural(p.threads, 'thread')}: fp32 {numbers.significant(p.fp32_gflops)} GFLOP/s, "
        f"int8 {numbers.significant(p.int8_gops)} GOP/s, memory {numbers.significant(p.memory_gbps)} GB/s"
        for p in device.peaks
    ]
    return (
        ("Device", device.name if device.address == "local" else f"{device.name} at {device.address}"),
        ("Processor", f"{device.cpu} ({device.arch})"),
        ("Cores", str(device.cores)),
        ("Instruction sets", ", ".join(device.isa) or "none that matter here"),
        ("Memory", numbers.size(device.memory_bytes)),
        ("System", device.os),
        ("Engines", ", ".join(f"{name} {version}" for name, version in device.backends.items()) or "none found"),
        ("Energy", device.energy),
        ("Measured peaks", "; ".join(peaks) or "not measured"),
    )


def environment(study: Study) -> Markup:
    versions = ", ".join(f"{name} {version}" for name, version in study.versions.items())
    notes = _lines(study.notes, "notes")
    return join(
        [
            tables.pairs("Device", (*device_rows(study.device), ("Versions", versions))),
            _conditions(study),
            tag("h3", "Notes") if notes else None,
            notes,
        ]
    )


def command(study: Study, speedups: str = "") -> str:
    """The `edgewise fit` line that the records give, an option a line. The model's path isn't in them, so its name stands for it.

    speedups: of all members, where the study is one of a family.
    """
    budget = study.budget
    options: list[tuple[str, str | None]] = [
        ("--task", study.data.task),
        ("--data", study.data.source),
        ("--speedup", speedups or _number(budget.speedup)),
        ("--latency-ms", _number(budget.latency_ms)),
        ("--percentile", budget.percentile if budget.latency_ms is not None and budget.percentile != "p50" else None),
        ("--size-bytes", _number(budget.size_bytes)),
        ("--memory-bytes", _number(budget.memory_bytes)),
        ("--energy-mj", _number(budget.energy_mj)),
        ("--watts", study.device.watts.text if isinstance(study.device.watts, Watts) else None),
        ("--max-drop", f"{100 * budget.max_drop:.10g}%{'rel' if budget.relative_drop else ''}"),
    ]
    given = [shlex.join((option, value)) for option, value in options if value is not None]
    return " \\\n    ".join([shlex.join(("edgewise", "fit", study.model.name)), *given])


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.10g}"


def reproduce(study: Study) -> Markup:
    picked = figures.chosen(study)
    model = study.model
    rows: list[tuple[str, Markup | str]] = [
        ("Recipe", tag("code", picked.recipe or "as it came") if picked else "none chosen yet"),
        ("Execution", str(picked.execution) if picked else ""),
        (
            "Model",
            f"{model.name}: {numbers.count(model.parameters)} parameters, {numbers.count(model.operations)} multiply-accumulates, "
            f"{numbers.size(model.size_bytes)}",
        ),
        ("SHA-256 of the model", tag("code", model.sha256)),
        ("Recorded verdict", study.verdict.summary if study.verdict else ""),
    ]
    again = tag("code", "edgewise reproduce model.edgew")
    said = ("The same search again, as the records give it. The package carries its recipe too: ", again, " makes it from that.")
    return join(
        [
            tag("p", *said, class_="lead"),
            tag("pre", tag("code", command(study)), tabindex="0"),
            tables.pairs("Recipe", rows),
            tag("p", words.speed_means(study), class_="note") if study.verdict is None else None,
        ]
    )
