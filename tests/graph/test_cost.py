"""Costs are held against torch's own counter, and against counts by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx import parser as onnx_parser
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgewise.errors import InvalidInput, InvalidModel
from edgewise.graph import Graph, canonical, compulsory_bytes, cost, parameters, summary, total
from edgewise.models.resnet import resnet8, resnet20

HEADER = '<ir_version: 9, opset_import: ["" : 18, "com.microsoft" : 1]>'


def parsed(text: str, **weights: np.ndarray) -> Graph:
    proto = onnx_parser.parse_model(HEADER + text)
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    for position, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type}_{position}"
    return Graph.from_proto(proto)


def torch_macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """torch counts two operations per multiply-accumulate, and only those of dot products."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(*inputs)
    return counter.get_total_flops() // 2


def old_export(module: nn.Module, *inputs: torch.Tensor) -> Graph:
    """Through torch's old exporter, so that what is counted doesn't come out of our own export."""
    import io
    import warnings

    buffer = io.BytesIO()
    names = [f"x{i}" for i in range(len(inputs))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            inputs,
            buffer,
            dynamo=False,
            opset_version=17,
            input_names=names,
            dynamic_axes={name: {0: "batch"} for name in names},
        )
    return canonical(onnx.load_from_string(buffer.getvalue()), "old")


class MobileNetLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.expand = nn.Sequential(nn.Conv2d(8, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(48, 48, 5, 2, 2, groups=48, bias=False), nn.BatchNorm2d(48), nn.Hardswish())
        self.project = nn.Sequential(nn.Conv2d(48, 16, 1, groups=4), nn.BatchNorm2d(16))
        self.up = nn.ConvTranspose2d(16, 6, 3, 2, 1, groups=2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(self.project(self.depthwise(self.expand(self.stem(x)))))
        return self.head(x.mean(dim=(2, 3)))


class AttentionLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 36)
        self.norm = nn.LayerNorm(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).view(x.shape[0], x.shape[1], 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return torch.softmax(q @ k.transpose(-1, -2), -1) @ v


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("module", "shape"),
    [(MobileNetLike(), (3, 32, 24)), (resnet8(), (1, 28, 28)), (AttentionLike(), (7, 12))],
    ids=["mobilenet", "resnet8", "attention"],
)
def test_macs_are_those_that_torch_counts(module: nn.Module, shape: tuple[int, ...], batch: int) -> None:
    graph = old_export(module, torch.randn(2, *shape))
    assert total(cost(graph, batch=batch)).macs == torch_macs(module, torch.randn(batch, *shape))


def test_resnet20_by_hand() -> None:
    stage = [
        28 * 28 * 16 * 16 * 9 * 6,
        14 * 14 * (16 * 32 * 9 + 32 * 32 * 9 * 5 + 16 * 32),
        7 * 7 * (32 * 64 * 9 + 64 * 64 * 9 * 5 + 32 * 64),
    ]
    macs = 28 * 28 * 16 * 9 + sum(stage) + 64 * 10
    module = resnet20()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.bias)  # the exporter makes one weight of equal ones
    graph = old_export(module, torch.randn(2, 1, 28, 28))
    found = summary(graph, "resnet20")
    assert found.operations == macs == 31_021_952
    # Every convolution has a bias once its batch normalisation is folded: one number per channel, where there were two.
    assert found.parameters == sum(p.numel() for p in resnet20().parameters()) - (16 * 7 + 32 * 7 + 64 * 7)
    assert found.sha256 == graph.sha256
    assert found.nodes == len(graph.proto.graph.node)


