"""A package to the smallest honest file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from edgewise import coding
from edgewise.coding.cursor import Cursor, varint
from edgewise.errors import InvalidInput, InvalidModel, InvalidPackage
from edgewise.graph import Graph
from edgewise.package.build import build
from edgewise.package.limits import Limits
from edgewise.package.minimal import graphs, layout, net, streams
from edgewise.package.minimal.layout import Sections
from edgewise.package.minimal.values import read_record, read_text, record, text
from edgewise.package.package import Package
from edgewise.types import Execution

# What metadata there is, in one byte; the two bits above say how labels stand there.
_PREPROCESS, _POSTPROCESS, _EXECUTION = 1, 2, 4
_LABELS = 3
_NO_LABELS, _DIGITS, _TEXTS = range(3)
_MOST_DIGITS = 65_536

_TOO_LARGE = "and this profile, whose files are read whole, is for very small models; save it with profile='full'"


def encode(package: Package, *, limits: Limits | None = None) -> bytes:
    """`package` as a file of the minimal profile: its graph (canonical, see `net`), labels, pre- and postprocessing, execution and version.

    Left out: when it was made, provenance and measured figures. A package that was opened from such a file gives that file again, signature
    included. Raises InvalidModel for a graph that the profile has no place for, InvalidInput for other entries than the main one, and for
    what is too large.
    """
    return package.compact if package.compact is not None else layout.join(sections(package, limits=limits))


def sections(package: Package, *, limits: Limits | None = None) -> Sections:
    """What `encode` joins: the parts of the file, unsigned."""
    limits = limits or Limits()
    if others := [entry.name for entry in package.manifest.entries if entry.name != "main"]:
        raise InvalidInput(f"the minimal profile holds one graph, and this package also {', '.join(others)}; save it with profile='full'")
    graph = net.of(package.graph().proto)
    if sum(len(weight.data) for weight in graph.weights) > limits.minimal_bytes:
        raise InvalidInput(f"the weights have over {limits.minimal_bytes:,} bytes, {_TOO_LARGE}")
    plain = graphs.encode(graph) + _metadata(package)
    coded = coding.encode(np.frombuffer(plain, np.uint8))
    coded = varint(len(plain)) + coded
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
    return replace(package, compact=file, source=what)


def _package(found: Sections, limits: Limits) -> Package:
    graph, metadata = _read(found, limits)
    return build(Graph.from_proto(net.proto(graph)), created="", version=found.release, limits=limits, **metadata)


def _read(found: Sections, limits: Limits) -> tuple[net.Net, dict[str, Any]]:
    budget = graphs.Budget(limits.minimal_bytes)
    cursor = Cursor(found.structure)
    if found.coded:
        length = cursor.varint(min(limits.minimal_bytes, limits.graph_bytes))
        budget.spend(length)
        cursor = Cursor(coding.decode(cursor.rest(), (length,), np.uint8).tobytes())
    graph, kinds = graphs.decode(cursor, limits, budget)
    metadata = _read_metadata(cursor)
    cursor.end()
    return replace(graph, weights=tuple(streams.decode(Cursor(found.weights), kinds))), metadata


def _metadata(package: Package) -> bytes:
    manifest, labels = package.manifest, package.manifest.labels
    execution = manifest.execution
    how = _NO_LABELS if not labels else _DIGITS if len(labels) <= _MOST_DIGITS and labels == _digits(len(labels)) else _TEXTS
    flags = (_PREPROCESS if manifest.preprocess is not None else 0) | (_POSTPROCESS if manifest.postprocess is not None else 0)
    pieces = [bytes([flags | (_EXECUTION if execution is not None else 0) | how << _LABELS])]
    pieces += [_tagged(each) for each in (manifest.preprocess, manifest.postprocess) if each is not None]
    if execution is not None:
        pieces.append(record("execution", msgspec.to_builtins(execution)))
    if labels:
        pieces.append(varint(len(labels)))
    if how == _TEXTS:
        pieces += map(text, labels)
    return b"".join(pieces)


def _read_metadata(cursor: Cursor) -> dict[str, Any]:
    flags = cursor.byte()
    how = flags >> _LABELS
    if how > _TEXTS:
        raise InvalidInput(f"its metadata has unknown flags {flags:#x}")
    found: dict[str, Any] = {}
    for bit, name in ((_PREPROCESS, "preprocess"), (_POSTPROCESS, "postprocess")):
        if flags & bit:
            kind = read_text(cursor)
            found[name] = {**read_record(cursor, kind), "kind": kind}
    if flags & _EXECUTION:
        try:
            found["execution"] = msgspec.convert(read_record(cursor, "execution"), Execution)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"its execution is none ({error})") from error
    if how == _DIGITS:
        found["labels"] = _digits(cursor.varint(_MOST_DIGITS))
    if how == _TEXTS:
        found["labels"] = tuple(read_text(cursor) for _ in range(cursor.varint(len(cursor.data))))
    return found


def _tagged(fields: Mapping[str, Any]) -> bytes:
    kind = fields["kind"]
    return text(kind) + record(kind, {name: each for name, each in fields.items() if name != "kind"})


def _digits(many: int) -> tuple[str, ...]:
    """Labels "0", "1" …, as data without names has them."""
    return tuple(map(str, range(many)))
