"""What a graph's shapes are when its open axes have sizes, and from two such sizes what they are in general."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from edgewise.graph.folding import fold_constants
from edgewise.graph.index import Index
from edgewise.graph.shapes import LARGE, inferred

# Two sizes for each open axis. Prime, so that no sum or product of others is taken for one, and small enough for a table of positions.
_PAIRS = ((97, 101), (103, 107), (109, 113), (127, 131), (137, 139), (149, 151), (157, 163), (167, 173))


def probe(proto: onnx.ModelProto, sizes: Mapping[str, int]) -> Index:
    """What is known of all tensors when the named axes of inputs and outputs have these sizes."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    # Weights count by their shapes alone: as inputs they needn't be copied, nor computed with.
    for tensor in [tensor for tensor in fixed.graph.initializer if int(np.prod(tensor.dims)) > LARGE]:
        fixed.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        fixed.graph.initializer.remove(tensor)
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    while True:
        fixed, _ = inferred(fixed)
        if not fold_constants(fixed):
            return Index(fixed)


def followed(proto: onnx.ModelProto) -> dict[str, tuple[int | str | None, ...]]:
    """The shape of every tensor that a node makes, in terms of the axes of the inputs, where onnx's inference loses their names.

    An axis that depends on them otherwise gets a name of its own, the same wherever it has the same size; what can't be told is None.
    Empty where inference alone knows every axis, or there are more open axes than can be told apart. `proto`: canonical, shapes inferred.
    """
    index = Index(proto)
    given = {dim.dim_param for value in proto.graph.input for dim in value.type.tensor_type.shape.dim if dim.dim_param}
    axes = sorted(given & {axis for name in index.inputs for axis in index.shape(name) or () if isinstance(axis, str)})
    known = {*axes, *(axis for name in index.inputs for axis in index.shape(name) or ())}
    lost = any(axis not in known and not isinstance(axis, int) for name in index.tensors for axis in index.shape(name) or (None,))
    if not axes or not lost or len(axes) > len(_PAIRS):
        return {}
    pairs = dict(zip(axes, _PAIRS, strict=False))
    names = {pair: axis for axis, pair in pairs.items()}
    one, other = (probe(proto, {axis: pair[i] for axis, pair in pairs.items()}) for i in range(2))

    def named(first: int | str | None, second: int | str | None) -> int | str | None:
        if not isinstance(first, int) or not isinstance(second, int):
            return None
        return first if first == second else names.get((first, second), f"{first} or {second}")

    found = {}
    for name in index.tensors:
        shapes = (one.shape(name), other.shape(name))
        constants = (one.constant(name), other.constant(name))
        if constants[0] is not None and constants[1] is not None:
            shapes = (constants[0].shape, constants[1].shape)
        if shapes[0] is not None and shapes[1] is not None and len(shapes[0]) == len(shapes[1]):
            found[name] = tuple(named(*both) for both in zip(shapes[0], shapes[1], strict=True))
    return found
