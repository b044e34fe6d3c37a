from collections.abc import Callable
from typing import Any

import pytest

from edgewise.compress.quantize.place import place
from edgewise.graph import Graph


def test_both_rounds_what_integer_kernels_read_and_write(net: Graph) -> None:
    plan = place(net)
    assert [layer.name for layer in plan.weighted] == ["stem", "expand", "depthwise", "project", "down", "left", "right", "last", "y"]
    # Rectifiers are folded: what they make is rounded, what goes into them isn't. The output stays in float.
    assert plan.rounded == (
        "x", "stem_relu", "expand_clip", "depthwise_clip", "project", "sum", "down_relu", "pool", "left_relu", "right_relu", "joined",
        "last_relu", "mean", "flat",
    )  # fmt: skip
    assert {frozenset(names) for names in plan.shared} == {
        frozenset(("down_relu", "pool")), frozenset(("left_relu", "right_relu", "joined")), frozenset(("mean", "flat")),
    }  # fmt: skip
    assert plan.skipped == {}


def test_one_and_none_round_only_what_enters_weights(net: Graph) -> None:
    one = place(net, residual="one")
    assert "project" not in one.rounded and "sum" in one.rounded and "stem_relu" in one.rounded
    add = next(node for node in net.proto.graph.node if node.name == "sum")
    assert one.reads_rounded(add, "stem_relu")
    assert not place(net, residual="none").reads_rounded(add, "stem_relu")


def test_skipped_nodes_keep_their_inputs_in_float(net: Graph) -> None:
    plan = place(net, skip=("stem", "y"))
    assert plan.skipped == {"stem": "left in float as asked", "y": "left in float as asked"}
    assert "x" not in plan.rounded and "flat" not in plan.rounded and "stem_relu" in plan.rounded


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda n: n.add("MatMul", ["x", n.add("Transpose", ["x"], "xt", perm=[1, 0])], "y"), "aren't constant"),
        (lambda n: n.add("Gemm", ["x", n.constant("w", n.rng.normal(size=(4, 4)).astype("f4"))], "y", alpha=0.5), "no integer kernel"),
        (lambda n: n.add("MatMul", ["x", n.constant("w", n.rng.normal(size=(2, 4, 4)).astype("f4"))], "y"), "rank 3"),
    ],
)
def test_what_has_no_integer_kernel_says_why(new_net: Callable[..., Any], make: Callable[[Any], Any], reason: str) -> None:
    net = new_net()
    make(net)
    shape: list[Any] = [2, 4, 4] if "rank" in reason else [4, 4]
    plan = place(net.graph({"x": [4, 4]}, {"y": shape}))
    assert not plan.weighted
    assert reason in plan.skipped["y"]


def test_sums_and_norms_of_tokens_stay_in_float(text: Graph) -> None:
    plan = place(text)
    products = {layer.name for layer in plan.weighted}
    assert products == {f"{name}_product" for name in ("query", "key", "value", "out", "feed1", "feed2")} | {"y"}
    assert plan.tokens == {"entry", "norm1", "context", "gelu"}
    nodes = {node.name: node for node in text.proto.graph.node}
    assert plan.reads_rounded(nodes["query_product"], "entry") and plan.reads_rounded(nodes["feed1_product"], "norm1")
    assert not plan.reads_rounded(nodes["sum1"], "entry") and not plan.reads_rounded(nodes["sum2"], "norm1")
    # Integers flow through what only moves them; attention's own products have no constant weights.
    assert "seen" in plan.rounded and plan.reads_rounded(nodes["seen_turned"], "seen")
    assert {name: "aren't constant" in reason for name, reason in plan.skipped.items()} == {"products": True, "seen": True}


def test_an_addition_behind_a_product_is_its_bias(text: Graph, new_net: Callable[..., Any]) -> None:
    found = {layer.name: (layer.adder, layer.added, layer.bias) for layer in place(text).weighted}
    assert found["query_product"] == ("query", "query_b", None)
    assert found["y"] == (None, None, "head_b")
    net = new_net()
    w = net.constant("w", net.rng.normal(size=(4, 4)).astype("f4"))
    net.add("Add", [net.add("MatMul", ["x", w], "product"), "x"], "y")
    (layer,) = place(net.graph({"x": ["batch", 4]}, {"y": ["batch", 4]})).weighted
    assert layer.adder is None and not layer.shifts
    assert place(text, skip=("query",)).weighted[0].adder is None
