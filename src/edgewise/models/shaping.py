"""Operators that say where elements stand and which are taken: shapes, slices, gathers. `TABLE` holds them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from edgewise.models.binding import DTYPES, Function, Moded, Node, Operator, numbers, optional_numbers, plain
from edgewise.rows import picked


def reshape(node: Node) -> Function:
    """0 stands for the input's own axis, unless allowzero (opset 14); -1 for what is left."""
    read, copies = numbers(node, 1), not node.attribute("allowzero", 0)
    target = node.constant(1)
    if target is not None and not (copies and 0 in target):
        shape = target.tolist()
        return lambda x, _: x.reshape(shape)

    def reshaped(x: Tensor, wanted: Tensor) -> Tensor:
        shape = read(wanted)
        return x.reshape([x.shape[axis] if size == 0 and copies else size for axis, size in enumerate(shape)])

    return reshaped


def flatten(node: Node) -> Function:
    axis = node.attribute("axis", 1)
    return lambda x: x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def squeeze(node: Node) -> Function:
    stated, read = node.attribute("axes", None), optional_numbers(node, 1)

    def squeezed(x: Tensor, axes: Tensor | None = None) -> Tensor:
        which = stated or read(axes)
        return x.squeeze(tuple(which)) if which else x.squeeze()

    return squeezed


def unsqueeze(node: Node) -> Function:
    """Axes are those of the result."""
    stated, read = node.attribute("axes", None), optional_numbers(node, 1)

    def unsqueezed(x: Tensor, axes: Tensor | None = None) -> Tensor:
        which = stated or read(axes)
        for axis in sorted(axis % (x.dim() + len(which)) for axis in which):
            x = x.unsqueeze(axis)
        return x

    return unsqueezed


def transpose(node: Node) -> Function:
    order = node.attribute("perm", None)
    return lambda x: x.permute(order or tuple(reversed(range(x.dim()))))


def expand(node: Node) -> Function:
    """Broadcast both ways: an axis of the target that is 1 leaves the input's."""
    read = numbers(node, 1)

    def expanded(x: Tensor, shape: Tensor) -> Tensor:
        return x.expand(torch.broadcast_shapes(x.shape, read(shape)))

    return expanded


def tile(node: Node) -> Function:
    read = numbers(node, 1)
    return lambda x, repeats: x.repeat(read(repeats))


def concat(node: Node) -> Function:
    axis = node.attribute("axis", 0)
    return lambda *tensors: torch.cat(tensors, axis)


def split(node: Node) -> Function:
    """Into the sizes given (as an attribute until opset 12), else into equal pieces, the last one smaller where opset 18 lets it be."""
    axis, stated = node.attribute("axis", 0), node.attribute("split", None)
    read, pieces, outputs = optional_numbers(node, 1), node.attribute("num_outputs", node.listed), node.outputs

    def parts(x: Tensor, sizes: Tensor | None = None) -> Tensor | Sequence[Tensor]:
        found = x.split(stated or read(sizes) or math.ceil(x.shape[axis] / pieces), axis)
        return found[0] if outputs == 1 else found[:outputs]

    return parts


def cut(node: Node) -> Function:
    """Slice, whose bounds follow Python's rules, negative steps too."""
    reads = [numbers(node, 1), numbers(node, 2), optional_numbers(node, 3), optional_numbers(node, 4)]
    axes, steps, shape = node.constant(3), node.constant(4), node.shape(0)
    known = all(node.constant(position) is not None for position in (1, 2, 3, 4) if node.given(position))
    if known and (axes is None or shape is not None or (axes >= 0).all()) and (steps is None or (steps > 0).all()):
        starts, ends, which, by = (read(None) for read in reads)
        which = [axis % len(shape) if shape else axis for axis in which or range(len(starts))]
        slices = {axis: slice(*bounds) for axis, *bounds in zip(which, starts, ends, by or [1] * len(starts), strict=True)}
        index = tuple(slices.get(axis, slice(None)) for axis in range(max(slices, default=-1) + 1))
        return lambda x, *_: x[index]

    def sliced(x: Tensor, *bounds: Tensor | None) -> Tensor:
        starts, ends, which, by = (read(bound) for read, bound in zip(reads, (*bounds, None, None)[:4], strict=True))
        for axis, *limits in zip(which or range(len(starts)), starts, ends, by or [1] * len(starts), strict=True):
            taken = range(x.shape[axis])[slice(*limits)]
            if taken.step > 0:
                x = x.narrow(axis, taken.start, len(taken)) if taken.step == 1 else x.index_select(axis, _indices(taken, x))
            else:
                x = x.index_select(axis, _indices(taken, x))
        return x

    return sliced


def _indices(taken: range, x: Tensor) -> Tensor:
    return torch.tensor(list(taken), dtype=torch.int64, device=x.device)


