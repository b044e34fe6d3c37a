"""Which weights were thinned out: a mark on the graph, so that whoever trains it leaves their zeros zero."""

from __future__ import annotations

import json
from collections.abc import Iterable

import onnx
from onnx import helper

from edgewise.graph.graph import Graph

# Of the model's metadata: the names of initializers whose zeros were made on purpose. Which elements these are, the values say.
SPARSE = "edgewise.sparse"


def sparse_weights(proto: onnx.ModelProto) -> frozenset[str]:
    """The initializers whose zeros stay zero when the graph trains."""
    found = [entry.value for entry in proto.metadata_props if entry.key == SPARSE]
    return frozenset(json.loads(found[0])) if found else frozenset()


def set_sparse(proto: onnx.ModelProto, names: Iterable[str]) -> None:
    """Note in `proto`, in place, that the zeros of these initializers, and of no others, are to stay."""
    kept = [(entry.key, entry.value) for entry in proto.metadata_props if entry.key != SPARSE]
    added = sorted(names)
    helper.set_model_props(proto, {**dict(kept), **({SPARSE: json.dumps(added)} if added else {})})


def mark_sparse(graph: Graph, names: Iterable[str]) -> Graph:
    """`graph` in which these weights, too, keep their zeros."""
    proto = graph.copy_proto()
    set_sparse(proto, sparse_weights(proto) | set(names))
    return Graph.from_proto(proto, graph.notes)
