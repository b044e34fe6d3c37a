"""`blocks`: the residual stream of a transformer, what is added to it in turn, and the queries, keys and values of each attention.

No names of known models stand behind this. A block is a branch that is made from the stream, by products with weights, and added to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import onnx

from edgewise.graph.coupling import Shape, integer, integers
from edgewise.graph.flow import Flow
from edgewise.graph.graph import Graph
from edgewise.graph.index import Index
from edgewise.graph.shapes import infer_shapes

_PRODUCTS = frozenset(("MatMul", "Gemm"))
NORMS = frozenset(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"))
# Between a product of queries and keys and its softmax: scaling, masks, a limit.
_ON_SCORES = frozenset(("Add", "Sub", "Mul", "Div", "Where", "Cast", "Tanh", "Clip", "Max", "Min", "Identity"))
# Between a softmax and the product with the values: torch writes zeros where a row was NaN.
_ON_SHARES = frozenset(("Where", "Cast", "Mul", "Identity"))


@dataclass(frozen=True)
class Heads:
    """The queries, keys or values of an attention.

    axes: where batch, tokens, heads and size lie in the tensor; only three of them where heads and size are one axis, heads · size.
    """

    tensor: str
    axes: tuple[int, ...]
    heads: int
    size: int

    @property
    def width(self) -> int:
        return self.heads * self.size


@dataclass(frozen=True)
class Block:
    """A branch of the residual stream, all of it (batch, tokens, width).

    reads: the stream before it. branch: what is added. stream: what the next block reads; after the last one the sum, or what the norm
    behind it makes of that, where a block ends in a norm. weights: initializers that the branch's products read.
    query, key, value: None in a feed-forward block, and where an attention folds its heads into the batch.
    """

    kind: Literal["attention", "feed-forward"]
    reads: str
    branch: str
    stream: str
    width: int
    weights: tuple[str, ...]
    query: Heads | None = None
    key: Heads | None = None
    value: Heads | None = None


def blocks(graph: Graph) -> tuple[Block, ...]:
    """The blocks of `graph` in order; none where it has no residual stream of tokens. Takes the training form and others alike."""
    flow = _flow(graph)
    index = flow.index
    sums = [(node, *ends) for node in index.nodes if (ends := _residual(flow, node)) is not None]
    found = [_block(flow, node, reads, branch) for node, reads, branch in sums]
    for number, ((node, _, _), block) in enumerate(zip(sums, found, strict=True)):
        following = next((later for later in found[number + 1 :] if flow.follows(later.reads, node.output[0])), None)
        found[number] = replace(block, stream=following.reads if following else _end(flow, node, block))
    return tuple(found)


def layers(found: tuple[Block, ...]) -> tuple[tuple[Block, ...], ...]:
    """Blocks in layers: a new one begins with an attention behind a feed-forward block; where all are of one kind, with each."""
    groups: list[list[Block]] = []
    alike = len({block.kind for block in found}) < 2
    for block in found:
        if not groups or alike or (block.kind == "attention" and groups[-1][-1].kind == "feed-forward"):
            groups.append([])
        groups[-1].append(block)
    return tuple(map(tuple, groups))


def attention_mask(graph: Graph) -> str | None:
    """The input (batch, tokens) that says which tokens attention may see; None where there is none, or several might be it.

    It is the one that attention depends on and the stream before the first block doesn't; or else the one that chooses no row of a table.
    """
    flow = _flow(graph)
    found = blocks(graph)
    if not found:
        return None
    attended = [block.branch for block in found if block.kind == "attention"]
    seen = [
        spec.name for spec in graph.signature.inputs if len(spec.shape) == 2 and any(flow.follows(branch, spec.name) for branch in attended)
    ]
    rows = [node.input[1] for node in flow.index.nodes if node.op_type == "Gather" and not flow.varies(node.input[0])]
    apart = [name for name in seen if not flow.follows(found[0].reads, name)]
    likely = apart or [name for name in seen if not any(flow.follows(row, name) for row in rows)]
    return likely[0] if len(likely) == 1 else None


def _flow(graph: Graph) -> Flow:
    index = Index(graph)
    if any(index.shape(name) is None for name in index.tensors):
        index = Index(infer_shapes(graph))
    return Flow(index)


def _residual(flow: Flow, node: onnx.NodeProto) -> tuple[str, str] | None:
    """(stream, branch) where `node` adds to a stream of tokens what is made from it; None otherwise."""
    if node.op_type != "Add" or not all(name in flow.index.initializers or flow.varies(name) for name in node.input):
        return None
    shapes = [flow.index.shape(name) or () for name in node.input]
    if not all(len(shape) == 3 and isinstance(shape[2], int) for shape in shapes) or not _may_agree(*shapes):
        return None
    for reads, branch in (tuple(node.input), tuple(reversed(node.input))):
        if reads != branch and flow.varies(reads) and flow.follows(branch, reads) and any(_weights(flow, reads, branch)):
            return reads, branch
    return None


def _may_agree(one: Shape, other: Shape) -> bool:
    """Whether two shapes of one rank may be the same: inference gives axes of one length several names where an export computed them."""
    return all(a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(one, other, strict=True))


def _weights(flow: Flow, reads: str, branch: str) -> Iterator[str]:
    """What the products of a branch multiply activations with: an initializer, or what is computed from nothing else."""
    for node in flow.between(reads, branch):
        if node.op_type in _PRODUCTS:
            yield from (name for name in node.input[:2] if not flow.varies(name))


def _block(flow: Flow, node: onnx.NodeProto, reads: str, branch: str) -> Block:
    shape = flow.index.shape(node.output[0]) or flow.index.shape(node.input[0]) or ()
    made = tuple(dict.fromkeys(_stored(flow, name) for name in _weights(flow, reads, branch)))
    block = Block("feed-forward", reads, branch, node.output[0], int(shape[2] or 0), made)
    for inner in flow.between(reads, branch):
        found = _attended(flow, inner)
        if found is not None:
            query, key, value = found
            return replace(block, kind="attention", query=query, key=key, value=value)
    return block


def _stored(flow: Flow, tensor: str) -> str:
    """The initializer that `tensor` is a layout or a dequantization of."""
    while (node := flow.index.producer(tensor)) is not None:
        tensor = node.input[0]
    return tensor


def _end(flow: Flow, node: onnx.NodeProto, block: Block) -> str:
    """The stream after the last block. A norm belongs to it where blocks end in one, and so begin with something else."""
    tensor = node.output[0]
    inside = {inner.name for inner in flow.between(block.reads, block.branch)}
    first = [user for user in flow.index.consumers(block.reads) if user.name in inside]
    if all(user.op_type in NORMS for user in first):
        return tensor
    end = tensor
    # Of a block that was removed a norm may be left, and what its branch made of nothing: a constant that is added.
    while (user := flow.index.sole_consumer(tensor)) is not None:
        if user.op_type not in NORMS and not (user.op_type == "Add" and not all(map(flow.varies, user.input))):
            break
        tensor = user.output[0]
        end = tensor if user.op_type in NORMS else end
    return end


def _attended(flow: Flow, node: onnx.NodeProto) -> tuple[Heads | None, ...] | None:
    """Queries, keys and values where `node` is an attention, or the softmax of one; None otherwise."""
    if node.op_type == "Attention" and node.domain in ("", "ai.onnx"):
        counts = [integer(node, "q_num_heads", 0), *([integer(node, "kv_num_heads", 0)] * 2)]
        found = [_whole(flow, name, count) for name, count in zip(node.input[:3], counts, strict=True)]
    elif node.op_type == "Softmax":
        scores, values = _scores(flow, node.input[0]), _shared_out(flow, node.output[0])
        if scores is None or values is None:
            return None
        sides = [(scores.input[0], "bhts"), (scores.input[1], "bhst"), (values, "bhts")]
        found = [_projected(flow, name, roles) for name, roles in sides]
    else:
        return None
    return tuple(found) if all(found) else (None, None, None)


def _scores(flow: Flow, tensor: str) -> onnx.NodeProto | None:
    """The product of two activations that `tensor` is, apart from scale and mask."""
    node = flow.index.producer(tensor)
    if node is None:
        return None
    if node.op_type == "MatMul":
        return node if all(flow.varies(name) for name in node.input) else None
    if node.op_type not in _ON_SCORES:
        return None
    return next((found for name in node.input if name and (found := _scores(flow, name)) is not None), None)


def _shared_out(flow: Flow, tensor: str) -> str | None:
    """The tensor that a softmax's result is multiplied with."""
    for user in flow.index.consumers(tensor):
        if user.op_type == "MatMul" and user.input[0] == tensor:
            return str(user.input[1])
        if user.op_type in _ON_SHARES and (found := _shared_out(flow, user.output[0])) is not None:
            return found
    return None


