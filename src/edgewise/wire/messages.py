"""What a client asks of a worker, and what it is told: msgpack, every length bounded. Figures travel as the JSON of their records.

A job names the models that it needs by the SHA-256 of their packages, which are sent apart (and once). Its number is the client's choice:
asked twice, it is the same job, so that a link that drops between question and answer never makes a figure count twice.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from edgewise.errors import InvalidInput

VERSION = 1
MOST_BODY = 64 << 20  # of a job: inputs of one call are in it

T = TypeVar("T")

State = Literal["queued", "running", "done", "failed", "cancelled"]
OVER: tuple[State, ...] = ("done", "failed", "cancelled")


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """kind: one of `worker.calls`. arguments: by name, as that function has them; models stand as hexadecimal SHA-256 in `blobs`.

    limit_s: after which its process is killed.
    """

    number: str  # 32 hexadecimal digits
    kind: str
    arguments: dict[str, Any]
    blobs: tuple[str, ...]
    limit_s: float


class Event(msgspec.Struct, frozen=True):
    """Something that a job said on its way; the last one of a job that is done is its result. data: JSON, or msgpack."""

    kind: Literal["progress", "kept", "result"]
    data: bytes


class Status(msgspec.Struct, frozen=True):
    """events: those from `first` on. before: jobs that come first, of one that is queued. error, message: of one that failed."""

    state: State
    before: int
    first: int
    events: tuple[Event, ...]
    error: str = ""
    message: str = ""


class Here(msgspec.Struct, frozen=True):
    """The worker and how its machine is. session: new whenever a worker starts; device: the JSON of its Device."""

    version: int
    session: str
    edgewise: str
    device: bytes
    queue: int
    blob_bytes: int
    memory_free_bytes: int | None
    temperature_c: float | None
    boot: str
    uptime_s: float


class Missing(msgspec.Struct, frozen=True):
    """Of the blobs that a job names, those that aren't there."""

    blobs: tuple[str, ...]


class Refused(msgspec.Struct, frozen=True):
    """error: a class of `edgewise.errors`."""

    error: str
    message: str


encode = msgspec.msgpack.Encoder().encode


def decode(data: bytes, kind: type[T]) -> T:
    """Raises InvalidInput."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(f"no {kind.__name__} message: {error}") from error


def is_digest(text: str, digits: int = 64) -> bool:
    return len(text) == digits and all(letter in "0123456789abcdef" for letter in text)
