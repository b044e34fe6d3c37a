"""The operators of ONNX as torch functions: TABLE, from an operator's name to how its nodes are bound. Opsets 11 to 23.

Defaults are those of the specification at the node's opset, which differ in places: axes of reductions came as an attribute and come as an
input, and Softmax flattened what lies behind its axis until opset 12.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgewise.models import layers, resampling, shaping
from edgewise.models.attention import attention
from edgewise.models.binding import DTYPES, Function, Node, Operator, numbers, optional_numbers, plain

QUANTIZED = frozenset(
    (
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
    )
)


def _divide(a: Any, b: Any) -> Any:
    """Integers are divided towards zero."""
    given = a if isinstance(a, Tensor) else b
    if not given.is_floating_point():
        return torch.div(torch.as_tensor(a), b, rounding_mode="trunc")
    return a / b


def _power(a: Any, b: Any) -> Any:
    """Of the base's type, whatever the exponent's."""
    y = a**b
    return y.to(a.dtype) if isinstance(a, Tensor) else y


def _modulo(node: Node) -> Function:
    return torch.fmod if node.attribute("fmod", 0) else torch.remainder


def _many(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return plain(lambda *tensors: reduce(function, tensors))


def _mean(*tensors: Tensor) -> Tensor:
    return reduce(operator.add, tensors) / len(tensors)


def _softmax(function: Callable[[Tensor, int], Tensor]) -> Operator:
    def bind(node: Node) -> Function:
        axis = node.attribute("axis", 1 if node.opset < 13 else -1)
        if node.opset >= 13 or axis == -1:
            return lambda x: function(x, axis)
        return lambda x: function(x.flatten(axis), -1).reshape(x.shape)

    return Operator(bind)


def _clip(node: Node) -> Function:
    bounds = [node.constant(position) for position in (1, 2)]
    if any(node.given(position) and bound is None for position, bound in enumerate(bounds, 1)):

        def bounded(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
            x = x if low is None else torch.maximum(x, low)
            return x if high is None else torch.minimum(x, high)

        return bounded
    low, high = (None if bound is None else bound.item() for bound in bounds)
    if low == 0 and high is None:
        return lambda x, *_: torch.relu(x)
    # Its gradient is 0 on the bounds, as that of relu and relu6, which clips stem from; clamp's is 1 there.
    if isinstance(low, float) and isinstance(high, float) and low <= high:
        return lambda x, *_: F.hardtanh(x, low, high)
    return lambda x, *_: x if low is None and high is None else torch.clamp(x, low, high)


def _gelu(node: Node) -> Function:
    approximate = node.attribute("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


def _leaky_relu(node: Node) -> Function:
    alpha = node.attribute("alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


def _elu(node: Node) -> Function:
    alpha = node.attribute("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


def _celu(node: Node) -> Function:
    alpha = node.attribute("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


def _selu(node: Node) -> Function:
    alpha, gamma = node.attribute("alpha", 1.6732632423543772), node.attribute("gamma", 1.0507009873554805)
    return lambda x: gamma * F.elu(x, alpha)


def _thresholded_relu(node: Node) -> Function:
    alpha = node.attribute("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, 0)


def _hard_sigmoid(node: Node) -> Function:
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid
    return lambda x: F.hardtanh(alpha * x + beta, 0.0, 1.0)


def _swish(node: Node) -> Function:
    alpha = node.attribute("alpha", 1.0)
    return lambda x: x * torch.sigmoid(alpha * x)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x > 0, x, slope * x)


def _is_inf(node: Node) -> Function:
    negative, positive = node.attribute("detect_negative", 1), node.attribute("detect_positive", 1)
    return lambda x: torch.isinf(x) & ((x > 0) & bool(positive) | (x < 0) & bool(negative))


def _gemm(node: Node) -> Function:
    """alpha * a @ b + beta * c, c broadcast."""
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    flip_a, flip_b = node.attribute("transA", 0), node.attribute("transB", 0)

    def product(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        a, b = a.t() if flip_a else a, b.t() if flip_b else b
        if c is not None:
            return torch.addmm(c, a, b, beta=beta, alpha=alpha)
        return a @ b if alpha == 1 else alpha * (a @ b)

    return product


def _einsum(node: Node) -> Function:
    equation = node.attribute("equation", "").replace(" ", "")
    return lambda *tensors: torch.einsum(equation, *tensors)


def _cast(node: Node) -> Function:
    number = node.attribute("to", 0)
    if number not in DTYPES:
        raise node.refuse(f"it makes elements of ONNX's type {number}, which torch hasn't got")
    dtype = DTYPES[number]
    return lambda x: x.to(dtype)


def _dropout(node: Node) -> Function:
    """Inference's dropout, which does nothing. One that is meant to drop at inference too is refused."""
    training = node.constant(2)
    if node.given(2) and (training is None or training.item()):
        raise node.refuse("it drops values at inference too; call eval() on the model and export it again")
    if node.outputs > 1:
        return lambda x, *_: (x, torch.ones_like(x, dtype=torch.bool))
    return lambda x, *_: x


