"""LoadGen over several runners at once, such as connections to a server.

Its Server scenario is what needs them: queries come at their own moments, whether earlier ones are answered or not.
"""

from __future__ import annotations

import importlib.metadata
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from edgewise.measure.messages import Logged, Scenario
from edgewise.measure.scenarios import driving
from edgewise.types import Inputs, Runner

ENDING_S = 60.0


class Many:
    """LoadGen's system under test: queries wait until one of `runners` is free, each in a thread of its own.

    lost: what a runner raises where a query isn't answered, which is no failure of the run. LoadGen knows no such thing, so it hears of
    such a query `held_s` after it was asked, when it is too late. busiest: how many, at most, waited while every runner was taken.
    """

    def __init__(
        self, runners: Sequence[Runner], inputs: Inputs, batch: int, loadgen: Any, lost: tuple[type[Exception], ...], held_s: float
    ) -> None:
        self._inputs, self._batch, self._lost, self._held_s = inputs, batch, lost, held_s
        self._response, self._complete = loadgen.QuerySampleResponse, loadgen.QuerySamplesComplete
        self._waiting: queue.SimpleQueue[tuple[float, list[int]] | None] = queue.SimpleQueue()
        self._held: queue.SimpleQueue[tuple[float, list[int]] | None] = queue.SimpleQueue()
        self.queries = self.samples = self.lost = self.busiest = 0
        self.failed: Exception | None = None
        self._counting = threading.Lock()
        self._threads = [threading.Thread(target=self._work, args=(runner,), daemon=True) for runner in runners]
        self._threads.append(threading.Thread(target=self._hold, daemon=True))
        for thread in self._threads:
            thread.start()

    def issue(self, responses: list[int], indices: list[int]) -> None:
        """responses: an id for each sample. Never waits: LoadGen's clock goes on."""
        now = time.monotonic()
        self.queries += 1
        self.samples += len(responses)
        for start in range(0, len(responses), self._batch):
            self._waiting.put((now, responses[start : start + self._batch]))
        self.busiest = max(self.busiest, self._waiting.qsize())

    def flush(self) -> None:
        pass

    def close(self) -> None:
        """All was asked, and LoadGen has ended."""
        for _ in self._threads[:-1]:
            self._waiting.put(None)
        self._held.put(None)
        for thread in self._threads:
            thread.join(ENDING_S)

    def _work(self, runner: Runner) -> None:
        while (taken := self._waiting.get()) is not None:
            asked, responses = taken
            if self.failed is None:
                try:
                    runner.run(self._inputs)
                except self._lost:
                    with self._counting:
                        self.lost += len(responses)
                    self._held.put((asked + self._held_s, responses))
                    continue
                except Exception as error:  # through LoadGen's C++ nothing can be raised: it is raised when LoadGen has ended
                    self.failed = error
            self._complete([self._response(response, 0, 0) for response in responses])

    def _hold(self) -> None:
        while (taken := self._held.get()) is not None:
            due, responses = taken
            if self.failed is None:
                time.sleep(max(0.0, due - time.monotonic()))
            self._complete([self._response(response, 0, 0) for response in responses])


def drive(
    runners: Sequence[Runner],
    inputs: Inputs,
    asked: Scenario,
    *,
    lost: tuple[type[Exception], ...] = (),
    tell: Callable[[Many], None] = lambda system: None,
) -> Logged:
    """`asked.batch` samples a call. tell: is shown the system when the run is over. Raises what a runner raised that isn't `lost`."""
    import mlperf_loadgen as loadgen

    def system() -> Many:
        return Many(runners, inputs, asked.batch, loadgen, lost, 2.0 * asked.latency_ms / 1e3)

    settings = driving.settings_of(loadgen, asked)
    if not asked.samples:
        settings.offline_expected_qps = driving.MORE * driving.tried(loadgen, system(), asked)
    made = system()
    summary, detail = driving.run(loadgen, made, settings)
    tell(made)
    return Logged(summary, detail, importlib.metadata.version("mlcommons-loadgen"), made.queries, made.samples)
