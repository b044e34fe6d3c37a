"""What operators that move axes around do to them: reshape, transpose, concatenation, splits, padding. See `coupling_rules`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from edgewise.graph.atoms import Choice, Labels
from edgewise.graph.coupling import Walk, integer, integers


def constant(walk: Walk, node: onnx.NodeProto, position: int) -> np.ndarray | None:
    """The value of an input that is stored; None for one that is computed, or isn't there."""
    name = node.input[position] if position < len(node.input) else ""
    return walk.index.constant(name) if name else None


def transpose(walk: Walk, node: onnx.NodeProto) -> None:
    x = walk.of(node.input[0])
    order = integers(node, "perm") or list(range(len(x)))[::-1]
    walk.axes[node.output[0]] = [x[i] for i in order]


def squeeze(walk: Walk, node: onnx.NodeProto) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze. A target that is computed has to be one that constants can say: `shrink` puts them there."""
    if node.op_type == "Reshape" and constant(walk, node, 1) is None and target(walk, node) is None:
        walk.opaque(node, f"the target shape of Reshape {node.name} is computed")
        walk.axes[node.output[0]] = [None] * len(walk.shape(node.output[0]) or ())
        return
    _reshape(walk, node, walk.shape(node.input[0]), walk.shape(node.output[0]))


def target(walk: Walk, node: onnx.NodeProto) -> list[int] | None:
    """The target of a Reshape as constants: 0 for an axis that stays as it is, -1 for one that is open otherwise; None where two are."""
    before, after = walk.shape(node.input[0]), walk.shape(node.output[0])
    if before is None or after is None:
        return None
    found = [
        axis if isinstance(axis, int) else 0 if axis is not None and i < len(before) and before[i] == axis else -1
        for i, axis in enumerate(after)
    ]
    return found if found.count(-1) < 2 else None


def _reshape(walk: Walk, node: onnx.NodeProto, before: Any, after: Any) -> None:
    """Axes matched from the right in groups of equal product; see `Choice` for an axis that is split or several that are merged."""
    x = walk.of(node.input[0])
    if before is None or after is None:
        walk.opaque(node, f"the shapes at {node.op_type} {node.name} aren't known")
        return
    result: list[Labels] = [None] * len(after)
    i, j = len(before), len(after)
    while i and j:
        low_i, low_j = i - 1, j - 1
        if not (isinstance(before[low_i], int) and isinstance(after[low_j], int)):
            break
        one, other = before[low_i], after[low_j]
        if one == 1 and other != 1:
            walk.atoms.freeze(x[low_i], "it is a single value")
            i -= 1
            continue
        if other == 1 and one != 1:
            j -= 1
            continue
        while one != other:
            if one < other and low_i and isinstance(before[low_i - 1], int):
                low_i -= 1
                one *= before[low_i]
            elif other < one and low_j and isinstance(after[low_j - 1], int):
                low_j -= 1
                other *= after[low_j]
            else:
                break
        if one != other:
            break
        result[low_j:j] = _regrouped(walk, node, x[low_i:i], list(before[low_i:i]), list(after[low_j:j]))
        i, j = low_i, low_j
    while i and j and before[i - 1] == after[j - 1]:  # named axes
        i, j = i - 1, j - 1
        result[j] = x[i]
    for labels in x[:i]:
        walk.atoms.freeze(labels, f"{node.op_type} {node.name} mixes it with the batch")
    walk.axes[node.output[0]] = result


def _regrouped(walk: Walk, node: onnx.NodeProto, labels: list[Labels], before: list[int], after: list[int]) -> list[Labels]:
    if before == after:
        return labels
    if len(before) == 1 and labels[0] is not None:
        options = tuple(walk.atoms.new(size) if size > 1 else None for size in after)
        walk.atoms.choices.append(Choice(labels[0].reshape(after), options))
        return list(options)
    if len(after) == 1 and any(one is not None for one in labels):
        elements = walk.atoms.new(after[0])
        walk.atoms.choices.append(Choice(elements.reshape(before), tuple(labels)))
        return [elements]
    for one in labels:
        walk.atoms.freeze(one, f"{node.op_type} {node.name} rearranges it")
    return [None] * len(after)


def concat(walk: Walk, node: onnx.NodeProto) -> None:
    parts = [walk.of(name) for name in node.input]
    rank = len(parts[0])
    axis = integer(node, "axis", 0) % max(rank, 1)
    result: list[Labels] = []
    for i in range(rank):
        if i != axis:
            merged = parts[0][i]
            for other in parts[1:]:
                merged = walk.unite(merged, other[i], node) if merged is not None or other[i] is not None else None
            result.append(merged)
            continue
        sizes = [(walk.shape(name) or (None,) * rank)[axis] for name in node.input]
        if all(part[axis] is None for part in parts) or not all(isinstance(size, int) for size in sizes):
            for part in parts:
                walk.atoms.freeze(part[axis], f"Concat {node.name} of unknown sizes")
            result.append(None)
            continue
        joined = []
        for part, size in zip(parts, sizes, strict=True):
            labels = part[axis]
            if labels is None:
                labels = walk.atoms.new(int(size or 0))
                walk.atoms.freeze(labels, f"at Concat {node.name} it comes from what stays whole")
            joined.append(labels)
        result.append(np.concatenate(joined))
    walk.axes[node.output[0]] = result


def split(walk: Walk, node: onnx.NodeProto) -> None:
    x = walk.of(node.input[0])
    axis = integer(node, "axis", 0) % max(len(x), 1)
    start = 0
    for name in node.output:
        size = (walk.shape(name) or (None,) * len(x))[axis]
        result = list(x)
        labels = x[axis]
        if labels is not None and isinstance(size, int):
            result[axis] = labels[start : start + size]
            start += size
        elif labels is not None:
            walk.atoms.freeze(labels, f"Split {node.name} of unknown sizes")
            result[axis] = None
        walk.axes[name] = result


def cut(walk: Walk, node: onnx.NodeProto) -> None:
    """Slice with constant limits and step 1; a tensor along whose cut axis nothing can be pruned may have any."""
    x = list(walk.of(node.input[0]))
    starts, ends, axes, steps = (constant(walk, node, i) for i in (1, 2, 3, 4))
    plain = starts is not None and ends is not None and (len(node.input) < 4 or not node.input[3] or axes is not None)
    if not plain or starts is None or ends is None:
        walk.opaque(node, f"the limits of Slice {node.name} are computed")
        return
    for i, axis in enumerate(range(len(starts)) if axes is None else axes):
        labels = x[int(axis)]
        if labels is None:
            continue
        if steps is not None and int(steps[i]) != 1:
            walk.atoms.freeze(labels, f"Slice {node.name} takes every so many")
            x[int(axis)] = None
        else:
            x[int(axis)] = labels[int(starts[i]) : int(ends[i])]
    walk.axes[node.output[0]] = x


def gather(walk: Walk, node: onnx.NodeProto) -> None:
    x = walk.of(node.input[0])
    axis = integer(node, "axis", 0) % max(len(x), 1)
    walk.atoms.freeze(x[axis] if x else None, f"Gather {node.name} picks from it")
    picked: list[Labels] = [None] * len(walk.shape(node.input[1]) or ())
    walk.axes[node.output[0]] = [*x[:axis], *picked, *x[axis + 1 :]]
    if walk.is_stored(node.input[0]) and len(x) == 2 and axis == 0:
        walk.use(node.input[0], 1, "out", node)


def pad(walk: Walk, node: onnx.NodeProto) -> None:
    x = list(walk.of(node.input[0]))
    amounts = integers(node, "pads")
    if amounts is None:
        given = constant(walk, node, 1)
        if given is None or len(node.input) > 3:
            walk.opaque(node, f"the amounts of Pad {node.name} are computed")
            return
        amounts = [int(amount) for amount in given]
    for i, labels in enumerate(x):
        if amounts[i] or amounts[i + len(x)]:
            walk.atoms.freeze(labels, f"Pad {node.name} widens it")
            x[i] = None
    walk.axes[node.output[0]] = x


def same_where_equal(walk: Walk, node: onnx.NodeProto) -> None:
    """Resize and Expand: an axis whose length stays is the same axis."""
    x = walk.of(node.input[0])
    before, after = walk.shape(node.input[0]), walk.shape(node.output[0])
    if before is None or after is None:
        walk.opaque(node, f"the shapes at {node.op_type} {node.name} aren't known")
        return
    result: list[Labels] = [None] * len(after)
    for back in range(1, len(before) + 1):
        if before[-back] == after[-back] and before[-back] != 1:
            result[-back] = x[-back]
        else:
            walk.atoms.freeze(x[-back], f"{node.op_type} {node.name} stretches it")
    walk.axes[node.output[0]] = result
