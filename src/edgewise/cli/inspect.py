"""`edgewise inspect`: what is in a package, or in an ONNX file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.errors import InvalidInput, InvalidModel

if TYPE_CHECKING:
    from rich.text import Text

    from edgewise.graph import Graph
    from edgewise.package import Measured, Package, Provenance
    from edgewise.records import Interval
    from edgewise.types import Signature, TensorSpec

MOST_TENSORS = 8
BATCHES = {
    "independent": "any rows may share a call: each answers as it does alone",
    "dependent": "one row a call: neighbours or padding change an answer",
}


def command(
    file: Annotated[Path, typer.Argument(help="A package (.edgew) or a model (.onnx).", metavar="FILE")],
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of tables.")] = False,
) -> None:
    """Show what is inside a package or an ONNX file, where it came from and what it measured.

    Opening a package verifies every byte of it; nothing in it is run.

    Example: edgewise inspect out/model.edgew
    """
    if not file.exists():
        raise InvalidInput(f"{file} does not exist; give a package (.edgew) or a model (.onnx)")
    record, show = _of_model(file) if file.suffix == ".onnx" else _of_package(file)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(record), indent=2).decode())
    else:
        show()


def _of_package(file: Path) -> tuple[dict[str, Any], Any]:
    from edgewise import package
    from edgewise.cli.weights import rows

    found = package.open(file)
    graph = found.graph() if found.manifest.entry("main").format == "onnx" else None
    record = {"file": str(file), "kind": "package", **found.describe()}
    if graph is not None:
        record["graph"] = _graph_record(graph)
        for shown, entry in zip(record["entries"], found.manifest.entries, strict=True):
            shown["weights"] = rows(found, entry) if found.profile == "full" else []  # the other streams them together
    return record, lambda: _show_package(file, found, graph)


def _of_model(file: Path) -> tuple[dict[str, Any], Any]:
    from edgewise.graph import Graph, cost, parameters, total

    graph = Graph.load(file)
    try:
        macs, why = total(cost(graph)).macs, ""
    except InvalidModel as error:
        # A model whose shapes can't be inferred can still be looked at.
        macs, why = None, str(error)
    record = {
        "file": str(file),
        "kind": "onnx",
        "sha256": graph.sha256,
        "size_bytes": graph.size_bytes,
        "parameters": parameters(graph),
        "macs": macs,
        **_graph_record(graph),
    }
    return record, lambda: _show_model(file, graph, record, why)


def _graph_record(graph: Graph) -> dict[str, Any]:
    import msgspec

    proto = graph.proto
    return {
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "ir_version": proto.ir_version,
        "opsets": {item.domain or "ai.onnx": item.version for item in proto.opset_import},
        "nodes": len(proto.graph.node),
        "operators": dict(Counter(node.op_type for node in proto.graph.node).most_common()),
        "signature": msgspec.to_builtins(graph.signature),
    }


def _show_package(file: Path, found: Package, graph: Graph | None) -> None:
    from edgewise.cli.terminal import clean, console, facts, section
    from edgewise.report import numbers

    out, manifest = console(), found.manifest
    out.print(
        _headline(file, f"an edgewise package{_profile(found)}, {numbers.size(found.size_bytes)}; every byte verified, {_signed(found)}")
    )
    if found.profile == "full":
        _show_entries(found)
    else:
        parts = found.describe()["part_bytes"].items()
        section(out, "Inside", facts([(what.replace("_", " "), numbers.size(size)) for what, size in parts if size]))
    section(out, "Takes and gives", facts(_uses(found, graph)))
    section(out, "Where it came from", facts([*_origin(manifest.provenance), *_release(found)]))
    if found.profile == "minimal":
        return
    if manifest.measured is None:
        section(out, "What it measured", "nothing yet: it was packed without a verdict (`edgewise fit` stores one)")
    else:
        section(out, clean(f"What it measured on {manifest.measured.device}", 120), facts(_figures(manifest.measured)))


def _show_entries(found: Package) -> None:
    from edgewise.cli.terminal import clean, console, listing, section
    from edgewise.cli.weights import by_tensor
    from edgewise.report import numbers

    out, manifest = console(), found.manifest
    entries = listing("entry", "kind", "parameters", "stored in", "graph", right=("parameters", "stored in", "graph"))
    for entry in manifest.entries:
        stored = sum(tensor.length for tensor in entry.tensors)
        kind = f"{entry.kind} for {entry.engine}" if entry.engine else entry.kind
        graph_bytes = len(found.members[entry.member])
        entries.add_row(
            clean(entry.name, 80), clean(kind, 80), numbers.count(entry.parameters), numbers.size(stored), numbers.size(graph_bytes)
        )
    section(out, "Inside", entries)
    if manifest.entry("main").tensors:
        table, left = by_tensor(found, manifest.entry("main"), MOST_TENSORS)
        section(out, f"Largest weights ({left} more not shown)" if left else "Weights", table)


def _profile(found: Package) -> str:
    return "" if found.profile == "full" else " (minimal profile)"


def _signed(found: Package) -> str:
    return "signed (edgewise verify says by whom)" if found.signature_bytes else "not signed"


def _uses(found: Package, graph: Graph | None) -> list[tuple[str, str]]:
    rows = _signature(found.signature)
    if found.manifest.preprocess is not None:
        rows.append(("feed it", _feed(found.manifest.preprocess)))
    labels = found.labels
    if labels:
        first = ", ".join(label[:40] for label in labels[:10])
        rows.append(("labels", f"{len(labels)}: {first}{', …' if len(labels) > 10 else ''}"))
    if graph is not None:
        rows.append(("operators", _operators(graph)))
    if found.execution is not None:
        rows.append(("best run by", str(found.execution)))
    if found.rows is not None:
        rows.append(("batches", BATCHES[found.rows]))
    return rows


def _feed(record: dict[str, Any]) -> str:
    if record.get("kind") == "text":
        texts = "two texts" if record.get("pair") else "a text"
        return f"{texts}, up to {record.get('max_length')} tokens at a time; longer ones in windows that share {record.get('stride')}"
    if record.get("kind") != "image":
        return f"{record.get('kind')!s} (this edgewise doesn't know it)"
    height, width = record.get("size", ("?", "?"))
    colour = "grey" if record.get("channels") == 1 else "colour"
    fitted = "cropped" if record.get("resize") == "crop" else "stretched"
    return f"a picture (.png, .jpg …), {fitted} to {width}×{height}, {colour}"


def _origin(provenance: Provenance) -> list[tuple[str, str]]:
    data, device = provenance.data, provenance.device
    return [
        ("model", provenance.model),
        ("its SHA-256", provenance.source_sha256 or ""),
        ("recipe", provenance.recipe),
        ("study", provenance.study),
        ("data", f"{data.task}, {data.source}" if data else ""),
        ("device", f"{device.name}: {device.cpu}, {device.cores} cores, {device.arch}" if device else ""),
        ("1.0× is", f"{provenance.reference}, true fp32" if provenance.reference else ""),
        ("made with", ", ".join(f"{name} {version}" for name, version in sorted(provenance.versions.items()))),
    ]


def _release(found: Package) -> list[tuple[str, str]]:
    return [("made", found.manifest.created), ("version", str(found.manifest.version)), ("content id", found.content_id)]


def _figures(measured: Measured) -> list[tuple[str, str]]:
    from edgewise.report import numbers

    def between(interval: Interval, write: Any) -> str:
        return f"{interval.confidence:.0%}: {write(interval.low)} to {write(interval.high)}, n={interval.n:,}"

    def percent(value: float) -> str:
        return numbers.percent(value, measured.quality.half_width)

    def points(value: float) -> str:
        return numbers.points(value, measured.drop.half_width)

    times = (measured.latency_p50_ms, measured.latency_p90_ms, measured.latency_p99_ms)
    p50, p90, p99 = map(numbers.ms, times)
    quality, reference = measured.quality, measured.reference_quality
    return [
        ("verdict", measured.summary or ("budget met" if measured.met else "budget missed")),
        ("speedup", f"{numbers.times(measured.speedup.value)} ({between(measured.speedup, numbers.times)})"),
        ("latency", f"{p50} median, {p90} p90, {p99} p99, n={measured.latency_n:,}"),
        ("reference", f"{numbers.ms(measured.reference_p50_ms)} median, {percent(reference.value)} {measured.metric}"),
        (measured.metric, f"{percent(quality.value)} ({between(quality, percent)})"),
        ("difference", f"{points(measured.drop.value)} points on the same samples ({between(measured.drop, points)})"),
        ("peak memory", numbers.size(measured.peak_memory_bytes)),
        ("cold start", numbers.ms(measured.cold_start_ms)),
        ("energy", "" if measured.energy_mj is None else f"{numbers.significant(measured.energy_mj)} mJ ({measured.energy_source})"),
        ("run by", str(measured.execution)),
    ]


def _show_model(file: Path, graph: Graph, record: dict[str, Any], why: str) -> None:
    from edgewise.cli.terminal import console, facts, section
    from edgewise.report import numbers

    out = console()
    out.print(_headline(file, f"an ONNX model, {numbers.size(record['size_bytes'])}"))
    opsets = ", ".join(f"{domain} {version}" for domain, version in record["opsets"].items())
    macs = f"{numbers.count(record['macs'])} for one sample" if record["macs"] is not None else f"unknown: {why[:200]}"
    section(out, "Takes and gives", facts(_signature(graph.signature)))
    inside = [("parameters", numbers.count(record["parameters"])), ("MACs", macs), ("operators", _operators(graph)), ("opset", opsets)]
    section(out, "Inside", facts([*inside, ("made with", record["producer"]), ("SHA-256", record["sha256"])]))


def _operators(graph: Graph) -> str:
    counts = Counter(node.op_type for node in graph.proto.graph.node).most_common()
    shown = ", ".join(f"{n} {op[:60]}" for op, n in counts[:12])
    rest = sum(n for _, n in counts[12:])
    return f"{shown}, and {rest} others" if rest else shown


def _signature(signature: Signature) -> list[tuple[str, str]]:
    def text(spec: TensorSpec) -> str:
        return f"{spec.name}: {spec.dtype}, {' × '.join(map(str, spec.shape)) or 'a scalar'}"

    return [*(("input", text(spec)) for spec in signature.inputs), *(("output", text(spec)) for spec in signature.outputs)]


def _headline(file: Path, what: str) -> Text:
    from rich.text import Text

    from edgewise.cli.terminal import clean

    return Text.assemble((clean(file.name).plain, "bold"), f"  {what}")
