"""The nodes that read a part's units, each seen as a matrix product: rows of weights, and the columns of its input that they meet."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor

from edgewise.compress.quantize.patches import padding
from edgewise.errors import InvalidInput
from edgewise.graph import Index, Part, Slice
from edgewise.models.network import Network, unescaped

_CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True, eq=False)
class Reader:
    """A Conv, ConvTranspose, Gemm or MatMul that reads units along `axis` of a stored weight.

    shape: of the weight. data: the tensor that meets it. bias: where a constant can be added to each of its rows, None where nowhere.
    norm: the batch normalisation right behind it.
    """

    node: onnx.NodeProto
    weight: str
    axis: int
    shape: tuple[int, ...]
    data: str
    bias: Shift | None = None
    norm: onnx.NodeProto | None = None

    @property
    def convolves(self) -> bool:
        return self.node.op_type in _CONVOLUTIONS

    @property
    def first(self) -> bool:
        """The weight is the left factor of the product."""
        return not self.convolves and self.node.input[0] == self.weight

    @property
    def groups(self) -> int:
        """Products beside each other that share nothing: of a grouped convolution, or of a stack of matrices."""
        return int(self.attribute("group", 1)) if self.convolves else prod(self.shape[:-2])

    @property
    def kernel(self) -> int:
        return prod(self.shape[2:]) if self.convolves else 1

    @property
    def columns(self) -> int:
        """Of each group: positions along the weight's `axis`, times those of the kernel."""
        return self.shape[self.axis] * self.kernel

    @property
    def channel(self) -> int:
        """The axis of `data` along which the units lie."""
        if self.convolves:
            return 1
        turned = bool(self.attribute("transB" if self.first else "transA", 0))
        return (-1 if turned else -2) if self.first else (-2 if turned else -1)

    @property
    def key(self) -> tuple[str, str]:
        return self.node.name, self.weight

    def attribute(self, name: str, default: Any) -> Any:
        return next((helper.get_attribute_value(one) for one in self.node.attribute if one.name == name), default)


@dataclass(frozen=True)
class Shift:
    """Adding factor * c to `tensor` adds c to the product."""

    tensor: str
    factor: float


def readers(network: Network, index: Index, part: Part) -> dict[str, tuple[Slice, tuple[Reader, ...]]]:
    """What reads `part`: weight -> its slice, and the nodes that use it (several where they share it).

    index: of `network.structure`. Raises InvalidInput where a node isn't one of the four operators.
    """
    nodes = {node.name: node for node in index.nodes}
    found: dict[str, tuple[Slice, list[Reader]]] = {}
    for one in part.slices:
        if one.role != "in":
            continue
        held, users = found.setdefault(one.tensor, (one, []))
        if held.axis == one.axis and all(user.node.name != one.node for user in users):
            users.append(_reader(network, index, nodes[one.node], one, part.name))
    return {weight: (one, tuple(users)) for weight, (one, users) in found.items()}


def every(network: Network, index: Index) -> dict[str, tuple[Reader, ...]]:
    """All trained weights that are factors of a matrix product or a convolution: weight -> the nodes that use it, all along one axis.

    A weight that something else reads too, or that its nodes read along different axes (an embedding that is the head as well), isn't here.
    """
    found: dict[str, list[Reader]] = {}
    other: set[str] = set()
    trained = {unescaped(key) for key, _ in network.named_parameters()}
    for node in index.nodes:
        for place, name in enumerate(node.input):
            if name not in trained:
                continue
            shape = tuple(network.weight(name).shape)
            product = node.op_type in (*_CONVOLUTIONS, "Gemm", "MatMul") and place < 2 and len(shape) > 1
            users = found.get(name, [])
            twice = any(user.node.name == node.name or user.axis != _axis(node, place, len(shape)) for user in users)
            if not product or twice or node.input[1 - place] in trained:
                other.add(name)
            else:
                plain = Reader(node, name, _axis(node, place, len(shape)), shape, node.input[1 - place])
                bias, norm = _behind(network, index, plain)
                found.setdefault(name, []).append(Reader(node, name, plain.axis, shape, plain.data, bias, norm))
    return {name: tuple(users) for name, users in found.items() if name not in other}


def _axis(node: onnx.NodeProto, place: int, axes: int) -> int:
    """The axis of the weight that is summed over."""
    if node.op_type in _CONVOLUTIONS:
        return 1 if node.op_type == "Conv" else 0
    turned = any(one.i for one in node.attribute if one.name == ("transA" if place == 0 else "transB"))
    return axes - (1 if (place == 1) == turned else 2)


