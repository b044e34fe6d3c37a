"""`edgewise measure --scenario` on a tiny model."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewise import devices, measure
from edgewise.cli import scenario
from edgewise.measure.scenarios import ScenarioRun, Summary
from edgewise.records import Conditions
from edgewise.types import Execution

Edgewise = Callable[..., tuple[int, str, str]]

HERE = importlib.util.find_spec("mlperf_loadgen") is not None
needs_loadgen = pytest.mark.skipif(not HERE, reason="needs MLPerf's LoadGen: pip install 'edgewise[loadgen]'")
LINE = ("--threads", "1", "--backends", "onnxruntime", "--seconds", "0.2")


@pytest.fixture(autouse=True)
def no_other_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("peaks", "profile", "race"):
        monkeypatch.setattr(measure, name, lambda *_, **__: pytest.fail("measured besides"))


@needs_loadgen
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("single-stream", ("SingleStream", "p90", "one sample after another", "VALID")),
        ("multi-stream", ("MultiStream", "p99", "8 samples a query, 8 samples a call", "VALID")),
        ("offline", ("Offline", "samples/s", "all samples in one query, 8 samples a call")),
    ],
)
def test_each_shows_its_own_result(edgewise: Edgewise, model: Path, name: str, said: tuple[str, ...]) -> None:
    code, out, err = edgewise("measure", model, "--scenario", name, *LINE)
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    flat = " ".join(out.split())
    for words in (*said, "Not a compliant run: 0.2 s where MLPerf asks for 600", "Not verified by MLCommons", "onnxruntime fp32 ×1"):
        assert words in flat, out


def test_an_invalid_run_says_why_and_a_failed_one_too(capsys: pytest.CaptureFixture[str]) -> None:
    why = ("Early stopping satisfied: NO", "Only processed 75 queries.")
    said = Summary("MultiStream", False, {}, why, {"50": 2.1, "99": 5.9}, 2.7, 2.0, 5.9, 2940.0, {"samples_per_query": "8"})
    conditions = Conditions("here", "engine 1", 1, (0,), None, None, None, None, "2026-01-01")
    run = ScenarioRun("multi-stream", Execution("engine"), conditions, said, 10, 3, 1, 75, 600, "not a compliant run: short", "6.0", "", "")
    scenario.show(
        scenario.Runs(devices.local(), (run,), ((Execution("other"), "no such operator"),)),
        "net.onnx",
        {},
        ["an axis was set to 1"],
        heading=False,
    )
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "net.onnx, 8 samples a query, a sample a call",
        "engine fp32 ×1 INVALID 5.90 ms 2.10 ms 5.90 ms 75",
        "engine fp32 ×1 is INVALID: Early stopping satisfied: NO; Only processed 75 queries.",
        "Not a compliant run: short. Not verified by MLCommons.",
        "Note: an axis was set to 1.",
        "✗ other fp32 ×1: no such operator",
    ):
        assert words in shown, shown


@needs_loadgen
def test_as_json_with_loadgens_logs(edgewise: Edgewise, model: Path) -> None:
    code, out, err = edgewise("measure", model, "--scenario", "offline", "--batch", "4", *LINE, "--json")
    assert code == 0, err
    record = json.loads(out)
    (run,) = record["runs"]
    assert record["inputs"] == {"image": [4, 1, 8, 8]}
    assert (run["batch"], run["scenario"], run["queries"]) == (4, "offline", 1)
    assert "MLPerf Results Summary" in run["summary_text"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scenario", "server"], "there is no scenario 'server'; give one of single-stream, multi-stream, offline"),
        (["--scenario", "single-stream", "--batch", "4"], "asks for 1 samples at a time"),
        (["--scenario", "offline", "--watts", "busy=4"], "leave one of them out"),
        (["--queries", "4"], "is of a scenario"),
    ],
)
def test_what_does_not_go_together(edgewise: Edgewise, model: Path, arguments: list[str], said: str) -> None:
    code, _, err = edgewise("measure", model, *arguments)
    assert code == 2
    assert said in err


def test_without_loadgen_the_pip_line_is_said(edgewise: Edgewise, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "mlperf_loadgen" else find(name, *rest))
    code, _, err = edgewise("measure", model, "--scenario", "offline", *LINE)
    assert code == 2
    assert "pip install 'edgewise[loadgen]'" in err
