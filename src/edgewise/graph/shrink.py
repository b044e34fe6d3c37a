"""`shrink`: take units out of a network. Tensors become smaller, and nothing else of the graph's meaning changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise.errors import InvalidInput
from edgewise.graph.atoms import Labels
from edgewise.graph.canonical import remove_unused
from edgewise.graph.coupling import Walk, integer, number
from edgewise.graph.coupling_shapes import target as reshape_target
from edgewise.graph.graph import Graph
from edgewise.graph.index import all_names, fresh
from edgewise.graph.origins import note_origins
from edgewise.graph.parts import Coupling, Part, parts, residual_sum
from edgewise.graph.settling import absorb, settle
from edgewise.graph.shapes import inferred


def shrink(graph: Graph, keep: Mapping[str, Sequence[int]], *, coupling: Coupling | None = None, exact: bool = False) -> Graph:
    """`graph` with only these units left: part name -> the units that stay, ascending. Parts that aren't named stay whole.

    coupling: `parts(graph)`, where it is known already. Where all units of a removable part go, its branch goes: what is left of it is the
    constant that its last layer's bias and batch norm made (left out of a quantized graph, where it could not be an integer of that scale).
    Adding it would take as long as a layer, so it goes into a bias before it (`graph.settling`), which is the same but for what a ReLU
    between them cuts off; exact: it is added all the same.
    Raises InvalidInput for an unknown part, an unknown or repeated unit, or an empty part that isn't removable.
    """
    coupling = coupling or parts(graph)
    walk = coupling.walk
    stays = positions(coupling, keep)
    cut = [coupling.part(name) for name, units in keep.items() if not len(units)]
    proto = graph.copy_proto()
    constants = _branches(proto, walk, cut)
    if cut:
        remove_unused(proto)
    for name, value in constants.items():
        if exact or not absorb(proto, name, value):
            _add_constant(proto, walk, stays, name, value)
    if cut and not exact:
        settle(proto)
    for node in proto.graph.node:
        _attributes(node, walk, stays)
    _rewritten_constants(proto, walk, stays)
    for tensor in proto.graph.initializer:
        axes = stays.get(tensor.name)
        if axes is None or all(one is None or one.all() for one in axes):
            continue
        value = numpy_helper.to_array(tensor)
        for axis, left in enumerate(axes):
            if left is not None and not left.all():
                value = np.compress(left, value, axis=axis)
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))
    if cut:
        remove_unused(proto)
    note_origins(proto, stays)
    proto, notes = inferred(proto)
    return Graph.from_proto(proto, (*graph.notes, *notes))


def positions(coupling: Coupling, keep: Mapping[str, Sequence[int]]) -> dict[str, list[np.ndarray | None]]:
    """What `shrink` leaves of every tensor: its name -> for each axis which positions stay, (length,) bool; None where none can go.

    Raises InvalidInput as `shrink` does.
    """
    walk = coupling.walk
    gone = np.zeros(walk.atoms.count, bool)  # by class
    for name, units in keep.items():
        part = _checked(coupling, name, units)
        lost = np.setdiff1d(np.arange(part.units), np.asarray(units, np.int64))
        for one in part.slices[:1]:
            labels = walk.of(one.tensor)[one.axis]
            if labels is not None:
                gone[walk.settled.classes[labels[one.indices[lost].reshape(-1)]]] = True
    return {name: _kept(walk, axes, gone) for name, axes in walk.axes.items()}


def _checked(coupling: Coupling, name: str, units: Sequence[int]) -> Part:
    part = next((part for part in coupling.parts if part.name == name), None)
    if part is None:
        known = ", ".join(part.name for part in coupling.parts[:8])
        raise InvalidInput(f"the model has no part {name!r}; its parts are {known or '(none)'}{' …' if len(coupling.parts) > 8 else ''}")
    found = np.asarray(units, np.int64)
    if len(np.unique(found)) != len(found) or (len(found) and (found.min() < 0 or found.max() >= part.units)):
        raise InvalidInput(f"units {list(units)[:8]} of {name}: give distinct numbers from 0 to {part.units - 1}")
    if not len(found) and not part.removable:
        raise InvalidInput(f"{name}: at least one of its {part.units} units has to stay; it is not the inside of a residual branch")
    return part


def _kept(walk: Walk, axes: list[Labels], gone: np.ndarray) -> list[np.ndarray | None]:
    """For each axis which positions stay, (length,) bool; None where nothing can go."""
    return [None if labels is None else ~gone[walk.settled.classes[labels]] for labels in axes]


def _attributes(node: onnx.NodeProto, walk: Walk, stays: Mapping[str, list[np.ndarray | None]]) -> None:
    if node.op_type in ("Conv", "ConvTranspose") and integer(node, "group", 1) > 1:
        weight, x = stays[node.input[1]], stays[node.input[0]][1]
        alone = walk.shape(node.input[1]) or ()
        # Depthwise: as many groups as channels. Other groups stay, each of them narrower.
        if x is not None and alone[1] == 1 and weight[0] is not None:
            _set(node, "group", int(x.sum()))
    elif node.op_type == "Split":
        axis = integer(node, "axis", 0)
        whole = stays[node.input[0]][axis]
        if whole is not None and not whole.all() and len(node.input) < 2:
            # Equal shares need not be equal any more; `_rewritten_constants` fills the sizes in.
            for name in ("num_outputs", "split"):
                _unset(node, name)


def _unset(node: onnx.NodeProto, name: str) -> None:
    for old in [one for one in node.attribute if one.name == name]:
        node.attribute.remove(old)


def _set(node: onnx.NodeProto, name: str, value: int) -> None:
    _unset(node, name)
    node.attribute.append(helper.make_attribute(name, value))


def _rewritten_constants(proto: onnx.ModelProto, walk: Walk, stays: Mapping[str, list[np.ndarray | None]]) -> None:
    """Shapes, sizes and limits that count channels: each node gets constants of its own."""
    taken = all_names(proto)

    def replace(node: onnx.NodeProto, position: int, value: np.ndarray) -> None:
        while len(node.input) <= position:
            node.input.append("")
        name = fresh(f"{node.name}_{position}", taken)
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
        node.input[position] = name

    for node in proto.graph.node:
        out = [stays.get(name, []) for name in node.output]
        if not any(one is not None and not one.all() for axes in (*out, *(stays.get(name, []) for name in node.input[:1])) for one in axes):
            continue
        if node.op_type in ("Reshape", "Expand", "Resize"):
            position = 3 if node.op_type == "Resize" else 1
            target = walk.index.constant(node.input[position]) if len(node.input) > position else None
            if target is None and node.op_type == "Reshape":
                computed = reshape_target(walk, node)
                target = None if computed is None else np.array(computed, np.int64)
                _unset(node, "allowzero")
            if target is not None and target.dtype == np.int64:
                new = target.copy()
                offset = len(out[0]) - len(new)
                for i, one in enumerate(out[0][offset:]):
                    if one is not None and new[i] > 1:
                        new[i] = int(one.sum())
                replace(node, position, new)
        elif node.op_type == "Split":
            axis = integer(node, "axis", 0)
            counts = [one[axis] for one in out]
            if all(one is not None for one in counts):
                replace(node, 1, np.array([int(one.sum()) for one in counts if one is not None], np.int64))
        elif node.op_type == "Slice":
            _limits(node, walk, stays, replace)


def _limits(node: onnx.NodeProto, walk: Walk, stays: Mapping[str, list[np.ndarray | None]], replace: object) -> None:
    starts, ends = (walk.index.constant(node.input[i]) for i in (1, 2))
    axes = walk.index.constant(node.input[3]) if len(node.input) > 3 and node.input[3] else None
    if starts is None or ends is None or not callable(replace):
        return
    starts, ends = starts.copy(), ends.copy()
    for i, axis in enumerate(range(len(starts)) if axes is None else axes):
        one = stays[node.input[0]][int(axis)]
        if one is None or one.all():
            continue
        first, last, _ = slice(int(starts[i]), int(ends[i])).indices(len(one))
        starts[i], ends[i] = int(one[:first].sum()), int(one[:last].sum())
    replace(node, 1, starts)
    replace(node, 2, ends)


def _branches(proto: onnx.ModelProto, walk: Walk, cut: Sequence[Part]) -> dict[str, np.ndarray]:
    """Where a part goes as a whole, its sum passes the other side on. Returns what the branch still gave: sum -> constant, (channels,)."""
    left = {}
    for part in cut:
        for one in part.slices:
            if one.role != "in":
                continue
            reader = next(node for node in walk.index.nodes if node.name == one.node)
            found = residual_sum(walk, reader)
            if found is None:
                continue
            add = next(node for node in proto.graph.node if node.name == found[0].name)
            constant = _constant_branch(walk, reader, found[1])
            if constant is not None and constant.any():
                left[add.name] = constant
            add.op_type = "Identity"
            other = next(name for name in add.input if name != found[1])
            del add.input[:]
            add.input.append(other)
    return left


def _add_constant(proto: onnx.ModelProto, walk: Walk, stays: Mapping[str, list[np.ndarray | None]], name: str, value: np.ndarray) -> None:
    """The sum `name`, which passes one side on, adds `value` to it again, as far as its channels stay."""
    add = next(node for node in proto.graph.node if node.name == name)
    rank = len(walk.shape(add.output[0]) or ())
    axis = 1 if rank > 3 else rank - 1
    stay = stays[add.output[0]][axis]
    if stay is not None and len(value) == len(stay):
        value = value[stay]
    constant = fresh(f"{name}_constant", all_names(proto))
    proto.graph.initializer.append(numpy_helper.from_array(value.reshape((-1, *([1] * (rank - 1 - axis)))), constant))
    add.op_type = "Add"
    add.input.append(constant)


def _constant_branch(walk: Walk, reader: onnx.NodeProto, end: str) -> np.ndarray | None:
    """(channels,): what a branch gives whose last layer reads nothing: its bias, through the batch norm behind it. None if quantized."""
    value: np.ndarray | None = np.zeros(1, np.float32)
    if len(reader.input) > 2 and reader.input[2]:
        value = walk.index.constant(reader.input[2])
    tensor = reader.output[0]
    while tensor != end and value is not None:
        node = walk.index.consumers(tensor)[0]
        if node.op_type == "BatchNormalization":
            scale, bias, mean, variance = (walk.index.constant(name) for name in node.input[1:5])
            epsilon = number(node, "epsilon", 1e-5)
            if scale is None or bias is None or mean is None or variance is None:
                return None
            value = ((value - mean) / np.sqrt(variance + epsilon) * scale + bias).astype(np.float32)
        elif node.op_type == "Add":
            other = walk.index.constant(next(name for name in node.input if name != tensor))
            value = None if other is None else value + other.reshape(-1)
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return None
        tensor = node.output[0]
    if value is None or value.dtype.kind != "f":
        return None
    return value.reshape(-1)
