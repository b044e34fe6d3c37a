"""One node of a graph, run by itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise import backends
from edgewise.compress.quantize.place import Weighted
from edgewise.graph import Graph
from edgewise.types import Execution

Pieces = list[np.ndarray]  # one tensor, for each piece of the calibration data


def with_weights(
    node: onnx.NodeProto, layer: Weighted, weight: np.ndarray, bias: np.ndarray | None
) -> tuple[onnx.NodeProto, dict[str, onnx.TensorProto]]:
    """`node` with these constants, and the constants by name. MatMul has no place for a bias: `bias` has to be None there."""
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    del changed.input[:]
    new = {layer.weight: numpy_helper.from_array(np.ascontiguousarray(weight), layer.weight)}
    changed.input.extend([layer.input, layer.weight])
    if bias is not None:
        name = layer.bias or f"{layer.name}_bias"
        new[name] = numpy_helper.from_array(bias.astype(np.float32), name)
        changed.input.append(name)
    return changed, new


def run_node(
    graph: Graph, node: onnx.NodeProto, feeds: Mapping[str, Pieces], constants: Mapping[str, onnx.TensorProto], execution: Execution
) -> dict[str, Pieces]:
    """Outputs of the one `node`, piece by piece."""
    outputs = [name for name in node.output if name]
    index = helper.make_graph(
        [node],
        "node",
        [_value(name, pieces) for name, pieces in feeds.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        list(constants.values()),
    )
    model = helper.make_model(index, opset_imports=list(graph.proto.opset_import), ir_version=graph.proto.ir_version)
    model = onnx.shape_inference.infer_shapes(model)
    runner = backends.load(model.SerializeToString(), execution)
    try:
        results = [runner.run({name: pieces[i] for name, pieces in feeds.items()}) for i in range(len(next(iter(feeds.values()))))]
    finally:
        runner.close()
    return {name: [result[name] for result in results] for name in outputs}


def _value(name: str, pieces: Pieces) -> onnx.ValueInfoProto:
    shapes = {piece.shape for piece in pieces}
    first = pieces[0]
    shape = [n if all(s[axis] == n for s in shapes) else f"{name}_{axis}" for axis, n in enumerate(first.shape)]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(first.dtype), shape)
