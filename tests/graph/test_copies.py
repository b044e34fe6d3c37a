"""Targets of Reshape that copy the input's axes: the constants they become mean the same, and others are left."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx import parser as onnx_parser
from onnx.reference import ReferenceEvaluator

from edgewise.graph import Graph, trainable
from edgewise.graph.reading import canonical

INDEX = {"zero": 0, "first": [0], "second": [1], "four": [4], "eight": [8], "rest": [-1], "both": [0, 1], "axes": [0], "empty": [0]}


def proto(body: str, given: str = "float[n, t, 32] x", result: str = "float[a, b, c, d] y") -> onnx.ModelProto:
    made = onnx_parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> g ({given}) => ({result}) {{ {body} }}')
    used = {name for node in made.graph.node for name in node.input}
    made.graph.initializer.extend(numpy_helper.from_array(np.array(INDEX[name], np.int64), name) for name in INDEX if name in used)
    return made


def targets(made: Graph) -> list[list[int] | None]:
    """Of every Reshape; None for one that is computed."""
    stored = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in made.proto.graph.initializer}
    return [stored.get(node.input[1]) for node in made.proto.graph.node if node.op_type == "Reshape"]


SHAPE = "s = Shape(x)"
# One number, made a vector again, as older exporters have it.
OLDER = (
    "s = Shape(x)  a = Gather(s, zero)  b = Unsqueeze(a, axes)  t = Gather(s, second)  h = Concat <axis: int = 0> (b, t, rest, eight)"
    "  y = Reshape(x, h)"
)
ONE = "n = Shape <start: int = 0, end: int = 1> (x)  t = Shape <start: int = 1, end: int = 2> (x)"


@pytest.mark.parametrize(
    ("body", "target"),
    [
        (f"{ONE}  h = Concat <axis: int = 0> (n, t, four, eight)  y = Reshape(x, h)", [0, 0, 4, 8]),
        (f"{ONE}  h = Concat <axis: int = 0> (n, t, rest, eight)  y = Reshape(x, h)", [0, 0, 4, 8]),
        (f"{ONE}  h = Concat <axis: int = 0> (n, t, four, rest)  y = Reshape <allowzero: int = 1> (x, h)", [0, 0, 4, 8]),
        (f"{SHAPE}  a = Gather(s, both)  h = Concat <axis: int = 0> (a, four, eight)  y = Reshape(x, h)", [0, 0, 4, 8]),
        (OLDER, [0, 0, 4, 8]),
        # The last axis is taken apart from the front: only what stays in its place is a copy, one may follow from the rest.
        (f"{ONE}  h = Concat <axis: int = 0> (n, four, t, eight)  y = Reshape(x, h)", [0, 4, -1, 8]),
    ],
)  # fmt: skip
def test_targets_become_constant(body: str, target: list[int]) -> None:
    before = proto(body)
    for after in (canonical(proto(body), "x"), trainable(proto(body))):
        assert targets(after) == [target]
        assert {node.op_type for node in after.proto.graph.node} == {"Reshape"}
        for shape in ((1, 1), (2, 5), (3, 4)):
            x = np.random.default_rng(0).standard_normal((*shape, 32), dtype=np.float32)
            expected, got = (ReferenceEvaluator(model).run(None, {"x": x})[0] for model in (before, after.proto))
            np.testing.assert_array_equal(got, expected)


def test_axes_keep_their_names() -> None:
    made = canonical(proto(f"{ONE}  h = Concat <axis: int = 0> (n, t, rest, eight)  y = Reshape(x, h)"), "x")
    assert made.signature.outputs[0].shape == ("n", "t", 4, 8)


@pytest.mark.parametrize(
    "body",
    [
        f"{ONE}  h = Concat <axis: int = 0> (t, n, four, eight)  y = Reshape(x, h)",  # two axes change places
        f"{ONE}  a = Add(t, first)  h = Concat <axis: int = 0> (n, a, four, rest)  y = Reshape(x, h)",  # computed with
    ],
)
def test_targets_that_are_no_copies_are_left(body: str) -> None:
    assert targets(canonical(proto(body), "x")) == [None]


def test_a_literal_zero_is_left() -> None:
    body = "n = Shape <start: int = 0, end: int = 1> (x)  h = Concat <axis: int = 0> (n, empty)  y = Reshape <allowzero: int = 1> (x, h)"
    assert targets(canonical(proto(body, "float[n, 0] x", "float[a, b] y"), "x")) == [None]
