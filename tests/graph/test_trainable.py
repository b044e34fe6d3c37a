"""The training form: what stays, what goes, and that it computes what it did, held against ONNX Runtime."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx import parser as onnx_parser
from torch import nn

from edgewise.errors import InvalidModel
from edgewise.graph import Graph, Index, canonical, fold, trainable
from edgewise.graph.trainable import fixed_weights, mark_fixed
from edgewise.testing import nets

RANDOM = np.random.default_rng(0)


def parsed(text: str, *, opset: int = 18, **weights: object) -> onnx.ModelProto:
    proto = onnx_parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>' + text)
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items())
    return proto


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def run(proto: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, inputs)


def operators(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.proto.graph.node]


def values(graph: Graph) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.proto.graph.initializer}


def same(graph: Graph, proto: onnx.ModelProto, **inputs: np.ndarray) -> None:
    for got, expected in zip(run(graph.proto, **inputs), run(proto, **inputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_batch_norms_stay_and_constants_go() -> None:
    weights = {name: normal(3) for name in ("scale", "shift", "mean")} | {"variance": RANDOM.uniform(1, 2, 3).astype(np.float32)}
    proto = parsed(
        """g (float[n, 2, 5, 5] x) => (float[n, 3, 5, 5] y) { i = Identity(x)  c = Conv<pads=[1, 1, 1, 1]>(i, w)
        b = BatchNormalization(c, scale, shift, mean, variance)  two = Add(one, one)  m = Mul(b, two)  y = Relu(m) }""",
        w=normal(3, 2, 3, 3), one=np.float32(1), **weights,
    )  # fmt: skip
    before = proto.SerializeToString()
    graph = trainable(proto)
    assert operators(graph) == ["Conv", "BatchNormalization", "Mul", "Relu"]
    assert proto.SerializeToString() == before
    assert Index(graph).shape("c") == ("n", 3, 5, 5)
    same(graph, proto, x=normal(2, 2, 5, 5))
    assert operators(fold(graph)) == ["Conv", "Mul", "Relu"]
    folded = canonical(proto, "g")
    assert operators(trainable(folded)) == ["Conv", "Mul", "Relu"]  # what is folded stays so


def test_weights_are_laid_out_under_their_names() -> None:
    proto = parsed(
        """g (float[n, 4] x) => (float[n, 6] y) { t = Transpose<perm=[1, 0]>(linear_weight)  m = MatMul(x, t)
        r = Reshape(linear_bias, shape)  u = Squeeze(r, axis)  a = Add(m, u)  y = Mul(a, half) }""",
        linear_weight=normal(6, 4), linear_bias=normal(6), shape=np.array([1, 6]), axis=np.array([0]), half=np.float32(0.5),
    )  # fmt: skip
    graph = trainable(proto)
    assert operators(graph) == ["MatMul", "Add", "Mul"]
    found = values(graph)
    assert set(found) == {"linear_weight", "linear_bias", "half"}
    np.testing.assert_array_equal(found["linear_weight"], values(Graph.from_proto(proto))["linear_weight"].T)
    same(graph, proto, x=normal(3, 4))


def test_a_shared_weight_stays_one() -> None:
    """Two transposes of one weight are one; a table that is looked up and multiplied with keeps its transpose."""
    proto = parsed(
        """g (int64[n] ids) => (float[n, 7] y) { e = Gather(table, ids)  t1 = Transpose<perm=[1, 0]>(w)  a = MatMul(e, t1)
        t2 = Transpose<perm=[1, 0]>(w)  b = MatMul(a, t2)  back = Transpose<perm=[1, 0]>(table)  y = MatMul(b, back) }""",
        table=normal(7, 4), w=normal(4, 4),
    )  # fmt: skip
    graph = trainable(proto)
    assert operators(graph) == ["Gather", "MatMul", "MatMul", "Transpose", "MatMul"]
    assert set(values(graph)) == {"table", "w"}
    same(graph, proto, ids=np.array([0, 3, 6]))


def test_what_is_computed_from_a_shared_weight_is_computed_still() -> None:
    proto = parsed(
        "g (float[n, 4] x) => (float[n, 4] y) { s = Mul(w, half)  a = MatMul(x, s)  y = MatMul(a, w) }",
        w=normal(4, 4),
        half=np.float32(0.5),
    )
    assert operators(trainable(proto)) == ["Mul", "MatMul", "MatMul"]
    alone = parsed("g (float[n, 4] x) => (float[n, 4] y) { s = Mul(w, half)  y = MatMul(x, s) }", w=normal(4, 4), half=np.float32(0.5))
    assert operators(trainable(alone)) == ["MatMul"]


FLATTEN = """g (float[n, 4, 3, 2] x) => (float[n, k] y) {
    s = Shape(x)  i = Constant<value_int=0>()  b = Gather(s, i)  z = Constant<value_ints=[0]>()  u = Unsqueeze(b, z)
    m = Constant<value_ints=[-1]>()  to = Concat<axis=0>(u, m)  f = Reshape(x, to)  y = MatMul(f, w) }"""


def test_targets_of_reshape_are_constant() -> None:
    proto = parsed(FLATTEN, w=normal(24, 5))
    graph = trainable(proto)
    assert operators(graph) == ["Reshape", "MatMul"]
    assert values(graph)[graph.proto.graph.node[0].input[1]].tolist() == [0, 24]
    assert "1 target shapes made constant" in graph.notes
    same(graph, proto, x=normal(5, 4, 3, 2))


def test_a_target_that_varies_twice_stays_computed() -> None:
    text = """g (float[n, p, 6] x) => (float[n, p, a, b] y) { s = Shape(x)  head = Slice(s, zero, two)  to = Concat<axis=0>(head, rest)
              y = Reshape(x, to) }"""
    proto = parsed(text, zero=np.array([0]), two=np.array([2]), rest=np.array([2, 3]))
    graph = trainable(proto)
    assert operators(graph) == ["Shape", "Slice", "Concat", "Reshape"]
    same(graph, proto, x=normal(3, 4, 6))


def test_targets_of_expand() -> None:
    """One that does nothing goes; one that repeats a token per sample can't be a constant; one over fixed axes is."""
    proto = parsed(
        """g (float[n, 3, 4] x) => (float[n, 4, 4] y, float[n, 3, 4] z) { s = Shape(x)  same = Expand(x, s)  b = Slice(s, zero, one)
        to = Concat<axis=0>(b, ones)  t = Expand(token, to)  y = Concat<axis=1>(t, same)
        wide = Concat<axis=0>(b, three, last)  k = ReduceSum(x, last)  e = Expand(k, wide)  z = Add(x, e) }""",
        zero=np.array([0]), one=np.array([1]), ones=np.array([1, 4]), three=np.array([3]), last=np.array([1]), token=normal(1, 1, 4),
    )  # fmt: skip
    graph = trainable(proto)
    expands = [node for node in graph.proto.graph.node if node.op_type == "Expand"]
    assert len(expands) == 2
    token, fixed = sorted(expands, key=lambda node: node.input[1] in values(graph))
    assert token.input[1] not in values(graph)
    assert values(graph)[fixed.input[1]].tolist() == [1, 3, 4]
    same(graph, proto, x=normal(2, 3, 4))


