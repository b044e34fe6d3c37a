"""Small nets built by hand, and samples for them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgewise import backends
from edgewise.graph import Graph, infer_shapes
from edgewise.types import Execution, Inputs


class Net:
    """Collects nodes and random weights, then makes a Graph."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self.weights[name] = value
        return name

    def conv(self, x: str, name: str, cin: int, cout: int, k: int = 3, group: int = 1, **attributes: Any) -> str:
        # Channels of very different sizes: what makes quantization hard.
        size = np.exp(self.rng.normal(0, 0.7, (cout, 1, 1, 1)))
        weight = self.rng.normal(0, 1, (cout, cin // group, k, k)) * size / np.sqrt(cin // group * k * k)
        w = self.constant(f"{name}_w", weight.astype(np.float32))
        b = self.constant(f"{name}_b", self.rng.normal(0, 0.3, cout).astype(np.float32))
        attributes.setdefault("pads", [k // 2] * 4)
        return self.add("Conv", [x, w, b], name, group=group, **attributes)

    def relu6(self, x: str, name: str) -> str:
        self.weights.update(zero=np.float32(0), six=np.float32(6))
        return self.add("Clip", [x, "zero", "six"], name)

    def linear(self, x: str, name: str, cin: int, cout: int) -> str:
        """A product and an addition, as exporters write a linear layer on tokens."""
        w = self.constant(f"{name}_w", self.rng.normal(0, cin**-0.5, (cin, cout)).astype(np.float32))
        b = self.constant(f"{name}_b", self.rng.normal(0, 0.3, cout).astype(np.float32))
        return self.add("Add", [self.add("MatMul", [x, w], f"{name}_product"), b], name)

    def norm(self, x: str, name: str, width: int, large: dict[int, float]) -> str:
        """A layer norm whose gain makes some channels `large`, as those of trained transformers do."""
        gain = self.rng.normal(1, 0.1, width).astype(np.float32)
        gain[list(large)] = list(large.values())
        bias = self.rng.normal(0, 0.1, width).astype(np.float32)
        inputs = [x, self.constant(f"{name}_gain", gain), self.constant(f"{name}_bias", bias)]
        return self.add("LayerNormalization", inputs, name, axis=-1)

    def graph(
        self, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]], opset: int = 18, types: dict[str, int] | None = None
    ) -> Graph:
        kinds = types or {}
        made = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            [numpy_helper.from_array(np.asarray(v), n) for n, v in self.weights.items()],
        )
        return infer_shapes(Graph.from_proto(helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)))


