"""Transposes that exporters write as three nodes, made one again."""

from __future__ import annotations

import onnx
from onnx import helper

from edgewise.graph.canonical import remove_unused
from edgewise.graph.index import Index
from edgewise.graph.probing import followed


def turn_at_once(proto: onnx.ModelProto) -> int:
    """Reshape (a, b, m, n) to (a·b, m, n), Transpose, Reshape to (a, b, n, m): one Transpose, in place. Returns how many there were.

    So torch's exporter writes an attention's keys. Heads and batch in one axis would couple all heads, and an engine copies as often.
    `proto` is canonical, its shapes inferred.
    """
    index = Index(proto)
    chains = [chain for node in index.nodes if (chain := _chain(index, node)) is not None]
    if not chains:
        return 0
    known = followed(proto)
    count = 0
    for first, last in chains:
        names = (first.input[0], first.output[0], last.output[0])
        before, merged, after = (known[name] if name in known else index.shape(name) or () for name in names)
        # Rows and columns that stay while axes before them are merged aren't mixed with those.
        if len(before) < 3 or None in before or len(merged) != 3 or merged[1:] != before[-2:] or after != (*before[:-2], *before[:-3:-1]):
            continue
        axes = len(before)
        order = [*range(axes - 2), axes - 1, axes - 2]
        place = next(i for i, node in enumerate(proto.graph.node) if node.name == last.name)
        proto.graph.node[place].CopyFrom(helper.make_node("Transpose", [names[0]], [names[2]], name=last.name, perm=order))
        count += 1
    if count:
        remove_unused(proto)
    return count


def _chain(index: Index, last: onnx.NodeProto) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """The first and the last of Reshape, Transpose of the last two of three axes, Reshape, where nothing else reads what is between."""
    if last.op_type != "Reshape" or index.sole_consumer(last.input[0]) is None:
        return None
    turned = index.producer(last.input[0])
    if turned is None or turned.op_type != "Transpose" or index.sole_consumer(turned.input[0]) is None:
        return None
    first = index.producer(turned.input[0])
    order = next((list(one.ints) for one in turned.attribute if one.name == "perm"), [])
    return (first, last) if order == [0, 2, 1] and first is not None and first.op_type == "Reshape" else None
