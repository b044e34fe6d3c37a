"""A user's file, from any exporter: refused with a reason, or made canonical without changing what it computes."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx import parser as onnx_parser
from torch import nn

from edgewise.errors import InvalidModel
from edgewise.graph import Graph, canonical, read
from edgewise.models.resnet import resnet8


def parsed(text: str, opset: int = 18, **weights: np.ndarray) -> onnx.ModelProto:
    proto = onnx_parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>' + text)
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return proto


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def run(model: bytes, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(model, options).run(None, inputs)


def trained(module: nn.Module) -> nn.Module:
    """With batch statistics that are not those of initialisation."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias)
    return module.eval()


@pytest.mark.parametrize("exporter", ["old", "old, nothing folded", "dynamo, nothing folded"])
def test_both_exporters_of_torch_come_to_the_same_graph(exporter: str, tmp_path: Path) -> None:
    module = trained(resnet8())
    x = torch.randn(3, 1, 28, 28)
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter.startswith("old"):
            preserved = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False} if "," in exporter else {}
            torch.onnx.export(
                module,
                (x,),
                str(path),
                dynamo=False,
                opset_version=13,
                input_names=["image"],
                dynamic_axes={"image": {0: "n"}},
                **preserved,
            )
        else:
            shapes = ({0: torch.export.Dim("n")},)
            torch.onnx.export(module, (x,), str(path), dynamo=True, dynamic_shapes=shapes, optimize="," not in exporter, verbose=False)
    graph = read(path)
    assert [node.op_type for node in graph.proto.graph.node].count("Conv") == 9
    assert {node.op_type for node in graph.proto.graph.node} == {"Conv", "Relu", "Add", "ReduceMean", "Gemm"}
    assert graph.signature.inputs[0].shape == ("n", 1, 28, 28)
    assert graph.signature.outputs[0].shape == ("n", 10)
    assert graph.signature.batched
    (got,) = run(graph.to_bytes(), {"image": x.numpy()})
    np.testing.assert_allclose(got, module(x).detach().numpy(), rtol=1e-4, atol=1e-4)
    onnx.checker.check_model(graph.proto, full_check=True)


def test_reading_again_changes_nothing(tmp_path: Path) -> None:
    graph = canonical(parsed("g (float[n, 4] x) => (float[n, 4] y) { a = Identity(x)  b = Relu(a)  y = Identity(b) }"), "g")
    graph.save(tmp_path / "g.onnx")
    again = read(tmp_path / "g.onnx")
    assert again.sha256 == graph.sha256
    assert again.notes == ()