def _whole(flow: Flow, tensor: str, count: int) -> Heads | None:
    """An input of ONNX's Attention: (batch, heads, tokens, size), or (batch, tokens, heads · size)."""
    shape = flow.index.shape(tensor) or ()
    if len(shape) == 4:
        return _projected(flow, tensor, "bhts")
    width = shape[2] if len(shape) == 3 else None
    return Heads(tensor, (0, 1, 2), count, width // count) if isinstance(width, int) and count else None


def _projected(flow: Flow, tensor: str, roles: str) -> Heads | None:
    """`tensor`, or what it was before it was scaled, cast and turned: the scale of both products is no part of what a head says.

    roles: its axes, of batch, heads, tokens and size.
    """
    while (node := flow.index.producer(tensor)) is not None:
        if node.op_type == "Transpose":
            order = integers(node, "perm") or list(range(len(roles)))[::-1]
            roles = "".join(roles[order.index(axis)] for axis in range(len(order)))
        elif (before := _turned(flow, node)) is not None:
            tensor, roles = before, roles[:2] + roles[:1:-1]
            continue
        elif node.op_type not in ("Cast", "Identity") and not (node.op_type in ("Mul", "Div") and _is_number(flow, node.input[1])):
            break
        tensor = node.input[0]
    shape = flow.index.shape(tensor) or ()
    if len(shape) != 4 or len(roles) != 4:
        return None
    count, size = shape[roles.index("h")], shape[roles.index("s")]
    if not isinstance(count, int) and isinstance(size, int):
        count = _counted(flow, tensor, size)
    if not (isinstance(count, int) and isinstance(size, int)):
        return None
    return Heads(tensor, tuple(roles.index(role) for role in "bths"), count, size)


def _turned(flow: Flow, reshape: onnx.NodeProto) -> str | None:
    """(batch, heads, a, b) where `reshape` gives (batch, heads, b, a) back after a turn with heads in the batch, as torch writes it."""
    turn = flow.index.producer(reshape.input[0]) if reshape.op_type == "Reshape" else None
    folded = flow.index.producer(turn.input[0]) if turn is not None and turn.op_type == "Transpose" else None
    if turn is None or folded is None or folded.op_type != "Reshape" or integers(turn, "perm") != [0, 2, 1]:
        return None
    ranks = [len(flow.index.shape(name) or ()) for name in (folded.input[0], reshape.output[0])]
    return str(folded.input[0]) if ranks == [4, 4] else None


def _counted(flow: Flow, tensor: str, size: int) -> int | None:
    """How many heads of that size a reshape to a computed target makes of (batch, tokens, width)."""
    node = flow.index.producer(tensor)
    before = (flow.index.shape(node.input[0]) or ()) if node is not None and node.op_type == "Reshape" else ()
    width = before[2] if len(before) == 3 else None
    return width // size if isinstance(width, int) else None


def _is_number(flow: Flow, tensor: str) -> bool:
    shape = flow.index.shape(tensor)
    return not flow.varies(tensor) and shape is not None and all(size == 1 for size in shape)
