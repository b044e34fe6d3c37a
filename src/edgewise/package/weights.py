"""A graph's large weights: taken out of its ONNX form, put back, and refused where they point outside of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from edgewise.errors import InvalidModel, InvalidPackage
from edgewise.package.manifest import BITS, Entry, Tensor, stored_bytes

ReadTensor = Callable[[Tensor], "memoryview | bytes"]
ReadInto = Callable[[Tensor, memoryview], None]

# Where TensorProto can hold its elements (onnx.proto3).
_DATA_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "raw_data", "double_data", "uint64_data")
# Length-delimited fields: ModelProto.graph = 7, GraphProto.initializer = 5, TensorProto.raw_data = 9.
_GRAPH, _INITIALIZER, _RAW_DATA = (bytes([number << 3 | 2]) for number in (7, 5, 9))


@dataclass(frozen=True)
class Weight:
    """One weight that was taken out: `data` is ONNX's raw_data (little-endian, small elements packed)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def take_out(proto: onnx.ModelProto, at_least: int) -> tuple[bytes, list[Weight]]:
    """The model without the data of its initializers of `at_least` bytes (they keep name, dtype and shape), and that data.

    Raises InvalidModel when a weight lies in another file.
    """
    left = onnx.ModelProto()
    left.CopyFrom(proto)
    weights = []
    for tensor in tensors(left):
        if _external(tensor):
            raise InvalidModel(f"the weight {tensor.name!r} lies in another file; load the model with edgewise.graph.Graph.load(path)")
    for tensor in left.graph.initializer:
        dtype = dtype_name(tensor)
        shape = tuple(tensor.dims)
        if dtype is None or stored_bytes(dtype, shape) < at_least:
            continue
        # to_array reads every way that ONNX has of writing elements; from_array writes raw_data alone.
        data = tensor.raw_data if tensor.HasField("raw_data") else numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
        if len(data) != stored_bytes(dtype, shape):
            raise InvalidModel(
                f"the weight {tensor.name!r} has {len(data)} bytes; {dtype} {list(shape)} takes {stored_bytes(dtype, shape)}"
            )
        for name in _DATA_FIELDS:
            tensor.ClearField(name)
        weights.append(Weight(tensor.name, dtype, shape, data))
    return left.SerializeToString(deterministic=True), weights


def put_back(graph: bytes, entry: Entry, read: ReadTensor, what: str) -> onnx.ModelProto:
    """The entry's model with its weights inside. Raises InvalidPackage."""
    proto = parse(graph, entry, what)
    rows = {tensor.name: tensor for tensor in entry.tensors}
    for tensor in proto.graph.initializer:
        if tensor.name in rows:
            tensor.raw_data = bytes(read(rows[tensor.name]))
    return proto


def model_bytes(graph: bytes, entry: Entry, read_into: ReadInto, what: str) -> bytes:
    """The same as bytes, for an engine. Weights are decoded one by one, straight to their place: little but the result is ever held.

    Protobuf nests messages by their length, so the outer ones are written by hand around what the library serializes.
    """
    proto = parse(graph, entry, what)
    rows = {tensor.name: tensor for tensor in entry.tensors}
    pieces: list[bytes | Tensor] = []
    for tensor in proto.graph.initializer:
        described, row = tensor.SerializeToString(deterministic=True), rows.get(tensor.name)
        size = stored_bytes(row.dtype, row.shape) if row else 0
        lead = _RAW_DATA + _varint(size) if row else b""
        pieces += [_INITIALIZER + _varint(len(described) + len(lead) + size) + described + lead, *([row] if row else [])]
    proto.graph.ClearField("initializer")
    pieces.append(proto.graph.SerializeToString(deterministic=True))
    proto.ClearField("graph")
    outer = proto.SerializeToString(deterministic=True)
    length = sum(stored_bytes(piece.dtype, piece.shape) if isinstance(piece, Tensor) else len(piece) for piece in pieces)
    start = outer + _GRAPH + _varint(length)
    if len(start) + length > 2**31 - 1:
        raise InvalidPackage(f"{what}: entry {entry.name!r} is a model of {length:,} bytes; one ONNX message can't hold over 2 GB")
    return written([start, *pieces], len(start) + length, read_into)


