"""ModelInferRequest and ModelInferResponse without a copy of their tensors: protobuf reads and writes the little, raw contents pass it by.

The wire format: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError

from edgewise.errors import InvalidInput
from edgewise.serve import tensors
from edgewise.serve.grpc.descriptors import message

RAW_INPUTS = 7
RAW_OUTPUTS = 6
_RAW_INPUT_KEY = RAW_INPUTS << 3 | 2
_RAW_OUTPUT_KEY = bytes([RAW_OUTPUTS << 3 | 2])
_FIXED = {1: 8, 5: 4}

# Which field of InferTensorContents holds a datatype's elements. FP16 and BF16 have none: they go raw.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def read(data: bytes) -> tuple[Any, list[memoryview]]:
    """A ModelInferRequest without its raw_input_contents, and those as views of `data`. Raises InvalidInput for what is none."""
    try:
        head, raw = _apart(data)
        return message("ModelInferRequest").FromString(head), raw
    except (DecodeError, IndexError) as error:
        raise InvalidInput("the message is damaged: it is no ModelInferRequest") from error


def _apart(data: bytes) -> tuple[bytes, list[memoryview]]:
    """All fields but the raw contents, as they stand, and the raw contents. Raises IndexError, DecodeError."""
    view, at, kept = memoryview(data), 0, 0
    spans: list[memoryview] = []
    raw: list[memoryview] = []
    while at < len(data):
        begin = at
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 2:
            length, at = _varint(data, at)
        elif kind == 0:
            length = _varint(data, at)[1] - at
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise DecodeError("groups are of proto2")
        end = at + length
        if end > len(data):
            raise IndexError(end)
        if key == _RAW_INPUT_KEY:
            spans.append(view[kept:begin])
            raw.append(view[at:end])
            kept = end
        at = end
    if not raw:
        return data, raw
    spans.append(view[kept:])
    return b"".join(spans), raw


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends. Raises IndexError where the data does, DecodeError for over 64 bits."""
    first = data[at]
    if first < 0x80:
        return first, at + 1
    value, shift = first & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise DecodeError("a varint of over ten bytes")
    if value >> 64:
        raise DecodeError("a varint of over 64 bits")
    return value, at + 1


def _encoded(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def write(response: Any, raw: Sequence[bytes | memoryview]) -> bytes:
    """A ModelInferResponse with `raw` as its raw_output_contents, which it must not have itself."""
    parts: list[bytes | memoryview] = [response.SerializeToString()]
    for data in raw:
        parts += (_RAW_OUTPUT_KEY, _encoded(len(data)), data)
    return b"".join(parts)


def streamed(response: bytes) -> bytes:
    """A ModelStreamInferResponse of a ModelInferResponse's bytes, which is said to be the last one to its request, as Triton says it."""
    last = _last()
    return b"".join((b"\x12", _encoded(len(response) + len(last)), response, last))


@cache
def _last() -> bytes:
    made = message("ModelInferResponse")()
    made.parameters["triton_final_response"].bool_param = True
    return bytes(made.SerializeToString())


def stream_error(words: str, request: bytes) -> bytes:
    """A ModelStreamInferResponse that says what went wrong with `request`, by its id where it can be read."""
    made = message("ModelStreamInferResponse")(error_message=words)
    try:
        head, _ = read(request)
        made.infer_response.id, made.infer_response.model_name = head.id, head.model_name
    except InvalidInput:
        pass  # the words say so
    return bytes(made.SerializeToString())


def has_contents(datatype: str) -> bool:
    return datatype in _CONTENTS


def put(contents: Any, datatype: str, array: np.ndarray) -> None:
    """`array` into an InferTensorContents."""
    field = _CONTENTS[datatype]
    number = contents.DESCRIPTOR.fields_by_name[field].number
    if array.dtype.kind in "fb":
        # A packed field of these is their bytes, which are taken whole, and not element by element.
        data = tensors.to_bytes(array)
        contents.MergeFromString(b"".join((bytes([number << 3 | 2]), _encoded(len(data)), data)))
    elif array.dtype.kind == "O":
        getattr(contents, field).extend(value.encode() if isinstance(value, str) else bytes(value) for value in array.reshape(-1))
    else:
        getattr(contents, field).extend(array.reshape(-1).tolist())


def details(code: int, message: str, retry_after_s: float) -> bytes:
    """`grpc-status-details-bin`: a google.rpc.Status that holds a RetryInfo, which clients of gRPC's richer errors read."""
    delay = duration_pb2.Duration()
    delay.FromNanoseconds(round(retry_after_s * 1e9))
    info = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=_field(1, delay.SerializeToString()))
    return b"\x08" + _encoded(code) + _field(2, message.encode()) + _field(3, info.SerializeToString())


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _encoded(len(data)) + data


def typed(contents: Any, datatype: str, dtype: np.dtype[Any], shape: Sequence[int]) -> np.ndarray:
    """The tensor of an InferTensorContents. Raises InvalidInput where its elements are too few, too large, or of another type."""
    field = _CONTENTS.get(datatype)
    if field is None:
        raise InvalidInput(f"{datatype} has no typed contents in this protocol; send raw_input_contents")
    others = [each.name for each, _ in contents.ListFields() if each.name != field]
    if others:
        raise InvalidInput(f"{datatype} stands in {field}, and {others[0]} was given")
    values = getattr(contents, field)
    count = tensors.elements(shape)
    if len(values) != count:
        raise InvalidInput(f"{datatype} of shape {list(shape)} has {count} elements, and {field} has {len(values)}")
    if dtype.kind == "O":
        array = np.empty(count, object)
        array[:] = list(values)
        return array.reshape(shape)
    wide = np.asarray(values)
    array = wide.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(array, wide):
        raise InvalidInput(f"{field} holds a value that {datatype} can't hold")
    return array.reshape(shape)