def _reduction(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Operator:
    """Axes are an attribute until opset 17 (ReduceSum: 12), then an input; none at all stand for every axis."""

    def bind(node: Node) -> Function:
        keep, nothing = bool(node.attribute("keepdims", 1)), bool(node.attribute("noop_with_empty_axes", 0))
        stated = node.attribute("axes", None)
        read = optional_numbers(node, 1)

        def reduced(x: Tensor, axes: Tensor | None = None) -> Tensor:
            which = stated or read(axes)
            if not which and nothing:
                return x
            return function(x, tuple(which or range(x.dim())), keep)

        return reduced

    return Operator(bind, values=(1,))


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _arg(function: Callable[[Tensor, int, bool], Tensor]) -> Operator:
    def bind(node: Node) -> Function:
        axis, keep = node.attribute("axis", 0), bool(node.attribute("keepdims", 1))
        if not node.attribute("select_last_index", 0):
            return lambda x: function(x, axis, keep)
        return lambda x: x.shape[axis] - 1 - function(x.flip(axis), axis, keep)

    return Operator(bind)


def _top_k(node: Node) -> Function:
    """Of equal values the first come first, which torch.topk doesn't promise."""
    axis, largest = node.attribute("axis", -1), bool(node.attribute("largest", 1))
    read, outputs = numbers(node, 1), node.outputs

    def top(x: Tensor, k: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = [each.narrow(axis, 0, read(k)[0]) for each in torch.sort(x, dim=axis, descending=largest, stable=True)]
        return found[0] if outputs == 1 else tuple(found)

    return top


def _cumulative_sum(node: Node) -> Function:
    exclusive, backwards, read = node.attribute("exclusive", 0), node.attribute("reverse", 0), numbers(node, 1)

    def summed(x: Tensor, at: Tensor) -> Tensor:
        found = read(at)
        axis = found[0] if isinstance(found, list) else found
        x = x.flip(axis) if backwards else x
        y = x.cumsum(axis, dtype=x.dtype)
        y = y - x if exclusive else y
        return y.flip(axis) if backwards else y

    return summed


UNARY: dict[str, Function] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh, "Atan": torch.atan,
    "Atanh": torch.atanh, "BitwiseNot": torch.bitwise_not, "Ceil": torch.ceil, "Cos": torch.cos, "Cosh": torch.cosh,
    "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "HardSwish": F.hardswish, "Identity": lambda x: x,
    "IsNaN": torch.isnan, "Log": torch.log, "Mish": F.mish, "Neg": torch.neg, "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal, "Relu": torch.relu, "Round": torch.round, "Sigmoid": torch.sigmoid, "Sign": torch.sign,
    "Sin": torch.sin, "Sinh": torch.sinh, "Softplus": F.softplus, "Softsign": F.softsign, "Sqrt": torch.sqrt, "Tan": torch.tan,
    "Tanh": torch.tanh,
}  # fmt: skip

TABLE: dict[str, Operator] = {
    # one tensor, element by element
    **{name: plain(function) for name, function in UNARY.items()},
    "Cast": Operator(_cast),
    "Celu": Operator(_celu),
    "Clip": Operator(_clip),
    "Dropout": Operator(_dropout),
    "Elu": Operator(_elu),
    "Gelu": Operator(_gelu),
    "HardSigmoid": Operator(_hard_sigmoid),
    "IsInf": Operator(_is_inf),
    "LeakyRelu": Operator(_leaky_relu),
    "LogSoftmax": _softmax(torch.log_softmax),
    "PRelu": plain(_prelu),
    "Selu": Operator(_selu),
    "Softmax": _softmax(torch.softmax),
    "Swish": Operator(_swish),
    "ThresholdedRelu": Operator(_thresholded_relu),
    # several
    "Add": plain(operator.add, scalars=True),
    "And": plain(torch.logical_and),
    "BitwiseAnd": plain(torch.bitwise_and),
    "BitwiseOr": plain(torch.bitwise_or),
    "BitwiseXor": plain(torch.bitwise_xor),
    "CastLike": plain(lambda x, like: x.to(like.dtype)),
    "Div": plain(_divide, scalars=True),
    "Equal": plain(operator.eq, scalars=True),
    "Greater": plain(operator.gt, scalars=True),
    "GreaterOrEqual": plain(operator.ge, scalars=True),
    "Less": plain(operator.lt, scalars=True),
    "LessOrEqual": plain(operator.le, scalars=True),
    "Max": _many(torch.maximum),
    "Mean": plain(_mean),
    "Min": _many(torch.minimum),
    "Mod": Operator(_modulo),
    "Mul": plain(operator.mul, scalars=True),
    "Or": plain(torch.logical_or),
    "Pow": plain(_power, scalars=True),
    "Sub": plain(operator.sub, scalars=True),
    "Sum": _many(operator.add),
    "Where": plain(torch.where),
    "Xor": plain(torch.logical_xor),
    # along axes
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "CumSum": Operator(_cumulative_sum, values=(1,)),
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keep, dtype=x.dtype)),
    "ReduceL2": _reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceLogSumExp": _reduction(torch.logsumexp),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keep, dtype=x.dtype)),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keep, dtype=x.dtype)),
    "TopK": Operator(_top_k, values=(1,)),
    # products, windows, norms
    "Attention": Operator(attention),
    "AveragePool": Operator(layers.average_pool),
    "BatchNormalization": Operator(layers.batch_norm),
    "Conv": Operator(layers.conv),
    "ConvTranspose": Operator(layers.conv_transpose),
    "Einsum": Operator(_einsum),
    "Gemm": Operator(_gemm),
    "GlobalAveragePool": plain(layers.global_average_pool),
    "GlobalMaxPool": plain(layers.global_max_pool),
    "GroupNormalization": Operator(layers.group_norm),
    "InstanceNormalization": Operator(layers.instance_norm),
    "LRN": Operator(layers.local_response_norm),
    "LayerNormalization": Operator(layers.layer_norm),
    "LpNormalization": Operator(layers.lp_norm),
    "MatMul": plain(torch.matmul),
    "MaxPool": Operator(layers.max_pool),
    "RMSNormalization": Operator(layers.rms_norm),
    # shapes and places
    "DepthToSpace": Operator(resampling.depth_to_space),
    "Pad": Operator(resampling.pad, values=(1, 2, 3)),
    "Resize": Operator(resampling.resize, values=(1, 2, 3)),
    "SpaceToDepth": Operator(resampling.space_to_depth),
    **shaping.TABLE,
}  # fmt: skip
