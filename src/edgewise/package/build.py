"""Make a package from a graph and what is known about it; or from another package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import msgspec

from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.package import coded, flat, weights
from edgewise.package.check import check
from edgewise.package.limits import Limits
from edgewise.package.manifest import Entry, Manifest, Measured, Provenance, decode, encode
from edgewise.package.package import Package
from edgewise.package.pool import Pool, placed
from edgewise.types import Execution

# A row of the manifest takes about 130 bytes, so what is smaller stays in the graph (and shapes, which inference reads, with it).
TAKE_OUT_BYTES = 256


@dataclass(frozen=True)
class Form:
    """A graph besides the main one: `kind` is "engine" (lowered for `engine`), "part" or "exit". See also `OwnForm`."""

    graph: Graph
    kind: str
    engine: str = ""


@dataclass(frozen=True)
class OwnForm:
    """A file that `engine` loads instead of the graph, made from it and held against it: a LiteRT flatbuffer."""

    data: bytes
    engine: str


def build(
    graph: Graph,
    *,
    created: str,
    version: int = 1,
    preprocess: Any = None,
    postprocess: Any = None,
    labels: Sequence[str] = (),
    execution: Execution | None = None,
    provenance: Provenance | None = None,
    measured: Measured | None = None,
    rows: Literal["independent", "dependent"] | None = None,
    forms: Mapping[str, Form | OwnForm] | None = None,
    files: Mapping[str, bytes] | None = None,
    take_out_bytes: int = TAKE_OUT_BYTES,
    coders: coded.Coders = "fast",
    limits: Limits | None = None,
) -> Package:
    """A package around `graph`, its entry "main". The same arguments give the same bytes.

    created: ISO 8601, UTC; passed in, so that nothing here reads a clock. preprocess, postprocess: dataclasses of `edgewise.data` (or plain
    objects with a "kind"). forms: more entries, by name; weights that two entries share are stored once (in an engine's own form, whichever
    way it turns them). take_out_bytes: weights from this
    size on become rows of the manifest of their own.
    files: what preprocessing needs besides, by name (a tokenizer.json): a member each.
    version: counts the releases of this model, from 1.
    labels: names of the classes, in order. rows: whether rows of a batch answer as they do alone (`measure.rows` finds out), if known.
    coders: what weights may be coded with, lossless, each by what makes it smallest: "fast" (rANS and its like; in models of up to half a
    million weights the adaptive coder too), "all" (smallest, slower to make and to load), or "none".

    Raises InvalidModel for weights in other files and for a form that can't be read, InvalidInput for metadata that JSON can't hold.
    """
    every: dict[str, Form | OwnForm] = {"main": Form(graph, "graph")}
    for name, form in (forms or {}).items():
        if name in every:
            raise InvalidInput('the name "main" is that of the graph itself; give the form another one')
        every[name] = form
    graphs: dict[str, bytes] = {}  # as they are, and files
    members: dict[str, bytes] = {}
    pool = Pool(coders)
    entries: list[Entry] = []
    known: list[weights.Weight] = []
    for name, form in every.items():
        if isinstance(form, OwnForm):
            member, kind, format_, signature = f"graphs/{len(entries)}.tflite", "engine", flat.FORMAT, flat.signature_of(form.data)
            graphs[member], taken = flat.take_out(form.data, take_out_bytes, known)
        else:
            member, kind, format_, signature = f"graphs/{len(entries)}.onnx", form.kind, "onnx", form.graph.signature
            graphs[member], taken = weights.take_out(form.graph.proto, take_out_bytes)
            known += taken
        members[member] = (coded.encode_graph(graphs[member]) if coders != "none" else None) or graphs[member]
        entries.append(Entry(name, kind, format_, member, signature, pool.add(taken), form.engine))
    _attach(files or {}, graphs, members, coders)
    if pool.end:
        members["weights"] = pool.joined()

    post = _plain(postprocess, "postprocess")
    if post is not None and (own := tuple(post.pop("labels", ()))):
        if labels and tuple(labels) != own:
            raise InvalidInput(f"labels={tuple(labels)!r} and the postprocessing's {own!r} differ; give them once")
        labels = own
    manifest = Manifest(
        created=created,
        entries=tuple(entries),
        members=placed(members, graphs),
        version=version,
        labels=tuple(labels),
        preprocess=_plain(preprocess, "preprocess"),
        postprocess=post,
        execution=execution,
        provenance=provenance or Provenance(),
        measured=measured,
        rows=msgspec.UNSET if rows is None else rows,
    )
    return _checked(manifest, members, limits)


def recode(package: Package, *, coders: coded.Coders, limits: Limits | None = None) -> Package:
    """The same package with its graphs and weights coded anew; `coders` as in `build`. Raises InvalidPackage for what can't be decoded."""
    graphs, members = {}, {}
    pool = Pool(coders)
    entries = []
    rows = {tensor.member for entry in package.manifest.entries for tensor in entry.tensors}
    for member in package.manifest.members:
        if member.name not in rows:
            graphs[member.name] = package.member(member)
            members[member.name] = (coded.encode_graph(graphs[member.name]) if coders != "none" else None) or graphs[member.name]
    for entry in package.manifest.entries:
        taken = [weights.Weight(tensor.name, tensor.dtype, tensor.shape, bytes(package.read(tensor))) for tensor in entry.tensors]
        entries.append(replace(entry, tensors=pool.add(taken)))
    if pool.end:
        members["weights"] = pool.joined()
    return _checked(replace(package.manifest, entries=tuple(entries), members=placed(members, graphs)), members, limits)


def restate(package: Package, *, measured: Measured | None, limits: Limits | None = None) -> Package:
    """The same package with other figures in its manifest."""
    return _checked(replace(package.manifest, measured=measured), package.members, limits)


def _attach(files: Mapping[str, bytes], plain: dict[str, bytes], members: dict[str, bytes], coders: coded.Coders) -> None:
    for name, data in files.items():
        if name in (*members, "weights"):
            raise InvalidInput(f"a file can't be called {name!r}, which is what a member of every package is called; give it another name")
        plain[name] = data
        members[name] = (_coded_file(data) if coders != "none" else None) or data


@lru_cache(maxsize=4)
def _coded_file(data: bytes) -> bytes | None:
    """Every trial of a search is packed to know its size, all with the same tokenizer, which takes half a second."""
    return coded.encode_graph(data)


def _checked(manifest: Manifest, members: Mapping[str, bytes | memoryview], limits: Limits | None) -> Package:
    try:
        encoded = encode(manifest)
    except (TypeError, ValueError, msgspec.ValidationError) as error:
        raise InvalidInput(f"the package's metadata can't be written as JSON: {error}") from error
    # NaN becomes null, wrong types and over-long texts show: what can't be read back must not be written.
    decoded = decode(encoded, "the new package")
    check(decoded, "the new package", limits or Limits())
    return Package(decoded, members, encoded)


def _plain(record: Any, what: str) -> dict[str, Any] | None:
    if record is None:
        return None
    plain = msgspec.to_builtins(record)
    if not isinstance(plain, dict) or not isinstance(plain.get("kind"), str):
        raise InvalidInput(f"{what}={record!r}: give one of edgewise.data's dataclasses, or an object with a text under 'kind'")
    return dict(plain)
