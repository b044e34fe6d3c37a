"""A model's inputs and outputs, read from its bytes without parsing its weights, and the check of every call against them.

Engines differ in what they tell: one forgets the names of axes, another reads past the end of an array of the wrong shape and takes the
process with it. So all of them share this. The `onnx` package could read the signature too, but it would copy every weight, and loading is
part of the peak memory that is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgewise import tflite
from edgewise.errors import InvalidInput, InvalidModel
from edgewise.types import Execution, Inputs, Outputs, Signature, TensorSpec

# TensorProto.DataType (onnx.proto3) -> numpy's name. bfloat16 and the 8- and 4-bit floats have none of numpy's own.
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64",
    12: "uint32", 13: "uint64",
}  # fmt: skip


def read(model: bytes) -> Signature:
    """The signature of a serialized ModelProto: real inputs (no initializers) and outputs. Unnamed axes are called "<tensor>_<i>".

    An engine's own form is recognised by how it begins, and says its signature itself (`edgewise.tflite`).

    Field numbers are onnx.proto3's: ModelProto.graph 7; GraphProto.initializer 5, .input 11, .output 12; ValueInfoProto.name 1, .type 2;
    TypeProto.tensor_type 1; Tensor.elem_type 1, .shape 2; TensorShapeProto.dim 1; Dimension.dim_value 1, .dim_param 2; TensorProto.name 8.
    Raises InvalidModel when the bytes are no model, or a tensor's type or rank isn't stated.
    """
    if tflite.recognised(model):
        return tflite.interface(model).signature
    try:
        view = memoryview(model)
        graph = next((value for number, value in _fields(view) if number == 7), None)
        if graph is None:
            raise InvalidModel("not an ONNX model: it holds no graph")
        fields = [(number, value) for number, value in _fields(graph) if number in (5, 11, 12)]
        constants = {_text(value, 8) for number, value in fields if number == 5}
        inputs = tuple(_spec(value) for number, value in fields if number == 11 and _text(value, 1) not in constants)
        outputs = tuple(_spec(value) for number, value in fields if number == 12)
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, InvalidModel):
            raise
        raise InvalidModel("not an ONNX model: its bytes can't be read as one; check that the file is complete") from error
    if not inputs or not outputs:
        raise InvalidModel(f"the graph has {len(inputs)} inputs and {len(outputs)} outputs; at least one of each is needed")
    return Signature(inputs, outputs)


def _fields(view: memoryview) -> Iterator[tuple[int, Any]]:
    """(field number, int or memoryview) of a protobuf message, in order; raises ValueError or IndexError where it is none."""
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(view, at)
            yield number, value
            continue
        size, at = _varint(view, at) if wire == 2 else ({1: 8, 5: 4}.get(wire, -1), at)
        if size < 0 or not number or at + size > len(view):
            raise ValueError("not a protobuf message")
        yield number, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise ValueError("not a varint")


def _first(view: Any, number: int) -> Any:
    return next((value for found, value in _fields(view) if found == number), None)


def _text(view: memoryview, number: int) -> str:
    value = _first(view, number)
    return bytes(value).decode() if value is not None else ""


def _spec(info: memoryview) -> TensorSpec:
    name = _text(info, 1)
    kind = _first(info, 2)
    tensor = _first(kind, 1) if kind is not None else None  # absent for a sequence, a map or an optional
    code = _first(tensor, 1) if tensor is not None else None
    if code not in DTYPES:
        raise InvalidModel(f"tensor {name!r} is of ONNX type {code}; inputs and outputs must be tensors of a type that numpy has")
    shape = _first(tensor, 2)
    if shape is None:
        raise InvalidModel(f"tensor {name!r} has no shape; run shape inference on the model first (edgewise.graph does)")
    axes: list[int | str] = []
    for number, dimension in _fields(shape):
        if number == 1:
            fixed, named = _first(dimension, 1), _text(dimension, 2)
            axes.append(int(fixed) if fixed is not None else named or f"{name}_{len(axes)}")
    return TensorSpec(name, tuple(axes), DTYPES[code])


def fixed_axes(signature: Signature, execution: Execution) -> dict[str, int]:
    """Named axes that `execution` fixes before the engine compiles, by the options `batch="1"` (the leading axis) and `axes="batch=1,…"`.

    Raises InvalidInput for an axis that the model doesn't have, or a batch that its fixed leading axis contradicts.
    """
    named = {axis for spec in signature.inputs for axis in spec.shape if isinstance(axis, str)}
    fixed: dict[str, int] = {}
    if batch := execution.options.get("batch"):
        size = _size("batch", batch)
        for spec in signature.inputs:
            leading = spec.shape[0] if spec.shape else size
            if isinstance(leading, str):
                fixed[leading] = size
            elif leading != size:
                raise InvalidInput(f"batch={size}, but input {spec.name!r} is fixed to {leading} in the model; use batch={leading}")
    for pair in filter(None, execution.options.get("axes", "").split(",")):
        axis, _, size_text = pair.partition("=")
        if axis not in named:
            raise InvalidInput(f"axes={pair!r}: the model's named axes are {', '.join(sorted(named)) or '(none)'}")
        fixed[axis] = _size(f"axes={axis}", size_text)
    return fixed


def _size(what: str, value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise InvalidInput(f"{what}={value!r}: give a whole number from 1 up")
    return int(value)


def with_axes(signature: Signature, axes: Mapping[str, int]) -> Signature:
    """`signature` with the named axes of `axes` set."""

    def fix(spec: TensorSpec) -> TensorSpec:
        return TensorSpec(spec.name, tuple(axes.get(axis, axis) if isinstance(axis, str) else axis for axis in spec.shape), spec.dtype)

    return Signature(tuple(map(fix, signature.inputs)), tuple(map(fix, signature.outputs)))


def bound_axes(signature: Signature, inputs: Inputs) -> dict[str, int]:
    """What each named axis is in `inputs`. Raises InvalidInput when names, dtypes or shapes don't fit the signature."""
    wanted = [spec.name for spec in signature.inputs]
    if set(inputs) != set(wanted):
        raise InvalidInput(f"inputs {sorted(inputs)} given, the model takes {wanted}")
    axes: dict[str, int] = {}
    for spec in signature.inputs:
        array = inputs[spec.name]
        if not isinstance(array, np.ndarray):
            raise InvalidInput(f"input {spec.name!r} is a {type(array).__name__}; give a numpy array of {spec.dtype}")
        if array.dtype != spec.dtype:
            raise InvalidInput(f"input {spec.name!r} is {array.dtype}, the model takes {spec.dtype}; use .astype({spec.dtype!r})")
        fits = array.ndim == len(spec.shape) and all(array.shape)
        for axis, size in zip(spec.shape, array.shape, strict=False):
            fits = fits and size == (axes.setdefault(axis, size) if isinstance(axis, str) else axis)
        if not fits:
            shown = "(" + ", ".join(str(axes.get(axis, axis)) if isinstance(axis, str) else str(axis) for axis in spec.shape) + ")"
            raise InvalidInput(f"input {spec.name!r} has shape {array.shape}, the model takes {shown}")
    return axes


