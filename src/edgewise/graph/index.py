"""`Index`: who makes a tensor, who uses it, and what is known of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from edgewise.graph.graph import Graph


class Index:
    """Look-up tables over a graph's top level, made once and read only; make a new one after a change.

    A tensor that a subgraph (of an If, Loop or Scan) captures counts as used by the node that holds the subgraph.
    """

    def __init__(self, graph: Graph | onnx.ModelProto) -> None:
        proto = graph.proto if isinstance(graph, Graph) else graph
        self.nodes: tuple[onnx.NodeProto, ...] = tuple(proto.graph.node)
        self.inputs = {value.name for value in proto.graph.input}
        self.outputs = {value.name for value in proto.graph.output}
        self.initializers: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.inputs -= self.initializers.keys()
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(used_by(node)):
                self._consumers.setdefault(name, []).append(node)
        self._types = {value.name: value.type.tensor_type for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)}

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that makes `tensor`; None for inputs, weights and unknown names."""
        return self._producers.get(tensor)

    def consumers(self, tensor: str) -> tuple[onnx.NodeProto, ...]:
        """The nodes that use `tensor`, in order, each once. A graph output has none for being one."""
        return tuple(self._consumers.get(tensor, ()))

    def sole_consumer(self, tensor: str) -> onnx.NodeProto | None:
        """The one node that sees `tensor`; None when there are several, or it is an output of the graph."""
        users = self._consumers.get(tensor, ())
        return users[0] if len(users) == 1 and tensor not in self.outputs else None

    def constant(self, tensor: str) -> np.ndarray | None:
        """The value of an initializer (a copy); None for anything else."""
        found = self.initializers.get(tensor)
        return None if found is None else numpy_helper.to_array(found).copy()

    def shape(self, tensor: str) -> tuple[int | str | None, ...] | None:
        """Axes as numbers, names, or None where nothing is known; None when not even the rank is."""
        if tensor in self.initializers:
            return tuple(self.initializers[tensor].dims)
        kind = self._types.get(tensor)
        if kind is None or not kind.HasField("shape"):
            return None
        return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim)

    def element_type(self, tensor: str) -> int:
        """onnx.TensorProto's number of the element type; 0 (UNDEFINED) when it isn't known."""
        if tensor in self.initializers:
            return int(self.initializers[tensor].data_type)
        kind = self._types.get(tensor)
        return 0 if kind is None else int(kind.elem_type)

    @property
    def tensors(self) -> tuple[str, ...]:
        """Every tensor that a node makes, in the order of the nodes."""
        return tuple(self._producers)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in `node`'s attributes (the branches of an If, the body of a Loop or Scan)."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def used_by(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the tensors that `node` reads, its subgraphs' captures (and inner names) included."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from used_by(inner)


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """`nodes` and those of their subgraphs, at every depth."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from all_nodes(graph.node)


def all_names(proto: onnx.ModelProto) -> set[str]:
    """Every tensor name that is taken anywhere in the model."""
    names = {value.name for value in (*proto.graph.input, *proto.graph.output)} | {tensor.name for tensor in proto.graph.initializer}

    def walk(graph: onnx.GraphProto) -> None:
        names.update(value.name for value in graph.input)
        names.update(tensor.name for tensor in graph.initializer)
        for node in graph.node:
            names.update(node.input)
            names.update(node.output)
            for inner in subgraphs(node):
                walk(inner)

    walk(proto.graph)
    return names


def fresh(name: str, taken: set[str]) -> str:
    """`name`, or `name_1`, `name_2` … when it is taken. Adds the result to `taken`."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate


def rename_tensors(nodes: Iterable[onnx.NodeProto], names: dict[str, str]) -> None:
    """Rename what `nodes` read and write, in place, subgraphs included (ONNX forbids shadowing, so a name is one tensor)."""
    for node in nodes:
        for field in (node.input, node.output):
            for position, name in enumerate(field):
                if name in names:
                    field[position] = names[name]
        for graph in subgraphs(node):
            rename_tensors(graph.node, names)
            for value in graph.output:
                value.name = names.get(value.name, value.name)
