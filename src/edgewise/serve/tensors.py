"""Tensors on the wire, and as numpy has them: names of types, raw bytes, and JSON (Open Inference Protocol v2, "Tensor Data").

Raw contents are little-endian, row-major, without padding; BOOL is one byte, 0 or 1; BYTES are elements with a length of four bytes
before each. JSON knows no NaN: the strings "NaN", "Infinity" and "-Infinity" stand for what isn't finite, both ways (protobuf's JSON
mapping has the same).
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from edgewise.errors import InvalidInput

DTYPES: dict[str, str] = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8", "INT16": "int16",
    "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BF16": "bfloat16", "BYTES": "object",
}  # fmt: skip
DATATYPES: dict[str, str] = {name: datatype for datatype, name in DTYPES.items()}
DEEPEST = 64  # axes: numpy's own limit
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_LENGTH = struct.Struct("<I")


def _extension() -> Any:
    """C where it could be built; without it, the same numbers come and go more slowly."""
    try:
        from edgewise.serve import _floats  # type: ignore[attr-defined]  # compiled, where there is a compiler
    except ImportError:
        return None
    return _floats


_kernel = _extension()
_KNOWN: dict[str, np.dtype[Any]] = {name: np.dtype(dtype) for name, dtype in DTYPES.items() if name != "BF16"}

# numpy writes a type's name anew whenever it is asked for it.
_NAMED: dict[Any, str] = dict(DATATYPES)  # by name, and by type


def datatype_of(dtype: str | np.dtype[Any]) -> str:
    """The protocol's name of numpy's type. Raises InvalidInput for one that it has none for."""
    found = _NAMED.get(dtype)
    if found is None:
        name = dtype if isinstance(dtype, str) else dtype.name
        if name in DATATYPES:
            return _NAMED.setdefault(dtype, DATATYPES[name])
        raise InvalidInput(f"a tensor of {name} can't be sent; the protocol has {', '.join(DTYPES)}")
    return found


def dtype_of(datatype: str) -> np.dtype[Any]:
    """numpy's type; of BYTES object, whose elements are bytes. Raises InvalidInput for a name that the protocol hasn't got."""
    found = _KNOWN.get(datatype)
    if found is None:
        if datatype != "BF16":
            raise InvalidInput(f"datatype {str(datatype)[:40]!r}: give one of {', '.join(DTYPES)}")
        import ml_dtypes  # comes with onnx; numpy has no bfloat16

        found = _KNOWN.setdefault("BF16", np.dtype(ml_dtypes.bfloat16))
    return found


def elements(shape: Sequence[int]) -> int:
    """How many a tensor of `shape` has. Raises InvalidInput for what is no shape."""
    if len(shape) > DEEPEST:
        raise InvalidInput(f"a shape of {len(shape)} axes: at most {DEEPEST} are taken")
    count = beside = 1  # beside: without axes of 0, which numpy counts so
    for axis in shape:
        if axis < 0:
            raise InvalidInput(f"shape {list(shape)[:16]}: every axis has to be 0 or more")
        count *= axis
        beside *= axis or 1
    if beside >= 2**48:
        raise InvalidInput(f"shape {list(shape)[:16]} has more elements than any memory")
    return count


def from_bytes(data: bytes | bytearray | memoryview, datatype: str, shape: Sequence[int]) -> np.ndarray:
    """The tensor whose raw contents are `data`: a view of it where that may be (then read-only). Raises InvalidInput."""
    if datatype == "BYTES":
        return _split(memoryview(data), shape)
    dtype = dtype_of(datatype)
    count = elements(shape)
    if len(data) != count * dtype.itemsize:
        raise InvalidInput(f"{datatype} of shape {list(shape)} takes {count * dtype.itemsize} bytes, and {len(data)} were given")
    array = np.frombuffer(data, np.uint8 if datatype == "BOOL" else dtype)
    if datatype == "BOOL":
        if array.size and array.max() > 1:
            raise InvalidInput("BOOL: every byte has to be 0 or 1")
        array = array.view(np.bool_)
    return native(array).reshape(shape)


def native(array: np.ndarray) -> np.ndarray:
    """A view of raw contents, as engines read it: in whole words, while what stands behind a JSON header may begin anywhere."""
    if sys.byteorder == "big":
        array = array.byteswap()
    return array if array.flags.aligned else array.copy()


def to_bytes(array: np.ndarray) -> bytes | memoryview:
    """The raw contents, without a copy where the array lies as they do."""
    if array.dtype.kind == "O":
        return _joined(array)
    if sys.byteorder == "big":
        array = array.byteswap()
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    if array.size == 0:
        return b""
    return array.reshape(-1).view(np.uint8).data


def from_text(text: bytes | memoryview, datatype: str, shape: Sequence[int]) -> np.ndarray:
    """`from_json`, of JSON that nobody has read yet: FP32 without an object for each number. Raises InvalidInput."""
    if datatype == "FP32" and _kernel is not None:
        count = elements(shape)
        if 2 * count <= len(text) + 1:  # a digit and a comma at least: the shape alone allocates nothing
            array = np.empty(count, np.float32)
            if _kernel.parse(text, array):
                return array.reshape(shape)
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"data is no JSON: {error}") from error
    return from_json(data, datatype, shape)


def to_text(array: np.ndarray) -> msgspec.Raw | list[Any]:
    """`to_json`, as a piece of JSON where that is quicker. Raises InvalidInput."""
    if array.dtype == np.float32 and _kernel is not None:
        return msgspec.Raw(_kernel.write(np.ascontiguousarray(array)))
    return to_json(array)


def from_json(data: Any, datatype: str, shape: Sequence[int]) -> np.ndarray:
    """The tensor of JSON values, flat or nested as `shape` is. Nothing is cast that would change it. Raises InvalidInput."""
    dtype, count = dtype_of(datatype), elements(shape)
    values = _flat(data, shape)
    if len(values) != count:
        raise InvalidInput(f"{datatype} of shape {list(shape)} has {count} elements, and {len(values)} were given")
    try:
        if dtype.kind == "O":
            array = np.empty(count, object)
            array[:] = [value.encode() for value in msgspec.convert(values, list[str])]
            return array.reshape(shape)
        if dtype.kind == "b":
            return np.array(msgspec.convert(values, list[bool]), dtype).reshape(shape)
        if dtype.kind in "iu":
            return np.array(msgspec.convert(values, list[int]), dtype).reshape(shape)
        return _floats(values, dtype).reshape(shape)
    except (msgspec.ValidationError, OverflowError, UnicodeEncodeError) as error:
        raise InvalidInput(f"data is not of {datatype}: {error}") from error


def to_json(array: np.ndarray) -> list[Any]:
    """Flat values for JSON. Raises InvalidInput for BYTES that are no text: those go as raw contents alone."""
    flat = array.reshape(-1)
    kind = flat.dtype.kind
    if kind == "O":
        try:
            return [value if isinstance(value, str) else value.decode() for value in flat]
        except UnicodeDecodeError as error:
            raise InvalidInput("an output's BYTES are no UTF-8, so JSON can't hold them; ask for them with binary_data") from error
    if kind in "biu":
        return flat.tolist()
    if kind == "V":
        flat = flat.astype(np.float32)
    values: list[Any] = flat.tolist()
    if not np.isfinite(flat).all():
        for place in np.flatnonzero(~np.isfinite(flat)).tolist():
            value = values[place]
            values[place] = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return values


def _flat(data: Any, shape: Sequence[int]) -> list[Any]:
    """Values in order. What is nested has to be as deep and as long as `shape` says."""
    if not isinstance(data, list):
        raise InvalidInput("data has to be a list")
    if not any(isinstance(value, list) for value in data):
        return data
    level = [data]
    for depth, axis in enumerate(shape):
        for row in level:
            if not isinstance(row, list) or len(row) != axis:
                raise InvalidInput(f"data doesn't have the shape {list(shape)}: axis {depth} isn't {axis} long everywhere")
        level = [value for row in level for value in row]
    return level


def _floats(values: list[Any], dtype: np.dtype[Any]) -> np.ndarray:
    try:
        numbers = msgspec.convert(values, list[float])
    except msgspec.ValidationError:
        numbers = msgspec.convert([NOT_FINITE.get(value, value) if isinstance(value, str) else value for value in values], list[float])
    try:
        with np.errstate(over="raise"):
            return np.array(numbers, dtype)
    except FloatingPointError as error:
        raise InvalidInput(f"a value of data is beyond what {dtype.name} holds") from error


def _split(data: memoryview, shape: Sequence[int]) -> np.ndarray:
    count, at = elements(shape), 0
    found: list[bytes] = []
    if count * 4 > len(data):
        raise InvalidInput(f"BYTES of shape {list(shape)} take at least {count * 4} bytes, and {len(data)} were given")
    for _ in range(count):
        if at + 4 > len(data):
            raise InvalidInput(f"BYTES of shape {list(shape)}: {count} elements expected, and the contents end after {len(found)}")
        (length,) = _LENGTH.unpack_from(data, at)
        if at + 4 + length > len(data):
            raise InvalidInput(f"BYTES: element {len(found)} says that it has {length} bytes, and {len(data) - at - 4} follow")
        found.append(bytes(data[at + 4 : at + 4 + length]))
        at += 4 + length
    if at != len(data):
        raise InvalidInput(f"BYTES of shape {list(shape)}: {len(data) - at} bytes follow its last element")
    array = np.empty(count, object)
    array[:] = found
    return array.reshape(shape)


def _joined(array: np.ndarray) -> bytes:
    parts = []
    for value in array.reshape(-1):
        data = value.encode() if isinstance(value, str) else bytes(value)
        parts += [_LENGTH.pack(len(data)), data]
    return b"".join(parts)
