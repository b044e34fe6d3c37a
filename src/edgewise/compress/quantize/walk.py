"""Run a graph node by node on calibration samples, in float and rounded side by side, and settle each layer on the way.

When a layer is reached, all before it are quantized already: its inputs are those that it will really see. So each layer can make up
for the error that arrives, and not only for its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise import backends
from edgewise.compress.quantize.grid import Grid
from edgewise.compress.quantize.place import Plan, Weighted
from edgewise.compress.quantize.weights import Layer
from edgewise.graph import Graph, Index
from edgewise.graph.index import used_by
from edgewise.types import Execution

Pieces = list[np.ndarray]  # one tensor, for each piece of the calibration data
Run = Callable[[np.ndarray, np.ndarray | None], Pieces]


class Settle(Protocol):
    def __call__(self, layer: Weighted, node: onnx.NodeProto, exact: Pieces, rounded: Pieces, outputs: Pieces, run: Run) -> Layer: ...


def obstacle(graph: Graph) -> str | None:
    """Why `graph` can't be walked, or None."""
    known = {value.name for value in graph.proto.graph.input}
    for node in graph.proto.graph.node:
        if not any(name in known for name in used_by(node)):
            return f"{node.op_type} node {node.name!r} doesn't depend on the inputs"
        known.update(node.output)
    return None


def walk(graph: Graph, samples: Sequence[Mapping[str, np.ndarray]], plan: Plan, grids: Mapping[str, Grid], settle: Settle, execution: Execution, on_node: Callable[[float], None] = lambda share: None) -> dict[str, Layer]:
    """Quantized layers by node name. `settle` decides each one, from its inputs (in float; as rounded) and its float outputs.

    Tensors are dropped after their last use; what is held at once is two copies (float, rounded) of those that are still needed.
    """
    index = Index(graph)
    weighted = {layer.name: layer for layer in plan.weighted}
    last = {name: i for i, node in enumerate(index.nodes) for name in used_by(node)}
    exact: dict[str, Pieces] = {spec.name: [np.asarray(s[spec.name]) for s in samples] for spec in graph.signature.inputs}
    rounded: dict[str, Pieces] = dict(exact)
    layers: dict[str, Layer] = {}
    for i, node in enumerate(index.nodes):
        names = [name for name in dict.fromkeys(used_by(node)) if name in exact]
        constants = {name: index.initializers[name] for name in dict.fromkeys(used_by(node)) if name in index.initializers}
        feeds = {name: exact[name] for name in names}
        read = {name: [grids[name].fake(x) for x in rounded[name]] if plan.reads_rounded(node, name) else rounded[name] for name in names}
        outputs = _run(graph, node, feeds, constants, execution)
        if node.name in weighted:
            layer = weighted[node.name]

            def run(weight: np.ndarray, bias: np.ndarray | None, node: onnx.NodeProto = node, layer: Weighted = layer, read: dict[str, Pieces] = read, constants: dict[str, onnx.TensorProto] = constants) -> Pieces:
                changed, new = with_weights(node, layer, weight, bias)
                kept = {name: value for name, value in constants.items() if name not in (layer.weight, layer.bias)}
                return _run(graph, changed, read, {**kept, **new}, execution)[layer.output]

            layers[node.name] = settle(layer, node, feeds[layer.input], read[layer.input], outputs[layer.output], run)
            follow = {layer.output: run(layers[node.name].real, layers[node.name].bias)}
        elif all(read[name] is exact[name] for name in names):
            follow = outputs
        else:
            follow = _run(graph, node, read, constants, execution)
        exact.update(outputs)
        rounded.update(follow)
        for name in [*names, *outputs]:
            if last.get(name, -1) <= i:
                exact.pop(name, None)
                rounded.pop(name, None)
        on_node((i + 1) / len(index.nodes))
    return layers


def with_weights(node: onnx.NodeProto, layer: Weighted, weight: np.ndarray, bias: np.ndarray | None) -> tuple[onnx.NodeProto, dict[str, onnx.TensorProto]]:
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


def _run(graph: Graph, node: onnx.NodeProto, feeds: Mapping[str, Pieces], constants: Mapping[str, onnx.TensorProto], execution: Execution) -> dict[str, Pieces]:
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
