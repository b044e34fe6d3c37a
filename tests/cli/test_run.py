"""`edgewise run`: what comes out is what preprocessing, engine and labels say; what can't go in is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from onnx import helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner, Result

from edgewise import backends, package
from edgewise.cli.run import command
from edgewise.data.postprocess import Classify, softmax
from edgewise.data.preprocess import ImagePreprocess
from edgewise.errors import InvalidData, InvalidInput, InvalidPackage
from edgewise.graph import Graph
from edgewise.testing import graphs
from edgewise.types import Execution

app = typer.Typer()
app.command()(command)

FORMS = Path(__file__).parents[1] / "backends" / "forms"
PREPROCESS = ImagePreprocess((4, 4), 1, (0.5,), (0.5,))
WEIGHT = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
PIXELS = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


def picture_graph(batch: int | str = "batch") -> Graph:
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])],
        "pictures",
        [helper.make_tensor_value_info("image", 1, [batch, 1, 4, 4])],
        [helper.make_tensor_value_info("logits", 1, [batch, 3])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    return Graph.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


def two_inputs_graph() -> Graph:
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])],
        "two",
        [helper.make_tensor_value_info("a", 1, ["batch", 2]), helper.make_tensor_value_info("b", 1, ["batch", 2])],
        [helper.make_tensor_value_info("c", 1, ["batch", 2])],
    )
    return Graph.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def failed(*arguments: object) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, InvalidInput), (result.exception, result.output)
    return str(result.exception)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "pictures.edgew"
    best = Execution("onnxruntime", threads=1, options={"spinning": "0"})
    package.build(
        picture_graph(), created="2026-01-01T00:00:00Z", preprocess=PREPROCESS, postprocess=Classify(("cat", "dog", "cow")), execution=best
    ).save(path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.fromarray(PIXELS).save(path)
    return path


def expected() -> np.ndarray:
    """(3,) probabilities, by numpy alone."""
    return softmax(PREPROCESS.apply(PIXELS).reshape(1, 16).astype(np.float64) @ WEIGHT)[0]


def test_a_picture_gives_labels_and_scores(packed: Path, picture: Path) -> None:
    (answer,) = json.loads(run(packed, picture, "--json").output)
    (sample,) = answer["predictions"]
    assert answer["input"] == str(picture)
    assert [prediction["class_index"] for prediction in sample] == np.argsort(-expected()).tolist()
    assert [prediction["score"] for prediction in sample] == pytest.approx(sorted(expected(), reverse=True), abs=1e-5)
    assert sample[0]["label"] == ("cat", "dog", "cow")[int(expected().argmax())]


def test_the_table_says_the_same(packed: Path, picture: Path) -> None:
    result = run(packed, picture, picture, "--top", 2)
    assert result.exit_code == 0, result.output
    best = int(expected().argmax())
    assert f"{('cat', 'dog', 'cow')[best]} {expected()[best]:.1%}" in " ".join(result.output.split())
    assert result.output.count("%") == 4
    assert "run by onnxruntime fp32 ×1 spinning=0" in result.output


def test_arrays_go_in_as_they_are(packed: Path, picture: Path, tmp_path: Path) -> None:
    fed = PREPROCESS.apply(PIXELS)
    np.save(tmp_path / "one.npy", fed)
    np.save(tmp_path / "two.npy", np.stack([fed, fed]))
    np.savez(tmp_path / "named.npz", image=fed[None])
    for_picture, one, two, named = json.loads(
        run(packed, picture, tmp_path / "one.npy", tmp_path / "two.npy", tmp_path / "named.npz", "--json").output
    )
    assert one["predictions"] == for_picture["predictions"] == named["predictions"]
    assert len(two["predictions"]) == 2
    assert "two.npy [1]" in run(packed, tmp_path / "two.npy").output


def test_a_plain_model_gives_its_outputs(tmp_path: Path) -> None:
    two_inputs_graph().save(tmp_path / "two.onnx")
    np.savez(tmp_path / "in.npz", a=np.float32([[1, 2]]), b=np.float32([[10, 20]]))
    (answer,) = json.loads(run(tmp_path / "two.onnx", tmp_path / "in.npz", "--json").output)
    assert answer["outputs"] == {"c": {"shape": [1, 2], "dtype": "float32", "values": [[11.0, 22.0]]}}
    assert "11, 22" in run(tmp_path / "two.onnx", tmp_path / "in.npz").output


def test_what_cannot_go_in_is_told(packed: Path, picture: Path, tmp_path: Path) -> None:
    def saved(array: Any, name: str = "a.npy") -> Path:
        np.save(tmp_path / name, array)
        return tmp_path / name

    assert "none.png does not exist" in failed(packed, tmp_path / "none.png")
    assert "is a folder" in failed(packed, tmp_path)
    assert "the model takes float32 (batch, 1, 4, 4)" in failed(packed, saved(np.zeros((1, 4, 4))))
    assert "the model takes float32 (batch, 1, 4, 4)" in failed(packed, saved(np.zeros((4, 4), np.float32)))
    assert "can't read" in failed(packed, saved(np.array([{}], dtype=object)))
    (tmp_path / "text.npy").write_text("not an array")
    assert "can't read" in failed(packed, tmp_path / "text.npy")
    header = np.lib.format.magic(1, 0) + b"v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }".ljust(120) + b"\n"
    (tmp_path / "bomb.npy").write_bytes(header)
    assert "can't read" in failed(packed, tmp_path / "bomb.npy")
    (tmp_path / "text.npz").write_text("not an archive")
    assert "can't read" in failed(packed, tmp_path / "text.npz")
    (tmp_path / "text.png").write_text("not a picture")
    assert "text.png" in failed(packed, tmp_path / "text.png")
    np.savez(tmp_path / "other.npz", other=np.zeros(3))
    assert "holds other; the model takes image" in failed(packed, tmp_path / "other.npz")
    picture_graph().save(tmp_path / "plain.onnx")
    assert "give an .npy of float32 (batch, 1, 4, 4)" in failed(tmp_path / "plain.onnx", picture)
    two_inputs_graph().save(tmp_path / "two.onnx")
    assert "2 inputs (a, b); give an .npz" in failed(tmp_path / "two.onnx", picture)
    assert "unknown backend 'abacus'" in failed(packed, picture, "--backend", "abacus")


def test_preprocessing_has_to_fit_the_model(picture: Path, tmp_path: Path) -> None:
    wrong = ImagePreprocess((5, 5), 1, (0.5,), (0.5,))
    package.build(picture_graph(), created="", preprocess=wrong).save(tmp_path / "a.edgew")
    result = run(tmp_path / "a.edgew", picture)
    assert isinstance(result.exception, InvalidPackage)
    assert "(1, 5, 5)" in str(result.exception)


@pytest.mark.skipif("litert" not in backends.installed(), reason="ai-edge-litert isn't installed")
def test_a_packages_own_form_answers_and_says_what_it_was_made_for(tmp_path: Path) -> None:
    model, inputs = graphs.two_inputs()
    forms = {"litert": package.OwnForm((FORMS / "float-two-inputs.tflite").read_bytes(), "litert")}
    graph, file = Graph.from_proto(model), tmp_path / "two.edgew"
    package.build(graph, created="2026-01-01T00:00:00Z", execution=Execution("litert"), forms=forms).save(file)
    for length in (3, 9):
        given = {"ids": np.ones((2, length), np.int64), "scale": np.ones((2, length), np.float32)}
        np.savez(tmp_path / "given.npz", **given)
        (found,) = json.loads(run(file, tmp_path / "given.npz", "--json").stdout)
        (plain,) = json.loads(run(file, tmp_path / "given.npz", "--json", "--backend", "onnxruntime").stdout)
        np.testing.assert_allclose(found["outputs"]["z"]["values"], plain["outputs"]["z"]["values"], rtol=1e-5)
    np.savez(tmp_path / "given.npz", **{name: np.ones((1, 10), array.dtype) for name, array in inputs.items()})
    assert "up to 9" in failed(file, tmp_path / "given.npz")


def test_nothing_is_run_from_a_damaged_package(packed: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed.write_bytes(packed.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(backends, "load", lambda *_: pytest.fail("an engine was asked"))
    assert "doesn't match its SHA-256" in failed(packed, picture)


def test_a_missing_engine_is_replaced_and_said(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.edgew"
    best = Execution("openvino", "bf16", 1, {"hint": "x"})
    package.build(picture_graph(), created="", preprocess=PREPROCESS, labels=("a", "b", "c"), execution=best).save(path)
    monkeypatch.setattr(backends, "installed", lambda: {"onnxruntime": backends.get("onnxruntime")})
    result = run(path, picture, "--threads", 1)
    assert result.exit_code == 0, result.exception
    text = " ".join(result.output.split())
    assert "run by onnxruntime fp32 ×1; openvino measured best, but isn't installed here: pip install 'edgewise[openvino]'" in text


def test_a_fixed_batch_takes_one_sample(picture: Path, tmp_path: Path) -> None:
    package.build(picture_graph(1), created="", preprocess=PREPROCESS, postprocess=Classify(("a", "b", "c"))).save(tmp_path / "a.edgew")
    (answer,) = json.loads(run(tmp_path / "a.edgew", picture, "--json").output)
    assert len(answer["predictions"]) == 1


def test_invalid_data_is_what_a_wrong_picture_raises(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    assert isinstance(run(packed, tmp_path / "text.png").exception, InvalidData)
