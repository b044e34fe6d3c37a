"""What is asked of a device elsewhere: the functions of this room as messages. Models are named by what was sent before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from edgewise.errors import InvalidInput
from edgewise.measure.messages import Array
from edgewise.measure.roofline import Work
from edgewise.records import LatencyTable
from edgewise.types import Execution


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """blob: the SHA-256 of its package. own: what was sent is a form of the engine's own, as it is."""

    blob: str
    execution: Execution
    own: bool = False


class Compare(msgspec.Struct, frozen=True, tag="compare", forbid_unknown_fields=True):
    reference: Model
    candidate: Model
    inputs: dict[str, Array]
    options: dict[str, float | int | None]


class Race(msgspec.Struct, frozen=True, tag="race", forbid_unknown_fields=True):
    subjects: tuple[Model, ...]
    inputs: dict[str, Array]
    options: dict[str, float | int | None]


class Profile(msgspec.Struct, frozen=True, tag="profile", forbid_unknown_fields=True):
    model: Model
    inputs: dict[str, Array]
    work: Work | None
    options: dict[str, float | int | None]


class Table(msgspec.Struct, frozen=True, tag="table", forbid_unknown_fields=True):
    model: Model
    inputs: dict[str, Array]
    form: str
    ladder: dict[str, tuple[int, ...]] | None
    seconds: float
    known: LatencyTable | None
    seed: int


class Peaks(msgspec.Struct, frozen=True, tag="peaks", forbid_unknown_fields=True):
    threads: int
    again: bool


class Answers(msgspec.Struct, frozen=True, tag="answers", forbid_unknown_fields=True):
    """The first output for each batch."""

    model: Model
    batches: tuple[dict[str, Array], ...]


class Scenario(msgspec.Struct, frozen=True, tag="scenario", forbid_unknown_fields=True):
    """One of MLPerf's. queries: the least; None for as many as its verdict needs."""

    model: Model
    inputs: dict[str, Array]
    name: str
    seconds: float
    queries: int | None


Request = Compare | Race | Profile | Table | Peaks | Answers | Scenario


def plain(request: Request) -> tuple[str, dict[str, Any]]:
    """Its kind and its arguments, for a `wire.messages.Job`."""
    built: dict[str, Any] = msgspec.to_builtins(request, builtin_types=(bytes,))
    return built.pop("type"), built


def read(kind: str, arguments: dict[str, Any]) -> Request:
    """Undoes `plain`. Raises InvalidInput."""
    try:
        found: Request = msgspec.convert({"type": kind, **arguments}, Request, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise InvalidInput(f"a device can't be asked that: {error}") from error
    return found


def models(request: Request) -> Sequence[Model]:
    match request:
        case Compare():
            return (request.reference, request.candidate)
        case Race():
            return request.subjects
        case Profile() | Table() | Answers() | Scenario():
            return (request.model,)
        case Peaks():
            return ()
