"""Shapes that only look computed, made constants: those in which the batch alone varies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise.graph.canonical import add_initializer, remove_identities, remove_unused
from edgewise.graph.folding import FLOATS
from edgewise.graph.index import Index, all_names, fresh
from edgewise.graph.probing import probe

# What varies between two batch sizes, which nothing else in a network is likely to have, varies with the batch.
SIZES = (97, 101)
_ABOUT_SHAPES = frozenset(("Shape", "Size"))

Shape = tuple[int, ...]


def constant_targets(proto: onnx.ModelProto) -> int:
    """Make constants, in place, of what is computed from shapes and doesn't vary, or where the batch alone does. Returns how many.

    Of targets that vary with the batch, Reshape's gets -1 for that axis; Expand's 1 where its input has the size already (one that does
    nothing goes); Resize gets scales where these are exact, else sizes for the axes that it changes (opset 18).
    `proto` is canonical, its shapes inferred.
    """
    index = Index(proto)
    batch = _batch(proto, index)
    if not batch or not any(node.op_type in _ABOUT_SHAPES for node in index.nodes):
        return 0
    probes = [probe(proto, {batch: size}) for size in SIZES]
    taken = all_names(proto)
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    count = _invariant(proto, index, probes, taken)
    index = Index(proto)
    for node in [node for node in index.nodes if not node.domain and _computed_target(node, index)]:
        before, after = _seen(node.input[0], probes), _seen(node.output[0], probes)
        if after is None:
            continue
        if node.op_type == "Reshape":
            done = _reshape(proto, node, after, taken)
        elif before is None:
            continue
        elif node.op_type == "Expand":
            done = _expand(proto, node, before, after, taken)
        else:
            done = _resize(proto, node, before, after, opset, taken)
        count += done
    if count:
        remove_identities(proto)
        remove_unused(proto)
    return count


def _invariant(proto: onnx.ModelProto, index: Index, probes: Sequence[Index], taken: set[str]) -> int:
    """Put a constant for every tensor that both probes computed alike from nothing but shapes, in place. Returns how many."""
    weights = {name for name, tensor in index.initializers.items() if tensor.data_type in FLOATS and int(np.prod(tensor.dims)) > 1}
    for node in index.nodes:
        if node.op_type not in _ABOUT_SHAPES and any(name in weights for name in node.input):
            weights.update(node.output)
    names: dict[str, str] = {}
    for name in index.tensors:
        one, other = (probe.constant(name) for probe in probes)
        if name in weights or name in index.outputs or one is None or other is None:
            continue
        if one.shape == other.shape and (one == other).all():
            names[name] = fresh(f"{name}.constant", taken)
            proto.graph.initializer.append(numpy_helper.from_array(one, names[name]))
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            if name in names:
                node.input[position] = names[name]
    return len(names)


def _computed_target(node: onnx.NodeProto, index: Index) -> bool:
    position = {"Reshape": 1, "Expand": 1, "Resize": 3}.get(node.op_type)
    return (
        position is not None
        and len(node.input) > position
        and bool(node.input[position])
        and node.input[position] not in index.initializers
    )


def _batch(proto: onnx.ModelProto, index: Index) -> str:
    """The name of the first input's leading axis; "" when it is fixed."""
    for value in proto.graph.input:
        if value.name in index.inputs:
            dims = value.type.tensor_type.shape.dim
            return str(dims[0].dim_param) if dims else ""
    return ""


def _seen(tensor: str, probes: Sequence[Index]) -> tuple[Shape, Shape] | None:
    """The shapes of `tensor` in both probes; None unless all axes are known, of equal number, and none is empty."""
    shapes = [tuple(axis for axis in probe.shape(tensor) or () if isinstance(axis, int) and axis > 0) for probe in probes]
    ranks = [len(probe.shape(tensor) or ()) for probe in probes]
    if any(probe.shape(tensor) is None for probe in probes) or [len(shape) for shape in shapes] != ranks or ranks[0] != ranks[1]:
        return None
    return shapes[0], shapes[1]


def _reshape(proto: onnx.ModelProto, node: onnx.NodeProto, after: tuple[Shape, Shape], taken: set[str]) -> bool:
    target = [one if one == other else -1 for one, other in zip(*after, strict=True)]
    if target.count(-1) > 1:
        return False
    _set_input(proto, node, 1, np.array(target, np.int64), "shape", taken)
    _drop_attributes(node, "allowzero")
    return True


def _expand(proto: onnx.ModelProto, node: onnx.NodeProto, before: tuple[Shape, Shape], after: tuple[Shape, Shape], taken: set[str]) -> bool:
    if before == after:
        node.op_type = "Identity"
        del node.input[1:]
        return True
    missing = len(after[0]) - len(before[0])
    target = []
    for axis, (one, other) in enumerate(zip(*after, strict=True)):
        own = (before[0][axis - missing], before[1][axis - missing]) if axis >= missing else None
        if one != other and own != (one, other):
            return False
        target.append(one if one == other else 1)
    _set_input(proto, node, 1, np.array(target, np.int64), "shape", taken)
    return True


def _resize(
    proto: onnx.ModelProto, node: onnx.NodeProto, before: tuple[Shape, Shape], after: tuple[Shape, Shape], opset: int, taken: set[str]
) -> bool:
    policy = next((attribute.s for attribute in node.attribute if attribute.name == "keep_aspect_ratio_policy"), b"stretch")
    changed = [axis for axis in range(len(before[0])) if (before[0][axis], before[1][axis]) != (after[0][axis], after[1][axis])]
    if policy != b"stretch" or any(before[0][axis] != before[1][axis] or after[0][axis] != after[1][axis] for axis in changed):
        return False
    scales = [after[0][axis] / before[0][axis] for axis in range(len(before[0]))]
    if all(scale == float(np.float32(scale)) for scale in scales):
        del node.input[3:]
        _set_input(proto, node, 2, np.array(scales, np.float32), "scales", taken)
        _drop_attributes(node, "axes")
    elif opset >= 18 and changed:
        _set_input(proto, node, 3, np.array([after[0][axis] for axis in changed], np.int64), "sizes", taken)
        _drop_attributes(node, "axes")
        node.attribute.append(helper.make_attribute("axes", changed))
    else:
        return False
    return True


def _set_input(proto: onnx.ModelProto, node: onnx.NodeProto, position: int, value: np.ndarray, what: str, taken: set[str]) -> None:
    node.input[position] = add_initializer(proto, f"{node.output[0]}.{what}", value, taken)


def _drop_attributes(node: onnx.NodeProto, name: str) -> None:
    for attribute in [attribute for attribute in node.attribute if attribute.name == name]:
        node.attribute.remove(attribute)
