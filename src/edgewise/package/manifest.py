"""The manifest: what a package says about itself, as frozen data, and its one JSON form."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

from edgewise.errors import InvalidPackage
from edgewise.records import DataSummary, Device, Interval, Outcome, Verdict
from edgewise.types import Execution, Signature

# JSON numbers are exact up to 2**53 in every reader.
Size = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Text = Annotated[str, msgspec.Meta(max_length=65_536)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]

ALIGNMENT = 64
# Of a tensor: as raw_data has it, or by `edgewise.coding`. Of a member: as it is, or a graph by LZMA.
TENSOR_CODINGS = ("raw", "coded")
MEMBER_CODINGS = ("raw", "lzma")

# Bits per element of what can lie outside the graph, under numpy's (ml_dtypes') names. Elements of less than a byte are packed, the first
# in the lowest bits, as ONNX's raw_data has them. Everything is little-endian.
BITS: dict[str, int] = {
    "bool": 8, "int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "int64": 64, "uint64": 64,
    "float16": 16, "bfloat16": 16, "float32": 32, "float64": 64, "complex64": 64, "complex128": 128,
    "float8_e4m3fn": 8, "float8_e4m3fnuz": 8, "float8_e5m2": 8, "float8_e5m2fnuz": 8, "float8_e8m0fnu": 8,
    "float4_e2m1fn": 4, "int4": 4, "uint4": 4, "int2": 2, "uint2": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A run of bytes of the file. `offset` counts from the first byte after the (padded) manifest.

    length, sha256: of the bytes in the file. size: of the bytes that they stand for, where they are coded.
    """

    name: Name
    offset: Size
    length: Size
    sha256: Digest
    coding: str = "raw"
    size: Size | None = None

    @property
    def decoded_bytes(self) -> int:
        return self.length if self.size is None else self.size


@dataclass(frozen=True)
class Tensor:
    """One weight that was taken out of a graph: `length` bytes at `offset` of `member`, in `coding`."""

    name: Name
    dtype: str
    shape: tuple[Size, ...]
    member: Name
    offset: Size
    length: Size
    coding: str = "raw"


@dataclass(frozen=True)
class Entry:
    """One thing that can be loaded: the main graph, an engine's own form, a part of a split model, an early exit.

    format: of the member, "onnx". kind: "graph", "engine", "part" or "exit". engine: for kind "engine", the backend that it is for.
    """

    name: Name
    kind: str
    format: str
    member: Name
    signature: Signature
    tensors: tuple[Tensor, ...] = ()
    engine: str = ""

    @property
    def parameters(self) -> int:
        """Elements of the weights that lie outside the graph."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)


@dataclass(frozen=True)
class Provenance:
    """Where a package came from. `model` and `source_sha256`: what `fit` was given; `reference`: the true-fp32 execution that is 1.0x."""

    model: Text = ""
    source_sha256: Digest | None = None
    recipe: Text = ""
    study: Text = ""
    data: DataSummary | None = None
    device: Device | None = None
    versions: dict[str, str] = field(default_factory=dict)
    reference: Execution | None = None
    reference_sha256: Digest | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Measured:
    """The verdict's figures without its samples: what this model did on `device`, against the fp32 reference."""

    device: Text
    execution: Execution
    summary: Text
    met: bool
    speedup: Interval
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float
    latency_n: int
    reference_p50_ms: float
    cold_start_ms: float
    peak_memory_bytes: int
    metric: Text
    quality: Interval
    reference_quality: Interval
    drop: Interval
    energy_mj: float | None = None
    energy_source: Text = "none"
    outcomes: tuple[Outcome, ...] = ()

    @classmethod
    def of(cls, verdict: Verdict) -> Measured:
        measurement = verdict.measurement
        return cls(
            device=measurement.conditions.device,
            execution=measurement.execution,
            summary=verdict.summary,
            met=verdict.met,
            speedup=verdict.speedup.ratio,
            latency_p50_ms=measurement.latency.p50_ms,
            latency_p90_ms=measurement.latency.p90_ms,
            latency_p99_ms=measurement.latency.p99_ms,
            latency_n=len(measurement.latency.samples_ms),
            reference_p50_ms=verdict.reference_measurement.latency.p50_ms,
            cold_start_ms=measurement.cold_start_ms,
            peak_memory_bytes=measurement.peak_memory_bytes,
            metric=verdict.quality.metric,
            quality=verdict.quality.value,
            reference_quality=verdict.reference_quality.value,
            drop=verdict.drop.difference,
            energy_mj=measurement.energy_mj,
            energy_source=measurement.energy_source,
            outcomes=verdict.outcomes,
        )


@dataclass(frozen=True)
class Manifest:
    """`version` counts the releases of one model, so that an update can refuse to go back. `created` is ISO 8601, UTC.

    `preprocess` and `postprocess` are objects whose "kind" says which of `edgewise.data` reads them: a package of a kind that this release
    doesn't know can still be looked into. `rows`: "independent" where any rows may share a call, "dependent" where neighbours or padding
    change an answer; left out where nobody looked.
    """

    created: Text
    entries: tuple[Entry, ...]
    members: tuple[Member, ...]
    version: Annotated[int, msgspec.Meta(ge=1, le=2**53)] = 1
    labels: tuple[Text, ...] = ()
    preprocess: dict[str, Any] | None = None
    postprocess: dict[str, Any] | None = None
    execution: Execution | None = None
    provenance: Provenance = field(default_factory=Provenance)
    measured: Measured | None = None
    rows: Literal["independent", "dependent"] | msgspec.UnsetType = msgspec.UNSET

    def entry(self, name: str) -> Entry:
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise InvalidPackage(f"there is no entry {name!r} in this package; it has {', '.join(entry.name for entry in self.entries)}")

    def member(self, name: str) -> Member:
        for member in self.members:
            if member.name == name:
                return member
        raise InvalidPackage(f"there is no member {name!r} in this package; it has {', '.join(member.name for member in self.members)}")


def encode(manifest: Manifest) -> bytes:
    """The manifest's JSON: UTF-8, no white space, fields in the order of the classes above."""
    return msgspec.json.encode(manifest)


def decode(data: bytes, what: str) -> Manifest:
    """Read a manifest. `what` names the file in errors.

    Its JSON has to be canonical (what decodes and encodes again to the same bytes): a doubled key, of which two readers might take
    different ones, is refused, and so is white space. Raises InvalidPackage.
    """
    try:
        plain = msgspec.json.decode(data)
        canonical = msgspec.json.encode(plain) == data
        manifest = msgspec.convert(plain, Manifest)
    except RecursionError as error:
        raise InvalidPackage(f"{what}: its manifest is nested too deeply; don't use it") from error
    except (msgspec.MsgspecError, UnicodeError, ValueError, OverflowError) as error:
        raise InvalidPackage(f"{what}: its manifest can't be read: {str(error)[:300]}") from error
    if not canonical:
        raise InvalidPackage(f"{what}: its manifest is not in canonical form (a doubled key, or white space); edgewise doesn't write such")
    return manifest


def stored_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a raw tensor: elements of less than a byte are packed, the last byte is filled up."""
    return (math.prod(shape) * BITS[dtype] + 7) // 8


def aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
