"""Smoothing: what is large in a few channels of an activation goes into the weights that read it (SmoothQuant, Xiao 2022, section 4).

X W = (X diag(1/s)) (diag(s) W) for any s > 0. In a transformer a few channels of X are tens of times as large as the others, so one scale
for all of X leaves the others a handful of integers; weights have a scale per output channel, and room. s_j = max|X_j|^α / max|W_j|^(1-α)
shares the difficulty (equation 4); α is chosen for each X by what rounding does to X W.

Where what makes X is linear in its channels (a norm's gain, the rows of another layer), 1/s goes there, and costs nothing. Elsewhere, and
where something besides matrix products reads X (a residual sum), X is divided on its way: one product for each element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise import backends
from edgewise.compress.quantize.calibrate import pieces
from edgewise.compress.quantize.estimators import Histogram, mse
from edgewise.compress.quantize.grid import activation_grid
from edgewise.compress.quantize.place import Plan, Weighted
from edgewise.compress.quantize.weights import weight_grid
from edgewise.data.padding import Padding
from edgewise.graph import Graph, Index, infer_shapes, replace_nodes, taps
from edgewise.graph.canonical import remove_unused
from edgewise.graph.index import all_names, fresh
from edgewise.types import Execution, Inputs

STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # α
ROWS = 512  # positions of X on which a strength is judged
WORTH = 0.9  # of the error without: a division that saves less isn't worth a node
LIMIT = 100.0  # on s, about its geometric mean, so that a nearly dead channel can't blow weights up
HOMOGENEOUS = ("Relu", "LeakyRelu", "Identity")


@dataclass(frozen=True, eq=False)
class Smoothed:
    """One activation that was smoothed: channel j divided by scale[j], `strength` is α, errors are relative L2 of what its readers give."""

    tensor: str
    scale: np.ndarray
    strength: float
    before: float
    after: float
    absorbed: bool


@dataclass(frozen=True)
class _Site:
    tensor: str
    readers: tuple[Weighted, ...]
    edits: tuple[tuple[str, int], ...] | None  # (node, input) of constants whose last axis (Gemm's output axis) takes 1/s; None: divide


def smoothed(graph: Graph, plan: Plan, samples: Sequence[Inputs], execution: Execution) -> tuple[Graph, tuple[Smoothed, ...]]:
    """`graph` with the activations of tokens smoothed where that helps (the same function, up to float rounding), and what was done."""
    index = Index(graph)
    sites = _sites(plan, index)
    if not sites:
        return graph, ()
    sizes, rows = _seen(graph, [site.tensor for site in sites], samples, execution)
    found = []
    for site in sites:
        weights = [np.asarray(index.constant(layer.weight)) for layer in site.readers]
        best = _judged(site, rows[site.tensor], sizes[site.tensor], weights)
        if best is not None:
            found.append((site, best))
    return _written(graph, index, found), tuple(best for _, best in found)


def _sites(plan: Plan, index: Index) -> list[_Site]:
    found = []
    for tensor in plan.rounded:
        readers = tuple(layer for layer in plan.weighted if layer.input == tensor)
        if tensor not in plan.tokens or not readers or index.producer(tensor) is None:
            continue
        others = [node for node in index.consumers(tensor) if node.name not in {layer.name for layer in readers}]
        edits = None if others or tensor in index.outputs else _makers(tensor, index, readers[0])
        found.append(_Site(tensor, readers, None if edits is None else tuple(edits)))
    return found


def _makers(tensor: str, index: Index, reader: Weighted) -> list[tuple[str, int]] | None:
    """The constants that scale each channel of `tensor`, as (node, input); None where it isn't linear in any, or others read it too."""
    node = index.producer(tensor)
    if node is None:
        return None
    channels = index.initializers[reader.weight].dims[0]

    def per_channel(name: str) -> bool:
        return name in index.initializers and list(index.initializers[name].dims) == [channels]

    def further(name: str) -> list[tuple[str, int]] | None:
        return _makers(name, index, reader) if index.sole_consumer(name) is not None else None

    if node.op_type == "LayerNormalization" and all(per_channel(name) for name in node.input[1:]) and not any(node.output[1:]):
        return [(node.name, i) for i in range(1, len(node.input))]
    if node.op_type in HOMOGENEOUS:
        return further(node.input[0])
    if node.op_type == "Mul":
        constant = next((i for i, name in enumerate(node.input) if per_channel(name)), None)
        if constant is not None:
            return [(node.name, constant)]
        return next((edits for name in node.input if (edits := further(name)) is not None), None)
    if node.op_type == "Add":
        constant = next((i for i, name in enumerate(node.input) if per_channel(name)), None)
        rest = None if constant is None else further(node.input[1 - constant])
        return None if rest is None or constant is None else [*rest, (node.name, constant)]
    if node.op_type == "MatMul":
        weight = index.initializers.get(node.input[1])
        fits = weight is not None and len(weight.dims) == 2 and weight.dims[1] == channels
        return [(node.name, 1)] if fits and weight is not None and weight.data_type == onnx.TensorProto.FLOAT else None
    return None


