"""LoadGen over a Runner, in this process: what the measuring process does when it is asked for a scenario."""

from __future__ import annotations

import gc
import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any, Protocol

from edgewise.measure.messages import Logged, Scenario
from edgewise.measure.scenarios.summary import parse
from edgewise.types import Inputs, Runner

LIBRARY = 1024  # samples that LoadGen draws from; all are the loaded inputs
# LoadGen makes all queries before the first one is asked, twice as many as it expects to need; of Offline's samples a tenth more.
SHORTEST_QUERY_MS = 0.02  # its way through Python takes about as long, and an expectation of less would only fill memory
TRIAL_SHARE, MORE = 0.05, 1.25  # Offline: how fast it goes is tried for this share of the time, and expected to go somewhat faster


def drive(runner: Runner, inputs: Inputs, asked: Scenario) -> Logged:
    """Every query is answered by calls of `runner` on `inputs`, `asked.batch` samples each, one call after another.

    A query's last call may have fewer samples to answer than it computes. What `runner` raises is raised again when LoadGen has ended.
    """
    import mlperf_loadgen as loadgen

    settings = settings_of(loadgen, asked)
    if not asked.samples:
        settings.offline_expected_qps = MORE * tried(loadgen, _System(runner, inputs, asked.batch, loadgen), asked)
    system = _System(runner, inputs, asked.batch, loadgen)
    summary, detail = run(loadgen, system, settings)
    return Logged(summary, detail, importlib.metadata.version("mlcommons-loadgen"), system.queries, system.samples)


def tried(loadgen: Any, system: System, asked: Scenario) -> float:
    """Offline's samples per second, from a short run: LoadGen has to know beforehand how many samples fill the time."""
    settings = settings_of(loadgen, asked)
    settings.min_duration_ms, settings.min_query_count = round(asked.seconds * 1e3 * TRIAL_SHARE), 1
    return parse(run(loadgen, system, settings)[0]).samples_per_second


class System(Protocol):
    """What LoadGen calls a system under test. failed: what went wrong, kept until LoadGen has ended."""

    failed: Exception | None

    def issue(self, responses: list[int], indices: list[int]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class _System:
    """LoadGen's "system under test". LoadGen's threads are C++: an exception must not reach them, so it is kept."""

    def __init__(self, runner: Runner, inputs: Inputs, batch: int, loadgen: Any) -> None:
        self._run, self._inputs, self._batch = runner.run, inputs, batch
        self._response, self._complete = loadgen.QuerySampleResponse, loadgen.QuerySamplesComplete
        self.queries = self.samples = 0
        self.failed: Exception | None = None

    def issue(self, responses: list[int], indices: list[int]) -> None:
        """responses: an id for each sample."""
        self.queries += 1
        self.samples += len(responses)
        for start in range(0, len(responses), self._batch):
            if self.failed is None:
                try:
                    self._run(self._inputs)
                except Exception as error:  # through LoadGen's C++ nothing can be raised: it is raised when LoadGen has ended
                    self.failed = error
            self._complete([self._response(response, 0, 0) for response in responses[start : start + self._batch]])

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def run(loadgen: Any, system: System, settings: Any) -> tuple[str, str]:
    """LoadGen's summary and its detailed log. Raises what the runner raised."""
    with tempfile.TemporaryDirectory(prefix="edgewise-loadgen-") as folder:
        sut = loadgen.ConstructFastSUT(system.issue, system.flush)  # with numbers where the other one has an object a sample
        samples = loadgen.ConstructQSL(LIBRARY, LIBRARY, _nothing, _nothing)
        gc.disable()
        try:
            # The last argument names a file of settings that LoadGen would otherwise look for in the working directory.
            loadgen.StartTestWithLogSettings(sut, samples, settings, _logs(loadgen, folder), f"{folder}/no-audit.config")
        finally:
            gc.enable()
            loadgen.DestroyQSL(samples)
            loadgen.DestroyFastSUT(sut)
            system.close()
        if system.failed is not None:
            raise system.failed
        summary, detail = (_text(Path(folder) / f"mlperf_log_{name}.txt") for name in ("summary", "detail"))
    return summary, detail


def settings_of(loadgen: Any, asked: Scenario) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, asked.name)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(asked.seconds * 1e3)
    settings.min_query_count = asked.queries
    calls = -(-max(asked.samples, 1) // asked.batch)
    query_ns = round(max(calls * asked.call_ms, SHORTEST_QUERY_MS) * 1e6)
    settings.single_stream_expected_latency_ns = query_ns
    settings.single_stream_target_latency_percentile = asked.percentile
    settings.multi_stream_expected_latency_ns = query_ns
    settings.multi_stream_target_latency_percentile = asked.percentile
    settings.multi_stream_samples_per_query = max(asked.samples, 1)
    settings.server_target_qps = asked.qps
    settings.server_target_latency_ns = round(asked.latency_ms * 1e6)
    settings.server_target_latency_percentile = asked.percentile
    settings.offline_expected_qps = asked.batch / max(asked.call_ms, SHORTEST_QUERY_MS) * 1e3
    return settings


def _logs(loadgen: Any, folder: str) -> Any:
    output = loadgen.LogOutputSettings()
    output.outdir = folder
    output.copy_summary_to_stdout = False
    logs = loadgen.LogSettings()
    logs.log_output = output
    logs.enable_trace = False
    return logs


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _nothing(indices: list[int]) -> None:
    """There is nothing to load: the inputs are in memory."""
