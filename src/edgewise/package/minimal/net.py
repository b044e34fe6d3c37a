"""A graph as the minimal profile holds it: plain tuples, in which a value is named by how many values ago it was made.

`of` refuses what has no place there (subgraphs, functions, sparse weights, texts as weights); `proto` makes an ONNX model again. That is
the model in one canonical form: nodes, attributes, operator sets, weights to the bit, and names, dtypes and shapes of inputs and outputs
are as they were; inner values, weights and nodes have short names, attributes stand in the order of their names, weights in the order of
their use. Documentation, producer, shapes of inner values, metadata and unused weights are gone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto, numpy_helper

from edgewise.errors import InvalidModel
from edgewise.package import coded
from edgewise.package.manifest import BITS, stored_bytes
from edgewise.package.weights import dtype_name

# What a reference says: no value, a weight that wasn't used before, or BACK + how many values were made after the one that is meant.
ABSENT, NEW_WEIGHT, BACK = range(3)

_ELSE = "save it with profile='full'"


@dataclass(frozen=True)
class Tensor:
    """dtype: numpy's name; data: as ONNX's raw_data has it."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Attribute:
    """content, by ONNX's type: INT an int, INTS a tuple, FLOAT and FLOATS little-endian bytes, STRING bytes, STRINGS a tuple, TENSOR a
    `Tensor`. Bytes of floats, because -0.0 equals 0.0 and NaN nothing.
    """

    name: str
    type: int
    content: Any