def _reader(network: Network, index: Index, node: onnx.NodeProto, one: Slice, part: str) -> Reader:
    if node.op_type not in (*_CONVOLUTIONS, "Gemm", "MatMul") or one.tensor not in node.input[:2]:
        raise InvalidInput(f"{part} is read by {node.op_type} {node.name}; only Conv, ConvTranspose, Gemm and MatMul may: leave it whole")
    shape = tuple(network.weight(one.tensor).shape)
    data = node.input[1 if node.input[0] == one.tensor else 0]
    plain = Reader(node, one.tensor, one.axis, shape, data)
    bias, norm = _behind(network, index, plain)
    return Reader(node, one.tensor, one.axis, shape, data, bias, norm)


def _behind(network: Network, index: Index, reader: Reader) -> tuple[Shift | None, onnx.NodeProto | None]:
    """Where a constant can go: the node's own bias, that of an Add behind it, or the mean of a batch norm."""
    node, weights = reader.node, network.weights()
    if not reader.convolves and prod(reader.shape[:-2]) != 1:
        return None, None
    rows = rows_of(reader)
    back = len(reader.shape) - 1 if reader.convolves else 2 if reader.first else 1  # the rows' axis in the output, from its end
    alpha = float(reader.attribute("alpha", 1.0)) if node.op_type == "Gemm" else 1.0
    beta = float(reader.attribute("beta", 1.0)) if node.op_type == "Gemm" else 1.0

    def place(name: str, factor: float, back: int) -> Shift | None:
        known = name in weights and len(index.consumers(name)) == 1 and name not in index.outputs
        shape = tuple(weights[name].shape) if known else ()
        return Shift(name, factor) if len(shape) >= back and shape[-back] == rows == prod(shape) else None

    shift = None
    if node.op_type != "MatMul" and len(node.input) > 2 and node.input[2] and beta:
        shift = place(node.input[2], alpha / beta, 1 if reader.convolves else back)
    made = node.output[0]
    user = index.sole_consumer(made)
    if user is not None and user.op_type == "Add":
        constant = next((name for name in user.input if name in index.initializers), None)
        if constant is None:
            return shift, None
        shift = shift or place(constant, alpha, back)
        made = user.output[0]
        user = index.sole_consumer(made)
    # A norm's channels lie along axis 1: those of a product of matrices only where it has two axes.
    along = reader.convolves or (not reader.first and (node.op_type == "Gemm" or len(index.shape(made) or ()) == 2))
    if user is None or user.op_type != "BatchNormalization" or user.input[0] != made or not along:
        return shift, None
    return shift or place(user.input[3], -alpha, 1), user


def rows_of(reader: Reader) -> int:
    """Outputs of the product, over all groups."""
    if reader.convolves:
        return reader.shape[0] if reader.node.op_type == "Conv" else reader.shape[1]
    return reader.shape[-1 if reader.axis == len(reader.shape) - 2 else -2]


def gains(network: Network, reader: Reader) -> Tensor | None:
    """(rows,) float64: by what the batch norm behind the reader multiplies each of its rows; None without one."""
    if reader.norm is None:
        return None
    scale, variance = (network.weight(reader.norm.input[i]).detach().cpu().double() for i in (1, 4))
    epsilon = next((one.f for one in reader.norm.attribute if one.name == "epsilon"), 1e-5)
    return scale / (variance + epsilon).sqrt()