@settings(max_examples=30, deadline=None)
@given(
    group=st.integers(1, 3), inputs=st.integers(1, 3), outputs=st.integers(1, 3), kernel=st.integers(1, 3), stride=st.integers(1, 2),
    dilation=st.integers(1, 2), pad=st.integers(0, 2), transposed=st.booleans(),
)  # fmt: skip
def test_convolutions_by_brute_force(
    group: int, inputs: int, outputs: int, kernel: int, stride: int, dilation: int, pad: int, transposed: bool
) -> None:
    """Counts the products that the definition makes, padding included, one by one."""
    kind = "ConvTranspose" if transposed else "Conv"
    weight = np.ones((inputs * group, outputs, kernel) if transposed else (outputs * group, inputs, kernel), np.float32)
    graph = parsed(
        f"g (float[batch, {inputs * group}, 9] x) => (float[batch, {outputs * group}, m] y) {{"
        f"y = {kind}<group={group}, strides=[{stride}], dilations=[{dilation}], pads=[{pad}, {pad}]>(x, w) }}",
        w=weight,
    )
    positions = 9 if transposed else (9 + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
    products = sum(1 for _ in range(group) for _ in range(outputs) for _ in range(inputs) for _ in range(positions) for _ in range(kernel))
    assert cost(graph, batch=2)[0].macs == 2 * products


def test_bytes_and_parameters_of_each_kind() -> None:
    graph = parsed(
        "g (float[batch, 2, 4, 4] x) => (float[batch, 3] y) {"
        "c = Conv<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(x, w, b)  r = Relu(c)  p = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(r)"
        "a = GlobalAveragePool(p)  f = Flatten(a)  m = MatMul(f, v)  s = Softmax(m)  y = Add(s, m) }",
        w=np.ones((5, 2, 3, 3), np.float32),
        b=np.ones(5, np.float32),
        v=np.ones((5, 3), np.float32),
    )
    found = {node.op: node for node in cost(graph)}
    x, c, p, a, y = (4 * n for n in (32, 80, 20, 5, 3))
    assert (found["Conv"].read_bytes, found["Conv"].written_bytes) == (x + 4 * (90 + 5), c)
    assert (found["Conv"].macs, found["Conv"].parameters) == (80 * 18, 95)
    assert (found["Relu"].read_bytes, found["Relu"].written_bytes, found["Relu"].scalars) == (c, c, 80)
    assert (found["MaxPool"].read_bytes, found["MaxPool"].written_bytes, found["MaxPool"].scalars) == (c, p, 20 * 4)
    assert (found["GlobalAveragePool"].read_bytes, found["GlobalAveragePool"].scalars) == (p, 20)
    assert (found["Flatten"].read_bytes, found["Flatten"].written_bytes) == (0, 0)
    assert (found["MatMul"].macs, found["MatMul"].read_bytes, found["MatMul"].parameters) == (15, a + 60, 15)
    assert (found["Softmax"].scalars, found["Softmax"].macs) == (15, 0)
    assert (found["Add"].read_bytes, found["Add"].written_bytes) == (2 * y, y)
    assert parameters(graph) == 110
    assert compulsory_bytes(graph) == x + y + 4 * 110
    assert compulsory_bytes(graph, batch=3) == 3 * (x + y) + 4 * 110


def test_matrix_products_and_reductions() -> None:
    graph = parsed(
        "g (float[batch, 4, 6, 5] x, float[batch, 4, 5, 7] z, float[5, 6] t) => (float[batch, 4, 6, 7] y, float[6, 2] u, float s) {"
        "y = MatMul(x, z)  u = Gemm<transA=1>(t, w)  s = ReduceMax<keepdims=0>(y) }",
        w=np.ones((5, 2), np.float32),
    )
    found = {node.op: node for node in cost(graph, batch=2)}
    assert found["MatMul"].macs == 2 * 4 * 6 * 5 * 7
    assert found["Gemm"].macs == 6 * 5 * 2
    assert found["ReduceMax"].scalars == 2 * 4 * 6 * 7
    einsum = parsed(
        'g (float[batch, 3, 4] x, float[batch, 4, 5] z) => (float[batch, 3, 5] y) { y = Einsum<equation="bij,bjk->bik">(x, z) }'
    )
    assert cost(einsum, batch=2)[0].macs == 2 * 3 * 4 * 5


def test_quantized_forms() -> None:
    scale, zero = np.array(0.1, np.float32), np.array(3, np.uint8)
    weights = {"w": np.ones((5, 2, 3, 3), np.int8), "s": scale, "z": zero, "ws": np.ones(5, np.float32), "wz": np.zeros(5, np.int8)}
    qdq = parsed(
        "g (float[batch, 2, 6, 6] x) => (float[batch, 5, 4, 4] y) {"
        "q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  k = DequantizeLinear<axis=0>(w, ws, wz)  y = Conv(d, k) }",
        **weights,
    )
    quantize, activation, weight, conv = cost(qdq)
    assert (quantize.read_bytes, quantize.written_bytes) == (72 * 4 + 4 + 1, 72)
    assert (activation.read_bytes, activation.written_bytes) == (72 + 4 + 1, 72 * 4)
    assert (weight.parameters, quantize.parameters, activation.parameters) == (90, 0, 0)
    assert (conv.macs, conv.integer) == (80 * 18, True)
    assert parameters(qdq) == 90

    linear = parsed(
        "g (uint8[batch, 2, 6, 6] x) => (uint8[batch, 5, 4, 4] y) { y = QLinearConv(x, s, z, w, ws, wz, s, z, b) }",
        b=np.ones(5, np.int32),
        **weights,
    )
    (node,) = cost(linear)
    assert (node.macs, node.parameters, node.integer) == (80 * 18, 95, True)
    assert (node.read_bytes, node.written_bytes) == (72 + 4 + 1 + 90 + 20 + 5 + 20, 80)  # the two scales are one tensor here

    integer = parsed(
        "g (uint8[batch, 2, 6, 6] x, uint8[3, 4] m) => (int32[batch, 5, 4, 4] y, int32[3, 2] n) {"
        "y = ConvInteger(x, w, z)  n = MatMulInteger(m, v) }",
        v=np.ones((4, 2), np.int8),
        **{name: weights[name] for name in ("w", "z")},
    )
    assert [(node.macs, node.parameters, node.integer) for node in cost(integer)] == [(80 * 18, 90, True), (3 * 4 * 2, 8, True)]


def test_four_bit_weights_are_half_a_byte() -> None:
    weight = helper.make_tensor("w", TensorProto.INT4, (3, 3), list(range(-4, 5)))
    graph = Graph.from_proto(
        helper.make_model(
            helper.make_graph(
                [
                    helper.make_node("DequantizeLinear", ["w", "s"], ["k"], name="d"),
                    helper.make_node("MatMul", ["x", "k"], ["y"], name="m"),
                ],
                "g",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
                [weight, numpy_helper.from_array(np.array(0.5, np.float32), "s")],
            ),
            opset_imports=[helper.make_opsetid("", 21)],
        )
    )
    dequantize = cost(graph)[0]
    assert (dequantize.read_bytes, dequantize.parameters) == (5 + 4, 9)


def test_gather_reads_what_it_picks() -> None:
    graph = parsed("g (int64[batch, 3] ids) => (float[batch, 3, 8] y) { y = Gather(table, ids) }", table=np.ones((1000, 8), np.float32))
    (node,) = cost(graph)
    assert (node.read_bytes, node.written_bytes, node.parameters) == (3 * 8 + 96, 96, 8000)


def test_shared_weights_count_once_in_the_summary() -> None:
    graph = parsed("g (float[batch, 4] x) => (float[batch, 4] y) { h = MatMul(x, w)  y = MatMul(h, w) }", w=np.ones((4, 4), np.float32))
    assert total(cost(graph)).parameters == 32
    assert parameters(graph) == summary(graph, "tied").parameters == 16


def test_what_cannot_be_counted_says_so() -> None:
    graph = parsed("g (float[batch, 4] x) => (int64[2, n] y) { y = NonZero(x) }")
    with pytest.raises(InvalidModel, match=r"NonZero_0.*'y'"):
        cost(graph)
    assert summary(graph, "g").operations == 0
    branch = "t () => (float[n, 4] p) { p = MatMul(x, w) }, else_branch = e () => (float[n, 4] q) { q = Neg(x) }"
    graph = parsed(f"g (float[n, 4] x, bool c) => (float[n, 4] y) {{ y = If (c) <then_branch = {branch}> }}", w=np.ones((4, 4), np.float32))
    with pytest.raises(InvalidModel, match=r"If_0.*depends on values"):
        cost(graph)
    assert summary(graph, "g").parameters == 16
    graph = parsed("g (float[n, 4] x) => (float[n, 4] y) { y = com.microsoft.Attention(x) }")
    with pytest.raises(InvalidModel, match=r"com\.microsoft\.Attention"):
        cost(graph)
    graph = parsed("g (float[batch, 4] x) => (float[batch, 4] y) { y = Relu(x) }")
    with pytest.raises(InvalidInput, match=r"no axis 'sequence'.*batch"):
        cost(graph, sequence=3)
