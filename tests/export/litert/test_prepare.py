"""A prepared graph answers what the graph does, by onnx's reference evaluator, and spells its integers as the converter wants them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from edgewise.compress.quantize import quantize
from edgewise.errors import InvalidModel
from edgewise.export.litert.prepare import prepared
from edgewise.graph import Graph, Index
from edgewise.testing import graphs
from edgewise.testing.conformance import reference
from edgewise.types import Inputs


def operators(graph: Graph) -> Counter[str]:
    return Counter(node.op_type for node in graph.proto.graph.node)


def answers(graph: Graph, inputs: Inputs) -> np.ndarray:
    return np.concatenate([output.ravel() for output in reference(graph.proto, inputs)])


@pytest.mark.parametrize("name", sorted(graphs.FLOAT))
def test_a_float_graph_is_fixed_and_the_same(name: str) -> None:
    model, inputs = graphs.FLOAT[name]()
    graph = Graph.from_proto(model)
    axes = {"batch": len(next(iter(inputs.values()))), **({"sequence": 7} if name == "two inputs" else {})}
    ready = prepared(graph, axes)
    assert ready.kind == "float" and not ready.notes
    assert all(isinstance(axis, int) for spec in (*ready.graph.signature.inputs, *ready.graph.signature.outputs) for axis in spec.shape)
    assert [spec.name for spec in ready.graph.signature.outputs] == [spec.name for spec in graph.signature.outputs]
    np.testing.assert_allclose(answers(ready.graph, inputs), answers(graph, inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(graphs.QUANTIZED))
def test_a_static_graph_keeps_its_integers(name: str) -> None:
    model, inputs, step = graphs.QUANTIZED[name]()
    graph = Graph.from_proto(model)
    ready = prepared(graph, {"batch": len(inputs["x"])})
    assert ready.kind == "static" and not ready.notes
    assert np.abs(answers(ready.graph, inputs) - answers(graph, inputs)).max() <= 1.01 * step  # a tie may be rounded the other way
    # Every weight is a float constant before a pair, and gives the integers that the graph had.
    index, before = Index(ready.graph), Index(graph)
    (weight,) = [node for node in index.nodes if node.op_type == "QuantizeLinear" and node.input[0] in index.initializers]
    real, scale = index.constant(weight.input[0]), index.constant(weight.input[1])
    assert real is not None and scale is not None
    (axis,) = [attribute.i for attribute in weight.attribute if attribute.name == "axis"]
    shape = [-1 if axis == other else 1 for other in range(real.ndim)]
    np.testing.assert_array_equal(np.rint(real / scale.reshape(shape)).astype(np.int8), before.constant("w"))
    # Activations are signed, as its kernels want them; what stands at the boundary stays float there.
    activations = [node for node in index.nodes if node.op_type == "QuantizeLinear" and node.input[0] not in index.initializers]
    assert {index.element_type(node.input[2]) for node in activations} == {TensorProto.INT8}
    assert operators(ready.graph)["Mul"] == 2


def test_a_dynamic_graph_is_float_products_with_integer_weights() -> None:
    model, inputs = graphs.mlp()
    graph = quantize(Graph.from_proto(model), mode="dynamic", reduce_range=False).model
    ready = prepared(graph, {"batch": 5})
    assert ready.kind == "dynamic"
    found = operators(ready.graph)
    assert not found.keys() & {"DynamicQuantizeLinear", "MatMulInteger"} and found["MatMul"] == found["QuantizeLinear"] == 2
    wanted = answers(graph, inputs)
    assert np.linalg.norm(answers(ready.graph, inputs) - wanted) <= 0.02 * np.linalg.norm(wanted)  # activations aren't rounded here
    # Held against the weights themselves: each on the grid that the graph has for it.
    index, before = Index(ready.graph), Index(graph)
    integers = {name: before.constant(name) for name in before.initializers if name.endswith("_quantized")}
    reals = [index.constant(node.input[0]) for node in index.nodes if node.op_type == "QuantizeLinear"]
    scales = [index.constant(node.input[1]) for node in index.nodes if node.op_type == "QuantizeLinear"]
    for real, scale, own in zip(reals, scales, integers.values(), strict=True):
        np.testing.assert_array_equal(np.rint(real / scale), own)


def test_a_product_of_another_making_is_refused_by_name() -> None:
    nodes: list[graphs.Node] = [
        ("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        ("MatMulInteger", ["q", "w", "z"], ["m"]),
        ("Cast", ["m"], ["y"], {"to": TensorProto.FLOAT}),
    ]
    model = graphs.build(nodes, {"x": (2, 4)}, {"y": (2, 3)}, {"w": np.ones((4, 3), np.int8)})
    with pytest.raises(InvalidModel, match="MatMulInteger_1"):
        prepared(Graph.from_proto(model), {})


def test_an_axis_without_a_size_is_named() -> None:
    with pytest.raises(InvalidModel, match="'sequence'"):
        prepared(Graph.from_proto(graphs.two_inputs()[0]), {"batch": 1})


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_weights_off_zero_stay_float_and_it_is_said(dtype: type) -> None:
    model, inputs, _ = graphs.quantized_matmul()
    zero = next(tensor for tensor in model.graph.initializer if tensor.name == "wz")
    zero.CopyFrom(numpy_helper.from_array(np.full(8, 3, dtype), "wz"))
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    weight.CopyFrom(numpy_helper.from_array(np.abs(numpy_helper.to_array(weight)).astype(dtype), "w"))
    graph = Graph.from_proto(model)
    ready = prepared(graph, {"batch": 6})
    assert len(ready.notes) == 1 and "w stays in float" in ready.notes[0]
    np.testing.assert_allclose(answers(ready.graph, inputs), answers(graph, inputs), atol=0.26)


def gelu(order: str) -> list[graphs.Node]:
    first: list[graphs.Node] = [
        ("Div", ["x", "root"], ["d"]) if order != "product" else ("Mul", ["x", "inverse"], ["d"]),
        ("Erf", ["d"], ["e"]),
        ("Add", ["e", "one"], ["a"]),
    ]
    match order:
        case "inside":
            return [*first, ("Mul", ["half", "a"], ["h"]), ("Mul", ["x", "h"], ["y"])]
        case "before":
            return [("Mul", ["x", "half"], ["h"]), *first, ("Mul", ["h", "a"], ["y"])]
        case _:
            return [*first, ("Mul", ["x", "a"], ["h"]), ("Mul", ["h", "half"], ["y"])]


@pytest.mark.parametrize("order", ["inside", "before", "last", "product"])
def test_a_gelu_is_found_in_every_spelling(order: str) -> None:
    weights = {"root": np.float32(2**0.5), "inverse": np.float32(2**-0.5), "one": np.float32(1), "half": np.float32(0.5)}
    graph = Graph.from_proto(graphs.build(gelu(order), {"x": (3, 8)}, {"y": (3, 8)}, weights))
    ready = prepared(graph, {})
    assert operators(ready.graph) == {"Gelu": 1}
    x = {"x": np.linspace(-4, 4, 24, dtype=np.float32).reshape(3, 8)}
    np.testing.assert_allclose(answers(ready.graph, x), answers(graph, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "value"), [("root", 1.5), ("one", 2.0), ("half", 0.4)])
def test_what_only_looks_like_a_gelu_is_left(name: str, value: float) -> None:
    weights = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)} | {name: np.float32(value)}
    graph = Graph.from_proto(graphs.build(gelu("inside"), {"x": (3, 8)}, {"y": (3, 8)}, weights))
    assert operators(prepared(graph, {}).graph)["Erf"] == 1
