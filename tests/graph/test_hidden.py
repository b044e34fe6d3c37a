"""Transformers cut down: heads, inner units, whole branches, and the width of the stream that layer norms normalise.

The oracle for the width is numpy: the same encoder, written down once more, over weights of which positions were taken.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgewise import backends
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, fold, parts, positions, shrink
from edgewise.models.network import Network
from edgewise.testing.encoder_graphs import encoder, texts
from edgewise.testing.graphs import build
from edgewise.types import Execution

WIDTH, HEADS = 8, 2


def weights(graph: Graph) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in graph.proto.graph.initializer}


def normed(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + shift


def reference(w: dict[str, np.ndarray], inputs: dict[str, np.ndarray], layers: int, norm: str, size: int) -> np.ndarray:
    """The encoder of `testing.encoder_graphs` in numpy, for heads of `size` and whatever widths the weights have."""
    mask = inputs["attention_mask"].astype(np.float64)
    x = w["embeddings.weight"][inputs["input_ids"]]

    def layer_norm(x: np.ndarray, name: str) -> np.ndarray:
        return normed(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def attention(x: np.ndarray, name: str) -> np.ndarray:
        q, k, v = (linear(x, f"{name}.{each}").reshape(*x.shape[:2], -1, size).swapaxes(1, 2) for each in ("query", "key", "value"))
        scores = q @ k.swapaxes(2, 3) * w[f"{name}.scale"] - 1e4 * (1 - mask)[:, None, None]
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True) @ v).swapaxes(1, 2)
        return linear(mixed.reshape(*x.shape[:2], -1), f"{name}.out")

    def feed(x: np.ndarray, name: str) -> np.ndarray:
        return linear(np.maximum(linear(x, f"{name}.up"), 0), f"{name}.down")

    x = layer_norm(x, "embeddings.norm") if norm == "post" else x
    for layer in range(layers):
        for branch, what in ((attention, "attention"), (feed, "feed")):
            name = f"layers.{layer}.{what}"
            if norm == "post":
                x = layer_norm(branch(x, name) + x, f"{name}.norm")
            else:
                x = branch(layer_norm(x, f"{name}.norm"), name) + x
    x = layer_norm(x, "norm") if norm == "pre" else x
    return linear((x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True), "head")


def answers(graph: Graph, inputs: dict[str, np.ndarray], engine: str = "onnxruntime") -> np.ndarray:
    runner = backends.load(graph.to_bytes(), Execution(engine))
    try:
        return next(iter(runner.run(inputs).values()))
    finally:
        runner.close()


@pytest.mark.parametrize("norm", ("post", "pre"))
def test_an_encoder_has_heads_inner_units_and_one_stream(norm: str) -> None:
    found = {part.name: (part.kind, part.units, part.removable) for part in parts(encoder(norm=norm)).parts}
    assert found == {
        "embeddings.weight": ("hidden", WIDTH, False),
        **{f"layers.{i}.attention.query.weight": ("heads", HEADS, True) for i in (0, 1)},
        **{f"layers.{i}.feed.up.weight": ("neurons", 16, True) for i in (0, 1)},
    }


@pytest.mark.parametrize("norm", ("post", "pre"))
def test_a_narrower_stream_is_the_encoder_of_that_width(norm: str) -> None:
    graph, inputs = encoder(norm=norm), texts()
    before = weights(graph)
    np.testing.assert_allclose(answers(graph, inputs), reference(before, inputs, 2, norm, WIDTH // HEADS), rtol=1e-4, atol=1e-4)
    stay = [0, 2, 3, 6, 7]
    small = shrink(graph, {"embeddings.weight": stay})
    onnx.checker.check_model(small.proto, full_check=True)
    cut = dict(before)
    for name, value in before.items():
        made = name.endswith((".out.weight", ".down.weight")) or name == "embeddings.weight"
        if made or "norm" in name or name.endswith((".out.bias", ".down.bias")):
            cut[name] = value[..., stay]
        elif name.endswith((".query.weight", ".key.weight", ".value.weight", ".up.weight", "head.weight")):
            cut[name] = value[stay]
    np.testing.assert_allclose(answers(small, inputs), reference(cut, inputs, 2, norm, WIDTH // HEADS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ("post", "pre"))
@pytest.mark.parametrize("engine", ("onnxruntime", "openvino"))
def test_engines_agree_with_torch_and_numpy_on_an_encoder_with_one_head_fewer_and_half_the_inner_units(norm: str, engine: str) -> None:
    if engine not in backends.installed():
        pytest.skip(f"{engine} isn't installed")
    graph, inputs = encoder(norm=norm), texts()
    keep = {"layers.1.attention.query.weight": [1], "layers.0.feed.up.weight": list(range(0, 16, 2))}
    small = shrink(graph, keep)
    w = weights(small)
    assert w["layers.1.attention.query.weight"].shape == (WIDTH, WIDTH // HEADS) and w["layers.0.feed.down.weight"].shape == (8, WIDTH)
    expected = reference(w, inputs, 2, norm, WIDTH // HEADS)
    np.testing.assert_allclose(answers(fold(small), inputs, engine), expected, rtol=2e-3, atol=2e-3)
    network = Network(small)
    got = network(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    longer = texts(3, 17)  # the axes are still open
    np.testing.assert_allclose(answers(small, longer), reference(w, longer, 2, norm, WIDTH // HEADS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ("post", "pre"))
def test_a_layer_without_heads_and_inner_units_is_gone(norm: str) -> None:
    graph, inputs = encoder(norm=norm), texts()
    keep: dict[str, list[int]] = {"layers.0.attention.query.weight": [], "layers.0.feed.up.weight": []}
    small = shrink(graph, keep)
    before, after = (Counter(node.op_type for node in one.proto.graph.node) for one in (graph, small))
    assert before["MatMul"] - after["MatMul"] == 8 and before["Softmax"] - after["Softmax"] == 1 and not after["Identity"]
    assert not any(name.startswith("layers.0") and "norm" not in name for name in weights(small))
    # What the branches added when nothing is read are their last biases.
    masked = dict(weights(graph))
    for name in ("layers.0.attention.out.weight", "layers.0.feed.down.weight"):
        masked[name] = np.zeros_like(masked[name])
    np.testing.assert_allclose(answers(small, inputs), reference(masked, inputs, 2, norm, WIDTH // HEADS), rtol=1e-4, atol=1e-4)


def test_what_stays_of_a_tensor() -> None:
    graph = encoder()
    coupling = parts(graph)
    stays = positions(coupling, {"embeddings.weight": [0, 1, 2], "layers.0.attention.query.weight": [1]})
    rows, columns = stays["layers.0.attention.query.weight"]
    assert rows is not None and np.flatnonzero(rows).tolist() == [0, 1, 2]
    assert columns is not None and np.flatnonzero(columns).tolist() == [4, 5, 6, 7]
    with pytest.raises(InvalidInput, match="has no part 'nowhere'"):
        positions(coupling, {"nowhere": []})


@pytest.mark.parametrize("stated", (True, False))
def test_targets_that_are_computed_from_shapes_are_followed(stated: bool) -> None:
    """As torch's exporter writes them: Concat of the batch's and the tokens' Shape, where inference loses the names."""
    random = np.random.default_rng(0)
    w = {name: random.standard_normal((8, 8), np.float32) for name in ("q", "k", "v", "out")}
    constants = {"heads": [2 if stated else -1], "size": [4], "width": [8 if stated else -1]}
    nodes = [
        ("Shape", ["x"], ["batch"], {"start": 0, "end": 1}),
        ("Shape", ["x"], ["tokens"], {"start": 1, "end": 2}),
        ("Concat", ["batch", "tokens", "heads", "size"], ["split"], {"axis": 0}),
        ("Concat", ["batch", "tokens", "width"], ["joined"], {"axis": 0}),
        *(("MatMul", ["x", name], [f"{name}_"], {}) for name in "qkv"),
        *(("Reshape", [f"{name}_", "split"], [f"{name}_heads"], {}) for name in "qkv"),
        *(("Transpose", [f"{name}_heads"], [f"{name}_t"], {"perm": perm}) for name, perm in zip("qkv", PERMS, strict=True)),
        ("MatMul", ["q_t", "k_t"], ["scores"], {}),
        ("Softmax", ["scores"], ["shares"], {"axis": -1}),
        ("MatMul", ["shares", "v_t"], ["mixed"], {}),
        ("Transpose", ["mixed"], ["turned"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["turned", "joined"], ["flat"], {}),
        ("MatMul", ["flat", "out"], ["y"], {}),
    ]
    stored = {**w, **{name: np.array(value, np.int64) for name, value in constants.items()}}
    graph = Graph.from_proto(build(nodes, {"x": ("batch", "tokens", 8)}, {"y": ("batch", "tokens", 8)}, stored))
    (part,) = parts(graph).parts
    assert (part.kind, part.units) == ("heads", 2)
    small, x = shrink(graph, {part.name: [1]}), random.standard_normal((3, 5, 8), np.float32)
    q, k, v = (x @ w[name][:, 4:] for name in "qkv")
    scores = q @ k.swapaxes(1, 2)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    expected = shares / shares.sum(-1, keepdims=True) @ v @ w["out"][4:]
    np.testing.assert_allclose(answers(small, {"x": x}), expected, rtol=1e-3, atol=1e-3)


PERMS = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
