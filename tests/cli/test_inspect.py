"""`edgewise inspect` on packages, models and what is neither."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from edgewise import package
from edgewise.cli.inspect import command
from edgewise.data.postprocess import Classify
from edgewise.data.preprocess import ImagePreprocess
from edgewise.errors import InvalidModel, InvalidPackage
from edgewise.graph import Graph
from edgewise.package import Form, Measured, Provenance
from edgewise.records import DataSummary, Interval
from edgewise.types import Execution

app = typer.Typer()
app.command()(command)


@pytest.fixture(autouse=True)
def at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


def digits_graph() -> Graph:
    weight = np.random.default_rng(0).normal(size=(16, 10)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], name="flatten"),
            helper.make_node("MatMul", ["flat", "w"], ["logits"], name="fc"),
        ],
        "digits",
        [helper.make_tensor_value_info("image", 1, ["batch", 1, 4, 4])],
        [helper.make_tensor_value_info("logits", 1, ["batch", 10])],
        [numpy_helper.from_array(weight, "w")],
    )
    return Graph.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name="test"))


def measured() -> Measured:
    return Measured(
        device="a small computer",
        execution=Execution("onnxruntime"),
        summary="2.61x faster at 0.1 points less accuracy: the budget is met.",
        met=True,
        speedup=Interval(2.61, 2.59, 2.63, 40),
        latency_p50_ms=0.41,
        latency_p90_ms=0.43,
        latency_p99_ms=0.5,
        latency_n=2000,
        reference_p50_ms=1.07,
        cold_start_ms=5.5,
        peak_memory_bytes=3_000_000,
        metric="accuracy",
        quality=Interval(0.929, 0.924, 0.934, 10_000),
        reference_quality=Interval(0.93, 0.925, 0.935, 10_000),
        drop=Interval(-0.001, -0.003, 0.001, 10_000),
        energy_mj=1.5,
        energy_source="modelled: 3 W a core",
    )


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "digits.edgew"
    package.build(
        digits_graph(),
        created="2026-01-01T00:00:00Z",
        preprocess=ImagePreprocess((4, 4), 1, (0.5,), (0.5,)),
        postprocess=Classify(tuple(f"digit {i}" for i in range(10))),
        execution=Execution("onnxruntime", threads=1),
        provenance=Provenance(
            "digits.onnx", "ab" * 32, "quantize(bits=8)", "out/study",
            DataSummary("image-classification", "accuracy", "digits/", "f", {}, ()),
            versions={"edgewise": "0.1.0"}, reference=Execution("openvino"),
        ),
        measured=measured(),
        forms={"lowered": Form(digits_graph(), "engine", "openvino")},
    ).save(path)  # fmt: skip
    return path


def test_a_package_reads_well_at_80_columns(packed: Path) -> None:
    result = CliRunner().invoke(app, [str(packed)])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 80
    text = " ".join(result.output.split())
    for said in (
        "digits.edgew an edgewise package", "every byte verified, not signed", "main graph 160 5", "engine for openvino",
            "w float32 16×10 float planes 640 B",
        "image: float32, batch × 1 × 4 × 4", "logits: float32, batch × 10", "a picture (.png, .jpg …), stretched to 4×4, grey",
        "10: digit 0, digit 1", "1 Flatten, 1 MatMul", "quantize(bits=8)", "ab" * 20, "openvino fp32 ×1, true fp32", "edgewise 0.1.0",
        "What it measured on a small computer", "2.61× (95%: 2.59× to 2.63×, n=40)", "410 µs median|0.410 ms median", "1.07 ms median",
        "92.90 %|92.9 %", "−0.10 points", "1.50 mJ (modelled: 3 W a core)",
    ):  # fmt: skip
        assert any(one in text or one.replace(" ", "") in text.replace(" ", "") for one in said.split("|")), (said, result.output)


def test_a_package_as_json(packed: Path) -> None:
    record = json.loads(CliRunner().invoke(app, [str(packed), "--json"]).output)
    assert record["kind"] == "package"
    assert record["content_id"] == package.open(packed).content_id
    assert record["entries"][0]["parameters"] == 160
    assert record["graph"]["operators"] == {"Flatten": 1, "MatMul": 1}
    assert record["measured"]["speedup"]["value"] == 2.61
    assert record["signed"] is False
    (weight,) = record["entries"][0]["weights"]
    assert (weight["name"], weight["coder"], weight["raw_bytes"]) == ("w", "float planes", 640) and weight["stored_bytes"] < 640


def test_a_model(tmp_path: Path) -> None:
    digits_graph().save(tmp_path / "digits.onnx")
    result = CliRunner().invoke(app, [str(tmp_path / "digits.onnx")])
    text = " ".join(result.output.split())
    for said in ("an ONNX model", "parameters 160", "MACs 160 for one sample", "1 Flatten, 1 MatMul", "ai.onnx 18", "made with test"):
        assert said in text, (said, result.output)
    record = json.loads(CliRunner().invoke(app, [str(tmp_path / "digits.onnx"), "--json"]).output)
    assert (record["macs"], record["parameters"], record["opsets"]) == (160, 160, {"ai.onnx": 18})
    assert record["signature"]["inputs"] == [{"name": "image", "shape": ["batch", 1, 4, 4], "dtype": "float32"}]


def test_what_can_not_be_read_is_an_error_in_our_words(packed: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.edgew"
    damaged.write_bytes(packed.read_bytes()[:-1])
    assert isinstance(CliRunner().invoke(app, [str(damaged)]).exception, InvalidPackage)
    (tmp_path / "text.onnx").write_text("no model")
    assert isinstance(CliRunner().invoke(app, [str(tmp_path / "text.onnx")]).exception, InvalidModel)
    missing = CliRunner().invoke(app, [str(tmp_path / "none.edgew")]).exception
    assert "does not exist" in str(missing)


def test_texts_of_a_package_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07[bold red]x[/bold red]\r"
    path = tmp_path / "a.edgew"
    package.build(
        digits_graph(), created=evil, labels=(evil,) * 10, provenance=Provenance(evil, recipe=evil, versions={evil: evil}), measured=None
    ).save(path)
    result = CliRunner().invoke(app, [str(path)])
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "\x07" not in result.output
    assert "[boldred]x[/boldred]" in "".join(result.output.split())
