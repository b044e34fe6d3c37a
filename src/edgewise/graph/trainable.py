"""`trainable`: the training form of a graph, which a `Network` runs and trains, and from which parts are taken."""

from __future__ import annotations

import json

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise.graph.batch import unify_batch
from edgewise.graph.canonical import canonicalise, remove_unused
from edgewise.graph.check import check
from edgewise.graph.copies import copied_axes
from edgewise.graph.folding import FLOATS, LAYOUT, fold_constants, lay_out
from edgewise.graph.graph import Graph
from edgewise.graph.index import Index, all_names, fresh, rename_tensors, subgraphs
from edgewise.graph.shapes import inferred
from edgewise.graph.sparsity import set_sparse, sparse_weights
from edgewise.graph.targets import constant_targets
from edgewise.graph.turning import turn_at_once

# Key in the model's metadata: a JSON list of the floating initializers that are known to be no parameters.
FIXED = "edgewise.fixed"


def trainable(graph: Graph | onnx.ModelProto, *, what: str = "the model") -> Graph:
    """Canonical form, constants computed, shapes inferred, as `fold` gives it; but made to train on:

    - BatchNormalization stays (one that is folded already stays folded);
    - a weight that is only laid out otherwise before its use, as a linear layer's is transposed, is stored that way, under its name;
    - a weight that several nodes read stays one weight, but vectors that an exporter stored once because their values agree are parted;
    - the target shape of Reshape, Resize and Expand is a constant wherever the batch alone varies (-1 for it), so that chains of
      Shape, Gather and Concat are gone.

    A ModelProto is checked as `read` does it; `what` names it in errors. Neither is changed. Raises InvalidModel.
    """
    if isinstance(graph, Graph):
        proto, notes = graph.copy_proto(), graph.notes
    else:
        proto, notes = onnx.ModelProto(), ()
        proto.CopyFrom(graph)
        check(proto, what)
    fixed, sparse = fixed_weights(proto), sparse_weights(proto)
    known = {tensor.name for tensor in proto.graph.initializer}
    proto, more = canonicalise(proto)
    if not isinstance(graph, Graph):
        proto = unify_batch(proto)
    if fixed is None:
        _part_vectors(proto)
    else:  # what was a Constant node till now is no parameter either
        fixed |= _floating(proto) - known
    derived = _derived(proto, fixed or frozenset())
    proto, unknown = _computed(proto, fixed or frozenset())
    if count := copied_axes(proto) + constant_targets(proto):
        more = (*more, f"{count} target shapes made constant")
        proto, unknown = _computed(proto, fixed or frozenset())
    if count := turn_at_once(proto):
        more = (*more, f"{count} transposes of three nodes made one")
        proto, unknown = inferred(proto)
    if fixed is not None:
        _drop_zero_biases(proto, _floating(proto) - derived)
        mark_fixed(proto, _floating(proto) - derived)
    set_sparse(proto, sparse & _floating(proto))
    return Graph.from_proto(proto, (*notes, *more, *unknown))


def fixed_weights(proto: onnx.ModelProto) -> frozenset[str] | None:
    """The floating initializers that are known to be no parameters; None where nothing is known (the file of some exporter)."""
    found = [entry.value for entry in proto.metadata_props if entry.key == FIXED]
    return frozenset(json.loads(found[0])) if found else None


def mark_fixed(proto: onnx.ModelProto, names: set[str]) -> None:
    """Note in `proto`, in place, that of all floating initializers these alone are no parameters."""
    kept = [(entry.key, entry.value) for entry in proto.metadata_props if entry.key != FIXED]
    helper.set_model_props(proto, {**dict(kept), FIXED: json.dumps(sorted(names))})


def _floating(proto: onnx.ModelProto) -> set[str]:
    return {tensor.name for tensor in proto.graph.initializer if tensor.data_type in FLOATS}