def test_canonical_form(tmp_path: Path) -> None:
    """Weights listed as inputs, Constant, Identity and Dropout nodes, equal and missing names, unused parts."""
    proto = parsed(
        "g (float[n, 4] x, float[4, 4] w) => (float[n, 4] y, float[n, 4] same) {"
        "c = Constant<value_floats=[1.0, 2.0, 3.0, 4.0]>()  i = Identity(x)  m = MatMul(i, w)  d = Dropout(m)  a = Add(d, c)"
        "unused = Sqrt(a)"
        "r = Relu(a)  y = Identity(r)  same = Identity(x) }",
        w=np.arange(16, dtype=np.float32).reshape(4, 4),
        forgotten=np.zeros(3, np.float32),
    )
    before = proto.SerializeToString()
    for node in proto.graph.node:
        node.name = "same"
        node.doc_string = "/home/somebody/model.py"
    proto.graph.node[2].name = ""
    graph = read(saved(proto, tmp_path))
    nodes = graph.proto.graph.node
    assert [node.op_type for node in nodes] == ["MatMul", "Add", "Relu", "Identity"]  # the last joins an input to an output
    assert len({node.name for node in nodes} - {""}) == len(nodes)
    assert [value.name for value in graph.proto.graph.input] == ["x"]
    assert {tensor.name for tensor in graph.proto.graph.initializer} == {"w", "c"}
    assert [spec.name for spec in graph.signature.outputs] == ["y", "same"]
    assert b"somebody" not in graph.to_bytes()
    assert any("Identity" in note for note in graph.notes)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    for got, expected in zip(run(graph.to_bytes(), {"x": x}), run(before, {"x": x}), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_one_batch_axis_under_several_names() -> None:
    """tf2onnx numbers every unknown axis; keras leaves them open; both mean the batch."""
    named = parsed("g (float[unk__615, 3, 8, 8] x) => (float[unk__616, 3] y) { a = GlobalAveragePool(x)  y = Flatten(a) }")
    graph = canonical(named, "tf2onnx")
    assert graph.signature.outputs[0].shape == ("unk__615", 3)
    assert graph.signature.batched
    unnamed = parsed("g (float[?, 3, 8, 8] x) => (float[?, 3] y) { a = GlobalAveragePool(x)  y = Flatten(a) }")
    graph = canonical(unnamed, "keras")
    assert graph.signature.inputs[0].shape == ("axis_0", 3, 8, 8)
    assert graph.signature.batched


def test_the_batch_is_followed_where_shapes_are_computed() -> None:
    """Inference loses the name in Reshape; the size tells. An axis that merely comes from the batch keeps its own name."""
    proto = parsed(
        "g (float[unk__1, 6] x) => (float[unk__2, 6] y, float[unk__3] z) { s = Shape(x)  d = Gather(s, zero)  e = Mul(d, two)"
        "f = Concat<axis=0>(e, three)"
        "h = Concat<axis=0>(d, six)  y = Reshape(x, h)  g2 = Reshape(x, f)  z = ReduceSum<keepdims=0>(g2, one) }",
        zero=np.array([0]), one=np.array([1]), two=np.array([2]), three=np.array([3]), six=np.array([6]),
    )  # fmt: skip
    graph = canonical(proto, "computed")
    assert [spec.shape for spec in graph.signature.outputs] == [("unk__1", 6), ("unk__3",)]


def test_open_axes_are_one_only_where_they_lead() -> None:
    proto = parsed("g (float[?, ?] x, float[2, ?, 8] s) => (float[?, ?] y, float[2, ?, 8] t) { y = Relu(x)  t = Neg(s) }")
    for value in proto.graph.input:
        value.type.tensor_type.shape.dim[1].dim_param = "?"  # as Paddle's exporter writes it
    graph = canonical(proto, "open")
    assert [spec.shape for spec in graph.signature.inputs] == [("axis_0", "x_axis_1"), (2, "s_axis_1", 8)]
    assert [spec.shape for spec in graph.signature.outputs] == [("axis_0", "x_axis_1"), (2, "s_axis_1", 8)]


def test_local_functions_are_inlined() -> None:
    proto = onnx_parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18, "own" : 1]> g (float[n] x) => (float[n] y) { y = own.twice(x) }'
        '<domain: "own", opset_import: ["" : 18]> twice (a) => (b) { b = Add(a, a) }'
    )
    graph = canonical(proto, "functions")
    assert [node.op_type for node in graph.proto.graph.node] == ["Add"]


def test_external_data_is_pulled_in_and_must_be_there(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    proto = parsed("g (float[n, 64] x) => (float[n, 64] y) { y = MatMul(x, w) }", w=weight)
    onnx.save_model(proto, str(tmp_path / "big.onnx"), save_as_external_data=True, location="big.data", size_threshold=0)
    graph = read(tmp_path / "big.onnx")
    np.testing.assert_array_equal(numpy_helper.to_array(graph.proto.graph.initializer[0]), weight)
    assert Graph.from_bytes(graph.to_bytes()).sha256 == graph.sha256
    with pytest.raises(InvalidModel, match="another file"):
        Graph.from_bytes((tmp_path / "big.onnx").read_bytes())
    (tmp_path / "big.data").unlink()
    with pytest.raises(InvalidModel, match=r"big\.data"):
        read(tmp_path / "big.onnx")


def test_external_data_may_not_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    proto = parsed("g (float[n, 2] x) => (float[n, 2] y) { y = MatMul(x, w) }", w=np.ones((2, 2), np.float32))
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    with pytest.raises(InvalidModel):
        read(saved(proto, tmp_path / "inner"))


@pytest.mark.parametrize("content", [b"", b"hello, this is no model at all", bytes(100), b"PK\x03\x04" + bytes(50), b"\x08\x07"])
def test_what_is_no_onnx(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match="not an ONNX model"):
        read(path)


def test_paths_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="does not exist"):
        read(tmp_path / "missing.onnx")
    with pytest.raises(InvalidModel, match="is a folder"):
        read(tmp_path)


