"""Small ONNX graphs for tests, built with onnx.helper: float and quantized ones that every engine must run, broken ones that none may."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Node = tuple[str, list[str], list[str]] | tuple[str, list[str], list[str], dict[str, Any]]


def build(
    nodes: list[Node],
    inputs: dict[str, tuple[int | str, ...]],
    outputs: dict[str, tuple[int | str, ...]],
    weights: Mapping[str, Any],
    *,
    types: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """A model of `nodes` (op, inputs, outputs, attributes); tensors are float32 unless `types` says otherwise.

    Opset 19: the first whose DequantizeLinear onnx.reference has.
    """
    kinds = types or {}

    def value(name: str, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), list(shape))

    graph = helper.make_graph(
        [
            helper.make_node(node[0], node[1], node[2], name=f"{node[0]}_{i}", **(node[3] if len(node) > 3 else {}))
            for i, node in enumerate(nodes)
        ],
        "graph",
        [value(name, shape) for name, shape in inputs.items()],
        [value(name, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def mlp(hidden: int = 32, batch: int = 5) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """x (batch, 16) -> MatMul, Add, Relu, MatMul -> y (batch, 4)."""
    random = np.random.default_rng(0)
    weights = {
        "w1": random.standard_normal((16, hidden), dtype=np.float32),
        "b1": random.standard_normal(hidden, dtype=np.float32),
        "w2": random.standard_normal((hidden, 4), dtype=np.float32),
    }
    nodes: list[Node] = [
        ("MatMul", ["x", "w1"], ["m"]),
        ("Add", ["m", "b1"], ["a"]),
        ("Relu", ["a"], ["r"]),
        ("MatMul", ["r", "w2"], ["y"]),
    ]
    return build(nodes, {"x": ("batch", 16)}, {"y": ("batch", 4)}, weights), {"x": random.standard_normal((batch, 16), dtype=np.float32)}


def convolution() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A residual block with a pooled head: x (batch, 3, 12, 12) -> y (batch, 5)."""
    random = np.random.default_rng(1)
    weights = {
        "w1": random.standard_normal((8, 3, 3, 3), dtype=np.float32) / 5,
        "b1": random.standard_normal(8, dtype=np.float32),
        "w2": random.standard_normal((8, 8, 3, 3), dtype=np.float32) / 8,
        "w3": random.standard_normal((8, 5), dtype=np.float32),
    }
    same = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    nodes: list[Node] = [
        ("Conv", ["x", "w1", "b1"], ["c1"], same),
        ("Relu", ["c1"], ["r1"]),
        ("Conv", ["r1", "w2"], ["c2"], same),
        ("Add", ["c2", "r1"], ["s"]),
        ("Relu", ["s"], ["r2"]),
        ("GlobalAveragePool", ["r2"], ["p"]),
        ("Flatten", ["p"], ["f"]),
        ("MatMul", ["f", "w3"], ["y"]),
    ]
    model = build(nodes, {"x": ("batch", 3, 12, 12)}, {"y": ("batch", 5)}, weights)
    return model, {"x": random.standard_normal((2, 3, 12, 12), dtype=np.float32)}


def two_inputs() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """ids (batch, sequence) int64, scale (batch, sequence) -> looked up and scaled y (batch, sequence, 6), its sum z (batch, 6)."""
    random = np.random.default_rng(2)
    table = random.standard_normal((11, 6), dtype=np.float32)
    nodes: list[Node] = [
        ("Gather", ["table", "ids"], ["g"]),
        ("Unsqueeze", ["scale", "last"], ["u"]),
        ("Mul", ["g", "u"], ["y"]),
        ("ReduceSum", ["y", "one"], ["z"], {"keepdims": 0}),
    ]
    weights = {"table": table, "last": np.array([2], np.int64), "one": np.array([1], np.int64)}
    axes = ("batch", "sequence")
    model = build(nodes, {"ids": axes, "scale": axes}, {"y": (*axes, 6), "z": ("batch", 6)}, weights, types={"ids": TensorProto.INT64})
    return model, {"ids": random.integers(0, 11, (2, 7)), "scale": random.standard_normal((2, 7), dtype=np.float32)}


