"""Other tools' models: read, refused, and measured as the verdict measures ours."""

import numpy as np
import pytest
import torch

import edgewise as ew
from edgewise import measure, search
from edgewise.compress.quantize import quantize
from edgewise.errors import InvalidInput
from edgewise.models.resnet import ResNet
from edgewise.search import beside


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 300)
    images = generator.integers(0, 120, (300, 12, 12), dtype=np.uint8) + (labels[:, None, None] * 30).astype(np.uint8)
    path = tmp_path_factory.mktemp("data") / "x.npz"
    np.savez(path, images=images, labels=labels)
    return ew.tasks.image_classification(path, calibration=16)


@pytest.fixture(scope="module")
def dense(task):
    torch.manual_seed(0)
    return ew.export.export(ResNet(blocks=1, classes=4, channels=1, width=4).eval(), task.example_inputs(2))


@pytest.fixture(autouse=True)
def quick(briefly, monkeypatch):
    monkeypatch.setattr(search.climb, "INT8", search.climb.INT8[:1])


def test_they_are_measured_on_the_test_split_beside_what_is_chosen(task, dense, tmp_path, monkeypatch):
    bound = task.for_model(dense.signature)
    quantize(dense, calibration=bound.calibration()).model.save(tmp_path / "theirs.onnx")
    asked = {"budget": ew.Budget(max_drop=0.5), "threads": 1, "engines": ("onnxruntime",), "epochs": 0, "out": tmp_path / "out"}
    study = ew.fit(dense, task, beside=[tmp_path / "theirs.onnx"], **asked).study
    (one,) = study.beside
    assert one.name == "theirs" and one.execution.backend == "onnxruntime"
    assert one.size_bytes == (tmp_path / "theirs.onnx").stat().st_size
    assert one.quality.split == "test" and one.drop.difference.n == study.verdict.quality.value.n
    # its answers are those of the file
    runner = ew.backends.load((tmp_path / "theirs.onnx").read_bytes(), one.execution)
    split = bound.unsealed().split("test")
    assert measure.quality(runner, split, metric="accuracy", labels=bound.labels).value == one.quality.value
    assert "theirs" in (tmp_path / "out" / "report.html").read_text()
    # asked again, it is read from the study
    monkeypatch.setattr(measure, "compare", None)
    assert ew.fit(dense, task, beside=[tmp_path / "theirs.onnx"], **asked).study.beside == (one,)


def test_what_no_engine_runs_becomes_a_note(task, dense, tmp_path):
    broken = dense.copy_proto()
    broken.graph.node[0].op_type = "NoSuchOperator"
    ew.graph.Graph.from_proto(broken).save(tmp_path / "broken.onnx")
    asked = {"budget": ew.Budget(max_drop=0.5), "threads": 1, "engines": ("onnxruntime",), "epochs": 0}
    study = ew.fit(dense, task, beside=[tmp_path / "broken.onnx"], **asked).study
    assert study.beside == () and any("broken isn't held beside" in note for note in study.notes)


def test_what_is_refused(dense, tmp_path):
    dense.save(tmp_path / "one.onnx")
    (tmp_path / "more").mkdir()
    dense.save(tmp_path / "more" / "one.onnx")
    with pytest.raises(InvalidInput, match="called one"):
        beside.read([tmp_path / "one.onnx", tmp_path / "more" / "one.onnx"], dense)
    with pytest.raises(InvalidInput, match=r"no\.onnx"):
        beside.read([tmp_path / "no.onnx"], dense)
    other = dense.copy_proto()
    name = other.graph.input[0].name
    other.graph.input[0].name = "pixels"
    for node in other.graph.node:
        for place, each in enumerate(node.input):
            node.input[place] = "pixels" if each == name else each
    ew.graph.Graph.from_proto(other).save(tmp_path / "other.onnx")
    with pytest.raises(InvalidInput, match="takes pixels, and the model"):
        beside.read([tmp_path / "other.onnx"], dense)
