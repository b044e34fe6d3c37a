"""Small edits of a graph's boundary: outputs added to look inside, inputs renamed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from edgewise.errors import InvalidInput
from edgewise.graph.graph import Graph
from edgewise.graph.index import Index, all_names, rename_tensors
from edgewise.graph.shapes import infer_shapes


def taps(graph: Graph, tensors: Iterable[str]) -> Graph:
    """`graph` with the inner `tensors` as further outputs, after its own, in the order given.

    Those that are outputs already are left alone. An engine can't fuse across a tapped tensor, so never time a tapped graph.
    Raises InvalidInput for a name that no node makes, or whose element type can't be inferred.
    """
    names = list(dict.fromkeys(tensors))
    index = Index(graph)
    unknown = [name for name in names if index.producer(name) is None]
    if unknown:
        kind = "an input or a weight" if unknown[0] in index.inputs or unknown[0] in index.initializers else "no tensor of this graph"
        raise InvalidInput(f"can't tap {unknown[0]!r}: it is {kind}; `Index(graph).tensors` lists what can be tapped")
    if any(not index.element_type(name) for name in names):
        graph = infer_shapes(graph)
        index = Index(graph)
    proto = graph.copy_proto()
    types = {value.name: value for value in proto.graph.value_info}
    for name in names:
        if name in index.outputs:
            continue
        if name not in types or index.shape(name) is None:
            raise InvalidInput(f"can't tap {name!r}: its type can't be inferred; choose a tensor before it")
        proto.graph.output.append(types[name])
    return Graph.from_proto(proto, graph.notes)


def rename_inputs(graph: Graph, names: Mapping[str, str]) -> Graph:
    """`graph` with inputs renamed, `{old: new}`. Raises InvalidInput when there is no such input, or the new name is taken."""
    inputs = [spec.name for spec in graph.signature.inputs]
    taken = all_names(graph.proto)
    for old, new in names.items():
        if old not in inputs:
            raise InvalidInput(f"the model has no input {old!r}; its inputs are {', '.join(inputs)}")
        if not new or (new != old and new in taken - names.keys()):
            raise InvalidInput(f"input {old!r} can't be called {new!r}: that name is {'taken inside the graph' if new else 'empty'}")
    if len(set(names.values())) != len(names):
        raise InvalidInput(f"two inputs can't have one name: {dict(names)}")
    proto = graph.copy_proto()
    rename_tensors(proto.graph.node, dict(names))
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = names.get(value.name, value.name)
    return Graph.from_proto(proto, graph.notes)


def replace_nodes(graph: Graph, nodes: Iterable[onnx.NodeProto], initializers: Iterable[onnx.TensorProto]) -> Graph:
    """`graph` with other nodes (in topological order) and weights; annotations are dropped, so infer shapes where they are needed."""
    proto = graph.copy_proto()
    nodes, initializers = list(nodes), list(initializers)
    del proto.graph.node[:]
    del proto.graph.initializer[:]
    del proto.graph.value_info[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(initializers)
    return Graph.from_proto(proto, graph.notes)
