"""Operators with weights or windows: convolutions, pooling, normalisation. Each function binds a node (see `edgewise.models.binding`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgewise.models.binding import Function, Moded, Node

_CONV = (F.conv1d, F.conv2d, F.conv3d)
_CONV_TRANSPOSE = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_MAX_POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_AVERAGE_POOL = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)

Pads = list[tuple[int, int]]  # begin and end of each spatial axis


@dataclass(frozen=True)
class Window:
    """A kernel sliding over the spatial axes, as a node's attributes say it."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]  # begin and end; what `auto_pad` asks for comes with the input's size
    auto: str  # NOTSET, VALID, SAME_UPPER, SAME_LOWER
    ceil: bool = False

    @property
    def spans(self) -> tuple[int, ...]:
        """How far the dilated kernel reaches."""
        return tuple((kernel - 1) * dilation + 1 for kernel, dilation in zip(self.kernel, self.dilations, strict=True))

    @property
    def same(self) -> bool:
        return self.auto.startswith("SAME")

    @property
    def symmetric(self) -> tuple[int, ...] | None:
        """One number per axis where begin and end are equal, as torch wants it; else None."""
        if self.same or any(begin != end for begin, end in self.pads):
            return None
        return tuple(begin for begin, _ in self.pads)

    def around(self, sizes: Sequence[int]) -> Pads:
        """Begin and end for an input of these spatial sizes."""
        if not self.same:
            return list(self.pads)
        found = []
        for size, stride, span in zip(sizes, self.strides, self.spans, strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + span - size, 0)
            small, large = total // 2, total - total // 2
            found.append((small, large) if self.auto == "SAME_UPPER" else (large, small))
        return found

    def reached(self, sizes: Sequence[int]) -> Pads:
        """As `around`, but the end is where the last window ends, be it short of the padding or, with `ceil`, beyond it."""
        found = []
        for size, (begin, end), stride, span in zip(sizes, self.around(sizes), self.strides, self.spans, strict=True):
            room = size + begin + end - span
            steps = room // stride
            if self.ceil and self.auto == "NOTSET":
                steps = math.ceil(room / stride)
                steps -= steps * stride >= size + begin  # a window has to start inside, or in the padding before
            found.append((begin, steps * stride + span - size - begin))
        return found


def _window(node: Node, kernel: Sequence[int], *, ceil: bool = False) -> Window:
    rank = len(kernel)
    if not 1 <= rank <= 3:
        raise node.refuse(f"it slides over {rank} axes, and torch has 1 to 3")
    ones, pads = [1] * rank, node.attribute("pads", [0] * 2 * rank)
    auto = node.attribute("auto_pad", "NOTSET")
    return Window(
        tuple(kernel),
        tuple(node.attribute("strides", ones)),
        tuple(node.attribute("dilations", ones)),
        tuple(zip(pads[:rank], pads[rank:], strict=True)) if auto == "NOTSET" else ((0, 0),) * rank,
        auto,
        ceil,
    )


def _kernel(node: Node) -> list[int]:
    """Of a convolution: its attribute, or the axes of its weight."""
    stated = node.attribute("kernel_shape", None)
    shape = node.shape(1)
    if stated:
        return list(stated)
    if shape is None or not all(isinstance(axis, int) for axis in shape[2:]):
        raise node.refuse("neither kernel_shape nor its weight says how large its kernel is; export the model again")
    return [axis for axis in shape[2:] if isinstance(axis, int)]


