"""What each operator does to the axes of the tensors that it reads: a table from its name to a function of (walk, node).

A rule sets `walk.axes[output]`, unites what has to stay equal and freezes what can't be cut. Axes without atoms (None) are batch, space
or tokens. References: the ONNX operator specification, opsets 11 to 23.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from edgewise.graph.atoms import Labels
from edgewise.graph.coupling import Walk, integer, integers
from edgewise.graph.coupling_shapes import concat, constant, cut, gather, pad, same_where_equal, split, squeeze, transpose
from edgewise.graph.operations import names

Rule = Callable[[Walk, onnx.NodeProto], None]


def unary(walk: Walk, node: onnx.NodeProto) -> None:
    """One tensor in, the same axes out; further inputs are options."""
    walk.axes[node.output[0]] = list(walk.of(node.input[0]))


def elementwise(walk: Walk, node: onnx.NodeProto) -> None:
    """Several tensors, broadcast against each other from the right."""
    inputs = [(walk.shape(name), walk.of(name)) for name in node.input if name]
    if any(shape is None for shape, _ in inputs):
        walk.opaque(node, f"the shapes at {node.op_type} {node.name} aren't known")
        return
    rank = max(len(shape or ()) for shape, _ in inputs)
    result: list[Labels] = [None] * rank
    for back in range(1, rank + 1):
        here = [((shape or ())[-back], labels[-back]) for shape, labels in inputs if len(shape or ()) >= back]
        broad = [labels for size, labels in here if size != 1]
        merged = broad[0] if broad else None
        for labels in broad[1:]:
            merged = walk.unite(merged, labels, node)
        for size, labels in here:
            if size == 1:  # one value for all: removing it would leave nothing to broadcast
                walk.atoms.freeze(labels, "it is a single value")
        result[-back] = merged
    walk.axes[node.output[0]] = result


def conv(walk: Walk, node: onnx.NodeProto) -> None:
    x, weight = walk.of(node.input[0]), walk.of(node.input[1])
    shape = walk.shape(node.input[1])
    if len(weight) < 3 or len(x) != len(weight) or shape is None:
        walk.opaque(node, f"{node.op_type} {node.name} has no plain weight")
        return
    group = integer(node, "group", 1)
    outputs, inputs = weight[0], weight[1]
    if group == 1:
        walk.unite(x[1], inputs, node)
        walk.use(node.input[1], 1, "in", node)
        walk.use(node.input[1], 0, "out", node)
    elif inputs is not None and outputs is not None and len(inputs) == 1:
        # Depthwise: output o reads channel o // multiplier alone.
        walk.atoms.freeze(inputs, "a depthwise kernel reads one channel")
        spread = None if x[1] is None else np.repeat(x[1], len(outputs) // group)
        walk.unite(outputs, spread, node)
        walk.use(node.input[1], 0, "along", node)
    else:
        # Groups share nothing but their size: the same positions have to go from each of them.
        _per_group(walk, x[1], inputs, group, node)
        if outputs is not None:
            rows = outputs.reshape(group, -1)
            for row in rows[1:]:
                walk.unite(rows[0], row, node)
        walk.use(node.input[1], 1, "in", node)
        walk.use(node.input[1], 0, "out", node)
    _bias(walk, node, outputs)
    walk.axes[node.output[0]] = [None, outputs, *([None] * (len(weight) - 2))]


def conv_transpose(walk: Walk, node: onnx.NodeProto) -> None:
    x, weight = walk.of(node.input[0]), walk.of(node.input[1])
    group = integer(node, "group", 1)
    if len(weight) < 3 or len(x) != len(weight):
        walk.opaque(node, f"{node.op_type} {node.name} has no plain weight")
        return
    inputs, outputs = weight[0], weight[1]
    if group == 1:
        walk.unite(x[1], inputs, node)
        walk.use(node.input[1], 0, "in", node)
        walk.use(node.input[1], 1, "out", node)
    elif outputs is not None and inputs is not None and len(outputs) == 1 and len(inputs) == group:
        walk.atoms.freeze(outputs, "a depthwise kernel gives one channel")
        walk.unite(x[1], inputs, node)
        walk.use(node.input[1], 0, "along", node)
        outputs = inputs
    else:
        walk.opaque(node, f"{node.op_type} {node.name} is grouped")
        return
    _bias(walk, node, outputs)
    walk.axes[node.output[0]] = [None, outputs, *([None] * (len(weight) - 2))]


def _per_group(walk: Walk, x: Labels, inputs: Labels, group: int, node: onnx.NodeProto) -> None:
    if x is None or inputs is None:
        walk.unite(x, inputs, node)
        return
    for row in x.reshape(group, -1):
        walk.unite(inputs, row, node)


def _bias(walk: Walk, node: onnx.NodeProto, outputs: Labels, position: int = 2) -> None:
    if len(node.input) > position and node.input[position]:
        bias = walk.of(node.input[position])
        if len(bias) == 1:
            walk.unite(outputs, bias[0], node)
            walk.use(node.input[position], 0, "out", node)
        else:
            walk.freeze(node.input[position], "a bias of an unusual shape")


def gemm(walk: Walk, node: onnx.NodeProto) -> None:
    a, b = walk.of(node.input[0]), walk.of(node.input[1])
    swap_a, swap_b = bool(integer(node, "transA", 0)), bool(integer(node, "transB", 0))
    if len(a) != 2 or len(b) != 2:
        walk.opaque(node, f"Gemm {node.name} of tensors that are no matrices")
        return
    walk.unite(a[0 if swap_a else 1], b[1 if swap_b else 0], node)
    _weight_roles(walk, node, first_in=0 if swap_a else 1, second_in=1 if swap_b else 0)
    result = [a[1 if swap_a else 0], b[0 if swap_b else 1]]
    if len(node.input) > 2 and node.input[2]:
        shape, bias = walk.shape(node.input[2]), walk.of(node.input[2])
        for back in range(1, len(bias) + 1):
            if shape is not None and shape[-back] != 1:
                result[-back] = walk.unite(result[-back], bias[-back], node)
            else:
                walk.atoms.freeze(bias[-back], "it is a single value")
        if len(bias) == 1:
            walk.use(node.input[2], 0, "out", node)
    walk.axes[node.output[0]] = result


def matmul(walk: Walk, node: onnx.NodeProto) -> None:
    a, b = walk.of(node.input[0]), walk.of(node.input[1])
    if len(a) < 2 or len(b) < 2:
        walk.opaque(node, f"MatMul {node.name} of a vector")
        return
    walk.unite(a[-1], b[-2], node)
    _weight_roles(walk, node, first_in=len(a) - 1, second_in=len(b) - 2)
    sizes_a, sizes_b = walk.shape(node.input[0]) or (), walk.shape(node.input[1]) or ()
    batch: list[Labels] = []
    for back in range(max(len(a), len(b)), 2, -1):
        sides = [(sizes[-back], axes[-back]) for sizes, axes in ((sizes_a, a), (sizes_b, b)) if len(axes) >= back]
        broad = [labels for size, labels in sides if size != 1]
        if len(broad) == 2:
            batch.append(walk.unite(broad[0], broad[1], node))
            if broad[0] is not None and not walk.is_stored(node.input[0]) and not walk.is_stored(node.input[1]):
                walk.atoms.together.append(broad[0])
        else:
            batch.append(broad[0] if broad else None)
    walk.axes[node.output[0]] = [*batch, a[-2], b[-1]]


def _weight_roles(walk: Walk, node: onnx.NodeProto, first_in: int, second_in: int) -> None:
    """Of two factors with two axes each, what is contracted is read, what is left is made."""
    for position, contracted in ((0, first_in), (1, second_in)):
        rank = len(walk.of(node.input[position]))
        other = rank - 2 if contracted == rank - 1 else rank - 1
        if walk.is_stored(node.input[position]):
            walk.use(node.input[position], contracted, "in", node)
            walk.use(node.input[position], other, "out", node)


def batch_norm(walk: Walk, node: onnx.NodeProto) -> None:
    x = list(walk.of(node.input[0]))
    if len(x) > 1:
        for name in node.input[1:]:
            x[1] = walk.unite(x[1], walk.of(name)[0], node)
    walk.axes[node.output[0]] = x


def layer_norm(walk: Walk, node: onnx.NodeProto) -> None:
    """LayerNormalization and its kind over one axis, the last: positions may go, with their scale and shift; the statistics then are of
    those that stay (a part of kind "hidden"). Over several axes at once, all of them stay."""
    x = list(walk.of(node.input[0]))
    scales = [walk.of(name) for name in node.input[1:] if name]
    if not x or integer(node, "axis", -1) % len(x) != len(x) - 1 or any(len(scale) != 1 for scale in scales):
        normalised_over(walk, node)
        return
    for scale in scales:
        x[-1] = walk.unite(x[-1], scale[0], node)
    if x[-1] is not None:
        walk.atoms.normed.append(x[-1])
    walk.axes[node.output[0]] = x


def normalised_over(walk: Walk, node: onnx.NodeProto) -> None:
    """Softmax and its kind: taken over axes from `axis` on, which therefore stay whole."""
    x = list(walk.of(node.input[0]))
    axis = integer(node, "axis", -1)
    last = node.op_type in ("Softmax", "LogSoftmax", "Hardmax")
    for i in range(axis % max(len(x), 1), len(x)):
        if not last or i == axis % len(x) or _opset(walk) < 13:
            walk.atoms.freeze(x[i], f"{node.op_type} {node.name} is taken over all of it")
    for name in node.input[1:]:
        walk.freeze(name, f"{node.op_type} {node.name} is taken over all of it")
    walk.axes[node.output[0]] = x


def _opset(walk: Walk) -> int:
    return next((entry.version for entry in walk.graph.proto.opset_import if entry.domain in ("", "ai.onnx")), 18)


def group_norm(walk: Walk, node: onnx.NodeProto) -> None:
    walk.opaque(node, f"{node.op_type} {node.name} takes statistics over groups of channels")
    walk.axes[node.output[0]] = list(walk.of(node.input[0]))


def pool(walk: Walk, node: onnx.NodeProto) -> None:
    x = walk.of(node.input[0])
    walk.axes[node.output[0]] = [*x[:2], *([None] * (len(x) - 2))]
    for labels in x[2:]:
        walk.atoms.freeze(labels, f"{node.op_type} {node.name} pools it")


def reduce(walk: Walk, node: onnx.NodeProto) -> None:
    x = walk.of(node.input[0])
    given = integers(node, "axes")
    if given is None:
        found = constant(walk, node, 1)
        if found is None and len(node.input) > 1 and node.input[1]:
            walk.opaque(node, f"the axes of {node.op_type} {node.name} are computed")
            return
        given = list(range(len(x))) if found is None else [int(axis) for axis in found.reshape(-1)]
    axes = {int(axis) % max(len(x), 1) for axis in given}
    for axis in axes:
        walk.atoms.freeze(x[axis], f"{node.op_type} {node.name} reduces over it")
    keep = bool(integer(node, "keepdims", 1))
    walk.axes[node.output[0]] = [None if i in axes else labels for i, labels in enumerate(x) if keep or i not in axes]


def quantize(walk: Walk, node: onnx.NodeProto) -> None:
    """QuantizeLinear, DequantizeLinear: scales and zero points of a channel go with it."""
    x = list(walk.of(node.input[0]))
    axis = integer(node, "axis", 1)
    if integer(node, "block_size", 0):
        walk.opaque(node, f"{node.op_type} {node.name} has scales of blocks")
    for name in node.input[1:]:
        labels = walk.of(name)
        if len(labels) == 1 and labels[0] is not None and len(labels[0]) > 1 and x:
            x[axis % len(x)] = walk.unite(x[axis % len(x)], labels[0], node)
    walk.axes[node.output[0]] = x
    if node.op_type == "DequantizeLinear" and node.input[0] in walk.index.initializers:
        walk.stored[node.output[0]] = node.input[0]


_UNARY = names(
    "Relu LeakyRelu Elu Selu Celu Sigmoid Tanh Erf Gelu Mish Swish Softplus Softsign ThresholdedRelu HardSwish HardSigmoid Clip Cast "
    "Dropout Identity Exp Log Sqrt Reciprocal Neg Abs Sign Floor Ceil Round Not Sin Cos Tan Asin Acos Atan Sinh Cosh IsNaN IsInf"
)
_ELEMENTWISE = names("Add Sub Mul Div Pow Mod Max Min Sum Mean Where PRelu And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual")
_REDUCE = names("ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare")
_POOL = names("MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool")
_OVER = names("Softmax LogSoftmax Hardmax LpNormalization")
_LAYER_NORM = names("LayerNormalization RMSNormalization SimplifiedLayerNormalization")

RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNARY, unary),
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(_REDUCE, reduce),
    **dict.fromkeys(_POOL, pool),
    **dict.fromkeys(_OVER, normalised_over),
    **dict.fromkeys(_LAYER_NORM, layer_norm),
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": batch_norm,
    "GroupNormalization": group_norm,
    "Transpose": transpose,
    "Reshape": squeeze,
    "Flatten": squeeze,
    "Squeeze": squeeze,
    "Unsqueeze": squeeze,
    "Concat": concat,
    "Split": split,
    "Slice": cut,
    "Gather": gather,
    "Pad": pad,
    "Resize": same_where_equal,
    "Expand": same_where_equal,
    "QuantizeLinear": quantize,
    "DequantizeLinear": quantize,
    # Their value is a shape, which `shrink` sets anew where it counts channels.
    "Shape": lambda walk, node: None,
    "Size": lambda walk, node: None,
}
