"""Scenarios in processes of their own, with a real engine."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

from edgewise.errors import InvalidInput, InvalidModel, MissingExtra
from edgewise.measure.scenarios import scenario
from edgewise.records import Device
from edgewise.testing import graphs
from edgewise.types import Execution, from_json, to_json

HERE = importlib.util.find_spec("mlperf_loadgen") is not None
needs_loadgen = pytest.mark.skipif(not HERE, reason="needs MLPerf's LoadGen: pip install 'edgewise[loadgen]'")
ORT = Execution("onnxruntime")


def mlp(batch: int) -> tuple[bytes, dict]:
    model, inputs = graphs.mlp(batch=batch)
    return model.SerializeToString(), inputs


@needs_loadgen
@pytest.mark.parametrize(("name", "batch"), [("single-stream", 1), ("multi-stream", 8), ("multi-stream", 1), ("offline", 4)])
def test_a_whole_run(device: Device, name: str, batch: int) -> None:
    model, inputs = mlp(batch)
    found = scenario(model, ORT, inputs, device, name=name, seconds=0.3, queries=50)
    said = found.summary
    assert said.scenario.lower() == name.replace("-", "")
    assert said.errors == 0
    assert found.batch == batch
    assert found.queries >= (1 if name == "offline" else 50)
    assert found.samples == found.queries * int(said.parameters["samples_per_query"])
    assert said.samples_per_second > 100
    assert (found.result_ms is None) == (name == "offline")
    assert found.caveat.startswith("not a compliant run: 0.3 s where MLPerf asks for 600")
    assert found.conditions.affinity and found.conditions.engine.startswith("onnxruntime ")
    assert "MLPerf Results Summary" in found.summary_text and ":::MLLOG" in found.detail_text
    assert from_json(to_json(found), type(found)) == found


@needs_loadgen
def test_an_engine_that_fails_is_told_as_it_is(device: Device, faulty: str) -> None:
    model, inputs = mlp(1)
    with pytest.raises(InvalidModel, match="refused"):
        scenario(model, Execution(faulty, options={"refuse": "1"}), inputs, device, name="offline", seconds=0.1)


@needs_loadgen
def test_what_can_not_be_asked_is_refused(device: Device) -> None:
    model, inputs = mlp(4)
    for given, said in (
        ({"name": "server"}, "one of single-stream"),
        ({"name": "single-stream"}, "these inputs are 4"),
        ({"name": "multi-stream"}, "give 8 or 1"),
        ({"name": "offline", "seconds": 0}, "more than 0 seconds"),
        ({"name": "offline", "queries": 0}, "at least one query"),
    ):
        with pytest.raises(InvalidInput, match=said):
            scenario(model, ORT, inputs, device, **given)
    with pytest.raises(InvalidInput, match="not connected"):
        scenario(model, ORT, inputs, replace(device, address="https://far:7070"), name="offline")


def test_without_loadgen_the_pip_line_is_said(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "mlperf_loadgen" else find(name, *rest))
    with pytest.raises(MissingExtra, match=r"pip install 'edgewise\[loadgen\]'"):
        scenario(b"", ORT, {}, device, name="offline")