@pytest.mark.parametrize(("to", "opset", "kept"), [((8, 6), 13, "scales"), ((7, 5), 18, "axes"), ((7, 5), 13, "sizes")])
def test_targets_of_resize(to: tuple[int, int], opset: int, kept: str) -> None:
    proto = parsed(
        """g (float[n, 2, 4, 3] x) => (float[n, 2, a, b] y) { s = Shape(x)  head = Slice(s, zero, two)  to = Concat<axis=0>(head, size)
        y = Resize<mode="linear">(x, none, none, to) }""",
        opset=opset, zero=np.array([0]), two=np.array([2]), size=np.array(to), none=np.zeros(0, np.float32),
    )  # fmt: skip
    graph = trainable(proto)
    node = graph.proto.graph.node[-1]
    found = values(graph)
    if kept == "scales":
        assert operators(graph) == ["Resize"]
        assert found[node.input[2]].tolist() == [1, 1, 2, 2]
    elif kept == "axes":
        assert operators(graph) == ["Resize"]
        assert found[node.input[3]].tolist() == [7, 5]
        assert [list(attribute.ints) for attribute in node.attribute if attribute.name == "axes"] == [[2, 3]]
    else:
        assert operators(graph) == ["Shape", "Slice", "Concat", "Resize"]
    same(graph, proto, x=normal(3, 2, 4, 3))


