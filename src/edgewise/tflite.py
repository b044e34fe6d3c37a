"""LiteRT's model file (a flatbuffer), as far as it has to be understood: what it takes and gives, and where its constants lie.

Offsets are those of the schema (tensorflow/lite/schema/schema.fbs): a table's fields are numbered in the order in which they stand there.
Nothing here needs the flatbuffers package, and no byte is trusted: whatever points outside of the file is an error.

A file that edgewise made has a *card*: what the graph's signature was, and how far the file goes with it. It stands as JSON where the
format has a description, so that the file alone says all that loading it needs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from edgewise.errors import InvalidModel
from edgewise.types import Signature, TensorSpec

IDENTIFIER = b"TFL3"
# TensorType -> numpy's name; texts, resources, variants and elements of less than a byte have none.
DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 8: "complex64", 9: "int8", 10: "float64",
    11: "complex128", 12: "uint64", 15: "uint32", 16: "uint16",
}  # fmt: skip
MODEL_CODES, MODEL_SUBGRAPHS, MODEL_DESCRIPTION, MODEL_BUFFERS, MODEL_SIGNATURES = 1, 2, 3, 4, 7
_MOST_AXES = 64


@dataclass(frozen=True)
class Card:
    """What a form says of itself.

    signature: the graph's, with the axes that the form fixes as numbers. sizes: what the axes that stayed open were while it was made.
    rows: the leading axis, whose rows are answered one after the other; "" where the form takes just what it was made for.
    padded: axes that may be shorter, because zeros there change no answer. graph: SHA-256 of the ONNX model that it was made from.
    divergence: how far its answers lie from the graph's (relative L2), over `samples` samples.
    """

    signature: Signature
    sizes: Mapping[str, int] = field(default_factory=dict)
    rows: str = ""
    padded: tuple[str, ...] = ()
    graph: str = ""
    divergence: float = 0.0
    samples: int = 0

    def beyond(self, axes: Mapping[str, int]) -> str | None:
        """The first axis that is longer than what the form was made for; None where such inputs fit."""
        return next((axis for axis, size in axes.items() if axis != self.rows and size > self.sizes.get(axis, size)), None)


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs with the numbers of their tensors, in the signature's order; `card` is None for a file of another maker."""

    signature: Signature
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    card: Card | None


@dataclass(frozen=True)
class Constant:
    """One buffer: its number, where its bytes lie in the file, and the dtype and shape of the tensors that it is the value of."""

    buffer: int
    offset: int
    length: int
    dtype: str
    shape: tuple[int, ...]


def recognised(model: bytes | memoryview) -> bool:
    """Whether the bytes say that they are such a file."""
    return bytes(model[4:8]) == IDENTIFIER


def interface(model: bytes | memoryview) -> Interface:
    """What the file takes and gives. Raises InvalidModel for damaged bytes, and for what isn't a tensor of a type that numpy has."""
    top = root(model)
    tensors, inputs, outputs = _boundary(top)
    found = _card(top)
    if found is None:
        specs = [[_spec(tensors[number], name) for name, number in side] for side in (inputs, outputs)]
        signature = Signature(tuple(specs[0]), tuple(specs[1]))
    else:
        signature = found.signature
        if (len(signature.inputs), len(signature.outputs)) != (len(inputs), len(outputs)):
            raise _damaged("its card names another number of inputs and outputs than it has")
        for spec, (name, number) in zip((*signature.inputs, *signature.outputs), (*inputs, *outputs), strict=True):
            _check_card(spec, found.sizes, _spec(tensors[number], name))
    if not inputs or not outputs:
        raise InvalidModel(f"the model has {len(inputs)} inputs and {len(outputs)} outputs; at least one of each is needed")
    return Interface(signature, tuple(number for _, number in inputs), tuple(number for _, number in outputs), found)


