"""Reshape targets that only copy the input's axes, made constants: 0 says "as it is", and the chain of Shape and Concat is gone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx

from edgewise.graph.canonical import add_initializer, remove_unused
from edgewise.graph.index import Index, all_names

# Numbers and names of axes, in the order of a shape; None: it can't be told.
Entry = int | str | None


def copied_axes(proto: onnx.ModelProto) -> int:
    """Make the targets of Reshape nodes constant, in place, where each entry is a number or the input's own axis at that place; how many.

    A target may have one entry more, which follows from the rest. That two axes are the same is what onnx's inference says by one name, so
    `proto` is canonical with its shapes inferred.
    """
    index = Index(proto)
    taken = all_names(proto)
    done = 0
    for node in proto.graph.node:
        if node.op_type != "Reshape" or node.domain or node.input[1] in index.initializers:
            continue
        entries, shape = _entries(node.input[1], index), index.shape(node.input[0])
        literal = [attribute for attribute in node.attribute if attribute.name == "allowzero" and attribute.i]
        if entries is None or shape is None or (literal and 0 in entries):
            continue
        target = _target(entries, shape)
        if target is not None:
            for attribute in literal:
                node.attribute.remove(attribute)
            node.input[1] = add_initializer(proto, f"{node.output[0]}.shape", np.array(target, np.int64), taken)
            done += 1
    if done:
        remove_unused(proto)
    return done


def _target(entries: Sequence[Entry], shape: Sequence[Entry]) -> list[int] | None:
    found = []
    for place, entry in enumerate(entries):
        if isinstance(entry, int) and entry:
            found.append(entry)
        elif entry == 0 or (isinstance(entry, str) and place < len(shape) and shape[place] == entry):
            found.append(0)
        else:
            found.append(-1)
    if found.count(-1) > 1:
        return None
    left = [axis for place, axis in enumerate(shape) if place >= len(found) or found[place]]
    stated = prod(size for size in found if size > 0)
    if -1 in found and all(isinstance(axis, int) for axis in left):
        whole = prod(axis for axis in left if isinstance(axis, int))
        found[found.index(-1)] = whole // stated if stated and whole % stated == 0 else -1
    return found


def _entries(tensor: str, index: Index) -> list[Entry] | None:
    """What the elements of a vector about shapes are; None for what isn't only made of shapes and constants."""
    value, node = index.constant(tensor), index.producer(tensor)
    if value is not None:
        return [int(entry) for entry in value.reshape(-1)] if value.dtype.kind == "i" and value.size < 16 else None
    if node is None or node.domain:
        return None
    given = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Shape":
        shape = index.shape(node.input[0])
        if shape is None:
            return None
        return list(shape[given["start"].i if "start" in given else 0 : given["end"].i if "end" in given else len(shape)])
    inner = _entries(node.input[0], index)
    if node.op_type in ("Squeeze", "Unsqueeze", "Reshape", "Identity") and inner is not None:
        return inner
    if node.op_type == "Concat":
        parts = [inner, *(_entries(name, index) for name in node.input[1:])]
        return None if any(part is None for part in parts) else [entry for part in parts for entry in part or ()]
    if node.op_type == "Gather" and inner is not None:
        chosen = index.constant(node.input[1])
        return None if chosen is None else [inner[int(place)] for place in chosen.reshape(-1)]
    return None
