"""Run a graph node by node on calibration samples, in float and rounded side by side, and settle each layer on the way.

When a layer is reached, all before it are quantized already: its inputs are those that it will really see. So each layer can make up
for the error that arrives, and not only for its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import onnx
from onnx import numpy_helper

from edgewise import backends
from edgewise.compress.quantize.calibrate import held_bytes
from edgewise.compress.quantize.grid import Grid
from edgewise.compress.quantize.place import Plan, Weighted
from edgewise.compress.quantize.qdq import Settled, write
from edgewise.compress.quantize.single import Pieces, run_node, with_weights
from edgewise.compress.quantize.weights import Layer
from edgewise.data.padding import Padding
from edgewise.graph import Graph, Index, infer_shapes
from edgewise.graph.canonical import remove_unused
from edgewise.graph.index import used_by
from edgewise.types import Execution

HELD_BYTES = 1 << 30  # of activations, float and rounded, that the walk may hold at once

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


def walk(
    graph: Graph,
    pieces: Sequence[Mapping[str, np.ndarray]],
    plan: Plan,
    grids: Mapping[str, Grid],
    settle: Settle,
    execution: Execution,
    *,
    budget: int = HELD_BYTES,
    on_node: Callable[[float], None] = lambda share: None,
) -> dict[str, Layer]:
    """Quantized layers by node name. `settle` decides each one, from its inputs (in float; as rounded) and its float outputs.

    Tensors are dropped after their last use. As many pieces of calibration data are taken as `budget` bytes hold; when tensors have become
    small enough for twice as many, all that is settled runs again on more: late layers have few positions, and most columns.
    """
    index = Index(graph)
    padding = Padding.of(graph.signature, pieces)
    weighted = {layer.name: layer for layer in plan.weighted}
    last = {name: i for i, node in enumerate(index.nodes) for name in used_by(node)}
    room = [min(max(budget // (2 * size), 1), len(pieces)) for size in held_bytes(graph, pieces[0])]
    chosen = _spread(pieces, room[0])
    exact: dict[str, Pieces] = {spec.name: [np.asarray(piece[spec.name]) for piece in chosen] for spec in graph.signature.inputs}
    rounded: dict[str, Pieces] = dict(exact)
    layers: dict[str, Layer] = {}
    shifted: dict[str, dict[str, onnx.TensorProto]] = {}  # what Adds behind settled layers add
    for i, node in enumerate(index.nodes):
        if room[i] >= 2 * len(chosen):
            chosen = _spread(pieces, room[i])
            so_far = Settled(graph, replace(plan, weighted=tuple(weighted[name] for name in layers)), grids, layers)
            exact, rounded = _again(graph, list(exact), chosen, execution), _again(write(so_far, real=True), list(exact), chosen, execution)
        names = [name for name in dict.fromkeys(used_by(node)) if name in exact]
        constants = {name: index.initializers[name] for name in dict.fromkeys(used_by(node)) if name in index.initializers}
        feeds = {name: exact[name] for name in names}
        read = {name: [grids[name].fake(x) for x in rounded[name]] if plan.reads_rounded(node, name) else rounded[name] for name in names}
        outputs = run_node(graph, node, feeds, constants, execution)
        if node.name in weighted:
            layer = weighted[node.name]
            run = _runner(graph, node, layer, read, constants, execution)
            before, after, made = (
                _tokens(values, padding, chosen) for values in (feeds[layer.input], read[layer.input], outputs[layer.output])
            )
            settled = settle(layer, node, before, after, made, partial(_run_tokens, run, padding, chosen))
            layers[node.name] = settled
            follow = {layer.output: run(settled.real, None if layer.op == "MatMul" else settled.bias)}
            if layer.adder and layer.added and settled.bias is not None:
                shifted[layer.adder] = {layer.added: numpy_helper.from_array(settled.bias, layer.added)}
        elif all(read[name] is exact[name] for name in names):
            follow = outputs
        else:
            follow = run_node(graph, node, read, {**constants, **shifted.get(node.name, {})}, execution)
        exact.update(outputs)
        rounded.update(follow)
        for name in [*names, *outputs]:
            if last.get(name, -1) <= i:
                exact.pop(name, None)
                rounded.pop(name, None)
        on_node((i + 1) / len(index.nodes))
    return layers


def _runner(
    graph: Graph,
    node: onnx.NodeProto,
    layer: Weighted,
    read: Mapping[str, Pieces],
    constants: Mapping[str, onnx.TensorProto],
    execution: Execution,
) -> Run:
    """The layer on its rounded inputs, as a function of its weights."""
    kept = {name: value for name, value in constants.items() if name not in (layer.weight, layer.bias)}

    def run(weight: np.ndarray, bias: np.ndarray | None) -> Pieces:
        changed, new = with_weights(node, layer, weight, bias)
        return run_node(graph, changed, read, {**kept, **new}, execution)[layer.output]

    return run


def _tokens(values: Pieces, padding: Padding, pieces: Sequence[Mapping[str, np.ndarray]]) -> Pieces:
    """Without padding: what stands there says nothing of what the layer will see."""
    return [padding.without(value, piece) for value, piece in zip(values, pieces, strict=True)]


def _run_tokens(
    run: Run, padding: Padding, pieces: Sequence[Mapping[str, np.ndarray]], weight: np.ndarray, bias: np.ndarray | None
) -> Pieces:
    return _tokens(run(weight, bias), padding, pieces)


def _spread(pieces: Sequence[Mapping[str, np.ndarray]], count: int) -> list[Mapping[str, np.ndarray]]:
    """`count` of the pieces, evenly drawn."""
    return [pieces[i] for i in np.linspace(0, len(pieces) - 1, count).round().astype(int)]


def _again(graph: Graph, names: Sequence[str], pieces: Sequence[Mapping[str, np.ndarray]], execution: Execution) -> dict[str, Pieces]:
    """The tensors `names` of `graph` on each piece, and nothing computed beyond them."""
    inputs = [name for name in names if name in pieces[0]]
    made = [name for name in names if name not in pieces[0]]
    found: dict[str, Pieces] = {name: [np.asarray(piece[name]) for piece in pieces] for name in inputs}
    if not made:
        return found
    proto = infer_shapes(graph).copy_proto()
    types = {value.name: value for value in (*proto.graph.value_info, *proto.graph.output)}
    del proto.graph.output[:]
    proto.graph.output.extend(types[name] for name in made)
    remove_unused(proto)
    runner = backends.load(proto.SerializeToString(), execution)
    try:
        results = [runner.run(piece) for piece in pieces]
    finally:
        runner.close()
    return {**found, **{name: [result[name] for result in results] for name in made}}