def _computed(proto: onnx.ModelProto, fixed: frozenset[str]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """As `folded`, but for weights: those that are shared, or only laid out otherwise, are no constants."""

    def is_weight(name: str, index: Index) -> bool:
        tensor = index.initializers.get(name)
        return tensor is not None and tensor.data_type in FLOATS and int(np.prod(tensor.dims)) > 1

    def leave(node: onnx.NodeProto, index: Index) -> bool:
        weights = [name for name in node.input if is_weight(name, index)]
        if node.op_type in LAYOUT and node.input[0] in weights:
            return True
        return any(name not in fixed and len(index.consumers(name)) > 1 for name in weights)

    while True:
        proto, unknown = inferred(proto)
        changed = _merge_twins(proto)
        changed += lay_out(proto)
        changed += fold_constants(proto, leave=leave)
        if not changed:
            return proto, unknown


def _merge_twins(proto: onnx.ModelProto) -> int:
    """Make one of nodes that do the same to the same constants, so that a shared weight is still seen to be one. Returns how many went."""
    index = Index(proto)
    constant = set(index.initializers)
    first: dict[tuple[object, ...], onnx.NodeProto] = {}
    names: dict[str, str] = {}
    for node in index.nodes:
        inputs = tuple(names.get(name, name) for name in node.input)
        if not inputs or not all(name in constant for name in inputs if name) or any(subgraphs(node)):
            continue
        constant.update(node.output)
        attributes = tuple(sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute))
        twin = first.setdefault((node.domain, node.op_type, inputs, attributes, len(node.output)), node)
        if twin is not node and not any(name in index.outputs for name in node.output):
            names.update(zip(node.output, twin.output, strict=True))
            proto.graph.node.remove(node)
    rename_tensors(proto.graph.node, names)
    return len(names)


def _part_vectors(proto: onnx.ModelProto) -> None:
    """Give a vector that nodes of different weights read to each of them as a copy, in place.

    Optimizing exporters store equal tensors once: the zeros of a fresh bias may be the running mean of another layer too. Two nodes
    that share *all* their weights are one layer used twice, and stay so.
    """
    index = Index(proto)
    taken = all_names(proto)
    readers: dict[str, dict[tuple[object, ...], list[tuple[onnx.NodeProto, int]]]] = {}
    for node in proto.graph.node:
        weights = tuple(name for name in node.input if name in index.initializers)
        for position, name in enumerate(node.input):
            tensor = index.initializers.get(name)
            if tensor is None or tensor.data_type not in FLOATS or len(tensor.dims) != 1 or tensor.dims[0] < 2:
                continue
            key: tuple[object, ...] = (node.op_type, weights, position)
            # A lone bias says nothing of its layer; all of one value, it was more likely merged than meant to be shared.
            if len(weights) == 1 and np.ptp(numpy_helper.to_array(tensor)) == 0:
                key = (*key, node.name)
            readers.setdefault(name, {}).setdefault(key, []).append((node, position))
    for name, groups in readers.items():
        for users in list(groups.values())[1:]:
            copy = onnx.TensorProto()
            copy.CopyFrom(index.initializers[name])
            copy.name = fresh(name, taken)
            proto.graph.initializer.append(copy)
            for node, position in users:
                node.input[position] = copy.name


def _drop_zero_biases(proto: onnx.ModelProto, fixed: set[str]) -> None:
    """Leave out, in place, the biases that torch's exporter writes for layers without one. A parameter that is zero still stays."""
    index = Index(proto)
    for node in proto.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and not node.domain and len(node.input) == 3 and node.input[2] in fixed:
            bias = index.constant(node.input[2])
            if bias is not None and not bias.any():
                del node.input[2:]
    remove_unused(proto)


def _derived(proto: onnx.ModelProto, fixed: frozenset[str]) -> set[str]:
    """The parameters, and every tensor that is computed from one."""
    found = _floating(proto) - fixed
    for node in proto.graph.node:
        if any(name in found for name in node.input):
            found.update(node.output)
    return found