def described(model: bytes, card: Card) -> bytes:
    """`model` with `card` on it: the text is added behind the end, and the description made to point there (offsets only point forward)."""
    top = root(model)
    place = top.place(MODEL_DESCRIPTION)
    if place is None:
        raise InvalidModel("the converter left out the description, where the card goes; use the release that edgewise names")
    text = msgspec.json.encode(card)
    end = -(-len(model) // 4) * 4
    changed = bytearray(model) + bytes(end - len(model)) + struct.pack("<I", len(text)) + text + b"\0"
    struct.pack_into("<I", changed, place, end - place)
    return bytes(changed)


def constants(model: bytes | memoryview, at_least: int) -> tuple[Constant, ...]:
    """Buffers of `at_least` bytes that are the value of tensors of one dtype and shape, in the order of their numbers.

    Raises InvalidModel for damaged bytes.
    """
    top = root(model)
    kinds: dict[int, set[tuple[str, tuple[int, ...]]]] = {}
    for graph in top.tables(MODEL_SUBGRAPHS):
        for tensor in graph.tables(0):
            kinds.setdefault(tensor.number(2, "I"), set()).add((DTYPES.get(tensor.number(1, "b"), ""), tensor.numbers(0)))
    found = []
    for buffer, table in enumerate(top.tables(MODEL_BUFFERS)):
        offset, length = table.run(0)
        if buffer and length >= max(at_least, 1) and len(kinds.get(buffer, ())) == 1:
            ((dtype, shape),) = kinds[buffer]
            found.append(Constant(buffer, offset, length, dtype, shape))
    return tuple(found)


@dataclass(frozen=True)
class Table:
    """A table of the file at `at`. Every read is held to the file's bounds."""

    data: memoryview
    at: int

    def read(self, kind: str, place: int) -> int:
        if place < 0 or place + struct.calcsize(kind) > len(self.data):
            raise _damaged(f"something points to byte {place} of {len(self.data)}")
        value: int = struct.unpack_from(f"<{kind}", self.data, place)[0]
        return value

    def place(self, number: int) -> int | None:
        """Where field `number` stands; None where it is left out."""
        table = self.at - self.read("i", self.at)
        entry = 4 + 2 * number
        offset = self.read("H", table + entry) if entry + 2 <= self.read("H", table) else 0
        return self.at + offset if offset else None

    def number(self, number: int, kind: str) -> int:
        place = self.place(number)
        return 0 if place is None else self.read(kind, place)

    def run(self, number: int, width: int = 1) -> tuple[int, int]:
        """First byte and count of a vector of elements of `width` bytes; of nothing where it is left out."""
        place = self.place(number)
        if place is None:
            return 0, 0
        start = place + self.read("I", place)
        count = self.read("I", start)
        if start + 4 + count * width > len(self.data):
            raise _damaged(f"{count} elements at byte {start} end behind its end")
        return start + 4, count

    def numbers(self, number: int, kind: str = "i") -> tuple[int, ...]:
        start, count = self.run(number, struct.calcsize(kind))
        return struct.unpack_from(f"<{count}{kind}", self.data, start)

    def text(self, number: int) -> str:
        start, count = self.run(number)
        return bytes(self.data[start : start + count]).decode(errors="replace")

    def tables(self, number: int) -> Iterator[Table]:
        start, count = self.run(number, 4)
        for place in range(start, start + 4 * count, 4):
            yield Table(self.data, place + self.read("I", place))


def root(model: bytes | memoryview) -> Table:
    """The model's own table. Raises InvalidModel."""
    data = memoryview(model)
    if not recognised(data):
        raise InvalidModel("not a LiteRT model: it doesn't begin as one")
    return Table(data, Table(data, 0).read("I", 0))


Named = list[tuple[str, int]]


def _boundary(top: Table) -> tuple[list[Table], Named, Named]:
    """The tensors of the first graph, and its inputs and outputs by name, in the order of the model that it was made from."""
    graph = next(top.tables(MODEL_SUBGRAPHS), None)
    if graph is None:
        raise _damaged("it holds no graph")
    tensors = list(graph.tables(0))
    signature = next((each for each in top.tables(MODEL_SIGNATURES) if not each.number(4, "I")), None)
    sides: list[Named] = []
    for side in (0, 1):
        if signature is not None and (named := [(each.text(0), each.number(1, "I")) for each in signature.tables(side)]):
            sides.append(sorted(named, key=lambda pair: _ordered(pair[0])))
        else:
            sides.append([(tensors[number].text(3) if number < len(tensors) else "", number) for number in graph.numbers(1 + side, "I")])
    if any(number >= len(tensors) for side in sides for _, number in side):
        raise _damaged("its inputs and outputs aren't among its tensors")
    return tensors, sides[0], sides[1]


def _ordered(name: str) -> tuple[str, int]:
    """The converter calls them args_0, args_1 … and output_0 …, and lists them by the alphabet."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number)) if number.isdecimal() and number.isascii() and len(number) < 9 else (name, 0)


def _spec(tensor: Table, name: str) -> TensorSpec:
    code = tensor.number(1, "b")
    if code not in DTYPES:
        raise InvalidModel(f"tensor {name!r} is of LiteRT's type {code}; inputs and outputs must be tensors of a type that numpy has")
    shape = tensor.numbers(7) or tensor.numbers(0)
    if len(shape) > _MOST_AXES:
        raise _damaged(f"tensor {name!r} has {len(shape)} axes")
    return TensorSpec(name, tuple(size if size >= 0 else f"{name}_{axis}" for axis, size in enumerate(shape)), DTYPES[code])


def _check_card(said: TensorSpec, sizes: Mapping[str, int], own: TensorSpec) -> None:
    """Raise where the card says another type or size than the tensor has: by its sizes, inputs are filled up."""
    shape = tuple(sizes.get(axis, axis) if isinstance(axis, str) else axis for axis in said.shape)
    differ = any(one != other for one, other in zip(shape, own.shape, strict=False) if isinstance(one, int) and isinstance(other, int))
    if said.dtype != own.dtype or len(shape) != len(own.shape) or differ:
        raise _damaged(f"its card says {said.name!r} is {said.dtype} {shape}, and it is {own.dtype} {own.shape}")


def _card(top: Table) -> Card | None:
    text = top.text(MODEL_DESCRIPTION)
    if not text.startswith("{"):
        return None
    try:
        return msgspec.json.decode(text, type=Card)
    except msgspec.MsgspecError as error:
        raise _damaged(f"its card can't be read ({error})") from error


def _damaged(how: str) -> InvalidModel:
    return InvalidModel(f"not a LiteRT model, or damaged: {how}; check that the file is complete")
