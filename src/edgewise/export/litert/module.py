"""A prepared graph as a torch module that LiteRT's converter reads well."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgewise.graph import Graph, Index
from edgewise.models.binding import Function, Node, Operator, to_tensor
from edgewise.models.operators import TABLE
from edgewise.models.plan import execute, make_plan


class Lowered(nn.Module):
    """Takes the graph's inputs in its order, gives its outputs in its order; every weight is a buffer.

    Rounding is `torch.ops.quantized_decomposed`, which the converter knows: whoever makes one of these has imported what registers it.
    Raises InvalidModel for what has no counterpart in torch.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        index = Index(graph)
        self._plan = make_plan(graph, (), TABLE | LOWERED)
        self._inputs = [self._plan.slots[spec.name] for spec in graph.signature.inputs]
        self._outputs = [self._plan.slots[spec.name] for spec in graph.signature.outputs]
        self._held = [(slot, f"weight_{number}") for number, (slot, _) in enumerate(self._plan.held)]
        for (_, name), (_, key) in zip(self._plan.held, self._held, strict=True):
            self.register_buffer(key, to_tensor(index.initializers[name]))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values = list(self._plan.blank)
        for slot, tensor in zip(self._inputs, inputs, strict=True):
            values[slot] = tensor
        for slot, key in self._held:
            values[slot] = self.get_buffer(key)
        execute(self._plan.evaluation, values, frozenset())
        return tuple(values[slot] for slot in self._outputs)


def _gather(node: Node) -> Function:
    """Rows of a table as a look-up, which is one operator there. (ONNX may also count from the end, which nobody asks of tokens.)"""
    shape, fixed = node.shape(0), node.constant(1)
    if node.attribute("axis", 0) == 0 and fixed is None and shape is not None and len(shape) == 2 and node.constant(0) is not None:
        return lambda table, at: (
            F.embedding(at, table)
            if table.is_floating_point()
            else table.index_select(0, at.reshape(-1)).reshape(*at.shape, table.shape[1])
        )
    bound: Any = TABLE["Gather"].bind(node)
    return bound


def _quantize(node: Node) -> Function:
    scale, zero, axis, kind = _grid(node)
    low, high = int(torch.iinfo(kind).min), int(torch.iinfo(kind).max)
    if node.constant(0) is not None and kind == torch.int8:
        low = -127  # a weight: kernels add products of int8 in pairs, and -128 is the one integer without a negative
    one = torch.ops.quantized_decomposed
    if scale.ndim == 0:
        return lambda x, *_: one.quantize_per_tensor(x, float(scale), int(zero), low, high, kind)
    scales, zeros = torch.from_numpy(scale.astype(np.float32)), torch.from_numpy(zero.astype(np.int64))
    return lambda x, *_: one.quantize_per_channel(x, scales, zeros, axis, low, high, kind)


def _dequantize(node: Node) -> Function:
    scale, zero, axis, kind = _grid(node)
    low, high = int(torch.iinfo(kind).min), int(torch.iinfo(kind).max)
    one = torch.ops.quantized_decomposed
    if scale.ndim == 0:
        return lambda x, *_: one.dequantize_per_tensor(x, float(scale), int(zero), low, high, kind)
    scales, zeros = torch.from_numpy(scale.astype(np.float32)), torch.from_numpy(zero.astype(np.int64))
    return lambda x, *_: one.dequantize_per_channel(x, scales, zeros, axis, low, high, kind)


def _grid(node: Node) -> tuple[np.ndarray, np.ndarray, int, torch.dtype]:
    scale = node.constant(1)
    if scale is None or (node.given(2) and node.constant(2) is None):
        raise node.refuse("its scale or zero point is computed; export the model with constant ones")
    given = node.constant(2)
    zero = np.zeros(scale.shape, np.uint8) if given is None else given
    rank = len(node.shape(0) or ())
    return scale, zero, node.attribute("axis", 1) % rank if rank else 0, torch.from_numpy(np.zeros(0, zero.dtype)).dtype


LOWERED: dict[str, Operator] = {
    "DequantizeLinear": Operator(_dequantize, values=(1, 2)),
    "Gather": Operator(_gather),
    "QuantizeLinear": Operator(_quantize, values=(1, 2)),
}
