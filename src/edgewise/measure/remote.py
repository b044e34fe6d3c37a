"""A device behind a link: the functions of this room, done by a worker there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np

from edgewise import backends, package
from edgewise.errors import MeasurementFailed
from edgewise.graph.graph import Graph
from edgewise.measure import requests
from edgewise.measure.messages import Array, pack, unpack
from edgewise.measure.recorded import Log
from edgewise.measure.subject import Subject
from edgewise.records import Conditions, Device, Interval, LatencyTable, Measurement, Peaks, Speedup
from edgewise.types import Execution, Inputs, from_json
from edgewise.wire.client import Link

if TYPE_CHECKING:
    from edgewise.measure.interleave import Contender
    from edgewise.measure.roofline import Work
    from edgewise.measure.scenarios import ScenarioRun
    from edgewise.measure.table import Progress

SLACK_S = 300.0  # beyond what a job is asked to take: loading, a slow board, an engine's compilation
SCENARIO_S = 3600.0  # beyond its seconds: LoadGen may ask for 662 queries of a slow model, and the device knows how long each takes
TABLE_TIMES = 6.0  # a table may take so many times what it was asked to, as it may at home


@dataclass
class Remote:
    """A device behind a link. log: what was measured there, for `devices export`."""

    link: Link
    device: Device
    log: Log
    absent: ClassVar[bool] = False
    _packages: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # of models, by their SHA-256: digest and bytes of what is sent

    def compare(self, reference: Subject, candidate: Subject, inputs: Inputs, options: Mapping[str, Any]) -> Speedup:
        sides = [self._model(one) for one in (reference, candidate)]
        asked = requests.Compare(sides[0][0], sides[1][0], pack(inputs), _given(options))
        found = from_json(self._result(asked, _blobs(sides), 2 * _limit(options, "max_seconds", 60.0)), Speedup)
        named = self._named(found.reference_conditions), self._named(found.candidate_conditions)
        return replace(found, reference_conditions=named[0], candidate_conditions=named[1])

    def race(self, subjects: Sequence[Subject], inputs: Inputs, options: Mapping[str, Any]) -> tuple[Contender, ...]:
        from edgewise.measure.interleave import Contender

        sides = [self._model(one) for one in subjects]
        asked = requests.Race(tuple(model for model, _ in sides), pack(inputs), _given(options))
        result = self._result(asked, _blobs(sides), 2 * _limit(options, "max_seconds", 60.0))
        rows = msgspec.json.decode(result, type=list[tuple[tuple[float, ...], Interval | None, bool, str, Conditions | None]])
        if len(rows) != len(subjects):
            raise MeasurementFailed(f"{self.device.name} answered for {len(rows)} of {len(subjects)} models")
        return tuple(
            Contender(subject, blocks, ratio, dropped, failed, conditions and self._named(conditions))
            for subject, (blocks, ratio, dropped, failed, conditions) in zip(subjects, rows, strict=True)
        )

    def profile(
        self, subject: Subject, inputs: Inputs, work: Work | None, peaks: Sequence[Peaks], options: Mapping[str, Any]
    ) -> Measurement:
        from edgewise.measure.roofline import roofline_share

        side = self._model(subject)
        asked = requests.Profile(side[0], pack(inputs), work, _given(options))
        found = from_json(self._result(asked, _blobs([side]), 4 * _limit(options, "seconds", 2.0)), Measurement)
        share = roofline_share(peaks, work, subject.execution.threads, found.latency.p50_ms)
        found = replace(found, size_bytes=len(subject.model), conditions=self._named(found.conditions), roofline_share=share)
        self.log.measured(subject, inputs, work, found)
        return found

    def table(
        self,
        graph: Graph,
        execution: Execution,
        inputs: Inputs,
        *,
        form: str,
        ladder: Mapping[str, Sequence[int]] | None,
        seconds: float,
        known: LatencyTable | None,
        keep: Callable[[LatencyTable], None],
        progress: Progress,
        seed: int,
    ) -> LatencyTable:
        """`latency_table`, all of it there; what the device has measured so far is kept here as it comes."""
        side = self._model(Subject(graph.to_bytes(), execution))
        so_far, sent = known, package.build(graph, created="").graph().sha256  # (canonical: it may be spelled otherwise)

        def asked() -> requests.Table:
            widths = None if ladder is None else {name: tuple(some) for name, some in ladder.items()}
            there = so_far and replace(so_far, device=self._own_key, graph=sent)
            return requests.Table(side[0], pack(inputs), form, widths, seconds, there, seed)

        found: LatencyTable | None = None
        limit_s = TABLE_TIMES * seconds + SLACK_S
        for event in self._events(asked(), _blobs([side]), limit_s, lambda: requests.plain(asked())[1]):
            if event.kind == "progress":
                progress(*msgspec.json.decode(event.data, type=tuple[str, float]))
                continue
            so_far = found = replace(self._as_here(from_json(event.data, LatencyTable)), graph=graph.sha256)
            self.log.tabled(so_far)
            if event.kind == "kept":
                keep(so_far)
        if found is None:
            raise MeasurementFailed(f"{self.device.name} ended a latency table without one")
        return found

    def peaks(self, threads: int, again: bool) -> Peaks:
        found = from_json(self._result(requests.Peaks(threads, again), {}, 120.0), Peaks)
        self.log.peaked(found)
        return found

    def scenario(self, subject: Subject, inputs: Inputs, name: str, seconds: float, queries: int | None) -> ScenarioRun:
        from edgewise.measure.scenarios import ScenarioRun

        side = self._model(subject)
        asked = requests.Scenario(side[0], pack(inputs), name, seconds, queries)
        found = from_json(self._result(asked, _blobs([side]), SCENARIO_S + 2 * seconds), ScenarioRun)
        return replace(found, conditions=self._named(found.conditions))

    def answers(self, model: bytes, execution: Execution, batches: Sequence[Inputs]) -> list[np.ndarray]:
        """The first output for each batch, computed there."""
        side = self._model(Subject(model, execution))
        asked = requests.Answers(side[0], tuple(pack(batch) for batch in batches))
        found = msgspec.msgpack.decode(self._result(asked, _blobs([side]), 600.0), type=list[Array])
        return [unpack({"": one})[""] for one in found]

    @property
    def told(self) -> tuple[str, ...]:
        """When it was away, or started anew, in words."""
        return tuple(self.link.away)

    @property
    def _own_key(self) -> str:
        """The key that the device has for itself, where it is "local"."""
        return replace(self.device, address="local").key

    def _as_here(self, table: LatencyTable) -> LatencyTable:
        conditions = table.conditions and self._named(table.conditions)
        return replace(table, device=self.device.key, conditions=conditions)

    def _named(self, conditions: Conditions) -> Conditions:
        return replace(conditions, device=self.device.name)

    def _model(self, subject: Subject) -> tuple[requests.Model, bytes]:
        """What names the model there, and what has to be sent for it."""
        own = backends.form(subject.execution.backend) != backends.ONNX
        name = hashlib.sha256(subject.model).hexdigest()
        if name not in self._packages:
            data = subject.model if own else packaged(subject.model)
            self._packages[name] = hashlib.sha256(data).hexdigest(), data
            while sum(len(kept) for _, kept in self._packages.values()) > _KEPT_BYTES and len(self._packages) > 1:
                del self._packages[next(iter(self._packages))]
        digest, data = self._packages[name]
        return requests.Model(digest, subject.execution, own), data

    def _result(self, asked: requests.Request, blobs: Mapping[str, bytes], takes_s: float) -> bytes:
        found = [event.data for event in self._events(asked, blobs, takes_s + SLACK_S, None) if event.kind == "result"]
        if not found:
            raise MeasurementFailed(f"{self.device.name} ended a job without its result")
        return found[-1]

    def _events(
        self, asked: requests.Request, blobs: Mapping[str, bytes], limit_s: float, resumed: Callable[[], dict[str, Any]] | None
    ) -> Iterator[Any]:
        kind, arguments = requests.plain(asked)
        yield from self.link.job(kind, arguments, blobs, limit_s, resumed)


_KEPT_BYTES = 256 << 20  # of packages that were made for sending


def packaged(model: bytes) -> bytes:
    """As short as it goes at once: links to devices are thin."""
    return package.to_bytes(package.build(Graph.from_bytes(model), created=""))


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that aren't left at None, which a function's default is."""
    return {name: value for name, value in options.items() if value is not None}


def _limit(options: Mapping[str, Any], name: str, usual: float) -> float:
    return float(options.get(name) or usual)


def _blobs(sides: Sequence[tuple[requests.Model, bytes]]) -> dict[str, bytes]:
    return {model.blob: data for model, data in sides}
