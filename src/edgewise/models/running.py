"""`Run`: a pass of a network that stops where it is told, shows what it has, and goes on from there with other weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from edgewise.errors import InvalidInput
from edgewise.models.network import Network
from edgewise.models.plan import execute


class Run:
    """One pass over one batch, in evaluation mode, from node to node in the graph's order.

    What stands before a place need not be computed again for every change behind it: `fork` takes up from there. Weights are read when
    their node is reached, so those that are changed in place while a run waits count from there on.
    """

    def __init__(self, network: Network, inputs: Mapping[str, Tensor], hold: Collection[str] = ()) -> None:
        """hold: tensors that are kept when nothing behind needs them any more, till they are released."""
        self._network = network
        self._held = {network.plan.slots[name] for name in hold}
        self._spent = {slot: place for place, step in enumerate(network.plan.node_by_node) for slot in step.spent if slot in self._held}
        self._values = network.filled(inputs)
        self._places = {each.name: place for place, each in enumerate(network.structure.proto.graph.node)}
        self._at = 0

    def until(self, node: str) -> None:
        """Go on to right before `node`. Raises InvalidInput for a node that isn't there, or was passed already."""
        place = self._place(node)
        if place < self._at:
            raise InvalidInput(f"the run has passed node {node!r} already; begin another one")
        self._go(place)

    def through(self, node: str) -> None:
        """Go on to right behind `node`."""
        self.until(node)
        self._go(self._at + 1)

    def reach(self, tensor: str) -> Tensor:
        """Go on, if it has to be, to where `tensor` is computed, and give it."""
        makers = self._network.structure.proto.graph.node
        while self.known(tensor) is None and self._at < len(makers):
            self._go(self._at + 1)
        return self.value(tensor)

    def value(self, tensor: str) -> Tensor:
        """What `tensor` holds here. Raises InvalidInput for one that isn't computed yet, or that nothing behind needs any more."""
        found = self.known(tensor)
        if found is None:
            raise InvalidInput(f"the run holds no tensor {tensor!r} here; it is unknown, not computed yet, or spent")
        return found

    def known(self, tensor: str) -> Tensor | None:
        """As `value`, None instead of raising."""
        slot = self._network.plan.slots.get(tensor)
        found: Any = None if slot is None else self._values[slot]
        return found if isinstance(found, Tensor) else None

    def release(self, tensor: str) -> None:
        """Let go of a tensor that was to be held, as soon as nothing behind needs it."""
        slot = self._network.plan.slots[tensor]
        self._held.discard(slot)
        if self._spent.get(slot, self._at) < self._at:
            self._values[slot] = None

    def fork(self, weights: Mapping[str, Tensor]) -> Run:
        """The same pass from here, with other values for these initializers; this one stays where it is."""
        twin = Run.__new__(Run)
        twin._network, twin._places, twin._at = self._network, self._places, self._at
        twin._values, twin._held, twin._spent = list(self._values), set(self._held), self._spent
        for name, value in weights.items():
            twin._values[self._network.plan.slots[name]] = value
        return twin

    def finish(self) -> dict[str, Tensor]:
        """Go on to the end: the outputs, by name."""
        self._go(len(self._network.plan.node_by_node))
        return {spec.name: self.value(spec.name) for spec in self._network.structure.signature.outputs}

    def _place(self, node: str) -> int:
        place = self._places.get(node)
        if place is None:
            raise InvalidInput(f"the network has no node {node!r}")
        return place

    def _go(self, place: int) -> None:
        execute(self._network.plan.node_by_node[self._at : place], self._values, frozenset(self._held))
        self._at = max(self._at, place)
