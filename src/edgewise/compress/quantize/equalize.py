"""Cross-layer equalization: scale channels that share one activation grid towards one size (Nagel 2019, section 4.1; Meller 2019).

Where only positively homogeneous operators lie between layers (ReLU, pooling, residual additions), a channel may be divided by any s > 0
and the weights that read it multiplied by s: the function stays the same, and small channels are no longer drowned by large ones'
rounding. Works on whole residual streams, not only on pairs of layers. A Clip (ReLU6) in between breaks it: such streams are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from edgewise import backends
from edgewise.compress.quantize.calibrate import pieces
from edgewise.graph import Graph, Index, taps
from edgewise.types import Execution, Inputs

HOMOGENEOUS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity")
STRENGTH = 0.5  # 0.5: activations and weights share the burden evenly, as SmoothQuant's alpha
LIMIT = 32.0  # on s, so that a nearly dead channel can't blow weights up


@dataclass(frozen=True)
class Stream:
    """Tensors whose channels (axis 1) can only be scaled together; names of the nodes that make them, and that read them, with weights."""

    tensors: tuple[str, ...]
    makers: tuple[str, ...]
    readers: tuple[str, ...]


def streams(graph: Graph) -> tuple[Stream, ...]:
    """Every stream of `graph` that may be rescaled."""
    index = Index(graph)
    parent: dict[str, str] = {}
    spoiled: set[str] = set(index.inputs | index.outputs)
    makers: dict[str, str] = {}
    readers: dict[str, list[str]] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    uses = {name: sum(list(n.input).count(name) for n in index.nodes) for name in index.initializers}
    for node in index.nodes:
        data = [name for name in node.input if name and name not in index.initializers]
        if _weights(node, index, uses):
            readers.setdefault(node.input[0], []).append(node.name)
            makers[node.output[0]] = node.name
            continue
        if _ties(node, data, index):
            for name in data:
                parent[root(name)] = root(node.output[0])
            continue
        spoiled.update(data, node.output)
    groups: dict[str, list[str]] = {}
    for name in index.tensors:
        groups.setdefault(root(name), []).append(name)
    found = []
    for names in groups.values():
        made = [makers[name] for name in names if name in makers]
        read = [reader for name in names for reader in readers.get(name, ())]
        if made and read and not spoiled & set(names):
            found.append(Stream(tuple(names), tuple(made), tuple(read)))
    return tuple(found)


def _weights(node: onnx.NodeProto, index: Index, uses: dict[str, int]) -> bool:
    """A node whose weights can take scales in and out: constant, float32, its own; grouped only when depthwise."""
    if node.op_type not in ("Conv", "Gemm") or any(name and (name not in index.initializers or uses[name] > 1) for name in node.input[1:]):
        return False
    weight = index.initializers[node.input[1]]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if weight.data_type != onnx.TensorProto.FLOAT:
        return False
    if node.op_type == "Gemm":
        bias = index.initializers[node.input[2]] if len(node.input) > 2 else None
        units = weight.dims[0 if attributes.get("transB", 0) else 1]
        return not attributes.get("transA", 0) and (bias is None or int(np.prod(bias.dims)) == units)
    return attributes.get("group", 1) == 1 or weight.dims[1] == 1


def _ties(node: onnx.NodeProto, data: list[str], index: Index) -> bool:
    """Whether scaling channels of its input is the same as scaling those of its output."""
    if node.op_type in HOMOGENEOUS:
        return len(node.output) == 1
    ranks = {len(index.shape(name) or ()) for name in (*data, node.output[0])}
    channels = {(index.shape(name) or (None, None))[1:2] for name in data}
    if node.op_type == "Add":
        return len(data) == 2 and len(ranks) == 1 and len(channels) == 1 and min(ranks) > 1
    if node.op_type in ("Flatten", "Reshape"):  # (n, c, 1, 1) → (n, c)
        before, after = index.shape(data[0]) or (), index.shape(node.output[0]) or ()
        return len(after) == 2 < len(before) and before[1] == after[1] and all(d == 1 for d in before[2:])
    if node.op_type == "ReduceMean" and len(node.input) > 1:
        axes = index.constant(node.input[1])
        rank = len(index.shape(data[0]) or ())
        kept = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        return axes is not None and rank > 2 and all(int(a) % rank >= 2 for a in axes.ravel()) and (bool(kept) or axes.size == rank - 2)
    return False


def equalized(graph: Graph, samples: Sequence[Inputs], execution: Execution) -> tuple[Graph, tuple[Stream, ...]]:
    """`graph` with equalized streams (the same function, up to float rounding), and those streams."""
    found = streams(graph)
    if not found:
        return graph, ()
    sizes = _channel_sizes(graph, [name for stream in found for name in stream.tensors], samples, execution)
    proto = graph.copy_proto()
    index = Index(proto)
    nodes = {node.name: node for node in index.nodes}
    constants = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in proto.graph.initializer}
    for stream in found:
        activation = np.max([sizes[name] / max(sizes[name].max(), 1e-30) for name in stream.tensors], axis=0)
        weight = np.max([_read_sizes(nodes[name], constants[nodes[name].input[1]]) for name in stream.readers], axis=0)
        scale = _scales(activation, weight)
        for name in stream.makers:
            _make(nodes[name], constants, 1 / scale)
        for name in stream.readers:
            _read(nodes[name], constants, scale)
    for i, tensor in enumerate(proto.graph.initializer):
        proto.graph.initializer[i].CopyFrom(numpy_helper.from_array(constants[tensor.name], tensor.name))
    return Graph.from_proto(proto, graph.notes), found


def _scales(activation: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What each channel is divided by: sqrt(activation / weight), about a geometric mean of one; one where a channel is dead."""
    alive = (activation > 1e-6) & (weight > 1e-6)
    scale = np.ones_like(activation)
    if alive.any():
        scale[alive] = activation[alive] ** STRENGTH / weight[alive] ** (1 - STRENGTH)
        scale[alive] /= np.exp(np.log(scale[alive]).mean())
    return np.clip(scale, 1 / LIMIT, LIMIT).astype(np.float32)


