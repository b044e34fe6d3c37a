"""The pass `lower`: the same integers, spelled the way that a processor's kernels want them (see `edgewise.export.lowering`)."""

from __future__ import annotations

from typing import Literal

from edgewise.errors import InvalidInput
from edgewise.export import lowering
from edgewise.graph import Graph
from edgewise.types import Compressed


def lower(model: Graph, *, to: Literal["u8", "s8"] = "s8") -> Compressed:
    """Activations as signed ("s8", what ARM multiplies) or unsigned bytes ("u8", what x86 multiplies): bit for bit the same real numbers.

    Raises InvalidInput when there is nothing to rewrite, so that nobody measures the same graph twice.
    """
    if to not in lowering.forms(model):
        raise InvalidInput(f"to={to!r} changes nothing here; forms of this graph: {', '.join(lowering.forms(model))}")
    done = lowering.lower(model, to)
    touched = tuple(node.name for node in done.proto.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear"))
    return Compressed(done, touched, {}, (f"activations lowered to {to}; the integers are those of the canonical form",))
