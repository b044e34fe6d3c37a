"""ONNX graphs: read, check, make canonical, cut open, count.

A `Graph` is frozen. Functions take one and give a new one; nothing here imports torch or an engine.
"""

from edgewise.graph.costs import NodeCost, compulsory_bytes, cost, parameters, summary, total
from edgewise.graph.editing import rename_inputs, replace_nodes, taps
from edgewise.graph.folding import fold
from edgewise.graph.graph import Graph
from edgewise.graph.index import Index
from edgewise.graph.parts import Coupling, Part, Slice, found_again, parts
from edgewise.graph.reading import canonical, read
from edgewise.graph.shapes import infer_shapes, set_axes, set_batch
from edgewise.graph.shrink import positions, shrink
from edgewise.graph.sparsity import mark_sparse, sparse_weights
from edgewise.graph.trainable import trainable

__all__ = [
    "Coupling",
    "Graph",
    "Index",
    "NodeCost",
    "Part",
    "Slice",
    "canonical",
    "compulsory_bytes",
    "cost",
    "fold",
    "found_again",
    "infer_shapes",
    "mark_sparse",
    "parameters",
    "parts",
    "positions",
    "read",
    "rename_inputs",
    "replace_nodes",
    "set_axes",
    "set_batch",
    "shrink",
    "sparse_weights",
    "summary",
    "taps",
    "total",
    "trainable",
]
