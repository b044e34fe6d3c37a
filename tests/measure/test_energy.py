"""Energy of a measurement: by a meter, by stated watts, or none; and which is said."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from edgewise import devices
from edgewise.devices import Meter, meters
from edgewise.measure import profile
from edgewise.measure.child import sample
from edgewise.testing import FakeClock, FakeRunner, graphs
from edgewise.types import Execution, Watts

QUICK = {"seconds": 0.1, "min_samples": 10}


@pytest.fixture(scope="module")
def mlp():
    model, inputs = graphs.mlp(batch=2)
    return model.SerializeToString(), inputs


def meter(watts: float | None) -> Meter:
    """Of a board that always takes so much; None: one that can't be read when it has to be."""

    def start():
        began = time.perf_counter()
        return lambda: None if watts is None else watts * (time.perf_counter() - began)

    return Meter("test meter", start)


def test_calls_before_the_first_sample_are_told():
    """The meter runs during them: energy per call is of all calls."""
    clock = FakeClock()
    runner = FakeRunner(clock, 5.0)
    timed = sample(runner, {"x": np.zeros((1, 4), np.float32)}, 1.0, 10, 100, clock)
    assert timed.warm == 20
    assert runner.calls == timed.calls + timed.warm


def test_by_a_meter(mlp, device, faulty, monkeypatch):
    monkeypatch.setattr(meters, "best", lambda **_: meter(3.0))
    found = profile(mlp[0], Execution(faulty, options={"ms": "5"}), mlp[1], device, **QUICK)
    assert found.energy_source == "test meter"
    mean_ms = 2e3 / found.throughput_per_s
    assert found.energy_mj == pytest.approx(3.0 * mean_ms, rel=0.3)


def test_a_meter_that_fails_is_said(mlp, device, monkeypatch):
    monkeypatch.setattr(meters, "best", lambda **_: meter(None))
    found = profile(mlp[0], Execution("onnxruntime"), mlp[1], device, **QUICK)
    assert found.energy_mj is None
    assert found.energy_source == "none: test meter could not be read"


def test_by_stated_watts_no_meter_is_asked(mlp, device, monkeypatch):
    monkeypatch.setattr(meters, "best", lambda **_: pytest.fail("a meter was asked"))
    modelled, _ = devices.stated(replace(device, energy="none: no meter"), Watts(busy=4.2, idle=1.9))
    found = profile(mlp[0], Execution("onnxruntime"), mlp[1], modelled, **QUICK)
    assert found.energy_mj == pytest.approx(4.2 * 2e3 / found.throughput_per_s)
    assert found.energy_source == "modelled: 4.2 W busy, 1.9 W idle, as stated"


def test_without_either_the_reason_is_said(mlp, device, monkeypatch):
    monkeypatch.setattr(meters, "best", lambda **_: None)
    found = profile(mlp[0], Execution("onnxruntime"), mlp[1], replace(device, energy="none: no meter here"), **QUICK)
    assert (found.energy_mj, found.energy_source) == (None, "none: no meter here")


CARD = """
from edgewise.backends.onnxruntime import OnnxRuntime

class Card(OnnxRuntime):
    gpu = True
"""


def test_an_engine_on_a_gpu_is_counted_there(mlp, device, tmp_path, monkeypatch):
    (tmp_path / "card_engine.py").write_text(CARD)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    asked = []
    monkeypatch.setattr(meters, "best", lambda gpu: asked.append(gpu))
    profile(mlp[0], Execution("card_engine:Card"), mlp[1], device, **QUICK)
    profile(mlp[0], Execution("onnxruntime"), mlp[1], device, **QUICK)
    assert asked == [True, False]
