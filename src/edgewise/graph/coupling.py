"""Which channels of which tensors are coupled: a walk over a graph that gives every axis its atoms (`atoms.py`).

No list of known models or layers stands behind this: each operator says what it does to axes (`coupling_rules.py`), and units, from a
filter to an attention head, are what falls out (`parts.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import TensorProto

from edgewise.graph.atoms import Atoms, Labels
from edgewise.graph.graph import Graph
from edgewise.graph.index import Index, subgraphs, used_by
from edgewise.graph.probing import followed
from edgewise.graph.shapes import infer_shapes

Role = Literal["out", "in", "along"]
Shape = tuple[int | str | None, ...]

_STORED = frozenset(
    (
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.DOUBLE,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.INT32,
    )
)


@dataclass(frozen=True)
class Use:
    """A node that reads `axis` of the stored `tensor` as `role`; see `parts.Slice`."""

    tensor: str
    axis: int
    role: Role
    node: str


class Walk:
    """The axes of every tensor of a graph, as far as the operators before it tell."""

    def __init__(self, graph: Graph) -> None:
        from edgewise.graph.coupling_rules import RULES

        self.graph = infer_shapes(graph)
        self.index = Index(self.graph)
        self._followed = followed(self.graph.proto)
        self.atoms = Atoms()
        self.axes: dict[str, list[Labels]] = {}
        self.uses: list[Use] = []
        self.stored: dict[str, str] = {}  # a dequantized weight -> the integers that it stands for
        for name, tensor in self.index.initializers.items():
            known = tensor.data_type in _STORED
            self.axes[name] = [self.atoms.new(size) if known and size else None for size in tensor.dims]
        for name in self.index.inputs:
            self.axes[name] = [None] * len(self.shape(name) or ())
        for node in self.index.nodes:
            rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") and not any(subgraphs(node)) else None
            if rule is None:
                self.opaque(node, f"{node.op_type} isn't followed")
            else:
                rule(self, node)
            for name in filter(None, node.output):
                if name not in self.axes:
                    self.axes[name] = [None] * len(self.shape(name) or ())
        for name in self.index.outputs:
            for labels in self.axes.get(name, ()):
                self.atoms.freeze(labels, "it is an output of the model")
        self.settled = self.atoms.settle()

    def shape(self, tensor: str) -> Shape | None:
        return self._followed[tensor] if tensor in self._followed else self.index.shape(tensor)

    def of(self, tensor: str) -> list[Labels]:
        return self.axes.get(tensor, [])

    def opaque(self, node: onnx.NodeProto, reason: str) -> None:
        """Nothing is known of what `node` does: all that it reads stays whole."""
        for name in used_by(node):
            self.freeze(name, reason)

    def freeze(self, tensor: str, reason: str) -> None:
        for labels in self.of(tensor):
            self.atoms.freeze(labels, reason)

    def unite(self, first: Labels, second: Labels, node: onnx.NodeProto) -> Labels:
        return self.atoms.unite(first, second, f"at {node.op_type} {node.name} it meets an axis that stays whole")

    def use(self, tensor: str, axis: int, role: Role, node: onnx.NodeProto) -> None:
        """Record what a stored tensor (directly, or dequantized) is used for."""
        name = self.stored.get(tensor, tensor)
        if name in self.index.initializers:
            self.uses.append(Use(name, axis, role, node.name))

    def is_stored(self, tensor: str) -> bool:
        return self.stored.get(tensor, tensor) in self.index.initializers


def number(node: onnx.NodeProto, name: str, default: float) -> float:
    """A floating attribute, or `default`."""
    return next((float(found.f) for found in node.attribute if found.name == name), default)


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute, or `default`."""
    return next((int(found.i) for found in node.attribute if found.name == name), default)


def integers(node: onnx.NodeProto, name: str) -> list[int] | None:
    """An attribute of integers; None where it isn't given."""
    return next(([int(value) for value in found.ints] for found in node.attribute if found.name == name), None)
