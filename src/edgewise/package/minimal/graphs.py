"""A `net.Net` without its weights' data, as bytes and back (docs/format.md).

A node that reads, is and gives what an earlier node did (the same operator, attributes and references, which are relative) is one number,
so a deep network takes little more than a shallow one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onnx import AttributeProto, TensorProto

from edgewise.coding.cursor import Cursor, signed, varint
from edgewise.errors import InvalidInput
from edgewise.package.limits import Limits
from edgewise.package.minimal import streams
from edgewise.package.minimal.net import BACK, NEW_WEIGHT, TYPES, Attribute, Net, Node, Value
from edgewise.package.minimal.streams import Kind
from edgewise.package.minimal.tables import NAMES, OPERATORS, SETS
from edgewise.package.minimal.values import data, read_data, read_text, text

_DTYPES = {number: name for name, number in TYPES.items()}
# Numbers of element types that share a byte with the number of axes; others follow it.
_FREQUENT = (
    TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.INT8, TensorProto.BOOL, TensorProto.FLOAT16,
    TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT16, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
    TensorProto.INT4, TensorProto.UINT4,
)  # fmt: skip
_LETTERS: dict[str, int] = {
    "i": AttributeProto.INT, "f": AttributeProto.FLOAT, "s": AttributeProto.STRING, "t": AttributeProto.TENSOR,
    "I": AttributeProto.INTS, "F": AttributeProto.FLOATS, "S": AttributeProto.STRINGS,
}  # fmt: skip
_OF_PYTHON: dict[type, int] = {int: AttributeProto.INT, bytes: AttributeProto.STRING, tuple: AttributeProto.INTS}

# A node's second number: inputs, pieces of attributes (7: how many follows), whether it reads as most nodes do, whether it gives other
# than one value.
_MANY = 7
_USUAL, _OTHER_OUTPUTS = 1 << 6, 1 << 7


class Budget:
    """Bytes that decoding may still make. One byte of a file can stand for a whole node, so nodes are counted as what they become."""

    def __init__(self, limit: int) -> None:
        self.limit = self.left = limit

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise InvalidInput(f"it unfolds to over {self.limit:,} bytes; raise Limits.minimal_bytes if you trust it")


def encode(net: Net) -> bytes:
    version = dict(net.opsets).get("", 0)
    others = [opset for opset in net.opsets if opset[0]]
    pieces = [varint(net.ir_version), varint(2 * version + bool(others))]
    if others:
        pieces += [varint(len(others)), *(text(domain) + varint(number) for domain, number in others)]
    for values in (net.inputs, net.outputs):
        pieces += [varint(len(values)), *map(_value, values)]
    pieces.append(varint(len(net.nodes)))
    known: dict[Node, int] = {}
    for node in net.nodes:
        if node in known:
            pieces.append(varint(known[node]))
        else:
            pieces.append(_node(node, len(known)))
            known[node] = len(known)
    pieces += map(varint, net.results)
    for weight in net.weights:
        pieces += [_head(TYPES[weight.dtype], len(weight.shape)), *map(varint, weight.shape)]
    return b"".join(pieces)


def decode(cursor: Cursor, limits: Limits, budget: Budget) -> tuple[Net, list[Kind]]:
    """The net without weights, and what those will be. Raises InvalidInput, and leaves the cursor behind it."""
    ir_version = cursor.varint(2**31 - 1)
    number = cursor.varint(2**32 - 1)
    opsets = [("", number >> 1)] if number >> 1 else []
    if number & 1:
        opsets += [(read_text(cursor), cursor.varint(2**31 - 1)) for _ in range(_count(cursor))]
    if len(dict(opsets)) != len(opsets):
        raise InvalidInput("it names an operator set twice")
    inputs, outputs = (tuple(_read_value(cursor, limits) for _ in range(_count(cursor))) for _ in range(2))
    nodes: list[Node] = []
    known: list[tuple[Node, int]] = []
    for _ in range(_count(cursor)):
        number = cursor.varint(len(known) + len(OPERATORS))
        if number >= len(known):
            known.append(_read_node(cursor, number - len(known), limits, budget))
            number = len(known) - 1
        else:
            budget.spend(known[number][1])
        nodes.append(known[number][0])
    results = tuple(cursor.varint() for _ in outputs)
    many = sum(node.references.count(NEW_WEIGHT) for node in nodes) + results.count(NEW_WEIGHT)
    if many > limits.tensors:
        raise InvalidInput(f"it has {many:,} weights, over {limits.tensors:,}; raise Limits.tensors if you trust it")
    kinds = [_read_kind(cursor, limits, budget) for _ in range(many)]
    return Net(ir_version, tuple(opsets), inputs, outputs, tuple(nodes), results, ()), kinds


def _node(node: Node, known: int) -> bytes:
    spelled = node.domain or node.operator not in OPERATORS
    lead = varint(known) + text(node.domain) + text(node.operator) if spelled else varint(known + 1 + OPERATORS.index(node.operator))
    attributes = _attributes(node.attributes)
    inputs, many = len(node.references), len(attributes)
    # Most nodes read what was made last, then weights that nothing else reads.
    usual = node.references == _usual(inputs)
    alone = node.outputs == (True,)
    second = min(inputs, _MANY) | min(many, _MANY) << 3 | (_USUAL if usual else 0) | (0 if alone else _OTHER_OUTPUTS)
    pieces = [lead, bytes([second])]
    if inputs >= _MANY:
        pieces.append(varint(inputs))
    if many >= _MANY:
        pieces.append(varint(many))
    if not usual:
        pieces += map(varint, node.references)
    if not alone:
        pieces += [varint(len(node.outputs)), bytes(node.outputs)]
    return b"".join([*pieces, *attributes])


def _read_node(cursor: Cursor, number: int, limits: Limits, budget: Budget) -> tuple[Node, int]:
    """A node, and what it costs each time that it stands there."""
    before = budget.left
    domain, operator = (read_text(cursor), read_text(cursor)) if number == 0 else ("", OPERATORS[number - 1])
    second = cursor.byte()
    inputs, many = second & _MANY, second >> 3 & _MANY
    inputs = _count(cursor) if inputs == _MANY and not second & _USUAL else cursor.varint(limits.tensors) if inputs == _MANY else inputs
    many = _count(cursor) if many == _MANY else many
    budget.spend(256 + 2 * len(operator) + 16 * inputs)
    references = _usual(inputs) if second & _USUAL else tuple(cursor.varint() for _ in range(inputs))
    outputs: tuple[bool, ...] = (True,)
    if second & _OTHER_OUTPUTS:
        flags = bytes(cursor.bytes(_count(cursor)))
        if not set(flags) <= {0, 1}:
            raise InvalidInput("a node's outputs are neither there nor left out")
        outputs = tuple(map(bool, flags))
        budget.spend(16 * len(outputs))
    attributes: list[Attribute] = []
    for _ in range(many):
        attributes += _read_attributes(cursor, limits, budget)
    if len({attribute.name for attribute in attributes}) != len(attributes):
        raise InvalidInput("a node has an attribute twice")
    attributes.sort(key=lambda attribute: attribute.name)
    return Node(operator, domain, references, outputs, tuple(attributes)), before - budget.left


def _usual(inputs: int) -> tuple[int, ...]:
    return (BACK, *[NEW_WEIGHT] * (inputs - 1)) if inputs else ()


def _attributes(attributes: Sequence[Attribute]) -> list[bytes]:
    """One piece for each set or name that says some of them."""
    left, pieces = list(attributes), []
    for size, number, held in _SETS_BY_SIZE:
        if size <= len(left) and all(attribute in left for attribute in held):
            left = [attribute for attribute in left if attribute not in held]
            pieces.append(varint(2 * number + 1))
    for attribute in left:
        name = _NAMES.get((attribute.name, attribute.type))
        lead = varint(2 * name + 2) if name is not None else varint(0) + text(attribute.name) + bytes([attribute.type])
        pieces.append(lead + _content(attribute))
    return pieces


def _read_attributes(cursor: Cursor, limits: Limits, budget: Budget) -> tuple[Attribute, ...]:
    number = cursor.varint()
    if number % 2:
        if number // 2 >= len(SETS):
            raise InvalidInput(f"attributes {number} aren't known to this edgewise")
        found = _SETS[number // 2]
        budget.spend(128 * len(found))
        return found
    if number == 0:
        name, kind = read_text(cursor), cursor.byte()
        if kind not in _LETTERS.values():
            raise InvalidInput(f"an attribute is of the unknown type {kind}")
    elif number // 2 - 1 < len(NAMES):
        name, letter = NAMES[number // 2 - 1]
        kind = _LETTERS[letter]
    else:
        raise InvalidInput(f"attribute {number} isn't known to this edgewise")
    before = len(cursor.data)
    content = _read_content(cursor, kind, limits, budget)
    budget.spend(128 + 8 * (before - len(cursor.data)))
    return (Attribute(name, kind, content),)


def _content(attribute: Attribute) -> bytes:
    content = attribute.content
    if attribute.type == AttributeProto.INT:
        return signed(content)
    if attribute.type == AttributeProto.INTS:
        return varint(len(content)) + b"".join(map(signed, content))
    if attribute.type == AttributeProto.FLOAT:
        return bytes(content)
    if attribute.type == AttributeProto.FLOATS:
        return varint(len(content) // 4) + bytes(content)
    if attribute.type == AttributeProto.STRING:
        return data(content)
    if attribute.type == AttributeProto.STRINGS:
        return varint(len(content)) + b"".join(map(data, content))
    return _head(TYPES[content.dtype], len(content.shape)) + b"".join(map(varint, content.shape)) + streams.encode_tensor(content)


def _read_content(cursor: Cursor, kind: int, limits: Limits, budget: Budget) -> Any:
    if kind == AttributeProto.INT:
        return _integer(cursor)
    if kind == AttributeProto.INTS:
        return tuple(_integer(cursor) for _ in range(_count(cursor)))
    if kind == AttributeProto.FLOAT:
        return bytes(cursor.bytes(4))
    if kind == AttributeProto.FLOATS:
        return bytes(cursor.bytes(4 * _count(cursor)))
    if kind == AttributeProto.STRING:
        return read_data(cursor)
    if kind == AttributeProto.STRINGS:
        return tuple(read_data(cursor) for _ in range(_count(cursor)))
    return streams.decode_tensor(cursor, _read_kind(cursor, limits, budget))


def _value(value: Value) -> bytes:
    def axis(size: int | str | None) -> bytes:
        return varint(0) if size is None else varint(size + 2) if isinstance(size, int) else varint(1) + text(size)

    return text(value.name) + _head(value.type, len(value.shape)) + b"".join(map(axis, value.shape))


def _read_value(cursor: Cursor, limits: Limits) -> Value:
    def axis() -> int | str | None:
        number = cursor.varint(2**53)
        return None if number == 0 else read_text(cursor) if number == 1 else number - 2

    name = read_text(cursor)
    kind, axes = _read_head(cursor, limits)
    return Value(name, kind, tuple(axis() for _ in range(axes)))


def _read_kind(cursor: Cursor, limits: Limits, budget: Budget) -> Kind:
    number, axes = _read_head(cursor, limits)
    if number not in _DTYPES:
        raise InvalidInput(f"a weight has the unknown dtype {number}")
    kind = Kind(_DTYPES[number], tuple(cursor.varint(2**53) for _ in range(axes)))
    # Also where an axis of 0 makes it empty: numpy has no arrays of such shapes.
    budget.spend(256 + replace(kind, shape=tuple(max(axis, 1) for axis in kind.shape)).unfolded_bytes)
    return kind


def _head(kind: int, axes: int) -> bytes:
    number = _FREQUENT.index(kind) if kind in _FREQUENT else 15
    lead = bytes([number | min(axes, 15) << 4])
    return lead + (varint(kind) if number == 15 else b"") + (varint(axes) if axes >= 15 else b"")


def _read_head(cursor: Cursor, limits: Limits) -> tuple[int, int]:
    byte = cursor.byte()
    kind = _FREQUENT[byte & 15] if byte & 15 < 15 else cursor.varint(2**31 - 1)
    axes = byte >> 4 if byte >> 4 < 15 else cursor.varint(2**31)
    if axes > limits.axes:
        raise InvalidInput(f"it has {axes:,} axes, over {limits.axes}")
    return kind, axes


def _integer(cursor: Cursor) -> int:
    number = cursor.signed()
    if not -(2**63) <= number < 2**63:
        raise InvalidInput(f"an attribute has the number {number:,}, which takes over 64 bits")
    return number


def _count(cursor: Cursor) -> int:
    """How many things follow, each of a byte at least."""
    return cursor.varint(len(cursor.data))


def _of_set(values: dict[str, Any]) -> tuple[Attribute, ...]:
    found = []
    for name, content in sorted(values.items()):
        kind = AttributeProto.FLOAT if isinstance(content, float) else _OF_PYTHON[type(content)]
        found.append(Attribute(name, kind, struct.pack("<f", content) if isinstance(content, float) else content))
    return tuple(found)


_SETS = tuple(map(_of_set, SETS))
# The largest first, so that a few numbers say much.
_SETS_BY_SIZE = sorted(((len(held), number, held) for number, held in enumerate(_SETS)), key=lambda each: -each[0])
_NAMES = {(name, _LETTERS[letter]): number for number, (name, letter) in enumerate(NAMES)}
