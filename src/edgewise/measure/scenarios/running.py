"""A scenario in a process of its own, as every measurement is taken."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from edgewise.devices import Health, Watch
from edgewise.errors import InvalidInput, MissingExtra
from edgewise.measure import elsewhere
from edgewise.measure.cores import reserved
from edgewise.measure.messages import Scenario
from edgewise.measure.process import LIMIT_S, Process
from edgewise.measure.profiling import batch_size
from edgewise.measure.referee import Referee
from edgewise.measure.scenarios.rules import caveat, rules
from edgewise.measure.scenarios.summary import Summary, parse
from edgewise.measure.subject import Subject
from edgewise.records import Conditions, Device
from edgewise.types import Execution, Inputs

WARM_MS = 200.0


@dataclass(frozen=True)
class ScenarioRun:
    """What LoadGen asked, and what it says of the answers.

    seconds, least_queries: asked for, at least. batch: samples of one call. queries, samples: that LoadGen issued. caveat: why this is no
    MLPerf result. summary_text, detail_text: LoadGen's logs as they are.
    """

    scenario: str
    execution: Execution
    conditions: Conditions
    summary: Summary
    seconds: float
    least_queries: int
    batch: int
    queries: int
    samples: int
    caveat: str
    loadgen: str  # version
    summary_text: str
    detail_text: str

    @property
    def result_ms(self) -> float | None:
        """The percentile of a query's time that is the scenario's result; None in Offline, whose result is samples per second."""
        at = rules(self.scenario).percentile
        return None if at is None else self.summary.percentiles_ms[f"{100 * at:g}"]


def require() -> None:
    """Raises MissingExtra without LoadGen."""
    if importlib.util.find_spec("mlperf_loadgen") is None:
        raise MissingExtra("MLPerf's LoadGen isn't installed, and scenarios need it: pip install 'edgewise[loadgen]'")


def scenario(
    model: bytes,
    execution: Execution,
    inputs: Inputs,
    device: Device,
    *,
    name: str,
    seconds: float = 10.0,
    queries: int | None = None,
    limit_s: float = LIMIT_S,
) -> ScenarioRun:
    """Let LoadGen put `model` through the scenario `name`, pinned to `execution.threads` cores, its named axes fixed to those of `inputs`.

    inputs: one call's; their batch is that of a call (see `rules.batch`). seconds: the least that queries are issued for; MLPerf asks for
    600, and the record says what falls short. queries: the least of them; left out, as many as LoadGen needs for its verdict (64 of
    SingleStream, 662 of MultiStream), of Offline as many samples as fill the time.

    LoadGen runs where the model does, on a device elsewhere too. Raises MissingExtra without it there; InvalidInput for what can't be
    asked; MeasurementFailed when the process dies or hangs.
    """
    if (there := elsewhere.of(device)) is not None:
        return there.scenario(Subject(model, execution), inputs, name, seconds, queries)
    require()
    found, batch, least = rules(name), batch_size(inputs), rules(name).usual if queries is None else queries
    if seconds <= 0 or least < 1:
        raise InvalidInput(f"seconds={seconds:g}, queries={least}: give more than 0 seconds and at least one query")
    if found.samples and batch not in (1, found.samples):
        raise InvalidInput(f"{name} asks for {found.samples} sample(s) at a time, and these inputs are {batch}: give {found.samples} or 1")
    subject, threads = Subject(model, execution), execution.threads
    with reserved(threads) as cores:
        watch = Watch(cores)
        with Process(cores, threads=threads, limit_s=limit_s) as process:
            version = process.load(subject, inputs).version
            process.first()
            call_ms = process.block(WARM_MS)
            asked = Scenario(found.name, seconds, least, found.samples, found.percentile or 0.99, batch, call_ms)
            calls = least * -(-max(found.samples, 1) // batch) if found.samples else least / batch
            referee = Referee(Health(cores, lambda: [process.pid]))  # LoadGen's run is one: it is watched, and never taken again
            referee.begin()
            logged = process.scenario(asked, 2 * max(seconds, calls * call_ms / 1e3))
            referee.counts(last=True)
        conditions = watch.conditions(device=device.name, engine=f"{execution.backend} {version}", threads=threads)
    return ScenarioRun(
        scenario=name,
        execution=execution,
        conditions=referee.told(conditions),
        summary=parse(logged.summary),
        seconds=seconds,
        least_queries=least,
        batch=batch,
        queries=logged.queries,
        samples=logged.samples,
        caveat=caveat(name, seconds, logged.queries if found.samples else logged.samples),
        loadgen=logged.version,
        summary_text=logged.summary,
        detail_text=logged.detail,
    )
