"""The graph inside: nothing points outside of it, and it says the same as the manifest."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.external_data_helper import set_external_data

from edgewise import package
from edgewise.errors import InvalidPackage
from edgewise.graph import Graph
from edgewise.package import Package, build

Write = Callable[[bytes], Path]
CREATED = "2026-01-01T00:00:00Z"


def external(name: str) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), name)
    set_external_data(tensor, "../../etc/passwd")
    tensor.ClearField("raw_data")
    return tensor


def in_initializer(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(external("e"))


def in_constant(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(helper.make_node("Constant", [], ["c"], value=external("e")))


def in_subgraph(proto: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [external("e")])
    proto.graph.node.append(helper.make_node("If", ["x"], ["c"], then_branch=inner))


def in_function(proto: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=external("e"))
    proto.functions.append(helper.make_function("d", "f", [], ["c"], [node], []))


def in_sparse(proto: onnx.ModelProto) -> None:
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(external("e"), external("i"), [4]))


def in_lying_attribute(proto: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=external("e"))
    node.attribute[0].type = onnx.AttributeProto.INT
    proto.graph.node.append(node)


def location_flag_alone(proto: onnx.ModelProto) -> None:
    tensor = external("e")
    tensor.ClearField("data_location")
    proto.graph.initializer.append(tensor)


def forge(parts: Any, change: Callable[[onnx.ModelProto], None]) -> bytes:
    proto = onnx.ModelProto.FromString(parts.members["graphs/0.onnx"])
    change(proto)
    parts.replace("graphs/0.onnx", proto.SerializeToString())
    return parts.file()


def refused(opened: Package, message: str) -> None:
    with pytest.raises(InvalidPackage, match=message):
        opened.graph()
    with pytest.raises(InvalidPackage, match=message):
        opened.model_bytes()


@pytest.mark.parametrize(
    "place", [in_initializer, in_constant, in_subgraph, in_function, in_sparse, in_lying_attribute, location_flag_alone]
)
def test_external_data_is_refused_wherever_it_hides(place: Callable[[onnx.ModelProto], None], parts: Any, written: Write) -> None:
    refused(package.open(written(forge(parts, place))), "points outside the package")


def no_initializer(proto: onnx.ModelProto) -> None:
    del proto.graph.initializer[1]


def other_shape(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[1].dims[:] = [4, 2]


def other_type(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[1].data_type = onnx.TensorProto.UINT8


def own_data(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[1].raw_data = b"12345678"


def own_typed_data(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[1].int32_data.extend(range(8))


def no_data(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(onnx.TensorProto(name="big", data_type=1, dims=[2**40]))


def negative(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(onnx.TensorProto(name="big", data_type=1, dims=[-1, 4], raw_data=b"1234"))


def two_of_one_name(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(proto.graph.initializer[1])


def other_input(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].name = "z"


def no_output(proto: onnx.ModelProto) -> None:
    del proto.graph.output[:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_initializer, "'w', which the graph doesn't know"),
        (other_shape, "in the graph, int8"),
        (other_type, "uint8 .* in the graph, int8"),
        (own_data, "in the graph"),
        (own_typed_data, "in the graph"),
        (no_data, "'big' has no data"),
        (negative, "'big' has no data"),
        (two_of_one_name, "two weights of one name"),
        (other_input, "its manifest says"),
        (no_output, "no ONNX model"),
    ],
)
def test_graph_and_manifest_have_to_agree(change: Callable[[onnx.ModelProto], None], message: str, parts: Any, written: Write) -> None:
    refused(package.open(written(forge(parts, change))), message)


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x08", b"a text, and no model at all"])
def test_bytes_that_are_no_model(data: bytes, parts: Any, written: Write) -> None:
    parts.replace("graphs/0.onnx", data)
    refused(package.open(written(parts.file())), "no ONNX model")


def test_an_engines_own_form_is_no_graph(parts: Any, written: Write) -> None:
    parts.manifest["entries"][0]["format"] = "litert"
    refused(package.open(written(parts.file())), "'litert', not an ONNX graph")


def test_model_bytes_are_what_protobuf_would_write(small: Package) -> None:
    assert onnx.ModelProto.FromString(small.model_bytes()) == small.graph().proto


def test_an_engine_runs_what_comes_out() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 10)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", 1, ["batch", 64])],
        [helper.make_tensor_value_info("y", 1, ["batch", 10])],
        [numpy_helper.from_array(weight, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    built = build(Graph.from_proto(proto), created=CREATED)
    x = rng.normal(size=(3, 64)).astype(np.float32)
    session = onnxruntime.InferenceSession(built.model_bytes(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ weight, rtol=1e-4, atol=1e-4)


def test_unknown_kinds_of_preprocessing_are_told(parts: Any, written: Write) -> None:
    parts.manifest["preprocess"] = {"kind": "smell"}
    parts.manifest["postprocess"] = {"kind": "classify", "labels": [], "top": 0}
    opened = package.open(written(parts.file()))
    assert opened.graph().proto.graph.name == "tiny"
    with pytest.raises(InvalidPackage, match=r"'smell'.*update"):
        _ = opened.preprocess
    with pytest.raises(InvalidPackage, match="postprocessing is wrong"):
        _ = opened.postprocess


@pytest.mark.parametrize("coders", ["fast", "none"])
def test_opening_and_loading_take_little_more_than_the_result(coders: Any, make_graph: Callable[..., Graph], tmp_path: Path) -> None:
    """The result, and one tensor with what decoding it needs."""
    size, many = 16 * 2**20, 16
    random = np.random.default_rng(0)
    weights = [numpy_helper.from_array(random.integers(-9, 10, (1024, size // many // 1024), np.int8), str(i)) for i in range(many)]
    build(make_graph(*weights), created=CREATED, coders=coders).save(tmp_path / "a.edgew")
    tracemalloc.start()
    opened = package.open(tmp_path / "a.edgew")
    at_open = tracemalloc.get_traced_memory()[1]
    data = opened.model_bytes()
    at_load = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert at_open < 2 * 2**20
    assert len(data) > size
    assert at_load < size + 3 * size // many