def test_vectors_that_an_exporter_stored_once_are_parted() -> None:
    proto = parsed(
        """g (float[n, 2, 4, 4] x) => (float[n, 2, 4, 4] y) {
        a = Conv<pads=[1, 1, 1, 1]>(x, w1, zeros)  b = BatchNormalization(a, ones, zeros, zeros, ones)
        c = Conv<pads=[1, 1, 1, 1]>(b, w2, zeros)  d = BatchNormalization(c, ones, zeros, zeros, ones)
        e = Conv<pads=[1, 1, 1, 1]>(d, w2, zeros)  y = BatchNormalization(e, ones, other, zeros, ones) }""",
        w1=normal(2, 2, 3, 3), w2=normal(2, 2, 3, 3), zeros=np.zeros(2, np.float32), ones=np.ones(2, np.float32), other=normal(2),
    )  # fmt: skip
    graph = trainable(proto)
    nodes = graph.proto.graph.node
    assert nodes[2].input[1:] == nodes[4].input[1:]  # one convolution, used twice
    assert nodes[0].input[2] != nodes[2].input[2]
    assert list(nodes[1].input[1:]) == list(nodes[3].input[1:])  # all four agree: one batch norm, used twice
    assert len(set(nodes[1].input[1:])) == 4
    assert not set(nodes[1].input) & set(nodes[5].input)
    same(graph, proto, x=normal(2, 2, 4, 4))
    again = trainable(graph)
    assert again.sha256 == graph.sha256


def test_marks_travel_with_the_weights() -> None:
    proto = parsed(
        """g (float[n, 4] x) => (float[n, 4] y) { t = Transpose<perm=[1, 0]>(w)  m = MatMul(x, t)  table = Exp(raw)  a = Add(m, table)
        k = Constant<value_floats=[1.0, 2.0, 3.0, 4.0]>()  b = Mul(a, k)  g = Exp(log_scale)  y = Mul(b, g) }""",
        w=normal(4, 4), raw=normal(4), log_scale=normal(4),
    )  # fmt: skip
    assert fixed_weights(trainable(proto).proto) is None
    mark_fixed(proto, {"raw"})
    graph = trainable(proto)
    assert operators(graph) == ["MatMul", "Add", "Mul", "Mul"]
    assert fixed_weights(graph.proto) == {"table", "k"}
    assert fixed_weights(trainable(graph).proto) == {"table", "k"}
    assert not fold(graph).proto.metadata_props


