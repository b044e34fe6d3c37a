from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnx import parser as onnx_parser

from edgewise.errors import InvalidInput
from edgewise.graph import Graph, Index, infer_shapes, rename_inputs, set_axes, set_batch, taps


@pytest.fixture
def graph() -> Graph:
    proto = onnx_parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]>'
        "g (float[batch, 4] x, float[batch, length] z) => (float[batch, 3] y) {"
        "h = MatMul(x, w)  r = Relu(h)  s = ReduceSum(z, one)  y = Add(r, s) }"
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "w"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    return Graph.from_proto(proto)


X = {"x": np.ones((2, 4), np.float32), "z": np.ones((2, 5), np.float32)}


def run(graph: Graph, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(graph.to_bytes())
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, inputs), strict=True))


def test_taps_show_what_flows_inside(graph: Graph) -> None:
    tapped = taps(graph, ["h", "y", "s", "h"])
    assert [spec.name for spec in tapped.signature.outputs] == ["y", "h", "s"]
    assert tapped.signature.outputs[1].shape == ("batch", 3)
    got = run(tapped, **X)
    np.testing.assert_array_equal(got["h"], X["x"] @ np.arange(12, dtype=np.float32).reshape(4, 3))
    np.testing.assert_array_equal(got["y"], run(graph, **X)["y"])
    assert [spec.name for spec in graph.signature.outputs] == ["y"]


@pytest.mark.parametrize(
    ("name", "reason"), [("x", "an input or a weight"), ("w", "an input or a weight"), ("nothing", "no tensor of this graph")]
)
def test_what_cannot_be_tapped(graph: Graph, name: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        taps(graph, [name])


def test_inputs_are_renamed(graph: Graph) -> None:
    renamed = rename_inputs(graph, {"x": "image"})
    assert [spec.name for spec in renamed.signature.inputs] == ["image", "z"]
    np.testing.assert_array_equal(run(renamed, image=X["x"], z=X["z"])["y"], run(graph, **X)["y"])
    swapped = rename_inputs(graph, {"x": "z", "z": "x"})
    np.testing.assert_array_equal(run(swapped, z=X["x"], x=X["z"])["y"], run(graph, **X)["y"])
    for names, reason in (({"q": "p"}, "no input 'q'"), ({"x": "h"}, "taken"), ({"x": ""}, "empty"), ({"x": "p", "z": "p"}, "one name")):
        with pytest.raises(InvalidInput, match=reason):
            rename_inputs(graph, names)


def test_the_batch_is_fixed_or_renamed(graph: Graph) -> None:
    fixed = set_batch(graph, 2)
    assert [spec.shape for spec in (*fixed.signature.inputs, *fixed.signature.outputs)] == [(2, 4), (2, "length"), (2, 3)]
    np.testing.assert_array_equal(run(fixed, **X)["y"], run(graph, **X)["y"])
    assert set_batch(graph, "n").signature.outputs[0].shape == ("n", 3)
    assert set_batch(graph, "batch") is graph
    assert set_batch(fixed, 2) is fixed
    with pytest.raises(InvalidInput, match="leading axis is fixed"):
        set_batch(fixed, 3)
    onnx.checker.check_model(fixed.proto, full_check=True)


def test_axes_are_set_by_name(graph: Graph) -> None:
    assert set_axes(graph, length=7).signature.inputs[1].shape == ("batch", 7)
    for axes, reason in (({"width": 1}, "no axis 'width'"), ({"length": 0}, "at least one"), ({"length": "batch"}, "taken")):
        with pytest.raises(InvalidInput, match=reason):
            set_axes(graph, **axes)


def test_unnamed_axes_get_names() -> None:
    proto = onnx_parser.parse_model('<ir_version: 8, opset_import: ["" : 18]> g (float[?, 4] x) => (float[?, 4] y) { y = Relu(x) }')
    graph = Graph.from_proto(proto)
    assert graph.signature.inputs[0].shape == ("axis_0", 4)
    assert set_batch(graph, 3).signature.outputs[0].shape == (3, 4)


def test_index_knows_who_makes_and_who_uses(graph: Graph) -> None:
    index = Index(infer_shapes(graph))
    assert index.inputs == {"x", "z"}
    assert index.producer("h").op_type == "MatMul"
    assert index.producer("x") is None
    assert [node.op_type for node in index.consumers("h")] == ["Relu"]
    assert index.sole_consumer("h").op_type == "Relu"
    assert index.sole_consumer("y") is None
    assert index.tensors == ("h", "r", "s", "y")
    assert index.shape("h") == ("batch", 3)
    assert index.shape("w") == (4, 3)
    assert index.shape("nothing") is None
    assert index.element_type("h") == onnx.TensorProto.FLOAT
    np.testing.assert_array_equal(index.constant("one"), [1])
    assert index.constant("h") is None


def test_a_failing_inference_is_said_and_not_raised() -> None:
    proto = onnx_parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>'
        "g (float[n, 4] x) => (float[n, 4] y) { h = com.microsoft.NoSuchFusion(x)  y = Relu(h) }"
    )
    found = infer_shapes(Graph.from_proto(proto))
    assert len(found.notes) == 1
    assert "NoSuchFusion" in found.notes[0]
