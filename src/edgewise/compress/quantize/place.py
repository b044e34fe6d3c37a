"""Where quantize and dequantize nodes go: which weights become integers, and which activations are rounded on their way.

Engines that run QDQ files look for patterns. One family fuses `dequantize → op → quantize` into an integer kernel, so the output of
every convolution has to be rounded; another folds the addition after a convolution into it, and is faster and more exact when only
what enters a convolution is rounded. `residual` chooses (see `place`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx

from edgewise.graph import Graph, Index

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
RESIDUAL = ("both", "one", "none")
# A rectifier after a convolution folds into the range of what it gives: integers can't leave the range, so engines drop the node.
FOLDED = ("Relu", "Clip")
# Their outputs are values of their inputs, so both share one scale, and integers pass through untouched.
SAME_SCALE = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze")
# Integer kernels with a scale of their own for the output.
OWN_SCALE = ("Add", "AveragePool", "GlobalAveragePool")


@dataclass(frozen=True)
class Weighted:
    """A node with constant weights. `axis` is that of the output channels in the weight; `groups` as in Conv (1 elsewhere).

    adder: the Add behind a MatMul that gives each output channel a constant, `added`: the bias that a MatMul has no place for.
    """

    name: str
    op: str
    input: str
    output: str
    weight: str
    bias: str | None
    axis: int
    groups: int = 1
    adder: str | None = None
    added: str | None = None

    @property
    def shifts(self) -> bool:
        """Whether there is a place for the mean of each output channel: a MatMul without an addition behind it has none."""
        return self.op != "MatMul" or self.adder is not None


@dataclass(frozen=True)
class Plan:
    weighted: tuple[Weighted, ...]
    rounded: tuple[str, ...]  # activations that get a Q/DQ pair, in the order in which the graph makes them
    shared: tuple[tuple[str, ...], ...]  # sets of `rounded` that share one scale
    skipped: dict[str, str]
    residual: str
    tokens: frozenset[str] = frozenset()  # of `rounded`: what matrix products read of tokens; whatever else reads them gets floats

    def reads_rounded(self, node: onnx.NodeProto, tensor: str) -> bool:
        """Whether `node` reads `tensor` behind its Q/DQ pair."""
        if tensor not in self._rounded:
            return False
        if tensor in self.tokens:
            return node.name in self._names or node.op_type in SAME_SCALE
        return self.residual != "none" or node.name in self._names

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rounded", frozenset(self.rounded))
        object.__setattr__(self, "_names", frozenset(w.name for w in self.weighted))

    _rounded: frozenset[str] = frozenset()
    _names: frozenset[str] = frozenset()


def place(graph: Graph, *, skip: Collection[str] = (), residual: str = "both") -> Plan:
    """Choose what to round in a canonical `graph` (see `edgewise.graph.canonical`).

    residual: "both" rounds every convolution's output, so both inputs of a residual addition; "one" only what enters a node with
    weights, so an addition reads its convolution unrounded; "none" is "one" with additions reading the other input unrounded too.
    Norms, activation functions and residual sums of tokens, (batch, tokens, channels), stay in float whatever `residual` says: a few of
    their channels are tens of times as large as the others, and no engine has an integer chain there to break.
    """
    index = Index(graph)
    skipped: dict[str, str] = {}
    weighted = []
    for node in index.nodes:
        if node.op_type in WEIGHTED:
            found = "left in float as asked" if node.name in skip else _weighted(node, index, skip)
            if isinstance(found, str):
                skipped[node.name] = found
            else:
                weighted.append(found)
    rounded = _rounded(weighted, index, skip, every=residual == "both")
    order = {name: i for i, name in enumerate((*(v.name for v in graph.proto.graph.input), *index.tensors))}
    for node in index.nodes:
        if node.name in skip and node.name not in skipped:
            skipped[node.name] = "left in float as asked"
    return Plan(
        weighted=tuple(weighted),
        rounded=tuple(sorted(rounded, key=order.__getitem__)),
        shared=_shared(rounded, index, skip),
        skipped=skipped,
        residual=residual,
        tokens=frozenset(w.input for w in weighted if w.op == "MatMul" and len(index.shape(w.input) or ()) > 2) & rounded,
    )


def _weighted(node: onnx.NodeProto, index: Index, skip: Collection[str]) -> Weighted | str:
    """What to know of a node with weights, or the reason why it stays in float."""
    data, weight = node.input[0], node.input[1]
    value = index.initializers.get(weight)
    if value is None or data in index.initializers:
        return "its weights aren't constant"
    if value.data_type != onnx.TensorProto.FLOAT:
        return f"its weights are {onnx.TensorProto.DataType.Name(value.data_type).lower()}, not float32"
    if 0 in value.dims:
        return "its weights are empty"
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if bias is not None and bias not in index.initializers:
        return "its bias isn't constant"
    rank = len(value.dims)
    axis, groups = 0, 1
    if node.op_type == "Conv":
        groups = attributes.get("group", 1)
    elif node.op_type == "ConvTranspose":
        axis, groups = 1, attributes.get("group", 1)
    elif node.op_type == "Gemm":
        if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
            return "transA, alpha or beta of this Gemm has no integer kernel"
        axis = 0 if attributes.get("transB", 0) else 1
        if bias is not None and int(np.prod(index.initializers[bias].dims)) != value.dims[axis]:
            return "its bias isn't one number per output channel"
    elif rank != 2:
        return f"weights of rank {rank}; MatMul is quantized with rank 2"
    else:
        axis = 1
    adder, added = _adder(node, value.dims[1], index, skip) if node.op_type == "MatMul" else (None, None)
    return Weighted(node.name, node.op_type, data, node.output[0], weight, bias, axis, groups, adder, added)


def _adder(node: onnx.NodeProto, channels: int, index: Index, skip: Collection[str]) -> tuple[str | None, str | None]:
    """The Add that alone reads a MatMul and adds one constant per output channel, and the constant."""
    after = index.sole_consumer(node.output[0])
    if after is None or after.op_type != "Add" or after.name in skip:
        return None, None
    added = after.input[1] if after.input[0] == node.output[0] else after.input[0]
    value = index.initializers.get(added)
    per_channel = value is not None and value.data_type == onnx.TensorProto.FLOAT and list(value.dims) == [channels]
    return (after.name, added) if per_channel else (None, None)


def _rounded(weighted: list[Weighted], index: Index, skip: Collection[str], *, every: bool) -> set[str]:
    convolutions = {w.name for w in weighted if w.op.startswith("Conv")}
    rounded = {w.input for w in weighted}
    if every:
        outputs = [_folded(w.output, index) for w in weighted if w.name in convolutions]
        rounded |= {name for name in outputs if name not in index.outputs}
    stack = list(rounded)
    while stack:
        # Backwards from what is rounded: what leads there without weights is rounded where it starts, so that integers flow through.
        node = index.producer(_unfolded(stack.pop(), index))
        if node is None or node.name in skip:
            continue
        sources: list[str] = []
        if node.op_type in SAME_SCALE or node.op_type == "Concat":
            sources = list(node.input[:1]) if node.op_type != "Concat" else list(node.input)
        elif node.op_type in OWN_SCALE and every:
            sources = list(node.input)
        if any(name in index.initializers for name in sources) or any(index.element_type(name) not in (0, 1) for name in sources):
            continue
        new = [name for name in sources if name not in rounded]
        rounded.update(new)
        stack.extend(new)
    return rounded


def _folded(tensor: str, index: Index) -> str:
    """`tensor`, or what its rectifier makes of it when nothing else reads it."""
    node = index.sole_consumer(tensor)
    while node is not None and _folds(node, index):
        tensor = node.output[0]
        node = index.sole_consumer(tensor)
    return tensor


def _unfolded(tensor: str, index: Index) -> str:
    """The other way: what went into the rectifiers that made `tensor`."""
    node = index.producer(tensor)
    while node is not None and _folds(node, index) and index.sole_consumer(node.input[0]) is not None:
        tensor = node.input[0]
        node = index.producer(tensor)
    return tensor


def _folds(node: onnx.NodeProto, index: Index) -> bool:
    return node.op_type == "Relu" or (node.op_type == "Clip" and all(not name or name in index.initializers for name in node.input[1:]))


def _shared(rounded: set[str], index: Index, skip: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Sets of tensors that have to have one scale: around pooling by maximum, reshapes and concatenation."""
    parent = {name: name for name in rounded}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in index.nodes:
        if node.name in skip or (node.op_type not in SAME_SCALE and node.op_type != "Concat"):
            continue
        output = _folded(node.output[0], index)
        names = [output, *(node.input if node.op_type == "Concat" else node.input[:1])]
        # A rectifier between (MaxPool → Relu) changes the range, not the scale that integers may keep: one scale still holds both.
        if all(name in rounded for name in names):
            for name in names[1:]:
                parent[root(name)] = root(names[0])
    sets: dict[str, list[str]] = {}
    for name in sorted(rounded):
        sets.setdefault(root(name), []).append(name)
    return tuple(tuple(names) for names in sets.values() if len(names) > 1)
