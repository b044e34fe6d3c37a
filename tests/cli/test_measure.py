"""`edgewise measure` on a tiny model, with real engines and short times."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgewise import backends, measure, package
from edgewise.cli import given
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.records import Peaks
from edgewise.testing import graphs
from edgewise.types import Signature, TensorSpec

Edgewise = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "peaks", lambda device, threads: Peaks(threads, 50.0, 100.0, 10.0))
    monkeypatch.setattr(measure, "race", partial(measure.race, block_ms=5, rounds=6))
    monkeypatch.setattr(measure, "profile", partial(measure.profile, min_samples=10))


def test_every_engine_is_measured(edgewise: Edgewise, model: Path) -> None:
    code, out, err = edgewise("measure", model, "--threads", "1", "--seconds", "0.05")
    assert code == 0, err
    assert max(map(len, out.splitlines())) <= 80
    for engine in backends.installed():
        assert engine in out
    for said in ("p99", "Cold start", "throughput", "first call", "1.0 by definition", "Ratios are what counts", "image 1×1×8×8"):
        assert said in out, out


def test_as_json_with_a_batch(edgewise: Edgewise, model: Path) -> None:
    code, out, _ = edgewise("measure", model, "--threads", "1", "--backends", "onnxruntime", "--seconds", "0.05", "--batch", "3", "--json")
    record = json.loads(out)
    assert code == 0
    assert record["inputs"] == {"image": [3, 1, 8, 8]}
    (found,) = record["measurements"]
    assert found["execution"]["backend"] == "onnxruntime"
    assert found["size_bytes"] == Graph.load(model).size_bytes
    assert found["roofline_share"] > 0
    assert len(found["latency"]["samples_ms"]) >= 10


def test_a_package_is_measured_as_the_file_that_it_is(edgewise: Edgewise, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.edgew"
    package.build(Graph.load(model), created="2026-01-01T00:00:00Z").save(path)
    code, out, _ = edgewise("measure", path, "--threads", "1", "--backends", "onnxruntime", "--seconds", "0.05", "--json")
    assert code == 0
    assert json.loads(out)["measurements"][0]["size_bytes"] == path.stat().st_size


def test_one_engine_that_fails_does_not_end_it(edgewise: Edgewise, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = measure.profile

    def profile(model_bytes: bytes, execution: object, *rest: object, **options: object) -> object:
        if getattr(execution, "backend", "") == "openvino":
            raise InvalidInput("openvino can't load the model: no such operator")
        return real(model_bytes, execution, *rest, **options)  # type: ignore[arg-type]

    if "openvino" not in backends.installed():
        pytest.skip("needs two engines")
    monkeypatch.setattr(measure, "profile", profile)
    code, out, _ = edgewise("measure", model, "--threads", "1", "--seconds", "0.05")
    assert code == 0
    assert "✗ openvino fp32 ×1: openvino can't load the model" in out


def test_when_none_can_the_reason_is_the_error(edgewise: Edgewise, tmp_path: Path) -> None:
    (tmp_path / "odd.onnx").write_bytes(graphs.unknown_operator())
    code, _, err = edgewise("measure", tmp_path / "odd.onnx", "--threads", "1", "--backends", "onnxruntime", "--seconds", "0.05")
    assert code == 4
    assert "NoSuchOperator" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threads", "0"], "give 1 to"),
        (["--threads", "a"], "as 1,2"),
        (["--backends", "fastest"], "unknown backend"),
        (["--data", "missing.npy"], "missing.npy"),
    ],
)
def test_wrong_options(edgewise: Edgewise, model: Path, arguments: list[str], said: str) -> None:
    code, _, err = edgewise("measure", model, *arguments)
    assert code == 2
    assert said in err


@pytest.mark.parametrize("name", ["missing.onnx", "missing.edgew", "missing.pt2", "nonsense"])
def test_wrong_models(edgewise: Edgewise, name: str) -> None:
    assert edgewise("measure", name, "--threads", "1")[0] == 2


def test_drawn_inputs_fit_the_signature() -> None:
    specs = (
        TensorSpec("image", ("n", 3, 4, 4), "float32"),
        TensorSpec("ids", ("n", "sequence"), "int64"),
        TensorSpec("mask", ("n", "sequence"), "bool"),
        TensorSpec("bytes", ("n", 2), "uint8"),
    )
    drawn, notes = given.inputs(Signature(specs, ()), data=None, batch=2)
    assert {name: (array.shape, array.dtype.name) for name, array in drawn.items()} == {
        "image": ((2, 3, 4, 4), "float32"),
        "ids": ((2, 1), "int64"),
        "mask": ((2, 1), "bool"),
        "bytes": ((2, 2), "uint8"),
    }
    assert set(np.unique(drawn["ids"])) <= {0, 1}
    assert "sequence" in notes[0]
    again, _ = given.inputs(Signature(specs, ()), data=None, batch=2)
    assert all(np.array_equal(drawn[name], again[name]) for name in drawn)


def test_a_batch_that_the_model_fixes() -> None:
    spec = TensorSpec("x", (4, 2), "float32")
    assert given.inputs(Signature((spec,), ()), data=None, batch=4)[0]["x"].shape == (4, 2)
    with pytest.raises(InvalidInput, match="first axis is fixed"):
        given.inputs(Signature((spec,), ()), data=None, batch=3)


def test_real_inputs_from_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", ids=np.ones((2, 7), np.int64), scale=np.ones((2, 7), np.float32))
    onnx.save(graphs.two_inputs()[0], tmp_path / "two.onnx")
    signature = Graph.load(tmp_path / "two.onnx").signature
    assert given.inputs(signature, data=tmp_path / "x.npz", batch=1)[0]["ids"].shape == (2, 7)
