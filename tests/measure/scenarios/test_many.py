"""LoadGen over several runners, some of which refuse or fail."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edgewise.errors import InvalidInput
from edgewise.measure.messages import Scenario
from edgewise.measure.scenarios import many, parse
from edgewise.types import Inputs, Outputs, Signature, TensorSpec

pytest.importorskip("mlperf_loadgen", reason="needs MLPerf's LoadGen: pip install 'edgewise[loadgen]'")

X = {"x": np.zeros((1, 4), np.float32)}


class Full(Exception):
    pass


class Sleeper:
    """A Runner whose calls take `seconds`; every `refuses`-th is refused, the `fails`-th raises. One caller at a time, as it checks."""

    signature = Signature((TensorSpec("x", ("batch", 4), "float32"),), (TensorSpec("y", ("batch", 4), "float32"),))

    def __init__(self, seconds: float, refuses: int = 0, fails: int = 0) -> None:
        self.seconds, self.refuses, self.fails, self.calls = seconds, refuses, fails, 0
        self._alone = threading.Lock()

    def run(self, inputs: Inputs) -> Outputs:
        assert self._alone.acquire(blocking=False)
        try:
            self.calls += 1
            if self.refuses and self.calls % self.refuses == 0:
                raise Full
            if self.calls == self.fails:
                raise InvalidInput("this model fails")
            time.sleep(self.seconds)
            return {"y": inputs["x"]}
        finally:
            self._alone.release()

    def close(self) -> None:
        pass


def server(queries: int, qps: float, latency_ms: float) -> Scenario:
    return Scenario("Server", 0.2, queries, 1, 0.99, 1, 1.0, qps=qps, latency_ms=latency_ms)


def test_server_asks_at_its_own_moments() -> None:
    runners, seen = [Sleeper(0.02) for _ in range(16)], []
    logged = many.drive(runners, X, server(200, 200.0, 2000.0), tell=seen.append)
    found = parse(logged.summary)
    assert found.scenario == "Server" and found.checks["Performance constraints satisfied"] == "Yes"
    assert logged.queries == logged.samples == sum(runner.calls for runner in runners) >= 200
    # One after another these would be 50 a second.
    assert sum(runner.calls > 0 for runner in runners) > 2 and found.samples_per_second > 60
    assert found.min_ms >= 20 and (seen[0].lost, seen[0].failed) == (0, None)


def test_what_is_refused_counts_as_late() -> None:
    seen: list[many.Many] = []
    logged = many.drive([Sleeper(0.001, refuses=10)], X, server(100, 200.0, 50.0), lost=(Full,), tell=seen.append)
    found = parse(logged.summary)
    assert not found.valid and seen[0].lost == logged.samples // 10
    assert found.max_ms >= 99


def test_offline_keeps_every_runner_busy() -> None:
    runners = [Sleeper(0.005) for _ in range(4)]
    logged = many.drive(runners, X, Scenario("Offline", 0.3, 1, 0, 0.99, 2, 5.0))
    assert logged.queries == 1 and min(runner.calls for runner in runners) > 3
    assert parse(logged.summary).samples_per_second > 500  # four runners, two samples a call, 200 calls a second: 1,600


def test_a_failure_is_raised_when_loadgen_has_ended() -> None:
    with pytest.raises(InvalidInput, match="this model fails"):
        many.drive([Sleeper(0.001, fails=5)], X, server(100, 500.0, 50.0), lost=(Full,))
    assert threading.active_count() < 20