def written(pieces: Iterable[bytes | Tensor], length: int, read_into: ReadInto) -> bytes:
    """`length` bytes in one buffer: the pieces one after the other, weights decoded in their places."""
    # BytesIO writes into what it was given, where nobody else holds that, and gives it away as it is; joining would hold weights twice.
    model = io.BytesIO(bytes(length))
    with model.getbuffer() as view:
        at = 0
        for piece in pieces:
            end = at + (stored_bytes(piece.dtype, piece.shape) if isinstance(piece, Tensor) else len(piece))
            with view[at:end] as place:
                if isinstance(piece, Tensor):
                    read_into(piece, place)
                else:
                    place[:] = piece
            at = end
    return model.getvalue()


def parse(graph: bytes, entry: Entry, what: str) -> onnx.ModelProto:
    """The entry's graph member, held against the manifest: nothing outside the file, a place for every row, every other weight whole."""
    where = f"{what}: entry {entry.name!r}"
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(graph)
    except DecodeError as error:
        raise InvalidPackage(f"{where} is no ONNX model ({error}); pack it again") from error
    if not proto.ir_version or not proto.HasField("graph") or not proto.graph.output:
        raise InvalidPackage(f"{where} is no ONNX model (no IR version, graph or outputs); pack it again")
    for tensor in tensors(proto):
        if _external(tensor):
            raise InvalidPackage(f"{where}: the weight {tensor.name[:80]!r} points outside the package; that is never allowed")
    declared = [tensor.name for tensor in proto.graph.initializer]
    if len(set(declared)) != len(declared):
        raise InvalidPackage(f"{where} has two weights of one name; pack it again")
    rows = {tensor.name: tensor for tensor in entry.tensors}
    if left_over := rows.keys() - set(declared):
        raise InvalidPackage(f"{where}: the manifest lists {min(left_over)[:80]!r}, which the graph doesn't know; pack it again")
    for tensor in proto.graph.initializer:
        _check_initializer(tensor, rows.get(tensor.name), where)
    _check_signature(proto, entry, where)
    return proto


def dtype_name(tensor: onnx.TensorProto) -> str | None:
    """numpy's name of the elements, or None where they can't lie outside the graph (strings, unknown types)."""
    try:
        name = helper.tensor_dtype_to_np_dtype(tensor.data_type).name
    except (KeyError, TypeError):
        return None
    return name if name in BITS else None


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: weights, attributes, subgraphs, functions, training graphs."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)
        yield from _attribute_tensors(function.attribute_proto)
    for training in proto.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        yield from _attribute_tensors(node.attribute)


def _attribute_tensors(attributes: Iterator[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    # The attribute's own `type` may lie: what is there counts. Nesting is bounded by protobuf's parser (100 levels).
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("sparse_tensor"):
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
        for sparse in attribute.sparse_tensors:
            yield from (sparse.values, sparse.indices)
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)


def _external(tensor: onnx.TensorProto) -> bool:
    return tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data) > 0


def _check_initializer(tensor: onnx.TensorProto, row: Tensor | None, where: str) -> None:
    name = f"{where}: the weight {tensor.name[:80]!r}"
    held = {field for field in _DATA_FIELDS if (tensor.HasField(field) if field == "raw_data" else len(getattr(tensor, field)))}
    dtype = dtype_name(tensor)
    if row is not None:
        if held or (dtype, tuple(tensor.dims)) != (row.dtype, row.shape):
            raise InvalidPackage(
                f"{name} is {dtype} {list(tensor.dims)} in the graph, {row.dtype} {list(row.shape)} in the manifest; pack it again"
            )
    elif dtype is not None and held <= {"raw_data"} and len(tensor.raw_data) != stored_bytes(dtype, tuple(tensor.dims)):
        raise InvalidPackage(f"{name} has no data, or data of another length than {dtype} {list(tensor.dims)} takes; pack it again")


def _check_signature(proto: onnx.ModelProto, entry: Entry, where: str) -> None:
    weights = {tensor.name for tensor in proto.graph.initializer} | {tensor.values.name for tensor in proto.graph.sparse_initializer}
    given = ([value.name for value in proto.graph.input if value.name not in weights], [value.name for value in proto.graph.output])
    said = ([spec.name for spec in entry.signature.inputs], [spec.name for spec in entry.signature.outputs])
    if given != said:
        raise InvalidPackage(f"{where} takes {given[0]} and gives {given[1]}, its manifest says {said[0]} and {said[1]}; pack it again")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
