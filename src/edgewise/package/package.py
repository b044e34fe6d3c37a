"""`Package`: what is in an `.edgew` file, in memory or mapped from disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import msgspec

from edgewise.data.postprocess import Classify, Embed, Extract, Regress
from edgewise.data.preprocess import ImagePreprocess
from edgewise.data.text.preprocess import TextPreprocess
from edgewise.errors import InvalidInput, InvalidPackage
from edgewise.graph import Graph
from edgewise.package import coded, flat, layout, weights
from edgewise.package.manifest import Entry, Manifest, Member, Tensor, aligned
from edgewise.types import Execution, Signature

Profile = Literal["full", "minimal"]

# What a manifest's "kind" stands for.
PREPROCESS: dict[str, type] = {"image": ImagePreprocess, "text": TextPreprocess}
POSTPROCESS: dict[str, type] = {"classify": Classify, "regress": Regress, "embed": Embed, "extract": Extract}


@dataclass(frozen=True, eq=False)
class Package:
    """A model, how to feed it, and where it came from. Made by `build` or `open`, which have checked it.

    members: name -> bytes; of an opened file, views into the mapped file, which cost memory only where they are read.
    encoded: the manifest as it stands in the file. A newer release may have written more in it than `manifest` knows; saving keeps that.
    source: names the package in errors. signature_bytes: the Ed25519 signature of the content id, or empty; nobody has checked it yet.
    compact: the file without its signature, where it is one of the minimal profile; the rest is then what it stands for.
    """

    manifest: Manifest
    members: Mapping[str, bytes | memoryview]
    encoded: bytes
    minor: int = layout.MINOR
    source: str = "the package"
    signature_bytes: bytes = b""
    compact: bytes | None = None

    @property
    def head(self) -> bytes:
        last = self.manifest.members[-1]
        return layout.head(self.minor, len(self.encoded), last.offset + last.length)

    @cached_property
    def content_id(self) -> str:
        """SHA-256 over the header and the manifest, which holds every member's: two packages with one id are the same to the bit.

        Of the minimal profile: over the file's bytes before its signature.
        """
        if self.compact is not None:
            from edgewise.package.minimal.layout import content_id

            return content_id(self.compact).hex()
        return layout.content_id(self.head, self.encoded).hex()

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        if self.compact is not None:
            return len(self.compact) + len(self.signature_bytes)
        last = self.manifest.members[-1]
        return aligned(layout.PREAMBLE_BYTES + len(self.encoded)) + last.offset + last.length

    @property
    def signature(self) -> Signature:
        return self.manifest.entry("main").signature

    @property
    def execution(self) -> Execution | None:
        """How the model did best when it was measured."""
        return self.manifest.execution

    @property
    def rows(self) -> Literal["independent", "dependent"] | None:
        """Whether rows of a batch answer as they do alone, so that strangers may share a call; None where nobody looked."""
        return None if self.manifest.rows is msgspec.UNSET else self.manifest.rows

    @property
    def labels(self) -> tuple[str, ...]:
        return self.manifest.labels

    @cached_property
    def preprocess(self) -> ImagePreprocess | TextPreprocess | None:
        """What turns a user's input into the model's. Raises InvalidPackage for a kind that this release doesn't know."""
        return _tagged(self.manifest.preprocess, PREPROCESS, "preprocessing", self.source)

    @cached_property
    def postprocess(self) -> Classify | Regress | Embed | Extract | None:
        """What turns the model's outputs into an answer. Raises InvalidPackage for a kind that this release doesn't know."""
        record = self.manifest.postprocess
        if record is not None and self.labels:
            record = {**record, "labels": self.labels}  # they stand in the manifest once
        return _tagged(record, POSTPROCESS, "postprocessing", self.source)

    @property
    def files(self) -> dict[str, bytes]:
        """What preprocessing needs besides, by name: members that are no graph and hold no weights. Raises InvalidPackage."""
        entries = self.manifest.entries
        used = {entry.member for entry in entries} | {tensor.member for entry in entries for tensor in entry.tensors}
        return {member.name: self.member(member) for member in self.manifest.members if member.name not in used}

    def graph(self, entry: str = "main") -> Graph:
        """The entry's model with its weights put back, to the bit. Raises InvalidPackage."""
        found, data = self._onnx(entry)
        return Graph(weights.put_back(data, found, self.read, self.source), found.signature)

    def model_bytes(self, entry: str = "main") -> bytes:
        """The entry's model for a backend: one serialized ONNX ModelProto, or the engine's own file. Holds little more than the result.

        Raises InvalidPackage.
        """
        own = self.manifest.entry(entry)
        if own.format == flat.FORMAT:
            return flat.model_bytes(self.member(self.manifest.member(own.member)), own, self.read, self.source)
        found, data = self._onnx(entry)
        return weights.model_bytes(data, found, self.read_into, self.source)

    def forms(self, engine: str) -> tuple[str, ...]:
        """Names of the entries that `engine` loads instead of the graph, in their order."""
        return tuple(entry.name for entry in self.manifest.entries if entry.kind == "engine" and entry.engine == engine)

    def describe(self) -> dict[str, Any]:
        """The manifest, sizes and content id as plain JSON data; tensors are counted, not listed."""
        plain = msgspec.to_builtins(self.manifest)
        for shown, entry in zip(plain["entries"], self.manifest.entries, strict=True):
            shown["tensors"] = len(entry.tensors)
            shown["parameters"] = entry.parameters
            shown["weight_bytes"] = sum(tensor.length for tensor in entry.tensors)
        return {
            "format": f"{layout.MAJOR}.{self.minor}",
            "profile": self.profile,
            "content_id": self.content_id,
            "signed": bool(self.signature_bytes),
            "size_bytes": self.size_bytes,
            **self._part_bytes(),
            **plain,
        }

    def _part_bytes(self) -> dict[str, Any]:
        if self.compact is None:
            return {"manifest_bytes": len(self.encoded)}
        from edgewise.package import minimal

        return {"part_bytes": minimal.sizes(minimal.encode(self))}

    @property
    def profile(self) -> Profile:
        """Which form its file has."""
        return "full" if self.compact is None else "minimal"

    def save(self, path: str | os.PathLike[str], *, profile: Profile | None = None) -> None:
        """Write the file: all of it, or nothing (see `edgewise.package.save`)."""
        from edgewise.package.file import save

        save(self, path, profile=profile)

    def _onnx(self, name: str) -> tuple[Entry, bytes]:
        entry = self.manifest.entry(name)
        if entry.format != "onnx":
            raise InvalidPackage(
                f"{self.source}: entry {name!r} is {entry.format!r}, not an ONNX graph; only the engine that it is for can read it"
            )
        return entry, self.member(self.manifest.member(entry.member))

    def member(self, member: Member) -> bytes:
        """A member's bytes, decoded. Raises InvalidPackage where that can't be done."""
        data = self.members[member.name]
        if member.coding == "raw":
            return bytes(data)
        try:
            return coded.decode_graph(data, member.decoded_bytes)
        except InvalidInput as error:
            raise InvalidPackage(f"{self.source}: the member {member.name} can't be decoded: {error}") from error

    def stored(self, tensor: Tensor) -> memoryview:
        """One weight as it stands in the file: in its coding."""
        return memoryview(self.members[tensor.member])[tensor.offset : tensor.offset + tensor.length]

    def read(self, tensor: Tensor) -> memoryview:
        """One weight as ONNX's raw_data has it. Raises InvalidPackage where what is coded can't be decoded."""
        data = self.stored(tensor)
        if tensor.coding == "raw":
            return data
        try:
            return coded.decode_tensor(data, tensor.dtype, tensor.shape)
        except InvalidInput as error:
            raise self._undecodable(tensor, error) from error

    def read_into(self, tensor: Tensor, out: memoryview) -> None:
        """`read`, to a place of as many bytes. Raises InvalidPackage."""
        data = self.stored(tensor)
        if tensor.coding == "raw":
            out[:] = data
            return
        try:
            coded.decode_tensor_into(data, tensor.dtype, tensor.shape, out)
        except InvalidInput as error:
            raise self._undecodable(tensor, error) from error

    def _undecodable(self, tensor: Tensor, error: InvalidInput) -> InvalidPackage:
        return InvalidPackage(f"{self.source}: the tensor {tensor.name[:80]!r} can't be decoded: {error}")


def _tagged(record: Mapping[str, Any] | None, kinds: Mapping[str, type], what: str, source: str) -> Any:
    if record is None:
        return None
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise InvalidPackage(f"{source} needs {what} of the kind {kind!r}; this edgewise knows {', '.join(kinds)}: update it")
    try:
        return msgspec.convert(record, kinds[kind], strict=True)
    except (msgspec.ValidationError, InvalidInput) as error:
        raise InvalidPackage(f"{source}: its {what} is wrong ({error}); pack it again") from error
