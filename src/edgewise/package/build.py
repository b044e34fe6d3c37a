"""Make a package from a graph and what is known about it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.package import coded, weights
from edgewise.package.check import check
from edgewise.package.limits import Limits
from edgewise.package.manifest import Entry, Manifest, Measured, Member, Provenance, Tensor, aligned, decode, encode
from edgewise.package.package import Package
from edgewise.types import Execution

# A row of the manifest takes about 130 bytes, so what is smaller stays in the graph (and shapes, which inference reads, with it).
TAKE_OUT_BYTES = 256


@dataclass(frozen=True)
class Form:
    """A graph besides the main one: `kind` is "engine" (lowered for `engine`), "part" or "exit"."""

    graph: Graph
    kind: str
    engine: str = ""


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
    forms: Mapping[str, Form] | None = None,
    take_out_bytes: int = TAKE_OUT_BYTES,
    coders: coded.Coders = "fast",
    limits: Limits | None = None,
) -> Package:
    """A package around `graph`, its entry "main". The same arguments give the same bytes.

    created: ISO 8601, UTC; passed in, so that nothing here reads a clock. preprocess, postprocess: dataclasses of `edgewise.data` (or plain
    objects with a "kind"). forms: more entries, by name; weights that two entries share are stored once. take_out_bytes: weights from this
    size on become rows of the manifest of their own. coders: that weights may be coded with, lossless, each by what makes it smallest:
    "fast" (rANS and its like; in models of up to half a million weights the adaptive coder too), "all" (smallest, slower to load and to
    make), or "none".

    Raises InvalidModel for weights in other files, InvalidInput for metadata that JSON can't hold.
    """
    every = {"main": Form(graph, "graph")}
    for name, form in (forms or {}).items():
        if name in every:
            raise InvalidInput('the name "main" is that of the graph itself; give the form another one')
        every[name] = form
    graphs: dict[str, bytes] = {}  # as they are
    members: dict[str, bytes] = {}
    pool = _Pool(coders)
    entries: list[Entry] = []
    for name, form in every.items():
        member = f"graphs/{len(entries)}.onnx"
        graphs[member], taken = weights.take_out(form.graph.proto, take_out_bytes)
        members[member] = (coded.encode_graph(graphs[member]) if coders != "none" else None) or graphs[member]
        rows = pool.add(taken)
        entries.append(Entry(name, form.kind, "onnx", member, form.graph.signature, rows, form.engine))
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
        members=_placed(members, graphs),
        version=version,
        labels=tuple(labels),
        preprocess=_plain(preprocess, "preprocess"),
        postprocess=post,
        execution=execution,
        provenance=provenance or Provenance(),
        measured=measured,
    )
    try:
        encoded = encode(manifest)
    except (TypeError, ValueError, msgspec.ValidationError) as error:
        raise InvalidInput(f"the package's metadata can't be written as JSON: {error}") from error
    # NaN becomes null, wrong types and over-long texts show: what can't be read back must not be written.
    decoded = decode(encoded, "the new package")
    check(decoded, "the new package", limits or Limits())
    return Package(decoded, members, encoded)


@dataclass(frozen=True)
class _Place:
    offset: int
    length: int
    coding: str


class _Pool:
    """The weights of all entries, one after the other; what an earlier entry holds already is not stored again.

    Raw ones are 64-byte aligned, for whoever maps them; coded ones are read by a decoder, and follow without a gap.
    """

    def __init__(self, coders: coded.Coders) -> None:
        self.pieces: list[bytes] = []
        self.end = 0
        self.coders = coders
        self._known: dict[tuple[str, str, tuple[int, ...]], _Place] = {}

    def add(self, taken: Sequence[weights.Weight]) -> tuple[Tensor, ...]:
        # An entry's own rows never overlap (`check` says why), so only entries before this one are looked through.
        known = dict(self._known)
        coders = coded.chosen(self.coders, sum(math.prod(weight.shape) for weight in taken))
        rows = []
        for weight in taken:
            # (A coder sees rows and columns: the same bytes in another shape are coded otherwise.)
            key = (hashlib.sha256(weight.data).hexdigest(), weight.dtype, weight.shape)
            place = known.pop(key, None)
            if place is None:
                place = self._store(weight.data, coded.encode_tensor(weight.data, weight.dtype, weight.shape, coders))
                self._known.setdefault(key, place)
            rows.append(Tensor(weight.name, weight.dtype, weight.shape, "weights", place.offset, place.length, place.coding))
        return tuple(rows)

    def _store(self, raw: bytes, blob: bytes | None) -> _Place:
        data, offset = (raw, aligned(self.end)) if blob is None else (blob, self.end)
        self.pieces += [bytes(offset - self.end), data]
        self.end = offset + len(data)
        return _Place(offset, len(data), "raw" if blob is None else "coded")

    def joined(self) -> bytes:
        return b"".join(self.pieces)


def _placed(members: Mapping[str, bytes], graphs: Mapping[str, bytes]) -> tuple[Member, ...]:
    """graphs: members before they were coded."""
    placed: list[Member] = []
    end = 0
    for name, data in members.items():
        is_coded = name in graphs and data is not graphs[name]
        digest = hashlib.sha256(data).hexdigest()
        placed.append(
            Member(name, aligned(end), len(data), digest, "lzma", len(graphs[name]))
            if is_coded
            else Member(name, aligned(end), len(data), digest)
        )
        end = aligned(end) + len(data)
    return tuple(placed)


def _plain(record: Any, what: str) -> dict[str, Any] | None:
    if record is None:
        return None
    plain = msgspec.to_builtins(record)
    if not isinstance(plain, dict) or not isinstance(plain.get("kind"), str):
        raise InvalidInput(f"{what}={record!r}: give one of edgewise.data's dataclasses, or an object with a text under 'kind'")
    return dict(plain)
