"""MiniLM in int8, weights and tables: `edgewise`'s dynamic quantization of the matrix products, and the embeddings as integers too.

`quantize(mode="dynamic")` gives each matrix product's weights one scale per output channel. It leaves tables alone, which are half of
MiniLM; here they become int8 with a scale per row (a token), and are dequantized after the rows were gathered: all of a table is never
float.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgewise.compress.quantize import quantize
from edgewise.graph import Graph

TABLE_ELEMENTS = 4096  # smaller ones stay as they are


def in_int8(dense: Graph) -> Graph:
    """The exported float model with int8 weights: 22.6 M of 22.7 M of MiniLM's. No calibration: the same weights give the same integers."""
    proto = quantize(dense, mode="dynamic", reduce_range=False).model.copy_proto()
    graph = proto.graph
    tables = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2}
    nodes = []
    for node in graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or np.prod(table.dims) < TABLE_ELEMENTS or any(each.name == "axis" and each.i for each in node.attribute):
            nodes.append(node)
            continue
        stem, rows, out = table.name, node.input[1], node.output[0]
        values = numpy_helper.to_array(table)
        scale = (np.abs(values).max(axis=1, keepdims=True) / 127).astype(np.float32)
        scale[scale == 0] = 1
        integers = np.rint(values / scale).clip(-127, 127).astype(np.int8)
        graph.initializer.remove(table)
        graph.initializer.extend([numpy_helper.from_array(integers, f"{stem}_quantized"), numpy_helper.from_array(scale, f"{stem}_scale")])
        nodes += [
            helper.make_node("Gather", [f"{stem}_quantized", rows], [f"{out}_integers"], name=f"{node.name}_integers"),
            helper.make_node("Cast", [f"{out}_integers"], [f"{out}_float"], name=f"{node.name}_float", to=TensorProto.FLOAT),
            helper.make_node("Gather", [f"{stem}_scale", rows], [f"{out}_scale"], name=f"{node.name}_scale"),
            helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out], name=node.name),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    return Graph.from_proto(proto)
