"""Tables of embeddings in 8-bit integers: a row is gathered as integers, and becomes float behind that. All of a table is never float.

In a small transformer the tables are half of the file; they cost no arithmetic, so this makes nothing faster, and nothing slower. With
fewer bits they stay bytes for the engine, and take that many bits or less where a package codes them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewise.compress.quantize.weights import weight_grid
from edgewise.graph import Graph, Index, infer_shapes, replace_nodes
from edgewise.graph.canonical import remove_unused
from edgewise.graph.index import all_names, fresh
from edgewise.types import Compressed

LEAST_ELEMENTS = 4096  # smaller tables stay as they are
ENOUGH = 1.1  # a scale per column, which is free, is taken where its error is at most this much that of a scale per row


def tables(graph: Graph) -> dict[str, str]:
    """The nodes of a canonical `graph` that gather rows of a float table, and the tables."""
    index = Index(graph)
    found = {}
    for node in index.nodes:
        table = index.initializers.get(node.input[0]) if node.op_type == "Gather" else None
        along = next((a.i for a in node.attribute if a.name == "axis"), 0)
        if table is None or along != 0 or node.input[1] in index.initializers or table.data_type != TensorProto.FLOAT:
            continue
        if len(table.dims) == 2 and np.prod(table.dims) >= LEAST_ELEMENTS and node.output[0] not in index.outputs:
            found[node.name] = table.name
    return found


def with_tables(done: Compressed, skip: Collection[str] = (), bits: int = 8) -> Compressed:
    """`done` with its tables in integers of `bits`, one scale for each row or for each column, whichever is closer to the table."""
    graph: Graph = done.model
    wanted = {node: table for node, table in tables(graph).items() if node not in skip}
    if not wanted:
        return done
    index = Index(graph)
    taken = all_names(graph.proto) | {node.name for node in graph.proto.graph.node}
    constants: dict[str, onnx.TensorProto] = {}
    held: dict[str, tuple[str, str, int]] = {}  # table -> integers, scales, axis of the scales
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        name = fresh(name, taken)
        constants[name] = numpy_helper.from_array(value, name)
        return name

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=fresh(f"{output}_node", taken), **attributes))
        return output

    for node in graph.proto.graph.node:
        if node.name not in wanted:
            nodes.append(node)
            continue
        table, chosen, output = node.input[0], node.input[1], node.output[0]
        if table not in held:
            integers, scale, axis = rounded(np.asarray(index.constant(table)), bits)
            held[table] = constant(f"{table}_quantized", integers), constant(f"{table}_scale", scale), axis
        integers_name, scale_name, axis = held[table]
        gathered = add("Gather", [integers_name, chosen], fresh(f"{output}_quantized", taken))
        real = add("Cast", [gathered], fresh(f"{output}_real", taken), to=TensorProto.FLOAT)
        scales = scale_name if axis == 1 else add("Gather", [scale_name, chosen], fresh(f"{output}_scale", taken))
        nodes.append(helper.make_node("Mul", [real, scales], [output], name=node.name))
    proto = replace_nodes(graph, nodes, [*graph.proto.graph.initializer, *constants.values()]).copy_proto()
    remove_unused(proto)
    model = infer_shapes(Graph.from_proto(proto, graph.notes))
    ways = {axis for _, _, axis in held.values()}
    scales_of = " and ".join(("rows", "columns")[axis] for axis in sorted(ways))
    note = (
        f"{len(held)} tables in {bits}-bit integers, with scales of {scales_of}: {graph.size_bytes / model.size_bytes:.1f}x smaller by it"
    )
    return Compressed(model, (*done.touched, *wanted), done.skipped, (*done.notes, note))


def rounded(table: np.ndarray, bits: int = 8) -> tuple[np.ndarray, np.ndarray, int]:
    """`table`, (rows, columns) float32, as int8 of `bits`, scales and their axis: (rows, 1) for axis 0, (columns,) for axis 1."""
    errors, grids = [], []
    for axis in (0, 1):
        grid = weight_grid(table, axis, bound=2 ** (bits - 1) - 1, search=bits < 8)
        grids.append(grid)
        errors.append(float(np.linalg.norm(grid.fake(table) - table)))
    axis = 1 if errors[1] <= ENOUGH * errors[0] else 0
    scale = np.asarray(grids[axis].scale, np.float32)
    return grids[axis].quantize(table).astype(np.int8), scale[:, None] if axis == 0 else scale, axis