def _channel_sizes(graph: Graph, names: list[str], samples: Sequence[Inputs], execution: Execution) -> dict[str, np.ndarray]:
    """The largest magnitude of each channel (axis 1) of each tensor over the samples."""
    runner = backends.load(taps(graph, names).to_bytes(), execution)
    sizes: dict[str, np.ndarray] = {}
    try:
        for piece in pieces(graph, samples):
            values = runner.run(piece)
            for name in names:
                size = np.abs(values[name]).max(axis=tuple(a for a in range(values[name].ndim) if a != 1))
                sizes[name] = np.maximum(sizes.get(name, 0.0), size)
    finally:
        runner.close()
    return sizes


def _axes(node: onnx.NodeProto) -> tuple[int, int]:
    """Axes of the weight: output channels, input channels."""
    if node.op_type == "Conv":
        return 0, 1
    return (0, 1) if next((a.i for a in node.attribute if a.name == "transB"), 0) else (1, 0)


def _depthwise(node: onnx.NodeProto, weight: np.ndarray) -> bool:
    return node.op_type == "Conv" and weight.shape[1] == 1 and next((a.i for a in node.attribute if a.name == "group"), 1) > 1


def _read_sizes(node: onnx.NodeProto, weight: np.ndarray) -> np.ndarray:
    """How large the weights on each input channel are: their share of the largest of the output channel, at its highest."""
    if _depthwise(node, weight):  # each channel has a scale of its own, so any size is as good
        groups = next(a.i for a in node.attribute if a.name == "group")
        return np.full(groups, 1e-3, np.float32)
    output, inputs = _axes(node)
    size = np.abs(weight).max(axis=tuple(a for a in range(weight.ndim) if a not in (output, inputs)))
    size = size if output < inputs else size.T
    return np.asarray((size / np.maximum(size.max(1, keepdims=True), 1e-30)).max(0))


def _make(node: onnx.NodeProto, constants: dict[str, np.ndarray], factor: np.ndarray) -> None:
    weight = constants[node.input[1]]
    shape = [1] * weight.ndim
    shape[_axes(node)[0]] = -1
    constants[node.input[1]] = weight * factor.reshape(shape)
    if len(node.input) > 2 and node.input[2]:
        bias = constants[node.input[2]]
        constants[node.input[2]] = (bias.reshape(-1) * factor).reshape(bias.shape)


def _read(node: onnx.NodeProto, constants: dict[str, np.ndarray], factor: np.ndarray) -> None:
    weight = constants[node.input[1]]
    shape = [1] * weight.ndim
    if _depthwise(node, weight):
        shape[0] = -1
        factor = np.repeat(factor, weight.shape[0] // len(factor))
    else:
        shape[_axes(node)[1]] = -1
    constants[node.input[1]] = weight * factor.reshape(shape)
