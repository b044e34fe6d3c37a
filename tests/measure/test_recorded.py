"""A device that is away: what was measured there is told as it was, the rest is estimated, and all of it says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewise import devices, measure
from edgewise.errors import InvalidInput, MeasurementFailed
from edgewise.graph import Graph, parts
from edgewise.measure import Subject, elsewhere
from edgewise.measure.recorded import MARK, Log
from edgewise.measure.roofline import roofline_ms
from edgewise.measure.table import latency_table
from edgewise.records import Conditions, Device, Latency, Measurement, Peaks
from edgewise.testing import graphs
from edgewise.types import Execution, to_json

ORT = Execution("onnxruntime")
PEAKS = Peaks(1, 10.0, 40.0, 5.0)
PI = replace(devices.local(), name="pi", address="https://pi:7070")


def took(milliseconds: float, execution: Execution = ORT) -> Measurement:
    conditions = Conditions("pi", "onnxruntime 1", 1, (0,), None, None, None, None, "2026-01-01T00:00:00+00:00")
    return Measurement(execution, conditions, Latency((milliseconds,) * 9), 1.0, 1.0, 100, 1000, None, None, "none", None)


def mlp(hidden: int) -> tuple[Graph, dict[str, np.ndarray]]:
    model, inputs = graphs.mlp(hidden, batch=1)
    return Graph.from_proto(model), inputs


@pytest.fixture
def away(tmp_path: Path) -> Device:
    """A profile that knows two nets, each five times over its roofline."""
    log = Log(tmp_path / "kept")
    log.peaked(PEAKS)
    for hidden in (64, 256):
        graph, inputs = mlp(hidden)
        work = measure.work(graph, inputs)
        assert work is not None
        log.measured(Subject(graph.to_bytes(), ORT), inputs, work, took(5 * roofline_ms(PEAKS, work)))
    (tmp_path / "pi.json").write_bytes(to_json(log.profile(PI)))
    return elsewhere.stand_in(tmp_path / "pi.json", "pi")


def test_what_was_measured_is_told_as_it_was(away: Device) -> None:
    graph, inputs = mlp(64)
    work = measure.work(graph, inputs)
    assert work is not None
    found = measure.profile(graph.to_bytes(), ORT, inputs, away, work=work)
    assert found.latency.p50_ms == pytest.approx(5 * roofline_ms(PEAKS, work)) and len(found.latency.samples_ms) == 9
    assert MARK in found.conditions.device and away.name == found.conditions.device
    assert any(MARK in text for text in measure.interruptions(away))


def test_other_models_are_estimated_by_their_rooflines(away: Device) -> None:
    graph, inputs = mlp(128)
    work = measure.work(graph, inputs)
    assert work is not None
    found = measure.profile(graph.to_bytes(), ORT, inputs, away, work=work)
    assert found.latency.samples_ms == (pytest.approx(5 * roofline_ms(PEAKS, work)),)
    small, large = (Subject(mlp(hidden)[0].to_bytes(), ORT) for hidden in (64, 128))
    speedup = measure.compare(large, small, inputs, away)
    known = measure.work(mlp(64)[0], inputs)
    assert known is not None
    assert speedup.ratio.value == pytest.approx(roofline_ms(PEAKS, work) / roofline_ms(PEAKS, known))
    assert not speedup.conclusive and MARK in speedup.reference_conditions.device
    first, second = measure.race([large, small], inputs, away)
    assert first.ratio and second.ratio and second.ratio.value == pytest.approx(speedup.ratio.value)
    assert measure.peaks(away, 1) == PEAKS


def test_what_it_cannot_know_is_said(away: Device, tmp_path: Path) -> None:
    graph, inputs = mlp(128)
    with pytest.raises(MeasurementFailed, match="nothing was measured there on openvino"):
        measure.profile(graph.to_bytes(), Execution("openvino"), inputs, away)
    with pytest.raises(MeasurementFailed, match="no latency table of this model"):
        latency_table(graph, parts(graph), ORT, inputs, away)
    with pytest.raises(MeasurementFailed, match="no peaks for 2 threads"):
        measure.peaks(away, 2, cache=tmp_path)
    with pytest.raises(InvalidInput, match="nothing was measured on pi yet"):
        Log(tmp_path / "empty").profile(PI)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InvalidInput, match="no profile of a device"):
        elsewhere.stand_in(tmp_path / "other.json", "pi")
    with pytest.raises(InvalidInput, match="not connected"):
        measure.profile(graph.to_bytes(), ORT, inputs, replace(PI, address="https://nobody:7070"))
