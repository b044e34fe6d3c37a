"""What is left of removed branches: constants go into biases before them, activations that follow an equal one go.

An engine computes a sum of its own for every constant that stays, and a ReLU of its own after it; in an int8 network both end an
integer chain.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from edgewise.graph.canonical import remove_identities, remove_unused
from edgewise.graph.index import Index

IDEMPOTENT = ("Relu", "Clip")


def absorb(proto: onnx.ModelProto, name: str, value: np.ndarray) -> bool:
    """Add `value` (channels,) to what the node `name` passes on, by a bias near it; False if there is none: nothing changed then.

    Where an activation lies between them and the same one follows, it is crossed: relu(relu(x) + c) becomes relu(x + c), which is the same
    where x >= 0, and what training mends elsewhere.
    """
    index = Index(proto)
    node = next(one for one in proto.graph.node if one.name == name)
    after = index.sole_consumer(node.output[0])
    crossable = after.op_type if after is not None and after.op_type in IDEMPOTENT else ""
    return _into(proto, index, node.input[0], value, crossable) or (after is not None and _through(proto, index, after, value))


def _into(proto: onnx.ModelProto, index: Index, tensor: str, value: np.ndarray, crossable: str) -> bool:
    node = index.producer(tensor)
    if node is None or index.sole_consumer(tensor) is None or tensor in index.outputs:
        return False
    match node.op_type:
        case "Identity":
            return _into(proto, index, node.input[0], value, crossable)
        case "Relu" | "Clip" if node.op_type == crossable:
            return _into(proto, index, node.input[0], value, "")
        case "BatchNormalization":
            return _raised(proto, index, node.input[2], value)
        case "LayerNormalization" if len(node.input) > 2 and node.input[2]:
            return _raised(proto, index, node.input[2], value)
        case "Conv" | "Gemm" if len(node.input) > 2 and node.input[2]:
            return _raised(proto, index, node.input[2], value)
        case "Add":
            return any(
                _raised(proto, index, name, value) if name in index.initializers else _into(proto, index, name, value, "")
                for name in node.input
            )
    return False


def _through(proto: onnx.ModelProto, index: Index, conv: onnx.NodeProto, value: np.ndarray) -> bool:
    """What a convolution makes of a constant is one, where it pads nothing: into its bias, or off the mean of the batch norm behind it."""
    weight = index.constant(conv.input[1]) if conv.op_type == "Conv" else None
    attributes = {attribute.name: attribute for attribute in conv.attribute}
    padded = any(attributes["pads"].ints) if "pads" in attributes else False
    same = "auto_pad" in attributes and attributes["auto_pad"].s not in (b"NOTSET", b"VALID")
    if weight is None or padded or same or weight.shape[1] != len(value):
        return False
    made = weight.reshape(*weight.shape[:2], -1).sum(2) @ value
    if len(conv.input) > 2 and conv.input[2]:
        return _raised(proto, index, conv.input[2], made)
    norm = index.sole_consumer(conv.output[0])
    return norm is not None and norm.op_type == "BatchNormalization" and _raised(proto, index, norm.input[3], -made)


def _raised(proto: onnx.ModelProto, index: Index, name: str, value: np.ndarray) -> bool:
    """Whether `value` could be added to the stored tensor `name`: where it is as long, and only one node reads it."""
    before = index.constant(name)
    if before is None or before.size != len(value) or before.dtype.kind != "f" or index.sole_consumer(name) is None:
        return False
    stored = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    stored.CopyFrom(numpy_helper.from_array((before + value.reshape(before.shape)).astype(before.dtype), name))
    return True


def settle(proto: onnx.ModelProto) -> None:
    """Take out what passes its input on: identities, and activations of what went through the same one before, rounded or not."""
    remove_identities(proto)
    index = Index(proto)
    repeated = [node for node in proto.graph.node if node.op_type in IDEMPOTENT and _activated(index, node)]
    for node in repeated:
        node.op_type = "Identity"
        del node.input[1:]
        del node.attribute[:]
    if repeated:
        remove_identities(proto)
    remove_unused(proto)


def _activated(index: Index, node: onnx.NodeProto) -> bool:
    """Whether what `node` reads is its own kind's output. Rounding (an integer and back) keeps what is 0 or more so, not an upper limit."""
    tensor, rounded = node.input[0], False
    while (before := index.producer(tensor)) is not None and before.op_type in ("QuantizeLinear", "DequantizeLinear"):
        tensor, rounded = before.input[0], True
    if before is None or before.op_type != node.op_type:
        return False
    if node.op_type == "Relu":
        return True
    limits = [[index.constant(name) for name in one.input[1:]] for one in (before, node)]
    return (
        not rounded
        and len(limits[0]) == len(limits[1])
        and all(a is not None and b is not None and np.array_equal(a, b) for a, b in zip(*limits, strict=True))
    )