def quantized_matmul(bits: int = 7) -> tuple[onnx.ModelProto, dict[str, np.ndarray], float]:
    """An MLP layer in QDQ form, u8 activations and per-channel s8 weights of `bits` bits; the step is that of the output's scale.

    Seven bits: on x86 without VNNI some kernels add pairs of u8 × s8 products in 16 bits, and eight would saturate.
    """
    random = np.random.default_rng(3)
    top = 2 ** (bits - 1) - 1
    step = 0.25
    weights: dict[str, Any] = {
        "xs": np.float32(0.04), "xz": np.uint8(120), "ys": np.float32(step), "yz": np.uint8(128),
        "w": random.integers(-top, top + 1, (32, 8), dtype=np.int8), "ws": random.uniform(0.01, 0.03, 8).astype(np.float32),
        "wz": np.zeros(8, np.int8),
    }  # fmt: skip
    nodes: list[Node] = [
        ("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        ("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        ("DequantizeLinear", ["w", "ws", "wz"], ["wd"], {"axis": 1}),
        ("MatMul", ["xd", "wd"], ["m"]),
        ("QuantizeLinear", ["m", "ys", "yz"], ["mq"]),
        ("DequantizeLinear", ["mq", "ys", "yz"], ["y"]),
    ]
    model = build(nodes, {"x": ("batch", 32)}, {"y": ("batch", 8)}, weights)
    return model, {"x": random.standard_normal((6, 32), dtype=np.float32)}, step


def quantized_convolution(bits: int = 7) -> tuple[onnx.ModelProto, dict[str, np.ndarray], float]:
    """Conv and Relu in QDQ form, u8 activations and per-channel s8 weights of `bits` bits; the step is that of the output's scale."""
    random = np.random.default_rng(4)
    top = 2 ** (bits - 1) - 1
    step = 0.1
    scale = random.uniform(0.005, 0.01, 6).astype(np.float32)
    weights: dict[str, Any] = {
        "xs": np.float32(0.03), "xz": np.uint8(128), "ys": np.float32(step), "yz": np.uint8(0),
        "w": random.integers(-top, top + 1, (6, 3, 3, 3), dtype=np.int8), "ws": scale, "wz": np.zeros(6, np.int8),
        "b": random.integers(-500, 500, 6, dtype=np.int32), "bs": scale * np.float32(0.03), "bz": np.zeros(6, np.int32),
    }  # fmt: skip
    nodes: list[Node] = [
        ("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        ("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        ("DequantizeLinear", ["w", "ws", "wz"], ["wd"], {"axis": 0}),
        ("DequantizeLinear", ["b", "bs", "bz"], ["bd"], {"axis": 0}),
        ("Conv", ["xd", "wd", "bd"], ["c"], {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}),
        ("Relu", ["c"], ["r"]),
        ("QuantizeLinear", ["r", "ys", "yz"], ["rq"]),
        ("DequantizeLinear", ["rq", "ys", "yz"], ["y"]),
    ]
    model = build(nodes, {"x": ("batch", 3, 8, 8)}, {"y": ("batch", 6, 8, 8)}, weights)
    return model, {"x": random.standard_normal((2, 3, 8, 8), dtype=np.float32)}, step


def unknown_operator() -> bytes:
    return bytes(build([("NoSuchOperator", ["x"], ["y"])], {"x": ("batch", 4)}, {"y": ("batch", 4)}, {}).SerializeToString())


def contradicting_shapes() -> bytes:
    weights = {"w": np.ones((5, 2), np.float32)}
    return bytes(build([("MatMul", ["x", "w"], ["y"])], {"x": ("batch", 4)}, {"y": ("batch", 2)}, weights).SerializeToString())


FLOAT: dict[str, Callable[[], tuple[onnx.ModelProto, dict[str, np.ndarray]]]] = {
    "mlp": mlp,
    "convolution": convolution,
    "two inputs": two_inputs,
}
QUANTIZED: dict[str, Callable[[], tuple[onnx.ModelProto, dict[str, np.ndarray], float]]] = {
    "matmul": quantized_matmul,
    "convolution": quantized_convolution,
}
BROKEN: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"not a model at all",
    "truncated": lambda: mlp()[0].SerializeToString()[:-40],
    "truncated early": lambda: mlp()[0].SerializeToString()[:300],
    "unknown operator": unknown_operator,
    "contradicting shapes": contradicting_shapes,
}
_X = np.ones((5, 16), np.float32)
WRONG_INPUTS: dict[str, Any] = {
    "none": {},
    "another name": {"z": _X},
    "one too many": {"x": _X, "z": _X},
    "dtype": {"x": _X.astype(np.float64)},
    "width": {"x": _X[:, :15]},
    "rank": {"x": _X[0]},
    "no samples": {"x": _X[:0]},
    "a list": {"x": _X.tolist()},
}