def gather(node: Node) -> Function | Moded:
    axis, fixed = node.attribute("axis", 0), node.constant(1)
    if fixed is not None and fixed.ndim == 0:
        position = int(fixed)
        return lambda x, _: x.select(axis, position)
    counts_back = fixed is None or bool((fixed < 0).any())

    def gathered(x: Tensor, indices: Tensor) -> Tensor:
        indices = _from_front(indices, x.shape[axis]) if counts_back else indices
        if indices.dim() == 1:
            return x.index_select(axis, indices)
        at = axis % x.dim()
        return x.index_select(at, indices.reshape(-1)).reshape(*x.shape[:at], *indices.shape, *x.shape[at + 1 :])

    def trained(x: Tensor, indices: Tensor) -> Tensor:
        rows = picked(x, _from_front(indices, x.shape[0]) if counts_back else indices)
        return gathered(x, indices) if rows is None else rows

    return Moded(trained, gathered) if axis == 0 else gathered


def _from_front(indices: Tensor, size: int) -> Tensor:
    """Negative indices count from the end."""
    return torch.where(indices < 0, indices + size, indices)


def gather_elements(node: Node) -> Function:
    axis = node.attribute("axis", 0)
    return lambda x, indices: x.gather(axis, _from_front(indices, x.shape[axis]).long())


def gather_nd(node: Node) -> Function:
    batch_axes = node.attribute("batch_dims", 0)

    def gathered(x: Tensor, indices: Tensor) -> Tensor:
        places = list(indices.long().unbind(-1))
        for axis in range(batch_axes):
            shape = [-1 if axis == other else 1 for other in range(indices.dim() - 1)]
            places.insert(axis, torch.arange(x.shape[axis], device=x.device).reshape(shape))
        return x[tuple(places)]

    return gathered


def scatter_nd(node: Node) -> Function:
    reduction = node.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        raise node.refuse(f"reduction={reduction!r} isn't supported; use none or add")
    return lambda x, indices, updates: x.index_put(tuple(indices.long().unbind(-1)), updates, accumulate=reduction == "add")


def scatter_elements(node: Node) -> Function:
    axis, reduction = node.attribute("axis", 0), node.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        raise node.refuse(f"reduction={reduction!r} isn't supported; use none or add")

    def scattered(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        places = _from_front(indices, x.shape[axis]).long()
        return x.scatter_add(axis, places, updates) if reduction == "add" else x.scatter(axis, places, updates)

    return scattered


def shape_of(node: Node) -> Function:
    start, end = node.attribute("start", 0), node.attribute("end", None)
    return lambda x: torch.tensor(x.shape[start:end], dtype=torch.int64)


def constant_of_shape(node: Node) -> Function:
    read, value = numbers(node, 0), node.attribute("value", None)
    fill = 0.0 if value is None else numpy_helper.to_array(value).item()
    dtype = torch.float32 if value is None else DTYPES.get(value.data_type)
    if dtype is None:
        raise node.refuse(f"it makes elements of type {TensorProto.DataType.Name(value.data_type)}, which torch hasn't got")
    return lambda shape: torch.full(read(shape), fill, dtype=dtype)


def counted(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype, device=start.device)


def triangle(node: Node) -> Function:
    function = torch.triu if node.attribute("upper", 1) else torch.tril
    read = optional_numbers(node, 1)
    return lambda x, k=None: function(x, read(k) or 0)


def one_hot(node: Node) -> Function:
    """Values are (off, on); indices beyond the depth make rows of "off"."""
    axis, read = node.attribute("axis", -1), numbers(node, 1)

    def marked(indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        found = read(depth)
        classes = int(found[0] if isinstance(found, list) else found)
        places = _from_front(indices.long(), classes).unsqueeze(axis)
        shape = [1] * places.dim()
        shape[axis] = classes
        hot = places == torch.arange(classes, device=places.device).reshape(shape)
        return torch.where(hot, values[1], values[0])

    return marked


TABLE: dict[str, Operator] = {
    "Concat": Operator(concat),
    "ConstantOfShape": Operator(constant_of_shape, values=(0,)),
    "Expand": Operator(expand, values=(1,)),
    "Flatten": Operator(flatten),
    "Gather": Operator(gather),
    "GatherElements": Operator(gather_elements),
    "GatherND": Operator(gather_nd),
    "NonZero": plain(lambda x: x.nonzero().t()),
    "OneHot": Operator(one_hot, values=(1,)),
    "Range": plain(counted),
    "Reshape": Operator(reshape, values=(1,)),
    "ScatterElements": Operator(scatter_elements),
    "ScatterND": Operator(scatter_nd),
    "Shape": Operator(shape_of),
    "Size": plain(lambda x: torch.tensor(x.numel())),
    "Slice": Operator(cut, values=(1, 2, 3, 4)),
    "Split": Operator(split, values=(1,)),
    "Squeeze": Operator(squeeze, values=(1,)),
    "Tile": Operator(tile, values=(1,)),
    "Transpose": Operator(transpose),
    "Trilu": Operator(triangle, values=(1,)),
    "Unsqueeze": Operator(unsqueeze, values=(1,)),
}
