"""What a worker does for others: the functions of `edgewise.measure` on models from packages. Runs in a job's own process.

What was asked is data of known types (`measure.requests`); nothing that was sent is ever run but the models, by an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgewise import backends, devices, measure, package, registry
from edgewise.errors import InvalidInput
from edgewise.graph import parts
from edgewise.measure import Subject, requests
from edgewise.measure.messages import Array, unpack
from edgewise.measure.scenarios import scenario
from edgewise.measure.table import latency_table
from edgewise.records import Device
from edgewise.types import to_json
from edgewise.wire.messages import is_digest

# The options of each function that may be asked for.
_OPTIONS = {
    "compare": ("half_width", "block_ms", "min_pairs", "max_seconds", "renew_pairs", "limit_s"),
    "race": ("block_ms", "min_rounds", "rounds", "max_seconds", "limit_s"),
    "profile": ("seconds", "min_samples", "limit_s"),
}
KEEP_S = 5.0  # between two tables that are said on the way


@dataclass(frozen=True)
class Desk:
    """Where a job finds its packages, and whom it tells: the kind of an event, and its data."""

    folder: Path
    say: Callable[[str, bytes], None]
    clock: Callable[[], float]

    @cached_property
    def device(self) -> Device:
        return devices.local()

    def path(self, digest: str) -> Path:
        if not is_digest(digest):
            raise InvalidInput("a package is named by the 64 hexadecimal digits of its SHA-256")
        return self.folder / digest

    def subject(self, model: requests.Model) -> Subject:
        """Raises InvalidInput for an engine that isn't one of edgewise's: "module:Class" would import what the client names."""
        engine, path = model.execution.backend, self.path(model.blob)
        if engine not in registry.names("backend"):
            raise InvalidInput(f"{engine!r} is no engine of edgewise, and a worker loads no other: {', '.join(registry.names('backend'))}")
        if not model.own:
            return Subject(package.open(path).model_bytes(), model.execution)
        if backends.form(engine) == backends.ONNX:
            raise InvalidInput(f"{engine} gets its models from packages; only engines with a form of their own take others")
        return Subject(path.read_bytes(), model.execution)


def done(desk: Desk, request: requests.Request) -> bytes:
    """The result: JSON of the function's record; of answers, msgpack of arrays. Raises what the function does."""
    match request:
        case requests.Compare(reference, candidate, inputs, options):
            sides = desk.subject(reference), desk.subject(candidate)
            return to_json(measure.compare(*sides, unpack(inputs), desk.device, **_known("compare", options)))
        case requests.Race(subjects, inputs, options):
            found = measure.race([*map(desk.subject, subjects)], unpack(inputs), desk.device, **_known("race", options))
            # Who asked knows the subjects: models don't travel back.
            return to_json([[one.block_ms, one.ratio, one.dropped, one.failed, one.conditions] for one in found])
        case requests.Profile(model, inputs, work, options):
            one = desk.subject(model)
            given = _known("profile", options)
            return to_json(measure.profile(one.model, one.execution, unpack(inputs), desk.device, work=work, **given))
        case requests.Table():
            return _table(desk, request)
        case requests.Peaks(threads, again):
            return to_json(measure.peaks(desk.device, threads, again=again))
        case requests.Scenario(model, inputs, name, seconds, queries):
            one, given = desk.subject(model), unpack(inputs)
            return to_json(scenario(one.model, one.execution, given, desk.device, name=name, seconds=seconds, queries=queries))
        case requests.Answers(model, batches):
            return _answers(desk, model, batches)


def _table(desk: Desk, asked: requests.Table) -> bytes:
    """The whole of it here, the narrower graphs made from the one package; what is measured so far is said now and then."""
    desk.subject(asked.model)
    graph = package.open(desk.path(asked.model.blob)).graph()
    said = desk.clock()

    def keep(table: Any) -> None:
        nonlocal said
        if desk.clock() - said >= KEEP_S:
            said = desk.clock()
            desk.say("kept", msgspec.json.encode(table))

    found = latency_table(
        graph, parts(graph), asked.model.execution, unpack(asked.inputs), desk.device,
        form=asked.form, ladder=asked.ladder, seconds=asked.seconds, known=asked.known, seed=asked.seed,
        keep=keep, progress=lambda what, share: desk.say("progress", msgspec.json.encode((what, share))),
    )  # fmt: skip
    return msgspec.json.encode(found)


def _answers(desk: Desk, model: requests.Model, batches: tuple[dict[str, Array], ...]) -> bytes:
    subject = desk.subject(model)
    runner = backends.load(subject.model, subject.execution)
    try:
        first = [np.ascontiguousarray(next(iter(runner.run(unpack(batch)).values()))) for batch in batches]
    finally:
        runner.close()
    return msgspec.msgpack.encode([Array(one.dtype.name, one.shape, one.tobytes()) for one in first])


def _known(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := set(options) - set(_OPTIONS[kind]):
        raise InvalidInput(f"{kind} has no {min(unknown)!r} that may be asked for; it has {', '.join(_OPTIONS[kind])}")
    return dict(options)