def _padded(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """`x` with its last axes padded; negative amounts cut off."""
    flat = [amount for pair in reversed(pads) for amount in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def conv(node: Node) -> Function:
    window = _window(node, _kernel(node))
    function, group, padding = _CONV[len(window.kernel) - 1], node.attribute("group", 1), window.symmetric
    strides, dilations = window.strides, window.dilations
    if padding is not None:
        return lambda x, weight, bias=None: function(x, weight, bias, strides, padding, dilations, group)

    def uneven(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return function(_padded(x, window.around(x.shape[2:])), weight, bias, strides, 0, dilations, group)

    return uneven


def conv_transpose(node: Node) -> Function:
    """output = stride * (input - 1) + output_padding + span - begin - end, unless output_shape or auto_pad say otherwise."""
    window = _window(node, _kernel(node))
    rank = len(window.kernel)
    function, group = _CONV_TRANSPOSE[rank - 1], node.attribute("group", 1)
    strides, dilations, spans = window.strides, window.dilations, window.spans
    extra = tuple(node.attribute("output_padding", [0] * rank))
    wanted = list(node.attribute("output_shape", []))[-rank:]
    padding = window.symmetric
    plain = all(more < max(stride, dilation) for more, stride, dilation in zip(extra, strides, dilations, strict=True))
    if padding is not None and plain and not wanted:
        return lambda x, weight, bias=None: function(x, weight, bias, strides, padding, extra, group, dilations)

    def cut(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        # The whole result, of which the padding is cut away; positions beyond it hold the bias alone.
        whole = function(x, weight, None, strides, 0, 0, group, dilations)
        pads: Pads = []
        for axis, size in enumerate(x.shape[2:]):
            length = strides[axis] * (size - 1) + spans[axis]
            begin, end = window.pads[axis]
            if wanted or window.same:
                target = wanted[axis] if wanted else size * strides[axis]
                total = max(length + extra[axis] - target, 0)
                begin = total // 2 if window.auto == "SAME_UPPER" else total - total // 2
                end = length + extra[axis] - begin - target
            pads.append((-begin, extra[axis] - end))
        y = _padded(whole, pads)
        return y if bias is None else y + bias.reshape(-1, *[1] * rank)

    return cut


def max_pool(node: Node) -> Function:
    if node.outputs > 1:
        raise node.refuse("its second output, the indices, is used; only the maxima can be")
    window = _window(node, node.attribute("kernel_shape", []), ceil=bool(node.attribute("ceil_mode", 0)))
    function, padding = _MAX_POOL[len(window.kernel) - 1], window.symmetric
    kernel, strides, dilations, ceil = window.kernel, window.strides, window.dilations, window.ceil and window.auto == "NOTSET"
    if padding is not None and all(2 * pad <= size for pad, size in zip(padding, kernel, strict=True)):
        return lambda x: function(x, kernel, strides, padding, dilations, ceil)

    def uneven(x: Tensor) -> Tensor:
        return function(_padded(x, window.reached(x.shape[2:]), -math.inf), kernel, strides, 0, dilations)

    return uneven


def average_pool(node: Node) -> Function:
    window = _window(node, node.attribute("kernel_shape", []), ceil=bool(node.attribute("ceil_mode", 0)))
    include, rank, padding = bool(node.attribute("count_include_pad", 0)), len(window.kernel), window.symmetric
    kernel, strides, dilations, ceil = window.kernel, window.strides, window.dilations, window.ceil and window.auto == "NOTSET"
    if padding is not None and set(dilations) == {1} and all(2 * pad <= size for pad, size in zip(padding, kernel, strict=True)):
        function, around = _AVERAGE_POOL[rank - 1], padding
        return lambda x: function(x, kernel, strides, around, ceil, include)

    def sums(x: Tensor) -> Tensor:
        flat = x.reshape(-1, 1, *x.shape[2:])
        total = _CONV[rank - 1](flat, x.new_ones(1, 1, *kernel), None, strides, 0, dilations)
        return total.reshape(*x.shape[:2], *total.shape[2:])

    def uneven(x: Tensor) -> Tensor:
        """Sums over counts. The padding counts if it is included; what a last window takes beyond it never does."""
        sizes = x.shape[2:]
        around, reached = window.around(sizes), window.reached(sizes)
        counted = _padded(x.new_ones(1, 1, *sizes), around, float(include))
        beyond = [(0, there - here) for (_, here), (_, there) in zip(around, reached, strict=True)]
        return sums(_padded(x, reached)) / sums(_padded(counted, beyond))

    return uneven


def global_average_pool(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def global_max_pool(x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


def batch_norm(node: Node) -> Function | Moded:
    """ONNX's momentum is the share of the old running value, torch's that of the new one. torch's running variance is the unbiased one."""
    if node.attribute("training_mode", 0) or node.outputs > 1:
        raise node.refuse("it was exported in training mode; call eval() on the model and export it again")
    epsilon, momentum = node.attribute("epsilon", 1e-5), 1 - node.attribute("momentum", 0.9)

    def evaluation(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)

    def training(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(x, mean, variance, scale, bias, True, momentum, epsilon)

    # Statistics that are computed belong to no running mean: what the graph says is done in training too.
    return Moded(training, evaluation) if {node.inputs[3], node.inputs[4]} <= node.stored else evaluation


def instance_norm(node: Node) -> Function:
    epsilon = node.attribute("epsilon", 1e-5)
    # One group per channel; F.instance_norm would refuse a single element per channel.
    return lambda x, scale, bias: torch.group_norm(x, x.shape[1], scale, bias, epsilon)


def group_norm(node: Node) -> Function:
    """Until opset 20 there is one scale and one bias per group, since then one per channel."""
    groups, epsilon = node.attribute("num_groups", 1), node.attribute("epsilon", 1e-5)
    if node.opset >= 21:
        return lambda x, scale, bias: torch.group_norm(x, groups, scale, bias, epsilon)

    def per_group(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        each = x.shape[1] // groups
        return torch.group_norm(x, groups, scale.repeat_interleave(each), bias.repeat_interleave(each), epsilon)

    return per_group


def layer_norm(node: Node) -> Function:
    """Over the axes from `axis` on; scale and bias may have fewer axes than these."""
    axis, epsilon, outputs = node.attribute("axis", -1), node.attribute("epsilon", 1e-5), node.outputs

    def norm(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        over = x.shape[axis:]
        if outputs == 1 and scale.shape == over and (bias is None or bias.shape == over):
            return torch.layer_norm(x, over, scale, bias, epsilon)
        dims = tuple(range(-len(over), 0))
        mean = x.mean(dims, keepdim=True)
        inverse = (x.var(dims, correction=0, keepdim=True) + epsilon).rsqrt()
        y = (x - mean) * inverse * scale
        y = y if bias is None else y + bias
        return y if outputs == 1 else (y, mean, inverse)[:outputs]

    return norm


def rms_norm(node: Node) -> Function:
    axis, epsilon = node.attribute("axis", -1), node.attribute("epsilon", 1e-5)

    def norm(x: Tensor, scale: Tensor) -> Tensor:
        dims = tuple(range(axis % x.dim(), x.dim()))
        return x * (x.square().mean(dims, keepdim=True) + epsilon).rsqrt() * scale

    return norm


def local_response_norm(node: Node) -> Function:
    """x / (bias + alpha / size * sum of squares over `size` channels) ** beta; an even size reaches one channel further up than down."""
    size, alpha = node.attribute("size", 1), node.attribute("alpha", 1e-4)
    beta, bias = node.attribute("beta", 0.75), node.attribute("bias", 1.0)

    def norm(x: Tensor) -> Tensor:
        squares = F.pad(x.square().flatten(2).transpose(1, 2), ((size - 1) // 2, size // 2))
        mean = F.avg_pool1d(squares, size, 1).transpose(1, 2).reshape(x.shape)
        return x / (bias + alpha * mean) ** beta

    return norm


def lp_norm(node: Node) -> Function:
    """Of a vector of zeros: zeros."""
    axis, p = node.attribute("axis", -1), node.attribute("p", 2)

    def norm(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return x / torch.where(length == 0, 1, length)

    return norm