def old_export(module: nn.Module, inputs: dict[str, torch.Tensor]) -> onnx.ModelProto:
    """Through torch's old exporter, as files of others come."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(inputs.values()), buffer, dynamo=False, opset_version=17, input_names=list(inputs),
            dynamic_axes={name: {0: "batch"} for name in inputs}, do_constant_folding=False, training=torch.onnx.TrainingMode.EVAL,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


@pytest.mark.parametrize("name", nets.NETS)
def test_files_of_another_exporter(name: str) -> None:
    inputs = nets.example(name)
    proto = old_export(nets.NETS[name](), {key: torch.from_numpy(x) for key, x in inputs.items()})
    graph = trainable(proto)
    # A class token is repeated for each sample, which is the one shape that has to be computed.
    allowed = (
        {"Shape", "Gather", "Slice", "Unsqueeze", "Concat", "Expand", "Equal", "Where", "ConstantOfShape", "Mul"}
        if name == "vit_like"
        else set()
    )
    assert not {"Shape", "ConstantOfShape", "Expand", "Identity", "Constant"} & set(operators(graph)) - allowed
    for node in graph.proto.graph.node:
        if node.op_type in ("Reshape", "Resize"):
            assert all(given in values(graph) for given in node.input[1:] if given)
    same(graph, proto, **inputs)
    more = {key: np.concatenate([x, x[:1]]) for key, x in inputs.items()}
    same(graph, proto, **more)
    assert trainable(graph).sha256 == graph.sha256


STEPS = st.sampled_from(["linear", "bias", "shared", "norm", "reshaped", "scaled", "identity", "relu"])


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=8), st.integers(0, 99))
def test_random_graphs_compute_the_same(steps: list[str], seed: int) -> None:
    random = np.random.default_rng(seed)
    weights: dict[str, object] = {
        "shared": random.normal(size=(4, 4)).astype(np.float32) / 2, "ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32),
        "first": np.array(0), "axis": np.array([0]), "rest": np.array([2, 2]), "back": np.array([4]),
    }  # fmt: skip
    lines, current = [], "x"

    def step(expression: str) -> str:
        lines.append(f"t{len(lines)} = {expression}")
        return f"t{len(lines) - 1}"

    for number, kind in enumerate(steps):
        if kind in ("linear", "scaled"):
            weights[f"w{number}"] = random.normal(size=(4, 4)).astype(np.float32) / 2
            laid = step(f"Transpose<perm=[1, 0]>(w{number})") if kind == "linear" else step(f"Mul(w{number}, ones)")
            current = step(f"MatMul({current}, {laid})")
        elif kind == "bias":
            current = step(f"Add({current}, zeros)")
        elif kind == "shared":
            laid = step("Transpose<perm=[1, 0]>(shared)")
            current = step(f"MatMul({current}, {laid})")
        elif kind == "norm":
            current = step(f"BatchNormalization({current}, ones, zeros, zeros, ones)")
        elif kind == "reshaped":
            shape = step(f"Shape({current})")
            first = step(f"Gather({shape}, first)")
            batch = step(f"Unsqueeze({first}, axis)")
            there, back = step(f"Concat<axis=0>({batch}, rest)"), step(f"Concat<axis=0>({batch}, back)")
            current = step(f"Reshape({current}, {there})")
            current = step(f"Reshape({current}, {back})")
        else:
            current = step(f"{'Identity' if kind == 'identity' else 'Relu'}({current})")
    lines.append(f"y = Identity({current})")
    proto = parsed("g (float[n, 4] x) => (float[n, 4] y) {" + "  ".join(lines) + "}", **weights)
    graph = trainable(proto)
    assert operators(graph).count("BatchNormalization") == steps.count("norm")
    assert not {"Shape", "Gather", "Concat", "Unsqueeze"} & set(operators(graph))
    same(graph, proto, x=random.normal(size=(3, 4)).astype(np.float32))
    assert trainable(graph).sha256 == graph.sha256


def test_a_fixed_batch_and_a_broken_model() -> None:
    proto = parsed(FLATTEN.replace("[n, 4, 3, 2]", "[2, 4, 3, 2]").replace("[n, k]", "[2, k]"), w=normal(24, 5))
    assert operators(trainable(proto)) == ["Reshape", "MatMul"]
    with pytest.raises(InvalidModel, match=r"mine\.onnx: weight 'w'.*NaN"):
        trainable(parsed(FLATTEN, w=np.full((24, 5), np.nan, np.float32)), what="mine.onnx")