def _seen(
    graph: Graph, names: Sequence[str], samples: Sequence[Inputs], execution: Execution
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The largest magnitude of each channel (the last axis) of each tensor, and about ROWS of its positions, evenly drawn; no padding."""
    padding = Padding.of(graph.signature, samples)
    every = list(pieces(graph, samples))
    per_piece = -(-ROWS // len(every))
    sizes: dict[str, np.ndarray] = {}
    kept: dict[str, list[np.ndarray]] = {name: [] for name in names}
    runner = backends.load(taps(graph, names).to_bytes(), execution)
    try:
        for number, piece in enumerate(every):
            values = runner.run(piece)
            for name in names:
                flat = padding.without(values[name], piece).reshape(-1, values[name].shape[-1])
                sizes[name] = np.maximum(sizes.get(name, 0.0), np.abs(flat).max(0))
                rng = np.random.default_rng(number)
                kept[name].append(flat if len(flat) <= per_piece else flat[np.sort(rng.choice(len(flat), per_piece, replace=False))])
    finally:
        runner.close()
    return sizes, {name: np.concatenate(rows) for name, rows in kept.items()}


def _judged(site: _Site, rows: np.ndarray, sizes: np.ndarray, weights: Sequence[np.ndarray]) -> Smoothed | None:
    """The strength whose rounding harms the readers' outputs least, or None where none is worth it."""
    joined = np.concatenate(weights, 1)
    exact = rows @ joined
    largest = np.abs(joined).max(1)
    before = _error(rows, joined, exact)
    best: Smoothed | None = None
    for strength in STRENGTHS:
        scale = scales(sizes, largest, strength)
        after = _error(rows / scale, joined * scale[:, None], exact)
        if best is None or after < best.after:
            best = Smoothed(site.tensor, scale, strength, before, after, site.edits is not None)
    worth = 1.0 if site.edits is not None else WORTH
    return best if best is not None and best.after < worth * before else None


def scales(activation: np.ndarray, weight: np.ndarray, strength: float) -> np.ndarray:
    """s of each channel, from the largest magnitudes of activation and weight; about a geometric mean of one, one for a dead channel."""
    scale = np.ones_like(activation, dtype=np.float64)
    alive = (activation > 1e-6) & (weight > 1e-6)
    if alive.any():
        scale[alive] = activation[alive].astype(np.float64) ** strength / weight[alive].astype(np.float64) ** (1 - strength)
        scale[alive] /= np.exp(np.log(scale[alive]).mean())
    return np.clip(scale, 1 / LIMIT, LIMIT).astype(np.float32)


def _error(rows: np.ndarray, weight: np.ndarray, exact: np.ndarray) -> float:
    histogram = Histogram()
    histogram.add(rows)
    grid = weight_grid(weight, 1, bound=127, search=False)
    found = activation_grid(*mse(histogram, False)).fake(rows) @ grid.fake(weight)
    return float(np.linalg.norm(found - exact) / max(float(np.linalg.norm(exact)), 1e-30))


def _written(graph: Graph, index: Index, found: Sequence[tuple[_Site, Smoothed]]) -> Graph:
    if not found:
        return graph
    taken = all_names(graph.proto) | {node.name for node in graph.proto.graph.node}
    constants: dict[str, np.ndarray] = {}
    nodes = {node.name: _copy(node) for node in graph.proto.graph.node}
    divided: dict[str, onnx.NodeProto] = {}

    def multiplied(node: onnx.NodeProto, at: int, factor: np.ndarray) -> None:
        before = node.input[at]
        value = constants.get(before, index.constant(before))
        # The name of a weight that nobody else reads is kept: parts are called by it.
        alone = before in constants or index.sole_consumer(before) is not None
        name = before if alone else fresh(f"{before}_smooth", taken)
        constants[name] = (np.asarray(value) * factor).astype(np.float32)
        node.input[at] = name

    for site, smooth in found:
        for layer in site.readers:
            multiplied(nodes[layer.name], 1, smooth.scale[:, None])
        for name, at in site.edits or ():
            multiplied(nodes[name], at, 1 / smooth.scale)
        if site.edits is None:
            factor, output = fresh(f"{site.tensor}_smoothing", taken), fresh(f"{site.tensor}_smooth", taken)
            constants[factor] = (1 / smooth.scale).astype(np.float32)
            divided[site.tensor] = helper.make_node("Mul", [site.tensor, factor], [output], name=fresh(f"{output}_node", taken))
            for layer in site.readers:
                nodes[layer.name].input[0] = output
    written = []
    for node in nodes.values():
        written.append(node)
        written += [divided[name] for name in node.output if name in divided]
    tensors = [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()]
    proto = replace_nodes(
        graph, written, [*(one for one in graph.proto.graph.initializer if one.name not in constants), *tensors]
    ).copy_proto()
    remove_unused(proto)
    return infer_shapes(Graph.from_proto(proto, graph.notes))


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def described(found: Sequence[Smoothed]) -> tuple[str, ...]:
    """Notes of what was smoothed, and what that is worth."""
    if not found:
        return ()
    inside = sum(each.absorbed for each in found)
    before, after = (float(np.mean(errors)) for errors in ([each.before for each in found], [each.after for each in found]))
    where = f"{inside} in what makes them, {len(found) - inside} by a product on their way"
    return (f"{len(found)} activations smoothed ({where}): error of what reads them {before:.2%} → {after:.2%}",)
