"""Small transformer encoders as graphs, made without torch: tokens and their mask in, scores out."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgewise.graph import Graph, infer_shapes
from edgewise.testing.graphs import Node, build


def encoder(
    *,
    layers: int = 2,
    width: int = 8,
    heads: int = 2,
    inner: int = 16,
    classes: int | None = 3,
    vocabulary: int = 30,
    norm: Literal["post", "pre"] = "post",
    prefix: str = "",
    seed: int = 0,
) -> Graph:
    """input_ids and attention_mask (batch, tokens) int64 -> scores (batch, classes), of the mean of the last hidden states.

    norm: "post" normalises each residual sum (BERT), "pre" what a branch reads, and the last sum (GPT-2, ViT). classes: None gives the mean
    itself, (batch, width), an embedding. prefix: of the names of weights and nodes.
    """
    made = _Making(np.random.default_rng(seed), prefix)
    mask = made.node("Cast", ["attention_mask"], to=1)
    missing = made.node("Mul", [made.node("Sub", [made.stored("one", 1.0), mask]), made.stored("far", -1e4)])
    bias = made.node("Unsqueeze", [missing, made.stored("over_heads", [1, 2])])
    x = made.node("Gather", [made.weight("embeddings.weight", vocabulary, width), "input_ids"])
    if norm == "post":
        x = made.norm(x, "embeddings.norm", width)
    for layer in range(layers):
        at = f"layers.{layer}"
        for branch, name in ((made.attention, "attention"), (made.feed_forward, "feed")):
            read = made.norm(x, f"{at}.{name}.norm", width) if norm == "pre" else x
            added = branch(read, f"{at}.{name}", width, heads if name == "attention" else inner, bias)
            x = made.node("Add", [added, x])
            x = made.norm(x, f"{at}.{name}.norm", width) if norm == "post" else x
    if norm == "pre":
        x = made.norm(x, "norm", width)
    lone = made.node("Unsqueeze", [mask, made.stored("last", [2])])
    total = made.node("ReduceSum", [made.node("Mul", [x, lone]), made.stored("tokens", [1])], keepdims=0)
    count = made.node("ReduceSum", [mask, made.stored("tokens", [1])], keepdims=1)
    mean = [total, count]
    if classes is None:
        made.nodes.append(("Div", mean, ["embedding"]))
    else:
        scores = made.node("MatMul", [made.node("Div", mean), made.weight("head.weight", width, classes)])
        made.nodes.append(("Add", [scores, made.weight("head.bias", classes)], ["scores"]))
    texts: dict[str, tuple[int | str, ...]] = dict.fromkeys(("input_ids", "attention_mask"), ("batch", "tokens"))
    output = ("embedding", width) if classes is None else ("scores", classes)
    proto = build(made.nodes, texts, {output[0]: ("batch", output[1])}, made.stores, types=dict.fromkeys(texts, 7))
    for node in proto.graph.node:
        node.name = prefix + node.output[0]
    return infer_shapes(Graph.from_proto(proto))


def texts(n: int = 6, longest: int = 9, *, vocabulary: int = 30, pad: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    """`n` made-up texts of 2 to `longest` tokens, the first of them that long, padded to `longest` + `pad`."""
    random = np.random.default_rng(seed)
    lengths = np.append(longest, random.integers(2, longest + 1, n - 1))
    mask = (np.arange(longest + pad) < lengths[:, None]).astype(np.int64)
    ids = np.zeros_like(mask)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = random.integers(1, vocabulary, length)
    return {"input_ids": ids, "attention_mask": mask}


class _Making:
    """Nodes and stored tensors in the making."""

    def __init__(self, random: np.random.Generator, prefix: str) -> None:
        self.random, self.prefix = random, prefix
        self.nodes: list[Node] = []
        self.stores: dict[str, np.ndarray] = {}

    def node(self, operator: str, inputs: list[str], **attributes: object) -> str:
        name = f"{self.prefix}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append((operator, inputs, [name], attributes))
        return name

    def stored(self, name: str, value: float | list[int]) -> str:
        self.stores[f"{self.prefix}{name}"] = np.asarray(value, np.float32 if isinstance(value, float) else np.int64)
        return f"{self.prefix}{name}"

    def weight(self, name: str, *shape: int) -> str:
        scale = 1.0 if name.startswith("embeddings") else shape[0] ** -0.5
        self.stores[f"{self.prefix}{name}"] = self.random.standard_normal(shape, np.float32) * np.float32(scale)
        return f"{self.prefix}{name}"

    def linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        product = self.node("MatMul", [x, self.weight(f"{name}.weight", inputs, outputs)])
        return self.node("Add", [product, self.weight(f"{name}.bias", outputs)])

    def norm(self, x: str, name: str, width: int) -> str:
        scale, shift = (self.weight(f"{name}.{which}", width) for which in ("weight", "bias"))
        self.stores[scale] = 1 + self.stores[scale] / 4
        return self.node("LayerNormalization", [x, scale, shift], axis=-1)

    def attention(self, x: str, name: str, width: int, heads: int, bias: str) -> str:
        target = self.stored(f"{name}.heads", [0, 0, heads, width // heads])
        q, k, v = (self.node("Reshape", [self.linear(x, f"{name}.{each}", width, width), target]) for each in ("query", "key", "value"))
        q, v = (self.node("Transpose", [each], perm=[0, 2, 1, 3]) for each in (q, v))
        scores = self.node("MatMul", [q, self.node("Transpose", [k], perm=[0, 2, 3, 1])])
        scaled = self.node("Mul", [scores, self.stored(f"{name}.scale", (width // heads) ** -0.5)])
        shares = self.node("Softmax", [self.node("Add", [scaled, bias])], axis=-1)
        mixed = self.node("Transpose", [self.node("MatMul", [shares, v])], perm=[0, 2, 1, 3])
        return self.linear(self.node("Reshape", [mixed, self.stored(f"{name}.flat", [0, 0, width])]), f"{name}.out", width, width)

    def feed_forward(self, x: str, name: str, width: int, inner: int, bias: str) -> str:
        return self.linear(self.node("Relu", [self.linear(x, f"{name}.up", width, inner)]), f"{name}.down", inner, width)