def takes(model: bytes, inputs: Inputs) -> bool:
    """Whether `inputs` fit the model's signature, and into what an engine's own form was made for."""
    try:
        axes = bound_axes(read(model), inputs)
    except InvalidInput:
        return False
    card = tflite.interface(model).card if tflite.recognised(model) else None
    return card is None or card.beyond(axes) is None


def resized(signature: Signature, inputs: Inputs, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """`inputs` with the axes that `sizes` names at that size: cut, or filled up with zeros behind their end."""
    found = {}
    for spec in signature.inputs:
        array = inputs[spec.name]
        wanted = [sizes.get(axis, size) if isinstance(axis, str) else size for axis, size in zip(spec.shape, array.shape, strict=True)]
        array = array[tuple(map(slice, wanted))]
        if list(array.shape) != wanted:
            array = np.pad(array, [(0, size - has) for size, has in zip(wanted, array.shape, strict=True)])
        found[spec.name] = array
    return found


def cut(signature: Signature, outputs: Outputs, axes: Mapping[str, int]) -> Outputs:
    """`outputs` with named axes no longer than in `axes`."""
    return {
        spec.name: outputs[spec.name][tuple(slice(axes.get(axis) if isinstance(axis, str) else None) for axis in spec.shape)]
        for spec in signature.outputs
    }


class Gate:
    """Checks the inputs of every call, at the cost of a comparison when they look like the last ones (under a microsecond)."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._dtypes = [(spec.name, np.dtype(spec.dtype)) for spec in signature.inputs]
        self._last: dict[str, tuple[int, ...]] = {}

    def check(self, inputs: Inputs) -> bool:
        """Whether the shapes differ from the last call's. Raises InvalidInput as `bound_axes` does."""
        last = self._last
        if len(inputs) == len(last):
            for name, dtype in self._dtypes:
                array = inputs.get(name)
                if type(array) is not np.ndarray or array.shape != last[name] or array.dtype != dtype:
                    break
            else:
                return False
        bound_axes(self._signature, inputs)
        self._last = {name: array.shape for name, array in inputs.items()}
        return True


def checked(engine: str, execution: Execution, precisions: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Raises InvalidInput when `execution` asks `engine` for a precision, an option or a thread count that it hasn't got."""
    if execution.precision not in precisions:
        raise InvalidInput(f"{engine} has no native {execution.precision!r} on this CPU; use one of {', '.join(precisions)}")
    unknown = sorted(set(execution.options) - set(options))
    if unknown:
        raise InvalidInput(f"{engine} has no option {unknown[0]!r}; use one of {', '.join(options)}")
    if execution.threads < 1:
        raise InvalidInput(f"threads={execution.threads}: give 1 or more")


def choice(engine: str, execution: Execution, option: str, choices: Mapping[str, Any], default: str) -> Any:
    """What `choices` holds for the execution's `option`. Raises InvalidInput for a value that isn't among them."""
    value = execution.options.get(option, default)
    if value not in choices:
        raise InvalidInput(f"{engine} option {option}={value!r}; use one of {', '.join(choices)}")
    return choices[value]


def reason(error: Exception) -> str:
    """The first lines of an engine's message that say something, on one line."""
    noise = ("Exception from", "Check '", "FrontEnd API failed", "[ONNXRuntimeError] : 1 : FAIL :")
    lines = [line.strip() for line in str(error).replace("[ONNXRuntimeError] : 1 : FAIL : ", "").splitlines()]
    useful = [line for line in lines if line and not line.startswith(noise)] or [line for line in lines if line] or [type(error).__name__]
    return " ".join(useful)[:300]
