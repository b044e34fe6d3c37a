"""How a node of a graph becomes a Python callable: what the builder of an operator sees of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from edgewise.errors import InvalidModel

DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.BOOL: torch.bool,
}


@dataclass(frozen=True, eq=False)
class Node:
    """A node as the builder of its operator sees it. What trains isn't among the constants."""

    operator: str
    name: str
    opset: int
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]  # names of tensors, "" where an optional one is left out
    outputs: int  # how many anybody reads, counted up to the last one that is read
    listed: int  # how many the node lists
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int | str | None, ...]]  # as far as they are known
    stored: frozenset[str]  # the initializers

    def attribute(self, name: str, default: Any) -> Any:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def given(self, position: int) -> bool:
        return position < len(self.inputs) and bool(self.inputs[position])

    def constant(self, position: int) -> np.ndarray | None:
        """The value of an input where it is known now; None where it is computed, or left out."""
        return self.constants.get(self.inputs[position]) if self.given(position) else None

    def shape(self, position: int) -> tuple[int | str | None, ...] | None:
        return self.shapes.get(self.inputs[position]) if self.given(position) else None

    def refuse(self, reason: str) -> InvalidModel:
        return InvalidModel(f"node {self.name!r} ({self.operator}) can't be trained: {reason}")


Function = Callable[
    ..., Any
]  # of the node's inputs, in ONNX's order, None where one is left out; gives a tensor, or a tuple when outputs > 1


@dataclass(frozen=True)
class Moded:
    """An operator that does one thing in training, another in evaluation."""

    training: Function
    evaluation: Function


@dataclass(frozen=True)
class Operator:
    """How nodes of one operator are bound.

    values: positions of inputs that are read as numbers (shapes, axes, bounds): a constant there is known to the builder, and the callable
    gets None. scalars: whether a constant without axes may come as a Python number, which is faster than a tensor.
    """

    bind: Callable[[Node], Function | Moded]
    values: tuple[int, ...] = ()
    scalars: bool = False


def plain(function: Function, *, scalars: bool = False) -> Operator:
    """An operator without attributes."""
    return Operator(lambda node: function, scalars=scalars)


def numbers(node: Node, position: int) -> Callable[[Tensor | None], Any]:
    """Reads an input as Python numbers: those known now, or at each call those of the tensor it is given."""
    constant = node.constant(position)
    if constant is None:
        return lambda tensor: tensor.tolist()  # type: ignore[union-attr]  # given, because it isn't known
    known = constant.tolist()
    return lambda _: known


def optional_numbers(node: Node, position: int) -> Callable[[Tensor | None], Any]:
    """`numbers`, or None for an input that is left out."""
    return numbers(node, position) if node.given(position) else lambda _: None


def to_tensor(proto: onnx.TensorProto) -> Tensor:
    """A tensor of its own with the value of an initializer. Raises InvalidModel for an element type that torch hasn't got."""
    if proto.data_type not in DTYPES:
        name = TensorProto.DataType.Name(proto.data_type)
        raise InvalidModel(f"weight {proto.name!r} has elements of type {name}, which can't be trained; export the model in float32")
    array = numpy_helper.to_array(proto)
    if proto.data_type == TensorProto.BFLOAT16:  # numpy has no bfloat16 that torch would take
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array)).to(DTYPES[proto.data_type])


def to_proto(tensor: Tensor, like: onnx.TensorProto) -> onnx.TensorProto:
    """`tensor` as an initializer with the name and the element type of `like`."""
    values = tensor.detach().to("cpu", DTYPES[like.data_type]).contiguous()
    raw = values.reshape(-1).view(torch.uint8).numpy().tobytes()
    return onnx.TensorProto(name=like.name, data_type=like.data_type, dims=list(values.shape), raw_data=raw)
