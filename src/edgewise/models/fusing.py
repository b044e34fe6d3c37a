"""Chains of nodes that torch has one function for: a dense layer, GELU, attention. They train faster as that, and to the same numbers.

An exporter writes GELU as five nodes. Trained as five functions, each keeps what it read for the way back and reads memory anew: MiniLM
took 1.3 times as long as the module that it was exported from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

from edgewise.graph import Index
from edgewise.models.binding import Function

_FLOATS = frozenset((TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16))


@dataclass(frozen=True, eq=False)
class Chain:
    """nodes: in the order of the graph, the last of which makes what the chain makes; nothing else reads what the others do.

    inputs: names of the tensors that `function` takes.
    """

    nodes: tuple[onnx.NodeProto, ...]
    inputs: tuple[str, ...]
    function: Function


def chains(index: Index, constant: Callable[[str], np.ndarray | None], opset: int) -> tuple[Chain, ...]:
    """The chains of a graph, no node in two of them. constant: the value of a tensor that doesn't train; None for any other."""
    found: list[Chain] = []
    taken: set[str] = set()
    seen = _Seen(index, constant, opset)
    for chain in (chain for node in index.nodes for find in (_attention, _gelu, _linear) for chain in find(seen, node)):
        made = {node.output[0] for node in chain.nodes}
        if not made & taken:
            taken |= made
            found.append(chain)
    return tuple(found)


@dataclass(frozen=True)
class _Seen:
    index: Index
    constant: Callable[[str], np.ndarray | None]
    opset: int

    def number(self, tensor: str) -> float | None:
        """The one number that a constant is."""
        value = self.constant(tensor)
        return float(value.reshape(-1)[0]) if value is not None and value.size == 1 and value.dtype.kind == "f" else None

    def made_by(self, tensor: str, *operators: str) -> onnx.NodeProto | None:
        """The node that makes `tensor` for one reader alone, if it is one of these operators."""
        node = self.index.producer(tensor)
        alone = node is not None and not node.domain and node.op_type in operators and self.index.sole_consumer(tensor) is not None
        return node if alone else None

    def times(self, tensor: str) -> tuple[onnx.NodeProto, str, float] | None:
        """The Mul or Div with a number that makes `tensor`, what it reads, and the factor."""
        node = self.made_by(tensor, "Mul", "Div")
        if node is None:
            return None
        for one, other in _sides(node):
            factor = self.number(other)
            if factor is not None and (node.op_type == "Mul" or (one == node.input[0] and factor)):
                return node, one, factor if node.op_type == "Mul" else 1 / factor
        return None


def _sides(node: onnx.NodeProto) -> Sequence[tuple[str, str]]:
    return (node.input[0], node.input[1]), (node.input[1], node.input[0])


def _linear(seen: _Seen, node: onnx.NodeProto) -> Iterator[Chain]:
    """x @ weight + bias."""
    if node.op_type != "Add" or node.domain:
        return
    for made, bias in _sides(node):
        product = seen.made_by(made, "MatMul")
        stored = seen.index.initializers
        if product is None or bias not in stored or product.input[1] not in stored:
            continue
        weight, vector = stored[product.input[1]], stored[bias]
        fits = len(weight.dims) == 2 and list(vector.dims) == list(weight.dims[1:]) and weight.data_type == vector.data_type
        if fits and weight.data_type in _FLOATS and len(seen.index.shape(product.input[0]) or ()) > 1:
            inputs = (product.input[0], product.input[1], bias)
            yield Chain((product, node), inputs, _dense)


def _dense(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    # Not F.linear, which wants the weight transposed: its gradient would come transposed too, and be copied.
    return torch.addmm(bias, x.flatten(0, -2), weight).unflatten(0, x.shape[:-1])


def _gelu(seen: _Seen, node: onnx.NodeProto) -> Iterator[Chain]:
    """x · 0.5 · (1 + erf(x / √2)), factors in either order."""
    if node.op_type != "Mul" or node.domain:
        return
    for one, other in _sides(node):
        halved = seen.times(one)
        if halved is not None and math.isclose(halved[2], 0.5):  # x · (0.5 · (1 + erf))
            yield from _erf(seen, halved[1], other, (halved[0], node))
        product = seen.made_by(one, "Mul")
        if product is not None and seen.number(other) == 0.5:  # (x · (1 + erf)) · 0.5
            for x, raised in _sides(product):
                yield from _erf(seen, raised, x, (product, node))


def _erf(seen: _Seen, raised: str, x: str, rest: tuple[onnx.NodeProto, ...]) -> Iterator[Chain]:
    add = seen.made_by(raised, "Add")
    if add is None:
        return
    for inner, one in _sides(add):
        erf = seen.made_by(inner, "Erf")
        scaled = seen.times(erf.input[0]) if erf is not None else None
        if erf is None or scaled is None or seen.number(one) != 1 or scaled[1] != x:
            continue
        if math.isclose(scaled[2], math.sqrt(0.5), rel_tol=1e-6):
            yield Chain((scaled[0], erf, add, *rest), (x,), F.gelu)


def _attention(seen: _Seen, node: onnx.NodeProto) -> Iterator[Chain]:
    """softmax(q @ k · scale + mask) @ v, of tensors (batch, heads, tokens, size); k comes transposed."""
    softmax = seen.made_by(node.input[0], "Softmax") if node.op_type == "MatMul" and not node.domain else None
    if softmax is None or not _over_last(softmax, seen.opset):
        return
    add = seen.made_by(softmax.input[0], "Add")
    for scores, *mask in _sides(add) if add is not None else [(softmax.input[0],)]:
        scaled = seen.times(scores)
        product = seen.made_by(scores if scaled is None else scaled[1], "MatMul")
        if product is None or any(len(seen.index.shape(name) or ()) != 4 for name in (*product.input, node.input[1])):
            continue
        between = (*(scaled[:1] if scaled else ()), *((add,) if add is not None else ()))
        yield Chain((product, *between, softmax, node), (*product.input, node.input[1], *mask), _attending(scaled[2] if scaled else 1.0))


def _over_last(softmax: onnx.NodeProto, opset: int) -> bool:
    axis = next((attribute.i for attribute in softmax.attribute if attribute.name == "axis"), -1 if opset >= 13 else 1)
    return axis in (-1, 3)


def _attending(scale: float) -> Function:
    def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        kind = q.device.type
        if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
            return F.scaled_dot_product_attention(q, k.transpose(2, 3), v, attn_mask=mask, scale=scale)
        # torch's own function is the slower one on the way back in bfloat16, at a sentence's lengths.
        scores = (q * scale) @ k
        if mask is not None:
            # Scores of 32 bits would be twice the memory, and the lowest float32, which exporters mask with, is -inf in bfloat16.
            scores = scores + mask.clamp_min(torch.finfo(scores.dtype).min).to(scores.dtype)
        return torch.softmax(scores, -1) @ v

    return attended
