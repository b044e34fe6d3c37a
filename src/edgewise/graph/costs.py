"""`cost`: arithmetic, memory traffic and parameters of every node; `summary`: of the whole model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import onnx
from onnx import helper

from edgewise.errors import InvalidInput, InvalidModel
from edgewise.graph.check import constants
from edgewise.graph.folding import folded
from edgewise.graph.graph import Graph
from edgewise.graph.index import Index, all_nodes, subgraphs
from edgewise.graph.operations import MACS, PICKS, SCALARS, VIEWS, Shape, Work, names
from edgewise.graph.shapes import set_axes
from edgewise.records import ModelSummary

_FOUR_BITS = frozenset((onnx.TensorProto.INT4, onnx.TensorProto.UINT4))
_PARAMETER_TYPES = frozenset(onnx.TensorProto.DataType.Value(name) for name in names("FLOAT FLOAT16 BFLOAT16 DOUBLE INT8 UINT8 INT4 UINT4"))
_INTEGER_DOTS = names("QLinearConv ConvInteger QLinearMatMul MatMulInteger MatMulIntegerToFloat DynamicQuantizeMatMul QGemm")
# Positions of scales and zero points, which describe parameters and are none.
_SCALE_POSITIONS = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearMul": (1, 2, 4, 5, 6, 7),
    "QGemm": (1, 2, 4, 5, 7, 8),
}
# Operators whose constant operands are the model's weights; a constant of, say, Clip or Reshape is an option of the operator.
_WEIGHT_OPERATORS = frozenset(MACS) | names(
    "Add Sub Mul Div PRelu Gather BatchNormalization InstanceNormalization LayerNormalization GroupNormalization RMSNormalization "
    "SimplifiedLayerNormalization DequantizeLinear QuantizeLinear QLinearAdd QLinearMul Concat Expand Where"
)


@dataclass(frozen=True)
class NodeCost:
    """What one node costs for one call.

    macs: multiply-accumulates, of dot products only; `scalars`: every other arithmetic operation (see `operations.py`).
    read_bytes, written_bytes: each distinct tensor once, weights included, as if nothing were fused or cached; views move nothing.
    parameters: elements of the weights that it reads. integer: the dot products are of 8-bit integers, directly or between
    DequantizeLinear nodes.
    """

    name: str
    op: str
    macs: int
    read_bytes: int
    written_bytes: int
    parameters: int
    scalars: int = 0
    integer: bool = False


def cost(graph: Graph, **axes: int) -> tuple[NodeCost, ...]:
    """The cost of every node, in order, with named axes set (`batch=8`); axes that aren't given count as 1.

    What depends on the shapes alone is folded away first, so such nodes don't appear; all others keep their names.
    Raises InvalidInput for an unknown axis, InvalidModel when a shape can't be inferred, or for control flow.
    """
    named = {d for spec in graph.signature.inputs for d in spec.shape if isinstance(d, str)}
    unknown = sorted(axes.keys() - named)
    if unknown:
        raise InvalidInput(f"the model's inputs have no axis {unknown[0]!r}; their named axes are {', '.join(sorted(named)) or '(none)'}")
    fixed = set_axes(graph, **{name: axes.get(name, 1) for name in named})
    proto, _ = folded(fixed.copy_proto())
    index = Index(proto)
    return tuple(_node_cost(node, index) for node in proto.graph.node)


def total(costs: Iterable[NodeCost]) -> NodeCost:
    """The sum, under the name "total". Weights that two nodes share count twice; `summary` counts them once."""
    costs = tuple(costs)
    return NodeCost(
        name="total",
        op="",
        macs=sum(cost.macs for cost in costs),
        read_bytes=sum(cost.read_bytes for cost in costs),
        written_bytes=sum(cost.written_bytes for cost in costs),
        parameters=sum(cost.parameters for cost in costs),
        scalars=sum(cost.scalars for cost in costs),
        integer=any(cost.integer for cost in costs),
    )


def compulsory_bytes(graph: Graph, **axes: int) -> int:
    """What has to move between memory and processor at the least: inputs, outputs and every weight once, as stored.

    The floor of the roofline's memory side: activations between nodes may all stay in cache.
    """
    index = Index(graph)
    specs = (*graph.signature.inputs, *graph.signature.outputs)
    boundary = sum(_bytes(index.element_type(spec.name), spec.concrete(**axes)) for spec in specs)
    return boundary + sum(_bytes(tensor.data_type, tuple(tensor.dims)) for tensor in constants(graph.proto))


def parameters(graph: Graph) -> int:
    """Elements of all weights, subgraphs' included, each once; scales, zero points, shapes and options don't count."""
    stored = {tensor.name: tensor for tensor in constants(graph.proto)}
    weights = {name for node in all_nodes(graph.proto.graph.node) for name in _weights_of(node, stored)}
    return sum(prod(stored[name].dims) for name in weights)


def summary(graph: Graph, name: str) -> ModelSummary:
    """What a report says of the model. `operations`: multiply-accumulates of one sample; 0 where they can't be known (`cost` says why)."""
    try:
        operations = total(cost(graph)).macs
    except InvalidModel:
        operations = 0
    return ModelSummary(
        name=name,
        sha256=graph.sha256,
        parameters=parameters(graph),
        operations=operations,
        size_bytes=graph.size_bytes,
        nodes=len(graph.proto.graph.node),
        signature=graph.signature,
    )


