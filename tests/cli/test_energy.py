"""--watts and --energy-mj from the shell: what is modelled says so, wherever it is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise import devices, measure, package
from edgewise.devices import Meter, meters
from edgewise.records import Device, Study
from edgewise.search import climb
from edgewise.types import Watts, from_json

Edgewise = Callable[..., tuple[int, str, str]]

SAID = "modelled: 4.2 W busy, 1.9 W idle, as stated"
LINE = ("--engines", "onnxruntime", "--threads", "1", "--max-drop", "50%", "--epochs", "0")


@pytest.fixture(autouse=True)
def quick(briefly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climb, "INT8", climb.INT8[:1])


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Device:
    """This machine without a meter, whatever it has."""
    device = replace(devices.local(), energy="none: no meter that a test may read")
    monkeypatch.setattr(devices, "local", lambda: device)
    monkeypatch.setattr(meters, "best", lambda **_: None)
    return device


@pytest.fixture
def metered(monkeypatch: pytest.MonkeyPatch) -> None:
    device = replace(devices.local(), energy="RAPL (1 package)")
    monkeypatch.setattr(devices, "local", lambda: device)
    monkeypatch.setattr(meters, "best", lambda **_: Meter("RAPL (1 package)", lambda: lambda: 2.0))


def flat(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def all_words(said: str, shown: str) -> bool:
    """Of what a table's cell breaks into lines."""
    return set(said.split()) <= set(flat(shown).split())


def test_measure_models_and_says_so(edgewise: Edgewise, bare: Device, model: Path) -> None:
    line = ("measure", model, "--threads", "1", "--backends", "onnxruntime", "--seconds", "0.05")
    code, out, err = edgewise(*line, "--watts", "idle=1.9,busy=4.2")
    assert code == 0, err
    assert SAID in flat(out) and " mJ" in out
    assert max(map(len, out.splitlines())) <= 80
    record = json.loads(edgewise(*line, "--watts", "idle=1.9,busy=4.2", "--json")[1])
    (found,) = record["measurements"]
    assert found["energy_source"] == record["device"]["energy"] == SAID
    assert found["energy_mj"] == pytest.approx(4.2 * 1e3 / found["throughput_per_s"])
    assert record["device"]["watts"] == {"busy": 4.2, "idle": 1.9}


def test_without_a_meter_measure_says_that_there_is_none(edgewise: Edgewise, bare: Device, model: Path) -> None:
    out = edgewise("measure", model, "--threads", "1", "--backends", "onnxruntime", "--seconds", "0.05")[1]
    assert "Energy: none: no meter that a test may read." in flat(out)
    assert "--watts" in out


def test_a_meter_wins_over_stated_watts(edgewise: Edgewise, metered: None, model: Path) -> None:
    line = ("measure", model, "--threads", "1", "--backends", "onnxruntime", "--seconds", "0.05", "--watts", "busy=4.2")
    out = flat(edgewise(*line)[1])
    assert "idle part included (RAPL (1 package))" in out
    assert "busy=4.2 W weren't needed" in out
    assert "modelled" not in out


def test_watts_that_state_nothing_are_refused_before_any_work(edgewise: Edgewise, model: Path, data: Path, tmp_path: Path) -> None:
    for line in (("measure", model), ("fit", model, "--data", data, "--energy-mj", "9", "-o", tmp_path / "out")):
        code, _, err = edgewise(*line, "--watts", "4.2")
        assert (code, "as idle=1.9,busy=4.2" in err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_fit_within_modelled_millijoules(edgewise: Edgewise, bare: Device, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = ("fit", model, "--data", data, *LINE, "--energy-mj", "1000", "--watts", "idle=1.9,busy=4.2", "-o", out)
    code, shown, err = edgewise(*line)
    assert code == 0, err
    assert "modelled" in shown and all_words(f"Energy per inference, {SAID}", shown)
    study = from_json((out / "study/study.json").read_bytes(), Study)
    assert study.device.watts == Watts(4.2, 1.9) and study.device.energy == SAID
    verdict = study.verdict
    assert verdict is not None and SAID in verdict.summary
    (outcome,) = [one for one in verdict.outcomes if one.limit == "energy_mj"]
    assert (outcome.source, outcome.met) == (SAID, True)
    assert verdict.measurement.energy_source == verdict.reference_measurement.energy_source == SAID
    assert all(trial.measurement is None or trial.measurement.energy_source == SAID for trial in study.trials)
    page = (out / "report.html").read_text()
    assert SAID in page and "--watts idle=1.9,busy=4.2" in page
    measured = package.open(out / "model.edgew").manifest.measured
    assert measured is not None and measured.energy_source == measured.outcomes[0].source == SAID
    assert SAID in flat(edgewise("inspect", out / "model.edgew")[1])
    assert "finished before" in edgewise(*line)[1]
    # Other watts are another study: nothing of the one before is taken for it.
    other = (*line[: line.index("--watts")], "--watts", "busy=9", "-o", out)
    code, shown, err = edgewise(*other)
    assert code == 0, err
    assert "finished before" not in shown and all_words("modelled: 9 W busy, as stated", shown)


def test_missed_millijoules_say_how_they_are_known(edgewise: Edgewise, bare: Device, model: Path, data: Path, tmp_path: Path) -> None:
    line = ("fit", model, "--data", data, *LINE, "--energy-mj", "0.000001", "-o", tmp_path / "out")
    code, shown, err = edgewise(*line, "--watts", "busy=4.2")
    assert code == 3, err
    assert "energy per inference, modelled is" in flat(shown)
    verdict = from_json((tmp_path / "out/study/study.json").read_bytes(), Study).verdict
    assert verdict is not None and "mJ (modelled: 4.2 W busy, as stated) spent" in verdict.summary


def test_fit_within_measured_millijoules(edgewise: Edgewise, metered: None, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, shown, err = edgewise("fit", model, "--data", data, *LINE, "--energy-mj", "1e6", "--watts", "busy=4.2", "-o", out)
    assert code == 0, err
    assert "weren't needed" in flat(shown)
    assert all_words("Energy per inference, measured RAPL (1 package)", shown)
    verdict = from_json((out / "study/study.json").read_bytes(), Study).verdict
    assert verdict is not None and "RAPL (1 package)" in verdict.summary and "modelled" not in verdict.summary


def test_fit_with_neither_is_refused_and_names_watts(edgewise: Edgewise, bare: Device, model: Path, data: Path, tmp_path: Path) -> None:
    code, _, err = edgewise("fit", model, "--data", data, *LINE, "--energy-mj", "12", "-o", tmp_path / "out")
    assert code == 2
    assert "no meter that a test may read" in err and "--watts idle=1.9,busy=4.2" in err
    assert not (tmp_path / "out").exists()


def test_profile_of_a_device_elsewhere_is_modelled_here(bare: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stated of a device is stated here; its worker knows nothing of it."""
    from edgewise.measure import elsewhere
    from edgewise.records import Conditions, Latency, Measurement
    from edgewise.types import Execution

    told = Measurement(
        Execution("e"), Conditions("far", "e 1", 1, (), None, None, None, None, ""), Latency((2.0,)), 1, 1, 1, 1, throughput_per_s=500.0
    )

    class There:
        def profile(self, *_: object) -> Measurement:
            return told

    monkeypatch.setattr(elsewhere, "of", lambda device: There())
    far, _ = devices.stated(replace(bare, address="https://far:7070"), Watts(4.2))
    found = measure.profile(b"", Execution("e"), {}, far)
    assert (found.energy_mj, found.energy_source) == (pytest.approx(8.4), "modelled: 4.2 W busy, as stated")
