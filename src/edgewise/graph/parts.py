"""`parts`: what can be pruned in a network. Units that are alike form a part: the filters of a layer, the heads of an attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx

from edgewise.graph.coupling import Role, Use, Walk
from edgewise.graph.graph import Graph

Kind = Literal["channels", "neurons", "heads", "hidden"]

_DOTS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
# What may stand between the last layer of a branch and the residual sum that it ends in.
_PASSED = frozenset(("BatchNormalization", "QuantizeLinear", "DequantizeLinear", "Dropout", "Identity"))


@dataclass(frozen=True, eq=False)
class Slice:
    """Where a part's units lie in one stored tensor.

    role: "out": rows of a weight (or its bias) that make the unit; "in": columns of a weight that read it; "along": parameters per channel
    (of a batch norm, a depthwise kernel, scales). node: the node that uses the tensor so.
    indices: (units, each) int64; row u holds the positions of unit u along `axis`.
    """

    tensor: str
    axis: int
    role: Role
    node: str
    indices: np.ndarray


@dataclass(frozen=True, eq=False)
class Part:
    """Units of one kind, any of which may be removed; what belongs to one goes as a whole.

    kind: "channels" (of convolutions: filters), "neurons" (of dense layers, units of a feed-forward block), "heads" (of an attention),
    "hidden" (positions of a stream that layer norms normalise: with one gone, the others' mean and variance change, so that removing
    isn't the same as not reading).
    removable: all of them may go, because they are the inside of a branch that ends in a residual sum: pruning in depth.
    """

    name: str
    kind: Kind
    units: int
    slices: tuple[Slice, ...]
    removable: bool = False


@dataclass(frozen=True, eq=False)
class Coupling:
    """parts: in the order of the graph. fixed: a weight's name -> why what it makes can't be pruned."""

    parts: tuple[Part, ...]
    fixed: Mapping[str, str]
    walk: Walk = field(repr=False)

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)


def found_again(before: Coupling, after: Coupling) -> dict[str, str]:
    """Parts of a graph in what was pruned of it: the name before -> the name now. One that went with its branch isn't there.

    A part is called after its first weight, which may have gone with a branch that ended in it.
    """
    places = {(one.tensor, one.axis, one.role): part.name for part in after.parts for one in part.slices}
    found = {part.name: [places.get((one.tensor, one.axis, one.role)) for one in part.slices] for part in before.parts}
    return {name: now for name, candidates in found.items() if (now := next(filter(None, candidates), None)) is not None}


def parts(graph: Graph) -> Coupling:
    """Everything that can be pruned in `graph`, and what can't with the reason.

    Takes the training form, the form for engines, and a quantized graph (QDQ) alike; a part has one name in all where the weights do.
    Method: coupled channels as classes of equal axis positions (the "dependency graph" of Fang et al. 2023, here over positions instead of
    layers, so that concatenation, splits, flattening and heads need no cases of their own).
    """
    walk = Walk(graph)
    classes, frozen = walk.settled.classes, walk.settled.frozen
    uses: dict[tuple[str, int], list[Use]] = {}
    for use in dict.fromkeys(walk.uses):
        uses.setdefault((use.tensor, use.axis), []).append(use)
    places: dict[int, dict[tuple[str, int], list[int]]] = {}
    for tensor in walk.index.initializers:
        for axis, labels in enumerate(walk.of(tensor)):
            if labels is None:
                continue
            owners = classes[labels]
            for position in np.flatnonzero(~frozen[owners]):
                places.setdefault(int(owners[position]), {}).setdefault((tensor, axis), []).append(int(position))
    families: dict[tuple[tuple[str, int, int], ...], list[int]] = {}
    for root, held in places.items():
        families.setdefault(tuple((tensor, axis, len(found)) for (tensor, axis), found in held.items()), []).append(root)
    heads = {int(root) for labels in walk.atoms.together for root in classes[labels]}
    normed = {int(root) for labels in walk.atoms.normed for root in classes[labels]}
    order = {node.name: i for i, node in enumerate(walk.index.nodes)}
    found = []
    for roots in families.values():
        slices = _slices(walk, uses, places, roots)
        roles = {one.role for one in slices}
        if "in" not in roles or roles == {"in"}:
            continue
        makers = sorted((one for one in slices if one.role == "out"), key=lambda one: order[one.node]) or list(slices)
        kind: Kind = "heads" if roots[0] in heads else "hidden" if roots[0] in normed else "neurons"
        if kind == "neurons" and any(walk.index.nodes[order[one.node]].op_type.startswith("Conv") for one in slices if one.role != "along"):
            kind = "channels"
        first = next((one for one in makers if not _is_vector(walk, one.tensor)), makers[0])
        # By place in the first maker, so that unit u is filter u.
        sequence = np.argsort(first.indices[:, 0], kind="stable")
        slices = tuple(Slice(one.tensor, one.axis, one.role, one.node, one.indices[sequence]) for one in slices)
        part = Part(_plain(first.tensor), kind, len(roots), slices)
        removable = _is_branch(walk, part)
        if len(roots) > 1 or removable:
            found.append(Part(part.name, kind, part.units, slices, removable))
    found.sort(key=lambda part: min(order[one.node] for one in part.slices if one.role != "in"))
    return Coupling(_named_apart(found), _fixed(walk), walk)


def _slices(
    walk: Walk, uses: dict[tuple[str, int], list[Use]], places: dict[int, dict[tuple[str, int], list[int]]], roots: list[int]
) -> tuple[Slice, ...]:
    found = []
    for tensor, axis in places[roots[0]]:
        indices = np.array([places[root][tensor, axis] for root in roots], np.int64)
        known = uses.get((tensor, axis))
        if known is None:
            users = walk.index.consumers(tensor)
            known = [Use(tensor, axis, "along", users[0].name)] if users else []
        found += [Slice(tensor, axis, use.role, use.node, indices) for use in known]
    return tuple(found)


def _plain(tensor: str) -> str:
    """A quantized weight's part is called as in the float graph."""
    return tensor.removesuffix("_quantized")


def _is_vector(walk: Walk, tensor: str) -> bool:
    return len(walk.of(tensor)) < 2


def _named_apart(found: list[Part]) -> tuple[Part, ...]:
    counts: dict[str, int] = {}
    result = []
    for part in found:
        number = counts.setdefault(part.name, 0)
        counts[part.name] += 1
        name = f"{part.name}#{number}" if number else part.name
        result.append(Part(name, part.kind, part.units, part.slices, part.removable))
    return tuple(result)


def _is_branch(walk: Walk, part: Part) -> bool:
    """Whether every reader of the part reads nothing else, and what it makes only goes into a residual sum."""
    readers = [one for one in part.slices if one.role == "in"]
    for one in readers:
        columns = walk.of(one.tensor)[one.axis]
        if columns is None or one.indices.size != len(columns):
            return False
        node = next(node for node in walk.index.nodes if node.name == one.node)
        if residual_sum(walk, node) is None:
            return False
    return bool(readers)


def residual_sum(walk: Walk, node: onnx.NodeProto) -> tuple[onnx.NodeProto, str] | None:
    """The Add of two equal shapes that alone takes what `node` makes, and its input on that side; None where there is none."""
    tensor = node.output[0]
    while True:
        user = walk.index.sole_consumer(tensor)
        if user is None:
            return None
        if user.op_type == "Add" and not any(walk.is_stored(name) for name in user.input):
            sides = [walk.shape(name) for name in user.input]
            return (user, tensor) if sides[0] == sides[1] and sides[0] is not None and user.input[0] != user.input[1] else None
        biased = user.op_type == "Add" and any(walk.is_stored(name) for name in user.input)
        if (user.op_type not in _PASSED and not biased) or (user.input[0] != tensor and not biased):
            return None
        tensor = user.output[0]


def _fixed(walk: Walk) -> dict[str, str]:
    classes, reasons = walk.settled.classes, walk.settled.reasons
    found: dict[str, str] = {}
    for use in walk.uses:
        labels = walk.of(use.tensor)[use.axis]
        if use.role != "out" or labels is None or _is_vector(walk, use.tensor):
            continue
        roots = [int(root) for root in np.unique(classes[labels]) if walk.settled.frozen[root]]
        if roots:
            whole = "" if len(roots) == len(np.unique(classes[labels])) else f"{len(roots)} of {len(labels)}: "
            found.setdefault(_plain(use.tensor), whole + reasons.get(roots[0], "it stays whole"))
    return found
