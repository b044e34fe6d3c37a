"""What was measured on a device elsewhere, kept; and a device that is away, answered for by what was kept (its *profile*).

A profile knows what was measured there, and estimates the rest: the roofline of a model's work on that device's peaks, times what the same
engine, precision and kind of arithmetic took over its roofline when it was measured. Every figure of it says "from a profile".
"""

from __future__ import annotations

import datetime
import hashlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgewise.errors import InvalidInput, MeasurementFailed
from edgewise.graph.graph import Graph
from edgewise.measure.roofline import Work, roofline_ms
from edgewise.measure.roofline import work as work_of
from edgewise.measure.subject import Subject
from edgewise.records import Conditions, Device, Interval, Latency, LatencyTable, Measurement, Peaks, Speedup
from edgewise.types import Execution, Inputs, from_json, to_json

if TYPE_CHECKING:
    from edgewise.measure.interleave import Contender
    from edgewise.measure.scenarios import ScenarioRun
    from edgewise.measure.table import Progress

FORMAT = 1
MARK = "from a profile"


@dataclass(frozen=True)
class Figure:
    """A measurement, and what of: the model's SHA-256, the inputs' shapes, the work of a call."""

    model: str
    inputs: Mapping[str, tuple[int, ...]]
    work: Work | None
    measurement: Measurement

    @property
    def engine(self) -> tuple[str, str, int]:
        return _engine(self.measurement.execution)


@dataclass(frozen=True)
class DeviceProfile:
    """What a profile's file holds."""

    format: int
    created: str  # ISO 8601, UTC
    device: Device
    figures: tuple[Figure, ...]
    tables: tuple[LatencyTable, ...]


