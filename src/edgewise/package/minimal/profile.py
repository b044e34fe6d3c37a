"""A package to the smallest honest file, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgewise import coding
from edgewise.coding.cursor import Cursor, varint
from edgewise.errors import InvalidInput, InvalidModel, InvalidPackage
from edgewise.graph import Graph
from edgewise.package.build import build
from edgewise.package.limits import Limits
from edgewise.package.minimal import graphs, layout, metadata, net, streams
from edgewise.package.minimal.layout import Sections
from edgewise.package.package import Package

_TOO_LARGE = "and this profile, whose files are read whole, is for very small models; save it with profile='full'"


def encode(package: Package, *, limits: Limits | None = None) -> bytes:
    """`package` as a file of the minimal profile: its graph (canonical, see `net`), labels, pre- and postprocessing, execution and version.

    Left out: when it was made, provenance, measured figures, and a signature, which is of another content id. A package that was opened
    from such a file gives that file again, its signature included. Raises InvalidModel for a graph that the profile has no place for,
    InvalidInput for other entries than the main one, and for what is too large.
    """
    if package.compact is not None:
        return layout.with_signature(package.compact, package.signature_bytes or None)
    return layout.join(sections(package, limits=limits))


def sections(package: Package, *, limits: Limits | None = None) -> Sections:
    """What `encode` joins: the parts of the file, unsigned."""
    limits = limits or Limits()
    if others := [entry.name for entry in package.manifest.entries if entry.name != "main"]:
        raise InvalidInput(f"the minimal profile holds one graph, and this package also {', '.join(others)}; save it with profile='full'")
    if package.files:
        raise InvalidInput(f"the minimal profile has no place for {', '.join(package.files)}; save it with profile='full'")
    graph = net.of(package.graph().proto)
    if sum(len(weight.data) for weight in graph.weights) > limits.minimal_bytes:
        raise InvalidInput(f"the weights have over {limits.minimal_bytes:,} bytes, {_TOO_LARGE}")
    plain = graphs.encode(graph) + metadata.encode(package.manifest)
    coded = varint(len(plain)) + coding.encode(np.frombuffer(plain, np.uint8))
    smaller = len(coded) < len(plain)
    made = Sections(package.manifest.version, coded if smaller else plain, streams.encode(graph.weights), smaller)
    # Nothing is written that wouldn't be read, or as something else.
    try:
        again, _ = _read(made, limits)
    except InvalidInput as error:
        raise InvalidInput(f"the model is too much for the minimal profile ({error}), {_TOO_LARGE}") from error
    if again != graph:
        raise InvalidModel("the model would come back as another one; save it with profile='full', and please report this")
    return made


def decode(file: bytes, what: str = "the package", *, limits: Limits | None = None) -> Package:
    """What `encode` was given, as far as the file holds it. Every byte is verified first.

    Memory: some times `limits.minimal_bytes`, whatever the file claims. Raises InvalidPackage: truncated, altered, newer, hostile, or over
    `limits`.
    """
    limits = limits or Limits()
    if len(file) > limits.minimal_bytes:
        raise InvalidPackage(f"{what} has {len(file):,} bytes, over {limits.minimal_bytes:,}; raise Limits.minimal_bytes if you trust it")
    found = layout.split(file, what)
    try:
        package = _package(found, limits)
    except InvalidInput as error:
        raise InvalidPackage(f"{what} is damaged, forged, or newer than this edgewise: {error}") from error
    return replace(package, compact=layout.with_signature(file, None), signature_bytes=found.signature or b"", source=what)


def compacted(package: Package) -> Package:
    """`package` as its file of the minimal profile would be opened again: `size_bytes` is that file's. Raises as `encode`."""
    return decode(encode(package), package.source)


def full(package: Package) -> Package:
    """What a file of the minimal profile holds, as a full package: unsigned, for its content id is another one."""
    known = package.manifest
    return build(
        package.graph(),
        created=known.created,
        version=known.version,
        preprocess=known.preprocess,
        postprocess=known.postprocess,
        labels=known.labels,
        execution=known.execution,
    )


def _package(found: Sections, limits: Limits) -> Package:
    graph, told = _read(found, limits)
    proto = Graph.from_proto(net.proto(graph))
    # Its weights will not be written in this form, and coding them would make opening slow.
    return build(proto, created="", version=found.release, limits=limits, coders="none", **told)


def _read(found: Sections, limits: Limits) -> tuple[net.Net, dict[str, Any]]:
    budget = graphs.Budget(limits.minimal_bytes)
    cursor = Cursor(found.structure)
    if found.coded:
        length = cursor.varint(min(limits.minimal_bytes, limits.graph_bytes))
        budget.spend(length)
        cursor = Cursor(coding.decode(cursor.rest(), (length,), np.uint8).tobytes())
    graph, kinds = graphs.decode(cursor, limits, budget)
    told = metadata.decode(cursor)
    cursor.end()
    return replace(graph, weights=tuple(streams.decode(Cursor(found.weights), kinds))), told