def residual(seed: int = 0) -> Graph:
    net = Net(seed)
    x = net.add("Relu", [net.conv("x", "stem", 3, 8)], "stem_relu")
    y = net.relu6(net.conv(x, "expand", 8, 16, 1), "expand_clip")
    y = net.relu6(net.conv(y, "depthwise", 16, 16, 3, group=16), "depthwise_clip")
    y = net.conv(y, "project", 16, 8, 1)
    x = net.add("Add", [x, y], "sum")
    x = net.add("Relu", [net.conv(x, "down", 8, 12, 3, strides=[2, 2])], "down_relu")
    x = net.add("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    a = net.add("Relu", [net.conv(x, "left", 12, 6, 1)], "left_relu")
    b = net.add("Relu", [net.conv(x, "right", 12, 6, 3)], "right_relu")
    x = net.add("Concat", [a, b], "joined", axis=1)
    x = net.add("Relu", [net.conv(x, "last", 12, 16, 1)], "last_relu")
    x = net.add("Flatten", [net.add("GlobalAveragePool", [x], "mean")], "flat")
    net.constant("head_w", net.rng.normal(0, 0.5, (5, 16)).astype(np.float32))
    net.constant("head_b", net.rng.normal(0, 0.5, 5).astype(np.float32))
    net.add("Gemm", [x, "head_w", "head_b"], "y", transB=1)
    return net.graph({"x": ["batch", 3, 16, 16]}, {"y": ["batch", 5]})


def encoder(seed: int = 0, width: int = 16, heads: int = 2, words: int = 600) -> Graph:
    """A transformer's layer with norms after the sums, as BERT has it: ids and mask (batch, tokens) -> logits (batch, 3).

    Its table is gathered from, its norms have channels that are tens of times as large as the others, and padding is masked.
    """
    net = Net(seed)
    net.weights.update(
        last=np.array([-1]), middle=np.array([1, 2]), one=np.float32(1), scale=np.float32((width / heads) ** -0.5),
        split=np.array([0, 0, heads, width // heads]), merge=np.array([0, 0, width]), root=np.float32(2**0.5), half=np.float32(0.5),
        tokens=np.array([1]),
    )  # fmt: skip
    net.constant("table", net.rng.normal(0, 1, (words, width)).astype(np.float32))
    kept = net.add("Cast", ["mask"], "kept", to=TensorProto.FLOAT)
    away = net.add("Mul", [net.add("Sub", [kept, "one"], "gone"), net.constant("push", np.float32(1e4))], "away")
    away = net.add("Unsqueeze", [away, "middle"], "away_of_heads")
    x = net.norm(net.add("Gather", ["table", "ids"], "embedded"), "entry", width, {3: 25.0, 7: 9.0})
    q, k, v = (
        net.add(
            "Transpose", [net.add("Reshape", [net.linear(x, name, width, width), "split"], f"{name}_heads")], f"{name}_turned", perm=perm
        )
        for name, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
    )
    scores = net.add("Mul", [net.add("MatMul", [q, k], "products"), "scale"], "scores")
    share = net.add("Softmax", [net.add("Add", [scores, away], "masked")], "share", axis=-1)
    seen = net.add("Transpose", [net.add("MatMul", [share, v], "seen")], "seen_turned", perm=[0, 2, 1, 3])
    seen = net.linear(net.add("Reshape", [seen, "merge"], "context"), "out", width, width)
    x = net.norm(net.add("Add", [seen, x], "sum1"), "norm1", width, {5: 30.0})
    h = net.linear(x, "feed1", width, 2 * width)
    gate = net.add("Add", [net.add("Erf", [net.add("Div", [h, "root"], "divided")], "erf"), "one"], "raised")
    h = net.add("Mul", [h, net.add("Mul", ["half", gate], "gate")], "gelu")
    x = net.norm(net.add("Add", [net.linear(h, "feed2", 2 * width, width), x], "sum2"), "norm2", width, {})
    weighted = net.add("Mul", [x, net.add("Unsqueeze", [kept, "last"], "kept_column")], "weighted")
    total = net.add("ReduceSum", [weighted, "tokens"], "total", keepdims=0)
    mean = net.add("Div", [total, net.add("ReduceSum", [kept, "tokens"], "count", keepdims=1)], "mean")
    net.constant("head_w", net.rng.normal(0, 0.5, (3, width)).astype(np.float32))
    net.constant("head_b", net.rng.normal(0, 0.5, 3).astype(np.float32))
    net.add("Gemm", [mean, "head_w", "head_b"], "y", transB=1)
    kinds = {"ids": TensorProto.INT64, "mask": TensorProto.INT64}
    return net.graph({"ids": ["batch", "tokens"], "mask": ["batch", "tokens"]}, {"y": ["batch", 3]}, types=kinds)


def sentences(seed: int, count: int, longest: int = 9, words: int = 600) -> Inputs:
    """Ids and mask of `count` sentences of 3 to `longest` tokens, padded to the longest with zeros."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, longest + 1, count)
    lengths[0] = longest
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    return {"ids": rng.integers(1, words, (count, longest)) * mask, "mask": mask}


@pytest.fixture(scope="session")
def text() -> Graph:
    return encoder()


@pytest.fixture(scope="session")
def phrases() -> list[Inputs]:
    return [sentences(seed, 8) for seed in range(16)]


@pytest.fixture(scope="session")
def held_out_phrases() -> Inputs:
    return sentences(99, 64)


@pytest.fixture
def new_net() -> Callable[..., Net]:
    return Net


@pytest.fixture(scope="session")
def net() -> Graph:
    return residual()


@pytest.fixture(scope="session")
def samples() -> list[Inputs]:
    rng = np.random.default_rng(1)
    return [{"x": rng.normal(0.3, 1, (4, 3, 16, 16)).astype(np.float32)} for _ in range(6)]


@pytest.fixture(scope="session")
def held_out() -> Inputs:
    return {"x": np.random.default_rng(2).normal(0.3, 1, (32, 3, 16, 16)).astype(np.float32)}


@pytest.fixture(scope="session")
def run() -> Callable[..., dict[str, np.ndarray]]:
    def run(graph: Graph, inputs: Inputs, backend: str = "onnxruntime", **options: str) -> dict[str, np.ndarray]:
        runner = backends.load(graph.to_bytes(), Execution(backend, options=options))
        try:
            return runner.run(inputs)
        finally:
            runner.close()

    return run


@pytest.fixture(scope="session")
def error(run: Callable[..., dict[str, np.ndarray]]) -> Callable[..., float]:
    """Relative L2 error of a graph's outputs against another's, without fused kernels: the arithmetic that the file states."""

    def error(reference: Graph, other: Graph, inputs: Inputs, **options: str) -> float:
        a, b = run(reference, inputs), run(other, inputs, **(options or {"optimization": "off"}))
        return max(float(np.linalg.norm(a[n] - b[n]) / np.linalg.norm(a[n])) for n in a)

    return error
