"""One batch axis under several names, made one."""

from __future__ import annotations

import onnx

from edgewise.graph.folding import folded
from edgewise.graph.shapes import inferred, name_axes, open_outputs


def unify_batch(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A new ModelProto in which outputs call their axes as the inputs do, where that can be shown.

    tf2onnx calls the batch axis "unk__615" on the input and "unk__616" on the output, though it is one. Inference carries names through
    most operators; where computed shapes stop it, the leading axis is followed by its size, with two sizes that nothing else has.
    """
    bare = open_outputs(proto)
    found, _ = inferred(bare)
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    name_axes(result)
    known = {dim.dim_param for value in bare.graph.input for dim in value.type.tensor_type.shape.dim if dim.dim_param}
    for value, derived in zip(result.graph.output, found.graph.output, strict=True):
        axes, wanted = derived.type.tensor_type.shape.dim, value.type.tensor_type.shape.dim
        for axis, dim in zip(axes, wanted, strict=False):
            if not dim.dim_value > 0 and (axis.dim_value > 0 or axis.dim_param in known):
                dim.CopyFrom(axis)
    _follow_batch(result, bare)
    return result


def _follow_batch(result: onnx.ModelProto, bare: onnx.ModelProto) -> None:
    """Rename, in place, the leading axes of outputs that take the size of the first input's leading axis, for two sizes."""
    first = result.graph.input[0].type.tensor_type.shape.dim
    batch = first[0].dim_param if first else ""
    leading = [value.type.tensor_type.shape.dim[0] for value in result.graph.output if value.type.tensor_type.shape.dim]
    if not batch or all(dim.dim_value > 0 or dim.dim_param == batch for dim in leading):
        return
    sizes = (4099, 5003)
    outcomes = []
    for size in sizes:
        fixed = onnx.ModelProto()
        fixed.CopyFrom(bare)
        for value in fixed.graph.input:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param == batch:
                    dim.dim_value = size
        outcomes.append(folded(fixed)[0].graph.output)
    for value, *probes in zip(result.graph.output, *outcomes, strict=True):
        shapes = [probe.type.tensor_type.shape.dim for probe in probes]
        if value.type.tensor_type.shape.dim and all(
            shape and shape[0].dim_value == size for shape, size in zip(shapes, sizes, strict=True)
        ):
            value.type.tensor_type.shape.dim[0].dim_param = batch