def matrix(weight: Tensor, reader: Reader) -> Tensor:
    """The weight as (groups, rows, columns), its columns in the order of `columns`."""
    if reader.node.op_type == "Conv":
        return weight.reshape(reader.groups, weight.shape[0] // reader.groups, -1)
    if reader.node.op_type == "ConvTranspose":
        return weight.transpose(0, 1).reshape(1, weight.shape[1], -1)
    turned = weight.movedim(reader.axis, -1)
    return turned.reshape(-1, *turned.shape[-2:])


def unmatrix(values: Tensor, reader: Reader) -> Tensor:
    """The inverse of `matrix`."""
    if reader.node.op_type == "Conv":
        return values.reshape(reader.shape)
    if reader.node.op_type == "ConvTranspose":
        return values.reshape(reader.shape[1], reader.shape[0], *reader.shape[2:]).transpose(0, 1)
    return values.reshape(*reader.shape[:-2], *values.shape[-2:]).movedim(-1, reader.axis)


def blocks(indices: np.ndarray, reader: Reader) -> np.ndarray:
    """The columns of each unit: (units, each) positions along the weight's axis -> (units, each * kernel)."""
    return (indices[:, :, None] * reader.kernel + np.arange(reader.kernel)).reshape(len(indices), -1)


def columns(values: Tensor, reader: Reader, most: int, rng: np.random.Generator) -> Tensor:
    """What the weights meet, as (groups, n, columns): at most `most` positions of the output (samples included), drawn evenly.

    values: what the tensor `reader.data` holds. `columns @ matrix.mT` is the node's output at these positions, without its bias.
    """
    if reader.convolves:
        return _patches(values, reader, most, rng)
    x, stack = values.movedim(reader.channel, -1), reader.shape[:-2]
    if prod(stack) > 1:
        batch = torch.broadcast_shapes(x.shape[:-2], stack)
        x = x.expand(*batch, *x.shape[-2:])
        own = [i for i, size in enumerate((1,) * (len(batch) - len(stack)) + stack) if size > 1]
        x = x.permute(*own, *(i for i in range(len(batch)) if i not in own), len(batch), len(batch) + 1)
    flat = x.reshape(prod(stack), -1, x.shape[-1])
    return flat[:, torch.from_numpy(_draw(rng, flat.shape[1], most)).to(x.device)]


def _patches(x: Tensor, reader: Reader, most: int, rng: np.random.Generator) -> Tensor:
    """im2col at chosen positions. A transposed convolution is a plain one with a mirrored kernel over an input with zeros in between."""
    space, kernel = tuple(x.shape[2:]), reader.shape[2:]
    ones = [1] * len(space)
    strides, dilations = list(reader.attribute("strides", ones)), list(reader.attribute("dilations", ones))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    given = {one.name: helper.get_attribute_value(one) for one in reader.node.attribute}
    taps = [np.arange(k) * d for k, d in zip(kernel, dilations, strict=True)]
    if reader.node.op_type == "Conv":
        before, after = padding(given, space, kernel, strides, dilations)
        padded = F.pad(x, [amount for pair in reversed(list(zip(before, after, strict=True))) for amount in pair])
        first, step = [0] * len(space), strides
        counts = [(n - span) // stride + 1 for n, span, stride in zip(padded.shape[2:], spans, strides, strict=True)]
    else:
        stuffed = [(n - 1) * stride + 1 for n, stride in zip(space, strides, strict=True)]
        padded = x.new_zeros(*x.shape[:2], *(n + 2 * (span - 1) for n, span in zip(stuffed, spans, strict=True)))
        inner = tuple(slice(span - 1, span - 1 + n, stride) for n, span, stride in zip(stuffed, spans, strides, strict=True))
        padded[(slice(None), slice(None), *inner)] = x
        # Where the output is cut to a wanted shape, the whole of it stands for what is left.
        cut = "output_shape" not in given and given.get("auto_pad", b"NOTSET") == b"NOTSET"
        pads = list(reader.attribute("pads", [0] * 2 * len(space))) if cut else [0] * 2 * len(space)
        first, step = pads[: len(space)], ones
        counts = [n + span - 1 - pads[i] - pads[i + len(space)] for i, (n, span) in enumerate(zip(stuffed, spans, strict=True))]
        taps = [span - 1 - tap for span, tap in zip(spans, taps, strict=True)]
    picture, *corners = np.unravel_index(_draw(rng, len(x) * prod(counts), most), (len(x), *counts))
    index = [picture.reshape(-1, *ones)]
    for axis, corner in enumerate(corners):
        here = [-1 if i == axis else 1 for i in range(len(space))]
        index.append((first[axis] + corner * step[axis]).reshape(-1, *ones) + taps[axis].reshape(here))
    # Channels last: each of the picked positions is then one piece of memory.
    picked = padded.movedim(1, -1).contiguous()[tuple(torch.from_numpy(one).to(x.device) for one in index)]
    return picked.movedim(-1, 1).reshape(len(picture), reader.groups, -1).movedim(1, 0)


def _draw(rng: np.random.Generator, available: int, wanted: int) -> np.ndarray:
    return np.arange(available) if available <= wanted else np.sort(rng.choice(available, wanted, replace=False))
