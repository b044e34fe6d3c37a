"""Shape inference and what stands on it: named axes, a fixed batch."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import shape_inference

from edgewise.errors import InvalidInput
from edgewise.graph.graph import Graph, axis_name
from edgewise.graph.index import Index

LARGE = 64  # elements; no shape is computed from a larger weight
_DATA = ("raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data")


def infer_shapes(graph: Graph) -> Graph:
    """Infer the shape and element type of every tensor, values of small shape computations included.

    Never fails on a valid model: where inference stops, the tensors after it stay unknown, and the result's notes say so.
    """
    proto, notes = inferred(graph.proto)
    return Graph.from_proto(proto, (*graph.notes, *notes))


def inferred(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A new ModelProto with what onnx's inference finds, and notes about what it doesn't.

    Old annotations are dropped first: those of intermediate tensors may be stale after a rewrite (and make inference fail).
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    name_axes(copy)
    del copy.graph.value_info[:]
    # Inference reads and writes all that it is given, several times over; of large weights it needs the shape alone.
    for tensor in copy.graph.initializer:
        if int(np.prod(tensor.dims)) > LARGE:
            for field in _DATA:
                tensor.ClearField(field)
    failed = ""
    try:
        copy = shape_inference.infer_shapes(copy, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        failed = str(error).strip().splitlines()[0]
    for tensor, whole in zip(copy.graph.initializer, proto.graph.initializer, strict=True):
        tensor.CopyFrom(whole)
    if failed:
        return copy, (f"shape inference failed, shapes inside the graph are unknown: {failed}",)
    index = Index(copy)
    for node in copy.graph.node:
        if any(name and index.shape(name) is None for name in node.output):
            return copy, (f"shapes from {node.op_type} node {node.name!r} on are unknown: onnx's inference can't tell them",)
    return copy, ()


def name_axes(proto: onnx.ModelProto) -> None:
    """Write the names that the signature gives to open axes ("axis_0", see `axis_name`) into `proto`'s inputs, in place."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in weights:
            continue
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            name = axis_name(dim, index, value.name)
            if isinstance(name, str):
                dim.dim_param = name


def open_outputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with named input axes, and outputs whose open axes have no names, so that inference can say what they are."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    name_axes(bare)
    for value in bare.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.dim_value > 0:
                dim.Clear()
    return bare


def set_axes(graph: Graph, **axes: int | str) -> Graph:
    """Fix named axes (`batch=1`) or rename them (`batch="n"`), and infer all shapes again.

    Raises InvalidInput for a name that the signature doesn't have, a size below 1, or a name that is taken.
    """
    named = {d for spec in (*graph.signature.inputs, *graph.signature.outputs) for d in spec.shape if isinstance(d, str)}
    for name, value in axes.items():
        if name not in named:
            raise InvalidInput(f"the model has no axis {name!r}; its named axes are {', '.join(sorted(named)) or '(none)'}")
        if isinstance(value, int) and value < 1:
            raise InvalidInput(f"{name}={value}: an axis has at least one element")
        if isinstance(value, str) and (not value or (value != name and value in named)):
            raise InvalidInput(f"axis {name!r} can't be called {value!r}: that name is {'taken' if value else 'empty'}")
    proto = graph.copy_proto()
    for spec, value_info in zip((*graph.signature.inputs, *graph.signature.outputs), _boundary(proto), strict=True):
        for given, dim in zip(spec.shape, value_info.type.tensor_type.shape.dim, strict=True):
            target = axes.get(given) if isinstance(given, str) else None
            if isinstance(target, int):
                dim.dim_value = target
            elif target is not None:
                dim.dim_param = target
    proto, notes = inferred(proto)
    return Graph.from_proto(proto, (*graph.notes, *notes))


def set_batch(graph: Graph, n: int | str) -> Graph:
    """Fix the batch axis, the leading axis of the first input, to `n` samples, or give it the name `n`.

    Raises InvalidInput when that axis is fixed already (and not to `n`).
    """
    spec = graph.signature.inputs[0]
    axis = spec.shape[0] if spec.shape else None
    if axis == n:
        return graph
    if not isinstance(axis, str):
        raise InvalidInput(
            f"input {spec.name!r} is {spec.shape}: its leading axis is fixed; export the model with a named batch axis to choose {n}"
        )
    return set_axes(graph, **{axis: n})


def _boundary(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Inputs (without weights) and outputs, in the signature's order."""
    weights = {tensor.name for tensor in proto.graph.initializer} | {tensor.values.name for tensor in proto.graph.sparse_initializer}
    return [*(value for value in proto.graph.input if value.name not in weights), *proto.graph.output]
