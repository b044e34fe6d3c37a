"""Chains of nodes as one function: found where they are that function and nowhere else, the same numbers, and tensors inside still had."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx import parser as onnx_parser
from torch import Tensor

from edgewise.graph import Graph, Index
from edgewise.models.fusing import chains
from edgewise.models.network import Network

LOWEST = np.finfo(np.float32).min
NUMBERS = {
    "root": np.float32(2**0.5),
    "inverse": np.float32(0.5**0.5),
    "half": np.float32(0.5),
    "one": np.float32(1),
    "two": np.float32(2),
    "scale": np.float32(8**-0.5),
    "wide": np.float32(8**0.5),
}


def graph(body: str, inputs: str = "float[n, t, 6] x", outputs: str = "float[n, t, k] y", **weights: np.ndarray) -> Graph:
    proto = onnx_parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> g ({inputs}) => ({outputs}) {{ {body} }}')
    used = {name for node in proto.graph.node for name in node.input}
    stored = {name: value for name, value in {**NUMBERS, **weights}.items() if name in used}
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items())
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type}_{number}"
    return Graph.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True))


def found(made: Graph) -> list[tuple[str, ...]]:
    """The operators of every chain."""
    index = Index(made)
    return [tuple(node.op_type for node in chain.nodes) for chain in chains(index, index.constant, 18)]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(net: Network) -> Network:
    """The same with a step for each node."""
    import copy
    from dataclasses import replace

    twin = copy.deepcopy(net)
    plan = net._plan
    twin._plan = replace(plan, training=plan.whole[0], evaluation=plan.whole[1])
    return twin


def same(net: Network, inputs: Sequence[Tensor], rtol: float = 1e-5) -> None:
    """Outputs and gradients, of inputs and weights, with and without chains."""
    other = whole(net)
    mine, theirs = ([x.clone().requires_grad_() for x in inputs] for _ in range(2))
    got, expected = net(*mine), other(*theirs)
    torch.testing.assert_close(got, expected, rtol=rtol, atol=1e-6)
    direction = draw(*expected.shape, seed=9)
    (got * direction).sum().backward()
    (expected * direction).sum().backward()
    for ours, its in zip((*mine, *net.parameters()), (*theirs, *other.parameters()), strict=True):
        torch.testing.assert_close(ours.grad, its.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("body", ["m = MatMul(x, w)  y = Add(m, b)", "m = MatMul(x, w)  y = Add(b, m)"])
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_a_dense_layer(body: str, rank: int) -> None:
    axes = ", ".join(["n", "t", "s"][: rank - 1])
    made = graph(body, f"float[{axes}, 6] x", f"float[{axes}, k] y", w=draw(6, 4).numpy(), b=draw(4).numpy())
    assert found(made) == [("MatMul", "Add")]
    net = Network(made).train()
    assert len(net._plan.training) == 1
    same(net, [draw(*(2, 3, 5)[: rank - 1], 6)])
    assert net.weight("w").grad.is_contiguous()


GELU = {
    "torch": "a = Div(x, root)  e = Erf(a)  p = Add(e, one)  h = Mul(half, p)  y = Mul(x, h)",
    "optimum": "a = Div(x, root)  e = Erf(a)  p = Add(e, one)  q = Mul(x, p)  y = Mul(q, half)",
    "multiplied": "a = Mul(inverse, x)  e = Erf(a)  p = Add(one, e)  h = Mul(p, half)  y = Mul(h, x)",
    "halved": "a = Div(x, root)  e = Erf(a)  p = Add(e, one)  h = Div(p, two)  y = Mul(x, h)",
}


@pytest.mark.parametrize("body", GELU.values(), ids=GELU)
def test_gelu(body: str) -> None:
    made = graph(body)
    assert [len(chain) for chain in found(made)] == [5]
    same(Network(made), [draw(2, 3, 6)])


ATTENTION = {
    "scaled and masked": "s = MatMul(q, k)  m = Mul(s, scale)  a = Add(m, mask)  p = Softmax(a)  y = MatMul(p, v)",
    "divided": "s = MatMul(q, k)  m = Div(s, wide)  a = Add(mask, m)  p = Softmax <axis: int = 3> (a)  y = MatMul(p, v)",
    "masked": "s = MatMul(q, k)  a = Add(s, mask)  p = Softmax(a)  y = MatMul(p, v)",
    "scaled": "s = MatMul(q, k)  m = Mul(scale, s)  p = Softmax(m)  y = MatMul(p, v)",
    "bare": "s = MatMul(q, k)  p = Softmax(s)  y = MatMul(p, v)",
}


def attention(body: str) -> Graph:
    inputs = "float[n, h, t, 8] q, float[n, h, 8, t] k, float[n, h, t, 8] v"
    return graph(body, f"{inputs}, float[n, 1, 1, t] mask" if "mask" in body else inputs, "float[n, h, t, 8] y")


def qkv(batch: int = 2, heads: int = 3, tokens: int = 5) -> list[Tensor]:
    return [draw(batch, heads, tokens, 8, seed=1), draw(batch, heads, 8, tokens, seed=2), draw(batch, heads, tokens, 8, seed=3)]


@pytest.mark.parametrize("body", ATTENTION.values(), ids=ATTENTION)
def test_attention(body: str) -> None:
    made = attention(body)
    assert [len(chain) for chain in found(made)] == [len(made.proto.graph.node)]
    mask = torch.zeros(2, 1, 1, 5)
    mask[0, ..., 3:] = -1e4
    net = Network(made)
    same(net, [*qkv(), *([mask] if "mask" in body else [])])
    # bfloat16 is another rounding of the same.
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        given = [*qkv(), *([mask] if "mask" in body else [])]
        torch.testing.assert_close(net(*given).float(), whole(net)(*given).float(), rtol=0.03, atol=0.03)


@pytest.mark.parametrize("lowest", [-1e4, float(LOWEST)])
def test_a_mask_leaves_no_nan_in_bfloat16(lowest: float) -> None:
    net, mask = Network(attention(ATTENTION["scaled and masked"])), torch.full((2, 1, 1, 5), lowest)
    mask[1, ..., :2] = 0  # of the first sample nothing may be attended to
    inputs = [x.requires_grad_() for x in qkv()]
    with torch.autocast("cpu", torch.bfloat16):
        got = net(*inputs, mask)
    got.float().sum().backward()
    assert got.isfinite().all()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs)


@pytest.mark.parametrize(
    "made",
    [
        graph("m = MatMul(x, w)  y = Add(m, b)", w=draw(6, 4).numpy(), b=draw(3, 4).numpy()),  # no bias, but one for each token
        graph("m = MatMul(x, w)  r = Relu(m)  a = Add(m, b)  y = Add(a, r)", w=draw(6, 4).numpy(), b=draw(4).numpy()),
        graph("m = MatMul(x, w)  y = Add(m, b)", outputs="float[n, t, 4] y, float[n, t, 4] m", w=draw(6, 4).numpy(), b=draw(4).numpy()),
        graph("a = Div(x, two)  e = Erf(a)  p = Add(e, one)  h = Mul(half, p)  y = Mul(x, h)"),
        graph("a = Div(x, root)  e = Erf(a)  p = Add(e, one)  h = Mul(half, p)  z = Neg(x)  y = Mul(z, h)"),
        graph("a = Div(x, root)  e = Erf(a)  p = Add(e, two)  h = Mul(half, p)  y = Mul(x, h)"),
        graph("a = Div(root, x)  e = Erf(a)  p = Add(e, one)  h = Mul(half, p)  y = Mul(x, h)"),
        attention("s = MatMul(q, k)  p = Softmax <axis: int = 1> (s)  y = MatMul(p, v)"),
        graph("s = MatMul(x, k)  p = Softmax(s)  y = MatMul(p, x)", "float[n, t, 6] x, float[n, 6, t] k", "float[n, t, 6] y"),
    ],
    ids=["table", "read twice", "an output", "another factor", "another x", "erf + 2", "divisor", "another axis", "three axes"],
)
def test_what_only_looks_like_a_chain(made: Graph) -> None:
    assert found(made) == []


def test_a_tensor_inside_a_chain_is_had_where_it_is_asked_for() -> None:
    made = attention(ATTENTION["scaled and masked"])
    net, given = Network(made), [*qkv(), torch.zeros(2, 1, 1, 5)]
    inputs = dict(zip(("q", "k", "v", "mask"), given, strict=True))
    tapped = net.run(inputs, ["p", "s", "v"])
    torch.testing.assert_close(tapped["s"], inputs["q"] @ inputs["k"])
    torch.testing.assert_close(tapped["p"].sum(-1), torch.ones(2, 3, 5))
    torch.testing.assert_close(tapped["y"], net(*given))
    assert {"p", "s"} <= net._plan.slots.keys()