@dataclass(frozen=True)
class Node:
    """references: of the inputs. outputs: whether each has a name, for optional ones may not."""

    operator: str
    domain: str
    references: tuple[int, ...]
    outputs: tuple[bool, ...]
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True)
class Value:
    """An input or output of the graph. type: TensorProto's number. shape: numbers, names, None for what is left open."""

    name: str
    type: int
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Net:
    """opsets: (domain, version), ONNX's own first. results: references of the outputs. weights: in the order of NEW_WEIGHT."""

    ir_version: int
    opsets: tuple[tuple[str, int], ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    results: tuple[int, ...]
    weights: tuple[Tensor, ...]


def of(model: onnx.ModelProto) -> Net:
    """Raises InvalidModel for a model that the profile has no place for, or that is none."""
    graph = model.graph
    for what, there in (
        ("functions", model.functions),
        ("training graphs", model.training_info),
        ("sparse weights", graph.sparse_initializer),
        ("quantization annotations", graph.quantization_annotation),
    ):
        if there:
            raise InvalidModel(f"the minimal profile has no place for {what}; {_ELSE}")
    weights = {weight.name: weight for weight in graph.initializer}
    if overridable := [value.name for value in graph.input if value.name in weights]:
        raise InvalidModel(f"{overridable[0]!r} is a weight and an input; edgewise.graph.read makes such models canonical")
    if not (1 <= model.ir_version < 2**31 and all(1 <= item.version < 2**31 for item in model.opset_import)):
        raise InvalidModel(f"IR version {model.ir_version} or an operator set's is none; the model is no valid ONNX")
    opsets = tuple(sorted((item.domain, item.version) for item in model.opset_import))
    if len(dict(opsets)) != len(opsets):
        raise InvalidModel("the model names an operator set twice; it is no valid ONNX")
    walk = _Numbering(weights)
    for value in graph.input:
        walk.make(value.name)
    nodes = []
    for node in graph.node:
        references = tuple(walk.reference(name) for name in node.input)
        for name in node.output:
            if name:
                walk.make(name)
        attributes = tuple(_attribute(node, each) for each in sorted(node.attribute, key=lambda each: each.name))
        if node.overload or len({each.name for each in attributes}) != len(attributes):
            raise InvalidModel(f"node {node.name!r} calls a function, or has an attribute twice; {_ELSE}")
        nodes.append(Node(node.op_type, node.domain, references, tuple(bool(name) for name in node.output), attributes))
    results = tuple(walk.reference(value.name) for value in graph.output)
    return Net(
        ir_version=model.ir_version,
        opsets=opsets,
        inputs=tuple(_value(value) for value in graph.input),
        outputs=tuple(_value(value) for value in graph.output),
        nodes=tuple(nodes),
        results=results,
        weights=tuple(_tensor(weights[name], f"the weight {name!r}") for name in walk.used),
    )


def proto(net: Net) -> onnx.ModelProto:
    """The model in its canonical form. Raises InvalidModel for references that lead nowhere, and names that stand twice."""
    inputs, outputs, results, weights = _resolved(net)
    names = _names(net, inputs, outputs, results, weights)
    model = onnx.ModelProto(ir_version=net.ir_version)
    model.opset_import.extend(onnx.OperatorSetIdProto(domain=domain, version=version) for domain, version in net.opsets)
    model.graph.name = "graph"
    model.graph.input.extend(map(_value_info, net.inputs))
    model.graph.output.extend(map(_value_info, net.outputs))
    for number, weight in zip(weights, net.weights, strict=True):
        model.graph.initializer.append(_tensor_proto(weight, names[number]))
    counts: dict[str, int] = {}
    for node, taken, made in zip(net.nodes, inputs, outputs, strict=True):
        count = counts[node.operator] = counts.get(node.operator, -1) + 1
        added = model.graph.node.add(op_type=node.operator, domain=node.domain, name=f"{node.operator}_{count}")
        added.input.extend("" if number is None else names[number] for number in taken)
        added.output.extend("" if number is None else names[number] for number in made)
        added.attribute.extend(map(_attribute_proto, node.attributes))
    return model


class _Numbering:
    """Values in the order in which they are made; a weight is made where it is used first."""

    def __init__(self, weights: dict[str, TensorProto]) -> None:
        self.weights, self.numbers = weights, dict[str, int]()
        self.used: list[str] = []

    def make(self, name: str) -> None:
        if name in self.numbers or name in self.weights or not name:
            raise InvalidModel(f"two values have the name {name!r}; the model is no valid ONNX")
        self.numbers[name] = len(self.numbers)

    def reference(self, name: str) -> int:
        if not name:
            return ABSENT
        if name in self.numbers:
            return BACK + len(self.numbers) - 1 - self.numbers[name]
        if name not in self.weights:
            raise InvalidModel(f"{name!r} is used before any node makes it; the model's nodes are in no order that can run")
        self.numbers[name] = len(self.numbers)
        self.used.append(name)
        return NEW_WEIGHT


Numbers = tuple[int | None, ...]


def _resolved(net: Net) -> tuple[list[Numbers], list[Numbers], list[int], list[int]]:
    """References as numbers of values: of each node's inputs, its outputs, the graph's outputs, and the weights."""
    made = len(net.inputs)
    weights: list[int] = []

    def number(reference: int) -> int | None:
        nonlocal made
        if reference == ABSENT:
            return None
        if reference == NEW_WEIGHT:
            weights.append(made)
            made += 1
            return made - 1
        if reference - BACK >= made:
            raise InvalidModel(f"a value {reference - BACK + 1:,} back is meant where {made:,} have been made")
        return made - 1 - (reference - BACK)

    inputs, outputs = [], []
    for node in net.nodes:
        inputs.append(tuple(number(reference) for reference in node.references))
        own: list[int | None] = []
        for named in node.outputs:
            own.append(made if named else None)
            made += named
        outputs.append(tuple(own))
    results = [found for reference in net.results if (found := number(reference)) is not None]
    if len(results) != len(net.outputs) or len(weights) != len(net.weights):
        raise InvalidModel(f"{len(weights)} weights are used of {len(net.weights)}, {len(results)} outputs are made of {len(net.outputs)}")
    return inputs, outputs, results, weights


def _names(
    net: Net, inputs: Sequence[Numbers], outputs: Sequence[Numbers], results: Sequence[int], weights: Sequence[int]
) -> dict[int, str]:
    """Inputs and outputs have their own; other values are v0, v1 …, weights w0, w1 … (with _ behind, where an input is named so)."""
    names = {number: value.name for number, value in enumerate(net.inputs)}
    for number, value in zip(results, net.outputs, strict=True):
        if names.setdefault(number, value.name) != value.name:
            raise InvalidModel(f"one value has the names {names[number]!r} and {value.name!r}")
    kept = set(names.values())
    if len(kept) != len(names) or "" in kept or len(set(results)) != len(results):
        raise InvalidModel("two inputs or outputs have the same name, or one has none")

    def name_all(numbers: Sequence[int | None], letter: str) -> None:
        count = 0
        for number in numbers:
            if number is not None and number not in names:
                name = f"{letter}{count}"
                while name in kept:
                    name += "_"
                names[number] = name
                count += 1

    name_all(weights, "w")
    name_all([number for made in outputs for number in made], "v")
    return names


def _value(info: onnx.ValueInfoProto) -> Value:
    if info.type.WhichOneof("value") != "tensor_type" or not info.type.tensor_type.HasField("shape"):
        raise InvalidModel(f"{info.name!r} is no tensor with a shape; the minimal profile has no place for others")
    tensor = info.type.tensor_type

    def axis(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
        # Below zero is how some exporters write "unknown".
        if dim.HasField("dim_value") and dim.dim_value >= 0:
            return int(dim.dim_value)
        return dim.dim_param or None

    return Value(info.name, tensor.elem_type, tuple(axis(dim) for dim in tensor.shape.dim))


def _value_info(value: Value) -> onnx.ValueInfoProto:
    info = onnx.ValueInfoProto(name=value.name)
    info.type.tensor_type.elem_type = value.type
    info.type.tensor_type.shape.SetInParent()
    for axis in value.shape:
        dim = info.type.tensor_type.shape.dim.add()
        if isinstance(axis, int):
            dim.dim_value = axis
        elif axis is not None:
            dim.dim_param = axis
    return info


def _tensor(tensor: TensorProto, what: str) -> Tensor:
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise InvalidModel(f"{what} lies in another file; load the model with edgewise.graph.Graph.load(path)")
    dtype, shape = dtype_name(tensor), tuple(tensor.dims)
    if dtype is None or tensor.HasField("segment"):
        raise InvalidModel(f"{what} is no array of numbers; {_ELSE}")
    data = tensor.raw_data if tensor.HasField("raw_data") else numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
    if len(data) != stored_bytes(dtype, shape):
        raise InvalidModel(f"{what} has {len(data)} bytes; {dtype} {list(shape)} takes {stored_bytes(dtype, shape)}")
    return Tensor(dtype, shape, _without_rest(data, dtype, shape))


def _without_rest(data: bytes, dtype: str, shape: tuple[int, ...]) -> bytes:
    """`data` with the bits of the last byte that no element takes as 0."""
    return bytes(coded.raw(coded.elements(data, dtype, shape), dtype)) if BITS[dtype] < 8 else data


def _tensor_proto(tensor: Tensor, name: str = "") -> TensorProto:
    return TensorProto(name=name, data_type=TYPES[tensor.dtype], dims=tensor.shape, raw_data=tensor.data)


def _by_dtype() -> dict[str, int]:
    numbers = TensorProto.DataType.values()
    return {name: number for number in numbers if (name := dtype_name(TensorProto(data_type=number))) is not None}


TYPES = _by_dtype()


def _attribute(node: onnx.NodeProto, given: AttributeProto) -> Attribute:
    what = f"attribute {given.name!r} of node {node.name!r}"
    content: Any
    if given.type == AttributeProto.INT:
        content = given.i
    elif given.type == AttributeProto.INTS:
        content = tuple(given.ints)
    elif given.type == AttributeProto.FLOAT:
        content = struct.pack("<f", given.f)
    elif given.type == AttributeProto.FLOATS:
        content = struct.pack(f"<{len(given.floats)}f", *given.floats)
    elif given.type == AttributeProto.STRING:
        content = given.s
    elif given.type == AttributeProto.STRINGS:
        content = tuple(given.strings)
    elif given.type == AttributeProto.TENSOR:
        content = _tensor(given.t, what)
    else:
        raise InvalidModel(f"the minimal profile has no place for {what} (a subgraph, or of another rare type); {_ELSE}")
    if given.ref_attr_name:
        raise InvalidModel(f"{what} stands for a function's; {_ELSE}")
    return Attribute(given.name, given.type, content)


def _attribute_proto(attribute: Attribute) -> AttributeProto:
    made = AttributeProto(name=attribute.name, type=attribute.type)  # type: ignore[arg-type]
    content = attribute.content
    if attribute.type == AttributeProto.INT:
        made.i = content
    elif attribute.type == AttributeProto.INTS:
        made.ints.extend(content)
    elif attribute.type == AttributeProto.FLOAT:
        (made.f,) = struct.unpack("<f", content)
    elif attribute.type == AttributeProto.FLOATS:
        made.floats.extend(struct.unpack(f"<{len(content) // 4}f", content))
    elif attribute.type == AttributeProto.STRING:
        made.s = content
    elif attribute.type == AttributeProto.STRINGS:
        made.strings.extend(content)
    else:
        made.t.CopyFrom(_tensor_proto(content))
    return made
