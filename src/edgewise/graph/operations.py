"""How much arithmetic each operator does, from the shapes that it reads and writes.

A table from an operator's name to a function; `edgewise.graph.costs` looks it up. Multiply-accumulates (one multiplication with its
addition) are counted for what is made of dot products; everything else in scalar operations, by the conventions beside each entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

Shape = tuple[int, ...]


def names(text: str) -> frozenset[str]:
    """A table's names, separated by spaces."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Work:
    """A node as the counting sees it. An absent optional input has shape None."""

    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape, ...]
    attributes: dict[str, Any]

    def read(self, position: int) -> Shape:
        shape = self.inputs[position] if position < len(self.inputs) else None
        return () if shape is None else shape

    @property
    def elements(self) -> int:
        """Of the first output."""
        return prod(self.outputs[0]) if self.outputs else 0


def _conv(weight: int) -> Callable[[Work], int]:
    # Every output element is a dot product over (inputs / group) x kernel; the weight is (outputs, inputs / group, kernel ...).
    return lambda work: work.elements * prod(work.read(weight)[1:])


def _conv_transpose(work: Work) -> int:
    # Every input element is spread over (outputs / group) x kernel; the weight is (inputs, outputs / group, kernel ...).
    return prod(work.read(0)) * prod(work.read(1)[1:])


def _matmul(work: Work) -> int:
    return work.elements * (work.read(0)[-1] if work.read(0) else 1)


def _gemm(work: Work) -> int:
    first = work.read(0)
    return work.elements * (first[0] if work.attributes.get("transA", 0) else first[-1])


def _qlinear_matmul(work: Work) -> int:
    return work.elements * work.read(0)[-1]


def _einsum(work: Work) -> int:
    """Each product over all distinct labels; with k operands, k - 1 multiply-accumulates."""
    equation = work.attributes["equation"].decode() if isinstance(work.attributes["equation"], bytes) else work.attributes["equation"]
    terms = [term.strip() for term in equation.replace(" ", "").split("->")[0].split(",")]
    if "." in equation:  # the ellipsis: at least one result per output element, times the contracted labels
        shared = set("".join(terms).replace(".", "")) - set(equation.partition("->")[2])
        sizes = _labels(terms, work)
        return work.elements * prod(sizes.get(label, 1) for label in shared) * max(len(terms) - 1, 1)
    return prod(_labels(terms, work).values()) * max(len(terms) - 1, 1)


def _labels(terms: list[str], work: Work) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for position, term in enumerate(terms):
        shape = work.read(position)
        before, dots, after = term.partition("...")
        sizes.update(zip(before, shape, strict=False))
        if dots and after:
            sizes.update(zip(after, shape[-len(after) :], strict=True))
    return sizes


def _recurrent(work: Work) -> int:
    # X (sequence, batch, input), W (directions, gates * hidden, input), R (directions, gates * hidden, hidden).
    sequence, batch = work.read(0)[:2]
    return sequence * batch * (prod(work.read(1)) + prod(work.read(2)))


def _attention(work: Work) -> int:
    """ONNX Attention (opset 23), 4-D form (batch, heads, length, head size): scores and the weighted sum."""
    query, key, value = work.read(0), work.read(1), work.read(2)
    if len(query) == 4:
        return prod(query[:3]) * key[2] * (query[3] + value[3])
    return query[0] * query[1] * key[1] * (query[2] + work.outputs[0][-1])


MACS: dict[str, Callable[[Work], int]] = {
    "Conv": _conv(1),
    "FusedConv": _conv(1),
    "ConvInteger": _conv(1),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "FusedGemm": _gemm,
    "QGemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "MatMulIntegerToFloat": _matmul,
    "DynamicQuantizeMatMul": _matmul,
    "QLinearMatMul": _qlinear_matmul,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
}


def _elementwise(per_element: int) -> Callable[[Work], int]:
    return lambda work: work.elements * per_element


def _variadic(work: Work) -> int:
    return work.elements * max(len([shape for shape in work.inputs if shape is not None]) - 1, 1)


def _window(work: Work) -> int:
    return work.elements * prod(work.attributes.get("kernel_shape", (1,)))


def _all_read(work: Work) -> int:
    return prod(work.read(0))


# Scalar operations. Normalisation: subtract the mean, scale, shift, and two passes for mean and variance where they are not constants.
# Softmax: maximum, subtract, exponential, sum, divide. Quantize: scale, round and shift; dequantize: shift and scale.
_PER_ELEMENT = {
    "BatchNormalization": 2,
    "InstanceNormalization": 7,
    "LayerNormalization": 7,
    "GroupNormalization": 7,
    "RMSNormalization": 4,
    "SimplifiedLayerNormalization": 4,
    "LpNormalization": 3,
    "Softmax": 5,
    "LogSoftmax": 5,
    "Hardmax": 2,
    "QuantizeLinear": 3,
    "DynamicQuantizeLinear": 5,
    "DequantizeLinear": 2,
    "HardSwish": 4,
    "HardSigmoid": 3,
    "Clip": 2,
    "Where": 1,
    "Cast": 1,
}
_ONE_PER_ELEMENT = names(
    "Relu LeakyRelu PRelu Elu Selu Celu Sigmoid Tanh Erf Gelu QuickGelu FastGelu Mish Swish Softplus Softsign ThresholdedRelu "
    "Exp Log Sqrt Reciprocal Neg Abs Sign Floor Ceil Round Not Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh IsNaN IsInf "
    "Add Sub Mul Div Pow Mod BitShift And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual "
    "QLinearAdd QLinearMul QLinearSigmoid QLinearLeakyRelu CumSum Resize Upsample"
)
_REDUCTIONS = names(
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare ArgMax ArgMin TopK "
    "GlobalAveragePool GlobalMaxPool GlobalLpPool QLinearGlobalAveragePool"
)

SCALARS: dict[str, Callable[[Work], int]] = {
    **{op: _elementwise(count) for op, count in _PER_ELEMENT.items()},
    **{op: _elementwise(1) for op in _ONE_PER_ELEMENT},
    **dict.fromkeys(("Sum", "Max", "Min", "Mean"), _variadic),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "QLinearAveragePool"), _window),
    **dict.fromkeys(_REDUCTIONS, _all_read),
    "LRN": lambda work: work.elements * (int(work.attributes.get("size", 1)) + 3),
}

# An engine gives these a new shape and the same memory.
VIEWS = names("Reshape Flatten Squeeze Unsqueeze Identity Dropout Shape Size")
# These read only as much as they write, however large what they pick from is.
PICKS = names("Gather GatherElements GatherND Slice")
