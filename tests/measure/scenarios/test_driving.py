"""LoadGen itself over runners that sleep for a known time."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import numpy as np
import pytest

from edgewise.errors import InvalidInput
from edgewise.measure.messages import Logged, Scenario
from edgewise.measure.scenarios import Summary, parse
from edgewise.measure.scenarios.driving import drive
from edgewise.types import Inputs, Outputs, Signature, TensorSpec

pytest.importorskip("mlperf_loadgen", reason="needs MLPerf's LoadGen: pip install 'edgewise[loadgen]'")

X = {"x": np.zeros((1, 4), np.float32)}


class Sleeper:
    """A Runner whose calls take `milliseconds`; the `fails`-th raises."""

    signature = Signature((TensorSpec("x", ("batch", 4), "float32"),), (TensorSpec("y", ("batch", 4), "float32"),))

    def __init__(self, milliseconds: float, fails: int = 0) -> None:
        self.seconds, self.fails, self.calls = milliseconds / 1e3, fails, 0

    def run(self, inputs: Inputs) -> Outputs:
        self.calls += 1
        if self.calls == self.fails:
            raise InvalidInput("this model fails at its second call")
        time.sleep(self.seconds)
        return {"y": inputs["x"]}

    def close(self) -> None:
        pass


def driven(runner: Sleeper, name: str, samples: int, *, queries: int, batch: int = 1, seconds: float = 0.2) -> tuple[Logged, Summary]:
    asked = Scenario(name, seconds, queries, samples, 0.9 if name == "SingleStream" else 0.99, batch, runner.seconds * 1e3)
    logged = drive(runner, X, asked)
    return logged, parse(logged.summary)


def test_single_stream_is_one_sample_after_another() -> None:
    runner = Sleeper(4)
    logged, found = driven(runner, "SingleStream", 1, queries=64)
    assert runner.calls == logged.queries == logged.samples >= 64
    assert (found.scenario, found.valid, found.reasons) == ("SingleStream", True, ())
    assert 4 <= found.min_ms <= found.percentiles_ms["50"] <= found.percentiles_ms["90"]
    assert found.percentiles_ms["50"] < 8  # a sleep is late by some tenths of a millisecond, and this machine may be busy
    assert 50 < found.samples_per_second <= 250
    assert logged.version and "result_validity" in logged.detail


def test_multi_stream_asks_for_eight_which_are_eight_calls() -> None:
    runner = Sleeper(1)
    logged, found = driven(runner, "MultiStream", 8, queries=20)
    assert runner.calls == logged.samples == 8 * logged.queries
    assert 8 <= found.percentiles_ms["50"] < 16
    assert found.samples_per_second == pytest.approx(8e3 / found.mean_ms)
    assert not found.valid
    assert "Early stopping satisfied: NO" in found.reasons
    assert any("Need to process at least 662 queries" in reason for reason in found.reasons)


def test_multi_stream_asks_for_eight_which_may_be_one_call() -> None:
    runner = Sleeper(2)
    logged, found = driven(runner, "MultiStream", 8, queries=20, batch=8)
    assert runner.calls == logged.queries
    assert 2 <= found.percentiles_ms["50"] < 6


def test_offline_asks_for_all_at_once() -> None:
    runner = Sleeper(2)
    logged, found = driven(runner, "Offline", 0, queries=1, batch=3)
    assert logged.queries == 1
    assert runner.calls > -(-logged.samples // 3)  # some were tried before, to learn how many to ask for
    assert found.parameters["samples_per_query"] == str(logged.samples)
    assert 300 < found.samples_per_second <= 1500


def test_offline_that_ends_too_soon_is_invalid() -> None:
    class Warming(Sleeper):
        """Ten times as fast as it was when it was tried."""

        def run(self, inputs: Inputs) -> Outputs:
            if self.calls == 3:
                self.seconds = 0.001
            return super().run(inputs)

    runner = Warming(10)
    asked = Scenario("Offline", 0.5, 1, 0, 0.99, 1, 10.0)
    found = parse(drive(runner, X, asked).summary)
    assert not found.valid
    assert found.reasons[0] == "Min duration satisfied: NO"
    assert "Increase expected QPS" in found.reasons[1]


def test_what_a_runner_raises_is_raised_when_loadgen_has_ended() -> None:
    runner = Sleeper(1, fails=2)
    with pytest.raises(InvalidInput, match="fails at its second call"):
        driven(runner, "SingleStream", 1, queries=5)
    assert runner.calls == 2
    assert gc.isenabled()


def test_nothing_is_left_or_read_where_one_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audit.config").write_text("*.*.min_query_count = 1\n*.*.min_duration = 1\n")
    logged, _ = driven(Sleeper(1), "SingleStream", 1, queries=70, seconds=0.01)
    assert logged.queries >= 70
    assert [path.name for path in tmp_path.iterdir()] == ["audit.config"]
