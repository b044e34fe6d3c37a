"""The canonical form: what every room after this one may rely on.

Weights are initializers and never inputs, every node has a name of its own, there are no functions, Constant, Identity or
inference-time Dropout nodes at the top level, no unused weights or nodes, and no traces of the machine that exported the model.

The functions here change the ModelProto that they are given; `edgewise.graph` hands them a copy.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import helper, inliner, numpy_helper

from edgewise.graph.index import Index, all_names, all_nodes, fresh, rename_tensors, subgraphs, used_by

M = TypeVar("M", bound=Message)


def canonicalise(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """`proto` (changed in place, or replaced) in canonical form, and notes of what was done."""
    notes = []
    if proto.functions:
        notes.append(f"{len(proto.functions)} functions inlined")
        proto = inliner.inline_local_functions(proto)
        del proto.functions[:]
    strip(proto)
    initializers_not_inputs(proto)
    constants_to_initializers(proto)
    if removed := remove_identities(proto):
        notes.append(f"{removed} Identity and Dropout nodes removed")
    if removed := remove_unused(proto):
        notes.append(f"{removed} unused nodes removed")
    name_nodes(proto)
    return proto, tuple(notes)


def strip(proto: onnx.ModelProto) -> None:
    """Drop documentation and metadata: torch's exporter writes stack traces with local paths into every node."""
    proto.ClearField("doc_string")
    del proto.metadata_props[:]
    strip_graph(proto.graph)


def strip_graph(graph: onnx.GraphProto) -> None:
    graph.ClearField("doc_string")
    del graph.metadata_props[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.ClearField("doc_string")
        del item.metadata_props[:]
    for node in graph.node:
        for inner in subgraphs(node):
            strip_graph(inner)


def initializers_not_inputs(proto: onnx.ModelProto) -> None:
    """Old exporters list every weight as an input too (which lets a caller override it, and keeps engines from folding it)."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.input if value.name not in weights]
    if len(kept) != len(proto.graph.input):
        copies = [_copied(value) for value in kept]
        del proto.graph.input[:]
        proto.graph.input.extend(copies)


def constants_to_initializers(proto: onnx.ModelProto) -> None:
    outputs = {value.name for value in proto.graph.output}
    for node in list(proto.graph.node):
        if node.op_type != "Constant" or node.domain or node.output[0] in outputs:
            continue
        tensor = constant_value(node)
        if tensor is not None:
            tensor.name = node.output[0]
            proto.graph.initializer.append(tensor)
            proto.graph.node.remove(node)


def constant_value(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant node; None for the kinds that a tensor can't hold (sparse, text)."""
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return _copied(value)
    if attribute.name in ("value_float", "value_floats"):
        return numpy_helper.from_array(np.array(value, np.float32))
    if attribute.name in ("value_int", "value_ints"):
        return numpy_helper.from_array(np.array(value, np.int64))
    return None


def remove_identities(proto: onnx.ModelProto) -> int:
    """Remove Identity nodes, and Dropout nodes that do nothing at inference. Returns how many.

    One that connects an input or a weight straight to an output stays: both names have to live on.
    """
    removed = 0
    index = Index(proto)
    outputs = {value.name for value in proto.graph.output}
    for node in list(proto.graph.node):
        if not _is_identity(node, index):
            continue
        source, result = node.input[0], node.output[0]
        if result in outputs:
            if source in outputs or not any(source in other.output for other in proto.graph.node):
                continue
            names = {source: result}
        else:
            names = {result: source}
        proto.graph.node.remove(node)
        rename_tensors(proto.graph.node, names)
        removed += 1
    return removed


def _is_identity(node: onnx.NodeProto, index: Index) -> bool:
    if node.domain:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or any(index.consumers(name) or name in index.outputs for name in node.output[1:] if name):
        return False
    if len(node.input) < 3 or not node.input[2]:
        return True
    training = index.constant(node.input[2])
    return training is not None and not bool(training)


def remove_unused(proto: onnx.ModelProto) -> int:
    """Remove nodes that no output depends on, then weights that nothing uses. Returns how many nodes."""
    needed = {value.name for value in proto.graph.output}
    kept = []
    for node in reversed(proto.graph.node):
        if any(name in needed for name in node.output):
            needed.update(used_by(node))
            kept.append(node)
    removed = len(proto.graph.node) - len(kept)
    if removed:
        copies = [_copied(node) for node in reversed(kept)]
        del proto.graph.node[:]
        proto.graph.node.extend(copies)
    for tensor in [tensor for tensor in proto.graph.initializer if tensor.name not in needed]:
        proto.graph.initializer.remove(tensor)
    for sparse in [sparse for sparse in proto.graph.sparse_initializer if sparse.values.name not in needed]:
        proto.graph.sparse_initializer.remove(sparse)
    return removed


def name_nodes(proto: onnx.ModelProto) -> None:
    """Give every node, subgraphs' included, a name of its own: the one it has, or "<operator>_<n>" counted per operator."""
    taken: set[str] = set()
    nodes = list(all_nodes(proto.graph.node))
    for node in nodes:
        if node.name:
            node.name = fresh(node.name, taken)
    counts: dict[str, int] = {}
    for node in nodes:
        while not node.name:
            candidate = f"{node.op_type}_{counts.setdefault(node.op_type, 0)}"
            counts[node.op_type] += 1
            if candidate not in taken:
                taken.add(candidate)
                node.name = candidate


def add_initializer(proto: onnx.ModelProto, name: str, values: np.ndarray, taken: set[str] | None = None) -> str:
    """Add `values` as a weight; returns the name it got (`name`, or one like it that was free)."""
    chosen = fresh(name, all_names(proto) if taken is None else taken)
    proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), chosen))
    return chosen


def _copied(message: M) -> M:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
