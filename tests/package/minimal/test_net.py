"""A graph comes back as it was in everything that matters, held against the ONNX messages themselves; what has no place is refused."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from edgewise.coding.cursor import Cursor
from edgewise.errors import InvalidModel
from edgewise.package import Limits
from edgewise.package.manifest import BITS
from edgewise.package.minimal import graphs as coded
from edgewise.package.minimal import net, streams
from edgewise.testing import graphs

MODELS = {
    **{f"float {name}": make()[0] for name, make in graphs.FLOAT.items()},
    **{f"int8 {name}": make()[0] for name, make in graphs.QUANTIZED.items()},
}


def back(model: onnx.ModelProto) -> onnx.ModelProto:
    """Through bytes."""
    given = net.of(model)
    cursor = Cursor(coded.encode(given))
    found, kinds = coded.decode(cursor, Limits(), coded.Budget(2**30))
    cursor.end()
    weights = streams.decode(Cursor(streams.encode(given.weights)), kinds)
    whole = net.Net(**{**vars(found), "weights": tuple(weights)})
    assert whole == given
    return net.proto(whole)


def assert_same(one: onnx.ModelProto, other: onnx.ModelProto) -> None:
    """The same but for the names inside, attributes' and weights' order, and what nobody computes with."""
    assert one.ir_version == other.ir_version
    assert {item.domain: item.version for item in one.opset_import} == {item.domain: item.version for item in other.opset_import}
    for values, others in ((one.graph.input, other.graph.input), (one.graph.output, other.graph.output)):
        assert [(value.name, value.type) for value in values] == [(value.name, value.type) for value in others]
    names: dict[str, str] = {value.name: value.name for value in (*one.graph.input, *one.graph.output)}
    data = [{weight.name: weight for weight in model.graph.initializer} for model in (one, other)]

    def pair(name: str, also: str) -> None:
        assert names.setdefault(name, also) == also
        assert bool(name) == bool(also)
        assert (name in data[0]) == (also in data[1])
        if name in data[0]:
            for field in ("data_type", "dims"):
                assert getattr(data[0][name], field) == getattr(data[1][also], field)
            assert raw(data[0][name]) == raw(data[1][also])

    assert len(one.graph.node) == len(other.graph.node)
    for node, also in zip(one.graph.node, other.graph.node, strict=True):
        assert (node.op_type, node.domain) == (also.op_type, also.domain)
        assert len(node.input) == len(also.input)
        assert len(node.output) == len(also.output)
        for name, its in zip((*node.input, *node.output), (*also.input, *also.output), strict=True):
            pair(name, its)
        assert {each.name: plain(each) for each in node.attribute} == {each.name: plain(each) for each in also.attribute}
    for value in one.graph.output:
        pair(value.name, value.name)
    assert len(set(names.values())) == len(names)
    onnx_names = [name for node in other.graph.node for name in node.output if name]
    assert len(set(onnx_names)) == len(onnx_names)
    assert len({node.name for node in other.graph.node}) == len(other.graph.node)


def raw(tensor: TensorProto) -> bytes:
    """In one way of writing elements, and without what stands in bits that none of them takes."""
    return numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data


def plain(attribute: AttributeProto) -> bytes:
    copy = AttributeProto()
    copy.CopyFrom(attribute)
    copy.ClearField("doc_string")
    if copy.HasField("t"):
        copy.t.CopyFrom(TensorProto(data_type=copy.t.data_type, dims=copy.t.dims, raw_data=raw(copy.t)))
    return copy.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", MODELS)
def test_models_come_back_and_compute_the_same_bits(name: str) -> None:
    model = MODELS[name]
    again = back(model)
    assert_same(model, again)
    onnx.checker.check_model(again, full_check=True)
    random = np.random.default_rng(0)
    sizes = {"batch": 3, "sequence": 5}
    inputs = {}
    for value in model.graph.input:
        shape = [dim.dim_value or sizes[dim.dim_param] for dim in value.type.tensor_type.shape.dim]
        whole = value.type.tensor_type.elem_type == TensorProto.INT64
        inputs[value.name] = random.integers(0, 11, shape) if whole else random.standard_normal(shape, dtype=np.float32)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    ours, theirs = (ort.InferenceSession(each.SerializeToString(), options).run(None, inputs) for each in (again, model))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", MODELS)
def test_the_canonical_form_is_its_own(name: str) -> None:
    again = back(MODELS[name])
    assert back(again) == again


floats = st.floats(width=32, allow_nan=False) | st.sampled_from([-0.0, math.inf])
attributes = st.dictionaries(
    st.sampled_from(["group", "pads", "alpha", "mode", "auto_pad", "transB", "axis", "dilations", "strides", "their_own", "é"]),
    st.integers(-(2**63), 2**63 - 1)
    | st.integers(0, 2)
    | floats
    | st.sampled_from([1.0, b"NOTSET", b"constant", b"\xff\0", "batch", [1, 1], [0, 0, 0, 0], [1.5, -0.0], [b"a", b"logits"]])
    | st.lists(st.integers(-9, 9), min_size=1, max_size=4),
    max_size=10,
)


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Any graph of the right form: operators known or not, values left out, weights of all dtypes used never to often."""
    weights = []
    for i in range(draw(st.integers(0, 6))):
        dtype = draw(st.sampled_from(sorted(BITS)))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        data = draw(st.binary(min_size=(math.prod(shape) * BITS[dtype] + 7) // 8, max_size=(math.prod(shape) * BITS[dtype] + 7) // 8))
        number = helper.np_dtype_to_tensor_dtype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
        weights.append(TensorProto(name=f"weights.{i}", data_type=number, dims=shape, raw_data=data))
    axis = st.integers(0, 300) | st.sampled_from(["batch", "n", "", None])
    values = [
        helper.make_tensor_value_info(name, draw(st.sampled_from([1, 7, 10, 22])), draw(st.lists(axis, max_size=4)))
        for name in draw(st.lists(st.sampled_from(["x", "image", "v0", "w1", "v0_", "ids"]), max_size=3, unique=True))
    ]
    names = ["", *(value.name for value in values), *(weight.name for weight in weights)]
    nodes: list[onnx.NodeProto] = []
    kinds = [("Conv", ""), ("Relu", ""), ("Add", ""), ("TheirOwn", ""), ("Gemm", "com.microsoft"), ("Split", "")]
    for _ in range(draw(st.integers(0, 7))):
        taken = draw(st.lists(st.sampled_from(names[-5:]) | st.sampled_from(names), max_size=9))
        if nodes and nodes[-1].output and draw(st.booleans()):
            taken = [nodes[-1].output[-1], *taken[1:2]]
        made = [f"out.{len(nodes)}.{i}" if draw(st.integers(0, 5)) else "" for i in range(draw(st.sampled_from([1, 1, 1, 0, 2, 8])))]
        kind, domain = draw(st.sampled_from(kinds))
        nodes.append(helper.make_node(kind, taken, made, domain=domain, **draw(attributes)))
        names += [name for name in made if name]
    results = draw(st.lists(st.sampled_from(names[1:]), max_size=3, unique=True)) if names[1:] else []
    infos = {value.name: value for value in values}
    outputs = [infos.get(name) or helper.make_tensor_value_info(name, 1, ["batch", draw(axis)]) for name in results]
    graph = helper.make_graph(nodes, "any", values, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("", 21)], ir_version=10)


@given(model=models())
@settings(deadline=None, max_examples=80)
def test_any_graph_comes_back(model: onnx.ModelProto) -> None:
    again = back(model)
    assert_same(opened_axes(model), again)
    assert back(again) == again


def opened_axes(model: onnx.ModelProto) -> onnx.ModelProto:
    """An axis without a name is an open one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param") and not dim.dim_param:
                dim.ClearField("value")
    return copy


def test_what_nobody_computes_with_is_gone() -> None:
    model, _ = graphs.mlp()
    model.producer_name, model.doc_string = "an exporter", "long"
    model.graph.value_info.add(name="m")
    model.graph.node[0].doc_string = "/home/someone/net.py"
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3), "unused"))
    again = back(model)
    assert again == back(graphs.mlp()[0])
    assert b"someone" not in again.SerializeToString()
    assert len(again.graph.initializer) == 3


def test_a_deep_net_takes_one_number_per_node_like_another() -> None:
    def deep(layers: int) -> int:
        names = ["x", *(f"r{i}" for i in range(2 * layers))]
        nodes: list[Any] = []
        for i in range(layers):
            nodes += [
                ("Conv", [names[2 * i], f"w{i}"], [names[2 * i + 1]], {"pads": [1, 1]}),
                ("Relu", [names[2 * i + 1]], [names[2 * i + 2]]),
            ]
        weights = {f"w{i}": np.zeros((4, 4, 3), np.float32) for i in range(layers)}
        return len(coded.encode(net.of(graphs.build(nodes, {"x": ("batch", 4, 9)}, {names[-1]: ("batch", 4, 9)}, weights))))

    # Two nodes of a byte, and the weight's dtype and shape of four.
    assert deep(30) - deep(20) == 10 * (2 + 4)


def changed(change: Any) -> onnx.ModelProto:
    model, _ = graphs.mlp()
    change(model)
    return model


def body() -> onnx.GraphProto:
    return helper.make_graph([], "body", [], [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.functions.add(name="f"), "no place for functions"),
        (lambda m: m.training_info.add(), "no place for training graphs"),
        (lambda m: m.graph.sparse_initializer.add(), "no place for sparse weights"),
        (lambda m: m.graph.quantization_annotation.add(), "no place for quantization annotations"),
        (
            lambda m: m.graph.node[0].attribute.append(helper.make_attribute("body", body())),
            "attribute 'body' of node 'MatMul_0' .a subgraph",
        ),
        (lambda m: m.graph.node[0].attribute.extend([helper.make_attribute("a", 1)] * 2), "an attribute twice"),
        (lambda m: m.graph.node[0].attribute.append(AttributeProto(name="a", type=2, ref_attr_name="b")), "stands for a function's"),
        (lambda m: m.graph.input.append(helper.make_tensor_value_info("w1", 1, [16, 32])), "'w1' is a weight and an input.*graph.read"),
        (
            lambda m: m.graph.initializer[0].CopyFrom(TensorProto(name="w1", data_type=8, dims=[1], string_data=[b"a"])),
            "no array of numbers",
        ),
        (lambda m: m.graph.initializer[0].external_data.add(key="location", value="f"), "lies in another file"),
        (lambda m: setattr(m.graph.initializer[0], "raw_data", b"abc"), "has 3 bytes; float32 .16, 32. takes 2048"),
        (lambda m: m.graph.node[0].input.append("nothing"), "'nothing' is used before"),
        (lambda m: m.graph.node[0].output.append("x"), "two values have the name 'x'"),
        (lambda m: m.graph.output[0].type.tensor_type.ClearField("shape"), "'y' is no tensor with a shape"),
        (lambda m: m.opset_import.append(helper.make_opsetid("", 18)), "an operator set twice"),
        (lambda m: setattr(m.opset_import[0], "version", -3), "or an operator set's is none"),
        (lambda m: setattr(m, "ir_version", 0), "IR version 0"),
        (lambda m: m.graph.output.append(m.graph.output[0]), "have the same name"),
    ],
)
def test_what_has_no_place_is_refused(change: Any, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        net.proto(net.of(changed(change)))
