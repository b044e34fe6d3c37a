"""What kind of network a search has before it, where that changes what is tried."""

from __future__ import annotations

from edgewise.compress.quantize.place import place
from edgewise.errors import EdgewiseError
from edgewise.graph import Graph, cost


def of_tokens(graph: Graph) -> bool:
    """Whether most of the multiply-accumulates are products of tokens with weights: a transformer."""
    try:
        costs = {node.name: node.macs for node in cost(graph)}
    except EdgewiseError:
        return False
    plan = place(graph)
    return sum(costs.get(layer.name, 0) for layer in plan.weighted if layer.input in plan.tokens) > sum(costs.values()) / 2