@dataclass(frozen=True)
class Log:
    """Every figure a file of its own, so that several processes may add to it."""

    folder: Path

    def measured(self, subject: Subject, inputs: Inputs, work: Work | None, found: Measurement) -> None:
        figure = Figure(_name(subject.model), _shapes(inputs), work, found)
        self._keep(f"figure-{_key(figure.model, str(found.execution), sorted(figure.inputs.items()))}.json", figure)

    def tabled(self, table: LatencyTable) -> None:
        self._keep(f"table-{_key(table.graph, str(table.execution), sorted(table.inputs.items()))}.json", table)

    def peaked(self, peaks: Peaks) -> None:
        self._keep(f"peaks-{peaks.threads}.json", peaks)

    def profile(self, device: Device) -> DeviceProfile:
        """All of it. Raises InvalidInput where nothing was measured yet."""
        figures, tables = tuple(self._all("figure", Figure)), tuple(self._all("table", LatencyTable))
        if not figures:
            raise InvalidInput(f"nothing was measured on {device.name} yet: edgewise measure MODEL --device {device.name} begins a profile")
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return DeviceProfile(FORMAT, now, replace(device, peaks=tuple(self._all("peaks", Peaks))), figures, tables)

    def _all(self, kind: str, of: type[Any]) -> Iterator[Any]:
        for path in sorted(self.folder.glob(f"{kind}-*.json")):
            try:
                yield from_json(path.read_bytes(), of)
            except InvalidInput:
                continue  # of another release

    def _keep(self, name: str, record: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            file.write(to_json(record))
        Path(file.name).replace(self.folder / name)


@dataclass
class Recorded:
    """A device that is away. Times of models that weren't measured there are estimates; their intervals span the engine's known scatter."""

    device: Device
    kept: DeviceProfile
    absent: ClassVar[bool] = True
    told: tuple[str, ...] = field(default=())

    @classmethod
    def read(cls, path: Path, name: str) -> Recorded:
        """Raises InvalidInput."""
        try:
            profile = from_json(path.read_bytes(), DeviceProfile)
        except OSError as error:
            raise InvalidInput(f"can't read the profile {path}: {error.strerror}; edgewise devices export writes one") from error
        except InvalidInput as error:
            raise InvalidInput(f"{path} is no profile of a device: {error}") from error
        if profile.format != FORMAT:
            raise InvalidInput(
                f"{path} is a profile of format {profile.format}, this release reads {FORMAT}: update edgewise, or export it again"
            )
        day = profile.created[:10]
        address = f"profile:{hashlib.sha256(to_json(profile)).hexdigest()[:16]}"
        device = replace(profile.device, name=f"{name} ({MARK} of {day})", address=address)
        told = f"all times are {MARK} of {name}, recorded on {day}: measured there where the same model was, estimated otherwise"
        return cls(device, profile, (told,))

    def profile(
        self, subject: Subject, inputs: Inputs, work: Work | None, peaks: Sequence[Peaks], options: Mapping[str, Any]
    ) -> Measurement:
        known = self._figure(subject, inputs)
        if known is not None:
            return replace(known.measurement, conditions=replace(known.measurement.conditions, device=self.device.name))
        estimated = self._estimate(subject, inputs, work)
        alike = [one.measurement for one in self._alike(subject.execution)]
        near = min(alike, key=lambda one: abs(one.latency.p50_ms - estimated.value))
        return replace(
            near, execution=subject.execution, conditions=self._conditions(near.conditions), latency=Latency((estimated.value,)),
            size_bytes=len(subject.model), throughput_per_s=None, energy_mj=None,
        )  # fmt: skip

    def compare(self, reference: Subject, candidate: Subject, inputs: Inputs, options: Mapping[str, Any]) -> Speedup:
        sides = [self._interval(one, inputs) for one in (reference, candidate)]
        conditions = [self._conditions(self._alike(one.execution)[0].measurement.conditions) for one in (reference, candidate)]
        ratio = _ratio(*sides)
        first, second = (side.value for side in sides)
        return Speedup(ratio, (ratio.value,), (first,), (second,), False, 0.0, conditions[0], conditions[1])

    def race(self, subjects: Sequence[Subject], inputs: Inputs, options: Mapping[str, Any]) -> tuple[Contender, ...]:
        from edgewise.measure.interleave import Contender

        first = self._interval(subjects[0], inputs)
        found = []
        for subject in subjects:
            try:
                side = self._interval(subject, inputs)
            except MeasurementFailed as error:
                found.append(Contender(subject, (), None, False, str(error), None))
                continue
            near = self._conditions(self._alike(subject.execution)[0].measurement.conditions)
            found.append(Contender(subject, (side.value,), _ratio(first, side), False, "", near))
        return tuple(found)

    def table(
        self, graph: Graph, execution: Execution, inputs: Inputs, *, form: str, ladder: Any, seconds: float, known: LatencyTable | None,
        keep: Callable[[LatencyTable], None], progress: Progress, seed: int,
    ) -> LatencyTable:  # fmt: skip
        shapes = _shapes(inputs)
        for table in self.kept.tables:
            if (table.graph, table.execution, dict(table.inputs)) == (graph.sha256, execution, shapes) and table.model:
                return replace(table, device=self.device.key)
        raise MeasurementFailed(
            f"{self.device.name}: the profile has no latency table of this model on {execution}; measure one while the device is there "
            "(edgewise fit MODEL --device …), and export the profile again"
        )

    def peaks(self, threads: int, again: bool) -> Peaks:
        for known in self.kept.device.peaks:
            if known.threads == threads:
                return known
        raise MeasurementFailed(f"{self.device.name}: the profile has no peaks for {threads} threads")

    def scenario(self, subject: Subject, inputs: Inputs, name: str, seconds: float, queries: int | None) -> ScenarioRun:
        raise MeasurementFailed(f"{self.device.name} is away, and LoadGen can't ask it anything")

    def answers(self, model: bytes, execution: Execution, batches: Sequence[Inputs]) -> list[np.ndarray]:
        raise MeasurementFailed(f"{self.device.name} is away and can't compute answers")

    def _interval(self, subject: Subject, inputs: Inputs) -> Interval:
        """Milliseconds a call."""
        known = self._figure(subject, inputs)
        if known is None:
            return self._estimate(subject, inputs, None)
        latency = known.measurement.latency
        return Interval(latency.p50_ms, latency.percentile(40), latency.percentile(60), len(latency.samples_ms))

    def _figure(self, subject: Subject, inputs: Inputs) -> Figure | None:
        wanted = _name(subject.model), subject.execution, _shapes(inputs)
        return next((one for one in self.kept.figures if (one.model, one.measurement.execution, dict(one.inputs)) == wanted), None)

    def _estimate(self, subject: Subject, inputs: Inputs, work: Work | None) -> Interval:
        roofs = self.peaks(subject.execution.threads, False)
        own = work or work_of(Graph.from_bytes(subject.model), inputs)
        if own is None:
            raise MeasurementFailed(f"{self.device.name}: this model's operations can't be counted, so its time can't be estimated")
        works = [(one.work, one.measurement.latency.p50_ms) for one in self._alike(subject.execution) if one.work is not None]
        alike = [pair for pair in works if _mostly_integer(pair[0]) == _mostly_integer(own)] or works
        if not alike:
            raise MeasurementFailed(f"{self.device.name}: the profile has no figure of {subject.execution} to estimate by")
        over = [took / roofline_ms(roofs, its) for its, took in alike]
        bound = roofline_ms(roofs, own)
        return Interval(bound * statistics.median(over), bound * min(over), bound * max(over), len(over))

    def _alike(self, execution: Execution) -> list[Figure]:
        """Figures of the same engine, precision and threads. Raises MeasurementFailed where there are none."""
        found = [one for one in self.kept.figures if one.engine == _engine(execution)]
        if not found:
            raise MeasurementFailed(f"{self.device.name}: nothing was measured there on {execution}")
        return found

    def _conditions(self, conditions: Conditions) -> Conditions:
        return replace(conditions, device=self.device.name, frequency_mhz=None, temperature_c=None, steal=None, load=None)


def _ratio(first: Interval, second: Interval) -> Interval:
    return Interval(first.value / second.value, first.low / second.high, first.high / second.low, min(first.n, second.n))


def _mostly_integer(work: Work) -> bool:
    return work.int8_macs > work.float_macs


def _engine(execution: Execution) -> tuple[str, str, int]:
    return execution.backend, execution.precision, execution.threads


def _name(model: bytes) -> str:
    return hashlib.sha256(model).hexdigest()


def _shapes(inputs: Inputs) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in inputs.items()}


def _key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]
