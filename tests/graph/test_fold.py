"""Rewrites are held against ONNX Runtime running the graph as it was, optimizations off."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnx import parser as onnx_parser

from edgewise.graph import Graph, canonical, fold, set_batch


def parsed(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    proto = onnx_parser.parse_model('<ir_version: 8, opset_import: ["" : 18]>' + text)
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return proto


def run(proto: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, inputs)


def operators(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.proto.graph.node]


def norm(channels: int, rng: np.random.Generator, prefix: str = "") -> dict[str, np.ndarray]:
    values = {"scale": rng.normal(size=channels), "shift": rng.normal(size=channels), "mean": rng.normal(size=channels)}
    values["variance"] = rng.uniform(0.1, 3, size=channels)
    return {prefix + name: value.astype(np.float32) for name, value in values.items()}


@settings(max_examples=25, deadline=None)
@given(
    transposed=st.booleans(), bias=st.booleans(), group=st.integers(1, 3), inputs=st.integers(1, 3), outputs=st.integers(1, 3),
    epsilon=st.sampled_from([1e-5, 1e-3]), seed=st.integers(0, 99),
)  # fmt: skip
def test_batch_norm_folds_exactly(transposed: bool, bias: bool, group: int, inputs: int, outputs: int, epsilon: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (inputs * group, outputs, 3, 3) if transposed else (outputs * group, inputs, 3, 3)
    weights = {"w": rng.normal(size=shape).astype(np.float32), **norm(outputs * group, rng)}
    if bias:
        weights["b"] = rng.normal(size=outputs * group).astype(np.float32)
    kind = "ConvTranspose" if transposed else "Conv"
    proto = parsed(
        f"g (float[n, {inputs * group}, 6, 6] x) => (float[n, {outputs * group}, p, q] y) {{"
        f"c = {kind}<group={group}>(x, w{', b' if bias else ''})"
        f"y = BatchNormalization<epsilon={epsilon}>(c, scale, shift, mean, variance) }}",
        **weights,
    )
    x = rng.normal(size=(2, inputs * group, 6, 6)).astype(np.float32)
    expected = run(proto, x=x)[0]
    graph = canonical(proto, "g")
    assert operators(graph) == [kind]
    np.testing.assert_allclose(run(graph.proto, x=x)[0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_batch_norm_stays_where_folding_would_change_another_output() -> None:
    rng = np.random.default_rng(0)
    text = "c = Conv(x, w)  y = BatchNormalization(c, scale, shift, mean, variance)"
    weights = {"w": rng.normal(size=(3, 2, 1, 1)).astype(np.float32), **norm(3, rng)}
    seen = canonical(parsed("g (float[n, 2, 4, 4] x) => (float[n, 3, 4, 4] y, float[n, 3, 4, 4] c) {" + text + "}", **weights), "g")
    assert operators(seen) == ["Conv", "BatchNormalization"]
    used = canonical(
        parsed("g (float[n, 2, 4, 4] x) => (float[n, 3, 4, 4] y, float[n, 3, 4, 4] z) {" + text + " z = Relu(c) }", **weights), "g"
    )
    assert operators(used) == ["Conv", "BatchNormalization", "Relu"]


def test_a_weight_that_two_convolutions_share_is_folded_into_a_copy() -> None:
    rng = np.random.default_rng(0)
    proto = parsed(
        "g (float[n, 2, 4, 4] x) => (float[n, 2, 4, 4] y) {"
        "a = Conv(x, w)  b = BatchNormalization(a, scale, shift, mean, variance)  c = Conv(b, w)  y = Relu(c) }",
        w=rng.normal(size=(2, 2, 1, 1)).astype(np.float32),
        **norm(2, rng),
    )
    x = rng.normal(size=(2, 2, 4, 4)).astype(np.float32)
    expected = run(proto, x=x)[0]
    graph = canonical(proto, "g")
    assert operators(graph) == ["Conv", "Conv", "Relu"]
    np.testing.assert_allclose(run(graph.proto, x=x)[0], expected, rtol=1e-4, atol=1e-5)


def test_shape_arithmetic_folds_when_the_batch_is_fixed() -> None:
    """What exporters write for x.view(2 * x.shape[0], -1)."""
    proto = parsed(
        "g (float[n, 2, 3] x) => (float[m, three] y) { s = Shape(x)  first = Gather(s, zero)  twice = Mul(first, two)"
        "u = Unsqueeze(twice, axes)  shape = Concat<axis=0>(u, rest)  y = Reshape(x, shape) }",
        zero=np.array(0), two=np.array(2), axes=np.array([0]), rest=np.array([-1]),
    )  # fmt: skip
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    graph = canonical(proto, "g")
    assert "Shape" in operators(graph)
    np.testing.assert_array_equal(run(graph.proto, x=x)[0], x.reshape(4, 3))
    fixed = fold(set_batch(graph, 2))
    assert operators(fixed) == ["Reshape"]
    assert fixed.signature.outputs[0].shape == (4, 3)
    np.testing.assert_array_equal(run(fixed.proto, x=x)[0], x.reshape(4, 3))


def test_a_target_that_copies_axes_is_constant_whatever_the_batch() -> None:
    """What exporters write for x.view(x.shape[0], -1)."""
    proto = parsed(
        "g (float[n, 2, 3] x) => (float[n, six] y) { s = Shape(x)  first = Gather(s, zero)  u = Unsqueeze(first, axes)"
        "shape = Concat<axis=0>(u, rest)  y = Reshape(x, shape) }",
        zero=np.array(0), axes=np.array([0]), rest=np.array([-1]),
    )  # fmt: skip
    x = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    graph = canonical(proto, "g")
    assert operators(graph) == ["Reshape"]
    np.testing.assert_array_equal(run(graph.proto, x=x)[0], x.reshape(2, 6))


def test_quantized_weights_and_huge_constants_are_left_as_they_are() -> None:
    proto = parsed(
        "g (float[n, 4] x) => (float[n, 4] y, float[4000, 4000] z) { k = DequantizeLinear(w, s)  y = MatMul(x, k)  z = Expand(s, big) }",
        w=np.ones((4, 4), np.int8), s=np.array(0.5, np.float32), big=np.array([4000, 4000]),
    )  # fmt: skip
    proto.graph.node.append(onnx.helper.make_node("Expand", ["s", "big"], ["large"]))
    proto.graph.node.append(onnx.helper.make_node("ReduceSum", ["large"], ["sum"]))
    proto.graph.node.append(onnx.helper.make_node("Add", ["x", "sum"], ["out"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("out", 1, ["n", 4]))
    graph = canonical(proto, "g")
    assert "DequantizeLinear" in operators(graph)
    assert operators(graph).count("Expand") == 2
    assert graph.size_bytes < 1000


def test_random_operators_are_no_constants() -> None:
    graph = canonical(parsed("g (float[4] x) => (float[4] y) { r = RandomNormal<shape=[4]>()  y = Add(x, r) }"), "g")
    assert operators(graph) == ["RandomNormal", "Add"]


def test_subgraphs_keep_what_they_capture() -> None:
    proto = parsed(
        "g (float[n, 4] x, bool c) => (float[n, 4] y) { a = Identity(x)  h = Relu(a)  k = Neg(w)"
        "y = If (c) <then_branch = t () => (float[n, 4] p) { p = Add(h, k) }, else_branch = e () => (float[n, 4] q) { q = Mul(a, w) }> }",
        w=np.arange(4, dtype=np.float32),
    )
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    expected = [run(proto, x=x, c=np.array(flag))[0] for flag in (True, False)]
    graph = canonical(proto, "g")
    assert operators(graph) == ["Relu", "If"]
    for flag, value in zip((True, False), expected, strict=True):
        np.testing.assert_array_equal(run(graph.proto, x=x, c=np.array(flag))[0], value)


STEPS = st.sampled_from(["conv", "conv+bn", "bn", "identity", "dropout", "relu", "scaled", "residual", "flattened", "doubled constant"])


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(STEPS, min_size=1, max_size=8), seed=st.integers(0, 1000))
def test_random_graphs_compute_the_same(steps: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    lines: list[str] = []
    weights: dict[str, np.ndarray] = {"half": np.array(0.5, np.float32), "as_image": np.array([0, 2, 4, 4])}
    current, made = "x", 0

    def step(expression: str) -> str:
        nonlocal made
        made += 1
        lines.append(f"t{made} = {expression}")
        return f"t{made}"

    for number, kind in enumerate(steps):
        before = current
        if kind.startswith("conv"):
            weights[f"w{number}"] = rng.normal(size=(2, 2, 3, 3)).astype(np.float32) / 4
            current = step(f"Conv<pads=[1, 1, 1, 1]>({current}, w{number})")
        if kind.endswith("bn"):
            weights |= norm(2, rng, f"n{number}_")
            current = step(f"BatchNormalization({current}, n{number}_scale, n{number}_shift, n{number}_mean, n{number}_variance)")
        elif kind == "identity":
            current = step(f"Identity({current})")
        elif kind == "dropout":
            current = step(f"Dropout({current})")
        elif kind == "relu":
            current = step(f"Relu({current})")
        elif kind == "scaled":
            constant = step("Constant<value_float=0.25>()")
            current = step(f"Mul({current}, {step(f'Exp({constant})')})")
        elif kind == "residual":
            current = step(f"Add({step(f'Relu({before})')}, {before})")
        elif kind == "flattened":
            current = step(f"Reshape({step(f'Flatten({current})')}, as_image)")
        elif kind == "doubled constant":
            one = step(f"Add({step('Identity(half)')}, half)")
            current = step(f"Add({current}, {one})")
    lines.append(f"y = Identity({current})")
    proto = parsed("g (float[n, 2, 4, 4] x) => (float[n, 2, 4, 4] y) {" + "  ".join(lines) + "}", **weights)
    x = rng.normal(size=(3, 2, 4, 4)).astype(np.float32)
    expected = run(proto, x=x)[0]
    graph = canonical(proto, "random")
    assert not {"Identity", "Dropout", "Constant", "Exp"} & set(operators(graph)) or graph.proto.graph.node[0].input[0] == "x"
    assert graph.signature.batched
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(run(graph.proto, x=x)[0] / scale, expected / scale, rtol=1e-4, atol=1e-5)
    assert fold(graph).sha256 == graph.sha256  # nothing is left to do


def test_fold_leaves_its_input_alone() -> None:
    graph = Graph.from_proto(parsed("g (float[n, 4] x) => (float[n, 4] y) { a = Identity(x)  y = Relu(a) }"))
    before = graph.proto.SerializeToString()
    assert operators(fold(graph)) == ["Relu"]
    assert graph.proto.SerializeToString() == before


@pytest.mark.parametrize("kind", ["Cast<to=7>", "Neg", "Abs"])
def test_scalars_fold_to_scalars(kind: str) -> None:
    graph = canonical(
        parsed(
            f"g (float[n, 4] x) => (float[n, 4] y) {{ c = {kind}(half)  d = Cast<to=1>(c)  y = Add(x, d) }}", half=np.array(0.5, np.float32)
        ),
        "g",
    )
    assert operators(graph) == ["Add"]
    assert list(graph.proto.graph.initializer[0].dims) == []