def _node_cost(node: onnx.NodeProto, index: Index) -> NodeCost:
    if any(subgraphs(node)):
        raise InvalidModel(f"the cost of {node.op_type} node {node.name!r} depends on values; export the model without control flow")
    if node.domain == "com.microsoft" and (node.op_type not in MACS.keys() | SCALARS.keys() or node.op_type == "Attention"):
        raise InvalidModel(f"the cost of com.microsoft.{node.op_type} node {node.name!r} isn't known; export with standard ONNX operators")
    inputs = tuple(_shape(name, node, index) if name else None for name in node.input)
    outputs = tuple(_shape(name, node, index) for name in node.output if name)
    work = Work(inputs, outputs, {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute})
    written = sum(_bytes(index.element_type(name), shape) for name, shape in zip(filter(None, node.output), outputs, strict=True))
    tensors = {name: shape for name, shape in zip(node.input, inputs, strict=True) if shape is not None}
    read = sum(_bytes(index.element_type(name), shape) for name, shape in tensors.items())
    if node.op_type in VIEWS:
        read = written = 0
    elif node.op_type in PICKS:
        picked_from = _bytes(index.element_type(node.input[0]), work.read(0))
        read += min(written, picked_from) - picked_from
    macs = MACS[node.op_type](work) if node.op_type in MACS else 0
    return NodeCost(
        name=node.name,
        op=node.op_type,
        macs=macs,
        read_bytes=read,
        written_bytes=written,
        parameters=sum(prod(index.initializers[name].dims) for name in set(_weights_of(node, index.initializers))),
        scalars=SCALARS[node.op_type](work) if node.op_type in SCALARS else 0,
        integer=bool(macs) and _integer(node, index),
    )


def _shape(name: str, node: onnx.NodeProto, index: Index) -> Shape:
    shape = index.shape(name)
    if shape is None or not all(isinstance(axis, int) for axis in shape):
        raise InvalidModel(
            f"the cost of {node.op_type} node {node.name!r} isn't known: the shape of {name!r} is {shape or 'unknown'}; "
            "it depends on values, or onnx can't infer it: export the model with fixed shapes"
        )
    return tuple(axis for axis in shape if isinstance(axis, int))


def _bytes(element_type: int, shape: Shape) -> int:
    elements = prod(shape)
    if element_type in _FOUR_BITS:
        return (elements + 1) // 2
    return elements * int(helper.tensor_dtype_to_np_dtype(element_type).itemsize) if element_type else 0


def _weights_of(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> list[str]:
    """Names of the `stored` tensors that are weights of `node`. Of int32, only biases of integer dot products and dequantization count."""
    if node.op_type not in _WEIGHT_OPERATORS:
        return []
    skipped = _SCALE_POSITIONS.get(node.op_type, ())
    weights = []
    for position, name in enumerate(node.input):
        tensor = stored.get(name)
        if tensor is None or position in skipped:
            continue
        integer_bias = tensor.data_type == onnx.TensorProto.INT32 and node.op_type in (*_INTEGER_DOTS, "DequantizeLinear")
        if tensor.data_type in _PARAMETER_TYPES or integer_bias:
            weights.append(name)
    return weights


def _integer(node: onnx.NodeProto, index: Index) -> bool:
    if node.op_type in _INTEGER_DOTS:
        return True
    makers = [index.producer(name) for name in node.input[:2]]
    return all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)
