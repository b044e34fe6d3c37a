"""`Flow`: which tensors a tensor's values follow from. What only reads another's shape doesn't follow from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from edgewise.graph.index import Index, used_by

_ABOUT_SHAPES = frozenset(("Shape", "Size"))


class Flow:
    """The order of a graph's tensors, made once: each has a bit, and a set of tensors is a number."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._bits: dict[str, int] = {}
        self._before: dict[str, int] = {}  # the bits of what a tensor follows from, and its own
        for name in (*index.inputs, *index.initializers):
            self._add(name, 0)
        self._inputs = self._set(index.inputs)
        for node in index.nodes:
            before = 0 if node.op_type in _ABOUT_SHAPES else self._union(used_by(node))
            for name in filter(None, node.output):
                self._add(name, before)

    def follows(self, tensor: str, earlier: str) -> bool:
        """Whether `tensor` is `earlier`, or made from it."""
        return bool(self._before[tensor] & self._bits[earlier])

    def varies(self, tensor: str) -> bool:
        """Whether it depends on the values of an input."""
        return bool(self._before[tensor] & self._inputs)

    def between(self, earlier: str, later: str) -> Iterator[onnx.NodeProto]:
        """The nodes on the ways from one tensor to the other, in order."""
        for node in self.index.nodes:
            name = next(filter(None, node.output))
            if name != earlier and self.follows(later, name) and self.follows(name, earlier):
                yield node

    def _add(self, name: str, before: int) -> None:
        self._bits[name] = 1 << len(self._bits)
        self._before[name] = before | self._bits[name]

    def _set(self, names: Iterable[str]) -> int:
        return sum(self._bits[name] for name in names)

    def _union(self, names: Iterable[str]) -> int:
        found = 0
        for name in names:
            found |= self._before.get(name, 0)  # a subgraph's own names are nobody's
        return found
