"""Residual streams, branches and heads, found in transformers that no rule knows by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto

from edgewise import backends
from edgewise.export import export
from edgewise.graph import Graph, Index, fold, infer_shapes, parts, shrink, taps, trainable
from edgewise.graph.blocks import Heads, attention_mask, blocks, layers
from edgewise.models.network import Network
from edgewise.testing import encoder_graphs as encoders
from edgewise.testing import graphs, nets
from edgewise.types import Execution


def run(graph, inputs, names):
    found = Network(graph).run({name: torch.from_numpy(value) for name, value in inputs.items()}, names)
    return {name: value.detach().numpy() for name, value in found.items()}


def laid_out(array, heads):
    """(batch, tokens, heads, size)"""
    return np.transpose(array, heads.axes)


@pytest.mark.parametrize("norm", ("post", "pre"))
def test_an_encoder_has_an_attention_and_a_feed_forward_block_in_each_layer(norm):
    graph = encoders.encoder(layers=3, norm=norm)
    found = blocks(graph)
    assert [block.kind for block in found] == ["attention", "feed-forward"] * 3
    assert [len(layer) for layer in layers(found)] == [2, 2, 2]
    assert all(block.width == 8 for block in found)
    assert found[2].weights == tuple(f"layers.1.attention.{name}.weight" for name in ("query", "key", "value", "out"))
    assert found[3].weights == ("layers.1.feed.up.weight", "layers.1.feed.down.weight")
    assert [block.reads for block in found[1:]] == [block.stream for block in found[:-1]]
    assert attention_mask(graph) == "attention_mask"


@pytest.mark.parametrize("norm", ("post", "pre"))
def test_a_stream_is_what_the_formula_says(norm):
    """By numpy: the stream after a block is the one before, the branch added, and normalised behind it where norms stand there."""
    graph = encoders.encoder(norm=norm)
    weights = {name: value.detach().numpy() for name, value in Network(graph).weights().items()}
    found = blocks(graph)
    values = run(graph, encoders.texts(), [name for block in found for name in (block.reads, block.branch, block.stream)])

    def normed(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    names = [f"layers.{layer}.{which}" for layer in (0, 1) for which in ("attention", "feed")]
    for block, name in zip(found, names, strict=True):
        total = values[block.reads] + values[block.branch]
        np.testing.assert_allclose(values[block.stream], normed(total, f"{name}.norm") if norm == "post" else total, rtol=1e-4, atol=1e-5)
        read = normed(values[block.reads], f"{name}.norm") if norm == "pre" else values[block.reads]
        if block.kind == "feed-forward":
            inner = np.maximum(read @ weights[f"{name}.up.weight"] + weights[f"{name}.up.bias"], 0)
            np.testing.assert_allclose(
                values[block.branch], inner @ weights[f"{name}.down.weight"] + weights[f"{name}.down.bias"], rtol=1e-4, atol=1e-4
            )
            continue
        heads = run(graph, encoders.texts(), [each.tensor for each in (block.query, block.key, block.value)])
        for which in ("query", "key", "value"):
            where = getattr(block, which)
            expected = (read @ weights[f"{name}.{which}.weight"] + weights[f"{name}.{which}.bias"]).reshape(*read.shape[:2], 2, 4)
            np.testing.assert_allclose(laid_out(heads[where.tensor], where), expected, rtol=1e-4, atol=1e-4)
            assert (where.heads, where.size, where.width) == (2, 4, 8)


@pytest.mark.parametrize("norms", (True, False))
def test_a_picture_transformer_with_attention_in_products_and_as_torch_exports_its_own(norms):
    module, example = nets.vit_like(), nets.example("vit_like")
    graph = export(module, example, norms=norms)
    found = blocks(graph)
    assert [block.kind for block in found] == ["attention", "feed-forward"] * 2
    assert attention_mask(graph) is None
    seen = {}
    for number, block in enumerate(module.blocks):
        for which in ("query", "key", "value"):
            layer = getattr(block.attention, which)
            layer.register_forward_hook(lambda _, __, out, key=(number, which): seen.__setitem__(key, out))
        block.register_forward_hook(lambda _, __, out, key=number: seen.__setitem__(key, out))
    with torch.no_grad():
        module(torch.from_numpy(example["image"]))
    names = [
        name for block in found for name in (block.stream, *(heads.tensor for heads in (block.query, block.key, block.value) if heads))
    ]
    runner = backends.load(taps(graph, names).to_bytes(), Execution("onnxruntime"))
    values = runner.run(example)
    runner.close()
    for number in (0, 1):
        attention, feed = found[2 * number], found[2 * number + 1]
        np.testing.assert_allclose(values[feed.stream], seen[number], rtol=1e-3, atol=1e-4)
        for which in ("query", "key", "value"):
            heads = getattr(attention, which)
            got = laid_out(values[heads.tensor], heads)
            np.testing.assert_allclose(got.reshape(*got.shape[:2], -1), seen[number, which], rtol=1e-3, atol=1e-4)


def test_a_gated_feed_forward_network_is_a_block_and_a_convolution_none():
    assert [block.kind for block in blocks(export(nets.gated(), nets.example("gated")))] == ["feed-forward"] * 2
    assert len(layers(blocks(export(nets.gated(), nets.example("gated"))))) == 2
    for name in ("mobilenet_like", "densenet_like", "unet_like"):
        graph = export(getattr(nets, name)(), nets.example(name))
        assert blocks(graph) == () and attention_mask(graph) is None


@pytest.mark.parametrize("norm", ("post", "pre"))
def test_what_is_left_of_a_pruned_encoder(norm):
    graph = encoders.encoder(layers=3, norm=norm)
    names = [part.name for part in parts(graph).parts if part.kind != "hidden"]
    whole = blocks(graph)
    small = shrink(graph, {names[0]: [1], names[2]: [], names[3]: [], names[5]: []})
    found = blocks(small)
    assert [block.weights for block in found] == [whole[number].weights for number in (0, 1, 4)]
    assert found[0].query == Heads(whole[0].query.tensor, whole[0].query.axes, 1, 4)
    # the stream between two blocks that stayed is what the later one reads, through whatever norms the others left behind
    assert [block.reads for block in found[1:]] == [block.stream for block in found[:-1]]
    end = Index(small).consumers(found[-1].stream)
    assert [node.op_type for node in end] == (["Mul"] if norm == "post" else ["LayerNormalization"])
    assert blocks(fold(small))[2].kind == "attention"


def test_fused_heads_of_one_product_that_is_split():
    """GPT-2's: one weight makes queries, keys and values. And ONNX's own operator, with four axes or three."""
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((8, 24), np.float32), "out": random.standard_normal((8, 8), np.float32)}
    weights |= {"heads": np.array([0, 0, 2, 4]), "flat": np.array([0, 0, 8]), "sizes": np.array([8, 8, 8]), "scale": np.float32(0.5)}
    head = [("MatMul", ["x", "w"], ["qkv"]), ("Split", ["qkv", "sizes"], ["q", "k", "v"], {"axis": 2})]
    tail = [("MatMul", ["a", "out"], ["b"]), ("Add", ["x", "b"], ["y"])]
    turned = [
        node
        for name in "qkv"
        for node in (("Reshape", [name, "heads"], [f"{name}4"]), ("Transpose", [f"{name}4"], [f"{name}t"], {"perm": [0, 2, 1, 3]}))
    ]
    plain = [
        ("Transpose", ["kt"], ["kk"], {"perm": [0, 1, 3, 2]}),
        ("Mul", ["qt", "scale"], ["qs"]),
        ("MatMul", ["qs", "kk"], ["s"]),
        ("Softmax", ["s"], ["p"], {"axis": -1}),
        ("MatMul", ["p", "vt"], ["m"]),
    ]  # fmt: skip
    merged = [("Transpose", ["m"], ["mt"], {"perm": [0, 2, 1, 3]}), ("Reshape", ["mt", "flat"], ["a"])]
    shapes = {"x": ("batch", "tokens", 8)}, {"y": ("batch", "tokens", 8)}

    def only(nodes, opset=19):
        proto = graphs.build(nodes, *shapes, weights)
        proto.opset_import[0].version = opset
        (block,) = blocks(infer_shapes(Graph.from_proto(proto)))
        assert block.kind == "attention" and block.weights == ("w", "out") and (block.reads, block.stream) == ("x", "y")
        return block.query, block.key, block.value

    expected = tuple(Heads(f"{name}4", (0, 1, 2, 3), 2, 4) for name in "qkv")
    assert only([*head, *turned, *plain, *merged, *tail]) == expected
    operator = ("Attention", ["qt", "kt", "vt"], ["m"])
    assert only([*head, *turned, operator, *merged, *tail], 23) == expected
    flat = ("Attention", ["q", "k", "v"], ["a"], {"q_num_heads": 2, "kv_num_heads": 2})
    assert only([*head, flat, *tail], 23) == tuple(Heads(name, (0, 1, 2), 2, 4) for name in "qkv")


def test_heads_within_the_batch_are_an_attention_whose_heads_nobody_sees():
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((8, 8), np.float32)}
    nodes = [
        ("MatMul", ["x", "w"], ["q"]),
        ("Transpose", ["q"], ["k"], {"perm": [0, 2, 1]}),
        ("MatMul", ["q", "k"], ["s"]),
        ("Softmax", ["s"], ["p"], {"axis": -1}),
        ("MatMul", ["p", "q"], ["b"]),
        ("Add", ["b", "x"], ["y"]),
    ]
    (block,) = blocks(infer_shapes(Graph.from_proto(graphs.build(nodes, {"x": ("batch", 5, 8)}, {"y": ("batch", 5, 8)}, weights))))
    assert block.kind == "attention" and block.query is block.key is block.value is None


def test_the_mask_among_several_inputs():
    """Types choose rows of a table as ids do; a mask that the embeddings are multiplied with is still the one that chooses no row."""
    graph = encoders.encoder()

    def changed(edit):
        proto = graph.copy_proto()
        edit(proto)
        return infer_shapes(Graph.from_proto(proto))

    def types(proto):
        proto.graph.input.append(graphs.helper.make_tensor_value_info("types", TensorProto.INT64, ["batch", "tokens"]))
        proto.graph.initializer.append(graphs.numpy_helper.from_array(np.ones((2, 8), np.float32), "types.weight"))
        place = next(i for i, node in enumerate(proto.graph.node) if node.op_type == "Gather") + 1
        embedded = proto.graph.node[place - 1].output[0]
        for node in proto.graph.node:
            for i, name in enumerate(node.input):
                node.input[i] = "typed" if name == embedded else name
        added = [
            graphs.helper.make_node("Gather", ["types.weight", "types"], ["typed_rows"], name="typed_rows"),
            graphs.helper.make_node("Add", [embedded, "typed_rows"], ["typed"], name="typed"),
        ]
        for node in reversed(added):
            proto.graph.node.insert(place, node)

    def masked(proto):
        types(proto)
        cast = next(node.output[0] for node in proto.graph.node if node.op_type == "Cast")
        proto.graph.initializer.append(graphs.numpy_helper.from_array(np.array([2]), "behind"))
        place = next(i for i, node in enumerate(proto.graph.node) if node.output[0] == "typed") + 1
        for node in proto.graph.node:
            for i, name in enumerate(node.input):
                node.input[i] = "shown" if name == "typed" else name
        proto.graph.node.insert(place, graphs.helper.make_node("Mul", ["typed", "mask3"], ["shown"], name="shown"))
        proto.graph.node.insert(place, graphs.helper.make_node("Unsqueeze", [cast, "behind"], ["mask3"], name="mask3"))

    assert attention_mask(changed(types)) == "attention_mask"
    assert attention_mask(changed(masked)) == "attention_mask"


def test_shapes_that_an_export_computed():
    """Where the number of heads comes out of a computation, inference doesn't know it, and the width over a head's size does."""
    graph = encoders.encoder(layers=1)
    proto = graph.copy_proto()
    target = next(node.input[1] for node in proto.graph.node if node.op_type == "Reshape")
    parted = [graphs.helper.make_node("Shape", ["input_ids"], ["lengths"], name="lengths")]
    proto.graph.initializer.append(graphs.numpy_helper.from_array(np.array([-1, 4]), "rest"))
    parted.append(graphs.helper.make_node("Concat", ["lengths", "rest"], [f"{target}_made"], name="made", axis=0))
    for node in proto.graph.node:
        if node.op_type == "Reshape" and node.input[1] == target:
            node.input[1] = f"{target}_made"
    for node in reversed(parted):
        proto.graph.node.insert(0, node)
    for one in (infer_shapes(Graph.from_proto(proto)), trainable(Graph.from_proto(proto))):
        assert [(heads.heads, heads.size) for heads in (blocks(one)[0].query, blocks(one)[0].key, blocks(one)[0].value)] == [(2, 4)] * 3
