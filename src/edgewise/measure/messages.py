"""What a measuring process and its parent say to each other: length-prefixed msgpack, and after `Load` the model's bytes as they are.

The model travels outside the message so that the measuring process holds it once, as a process that reads it from a file would:
loading is part of the peak memory that is measured.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import msgspec
import numpy as np

HEADER = struct.Struct("<Q")


class Array(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data: bytes


class Load(msgspec.Struct, frozen=True, tag=True):
    """Load the model whose `model_bytes` bytes follow this message; `inputs` are what every later call runs on."""

    model_bytes: int
    backend: str
    precision: str
    threads: int
    options: dict[str, str]
    inputs: dict[str, Array]


class First(msgspec.Struct, frozen=True, tag=True):
    """Run once and time it."""


class Block(msgspec.Struct, frozen=True, tag=True):
    """Drop the first calls, then time calls until `min_ms` have passed."""

    min_ms: float


class Sample(msgspec.Struct, frozen=True, tag=True):
    """Warm up, then call for `seconds` and at least `min_samples` times; keep at most `keep` samples, evenly spaced in order.

    again: it was sampled just before, and needs one call for a warm-up.
    """

    seconds: float
    min_samples: int
    keep: int
    again: bool = False


class Scenario(msgspec.Struct, frozen=True, tag=True):
    """Let MLPerf's LoadGen ask for queries, for `seconds` and at least `queries` of them: see `edgewise.measure.scenarios`.

    name: LoadGen's. samples: of a query; percentile: 0..1, of a query's time. batch: samples of one call on the loaded inputs, which takes
    about `call_ms`: LoadGen makes its queries beforehand, and has to know how many. qps, latency_ms: of Server, how often it asks, and what
    the percentile may not exceed.
    """

    name: str
    seconds: float
    queries: int
    samples: int
    percentile: float
    batch: int
    call_ms: float
    qps: float = 1.0
    latency_ms: float = 100.0


class Memory(msgspec.Struct, frozen=True, tag=True):
    """Peak memory since before the model arrived."""


class Bandwidth(msgspec.Struct, frozen=True, tag=True):
    """Copy arrays of `array_bytes` on `threads` threads, `repeats` times."""

    array_bytes: int
    threads: int
    repeats: int


class Loaded(msgspec.Struct, frozen=True, tag=True):
    milliseconds: float
    version: str


class Timed(msgspec.Struct, frozen=True, tag=True):
    """`calls` calls took `elapsed_ms` together; `samples_ms` are those that were kept, in order. `warm` calls went before them."""

    calls: int
    elapsed_ms: float
    samples_ms: list[float]
    warm: int = 0


class Logged(msgspec.Struct, frozen=True, tag=True):
    """What LoadGen wrote, its version, and what it asked for."""

    summary: str
    detail: str
    version: str
    queries: int
    samples: int


class Number(msgspec.Struct, frozen=True, tag=True):
    value: float


class Failed(msgspec.Struct, frozen=True, tag=True):
    """An error raised on purpose; `kind` is its class in `edgewise.errors`."""

    kind: str
    message: str


Request = Load | First | Block | Sample | Scenario | Memory | Bandwidth
Reply = Loaded | Timed | Logged | Number | Failed

encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def framed(message: Request | Reply) -> bytes:
    body = encode(message)
    return HEADER.pack(len(body)) + body


def pack(inputs: Mapping[str, np.ndarray]) -> dict[str, Array]:
    return {name: Array(array.dtype.name, array.shape, np.ascontiguousarray(array).tobytes()) for name, array in inputs.items()}


def unpack(arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Arrays of their own memory: one that borrows the message's would be read-only, which some engines copy on every call."""
    return {name: np.frombuffer(array.data, array.dtype).reshape(array.shape).copy() for name, array in arrays.items()}