def test_truncated_file(tmp_path: Path) -> None:
    data = parsed("g (float[n, 4] x) => (float[n, 4] y) { y = MatMul(x, w) }", w=np.ones((4, 4), np.float32)).SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(1, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(InvalidModel):
            read(path)


@pytest.mark.parametrize(
    ("text", "weights", "opset", "message"),
    [
        ("g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }", {}, 9, "opset 9; opsets 11 to"),
        ("g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }", {}, 99, "opset 99; opsets 11 to"),
        ("g (float[n, 4] x) => (float[n, 4] y) { y = NoSuchOperator(x) }", {}, 18, "NoSuchOperator, which opset 18 does not have"),
        ("g (float[n, 4] x) => (float[n, 4] y) { y = my.thing.Magic(x) }", {}, 18, "custom operator"),
        ("g (float[n, 4] x) => (float[n, 4] y) { y = MatMul(x, w) }", {"w": np.full((4, 4), np.nan, np.float32)}, 18, "'w'.*16 NaN values"),
        ("g (float[n, 4] x) => (float[n, 4] y) { y = MatMul(x, w) }", {"w": np.full((4, 4), np.inf, np.float32)}, 18, "'w'.*16 infinite"),
        ("g () => (float[4] y) { y = Relu(w) }", {"w": np.ones(4, np.float32)}, 18, "no inputs"),
        ("g (string[n] x) => (string[n] y) { y = Identity(x) }", {}, 18, "takes text"),
        ("g (float[n, 4] x) => (float[n, 4] y) { y = Relu(nowhere) }", {}, 18, "not valid ONNX"),
        ("g (seq(float[n]) x) => (int64 y) { y = SequenceLength(x) }", {}, 18, "'x' is a sequence"),
    ],
)  # fmt: skip
def test_refused(text: str, weights: dict[str, np.ndarray], opset: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=message):
        read(saved(parsed(text, opset, **weights), tmp_path))


def test_a_mask_may_be_infinite_and_a_constant_may_not_be_nan(tmp_path: Path) -> None:
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    assert read(saved(parsed("g (float[n, 4, 4] x) => (float[n, 4, 4] y) { s = Add(x, m)  y = Softmax(s) }", m=mask), tmp_path))
    with pytest.raises(InvalidModel, match="'c'"):
        constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([np.nan], np.float32)))
        proto = parsed("g (float[n, 4] x) => (float[n, 4] y) { y = Add(x, c) }")
        proto.graph.node.insert(0, constant)
        read(saved(proto, tmp_path))


def test_saving_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = canonical(parsed("g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }"), "g")
    path = tmp_path / "g.onnx"
    graph.save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        canonical(parsed("g (float[n, 4] x) => (float[n, 4] y) { y = Abs(x) }"), "g").save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["g.onnx"]


def test_bytes_are_the_same_every_time() -> None:
    graphs = [
        canonical(parsed("g (float[n, 4] x) => (float[n, 4] y) { y = MatMul(x, w) }", w=np.ones((4, 4), np.float32)), "g") for _ in range(2)
    ]
    assert graphs[0].to_bytes() == graphs[1].to_bytes()
    assert graphs[0].size_bytes == len(graphs[0].to_bytes())
    assert io.BytesIO(graphs[0].to_bytes())
