"""One inference over HTTP: a request's JSON and raw tensors to a host's `Request`, its `Answer` back to JSON and raw tensors.

The body is JSON, or JSON followed by raw tensors ("binary tensor data extension"); then `Inference-Header-Content-Length` says how long the
JSON is, and each input's `binary_data_size` how many of the bytes behind it are its own, in order.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edgewise.errors import InvalidInput
from edgewise.host import Answer, Description, Request
from edgewise.serve import classification, parameters, tensors
from edgewise.serve.http import OCTETS, Reply
from edgewise.serve.parameters import digits
from edgewise.serve.shared_memory import SharedMemory


class _Input(msgspec.Struct, gc=False):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, Any] | None = None


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Any] | None = None


class _Inference(msgspec.Struct, gc=False):
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    id: str = ""
    parameters: dict[str, Any] | None = None


class Wanted(NamedTuple):
    """One output, as it was asked for. classes: 0 for the tensor itself. region: of shared memory; "" for in the answer."""

    name: str
    binary: bool = False
    classes: int = 0
    region: str = ""
    offset: int = 0
    size: int = 0


class Asked(NamedTuple):
    """outputs: the wanted ones; None for all. binary: how outputs that say nothing are sent."""

    request: Request
    id: str
    outputs: tuple[Wanted, ...] | None
    binary: bool

    @property
    def classifies(self) -> bool:
        return self.outputs is not None and any(wanted.classes for wanted in self.outputs)


class _Form(NamedTuple):
    """What a JSON asks whose inputs are all raw tensors. inputs: name, first byte, dtype, shape and elements of each. size: of all."""

    inputs: tuple[tuple[str, int, np.dtype[Any], list[int], int], ...]
    size: int
    outputs: tuple[Wanted, ...] | None
    names: tuple[str, ...]
    options: dict[str, Any]
    binary: bool


FORMS, FORM_BYTES = 256, 2048  # how many are remembered at a time, and how long their JSON may be
_forms: dict[bytes, _Form] = {}
_decoder = msgspec.json.Decoder(_Inference)
_encoder = msgspec.json.Encoder()
_NOTHING: dict[str, Any] = {}


def length(text: str) -> int | None:
    """Of the JSON, as Inference-Header-Content-Length has it; None where there is no such header. Raises InvalidInput."""
    return digits(text) if text else None


def read(body: bytes | memoryview, header: int | None, model: str, version: str, client: str, memory: SharedMemory, now: float) -> Asked:
    """What a body asks. header: Inference-Header-Content-Length; None where the whole body is JSON. now: of time.monotonic().

    Raises InvalidInput, NotFound for shared memory that isn't there.
    """
    if header is not None and 0 < header <= FORM_BYTES:
        form = _forms.get(bytes(body[:header]))
        if form is not None:
            return _filled(form, memoryview(body)[header:], model, version, client, now)
    if header is None:
        given, raw = _decoded(body), memoryview(b"")
    elif 0 < header <= len(body):
        view = memoryview(body)
        given, raw = _decoded(view[:header]), view[header:]
    else:
        raise InvalidInput(f"Inference-Header-Content-Length is {header}, and the body has {len(body)} bytes")
    options = given.parameters or _NOTHING
    inputs: dict[str, np.ndarray] = {}
    at = 0
    for each in given.inputs:
        if each.name in inputs:
            raise InvalidInput(f"input {each.name[:80]!r} is given twice")
        try:
            own = each.parameters
            if own and "binary_data_size" in own:
                size = parameters.whole(own, "binary_data_size")
                if size > len(raw) - at:
                    raise InvalidInput(f"binary_data_size is {size}, and {len(raw) - at} bytes are left behind the JSON")
                array = tensors.from_bytes(raw[at : at + size], each.datatype, each.shape)
                at += size
            elif own and "shared_memory_region" in own:
                array = _shared(each, own, client, memory)
            elif each.data is msgspec.UNSET:
                raise InvalidInput("has neither data, nor binary_data_size, nor shared_memory_region")
            else:
                array = tensors.from_text(each.data, each.datatype, each.shape)
        except InvalidInput as error:
            raise InvalidInput(f"input {each.name[:80]!r}: {error}") from error
        inputs[each.name] = array
    if at != len(raw):
        raise InvalidInput(f"{len(raw) - at} bytes behind the JSON belong to no input; give binary_data_size for each input that has some")
    if not inputs:
        raise InvalidInput("inputs is empty; give the model's inputs")
    outputs = None if given.outputs is None or not given.outputs else tuple(_wanted(each, options) for each in given.outputs)
    names: tuple[str, ...] = ()
    if outputs is not None:
        names = tuple(each.name for each in outputs)
        if len(set(names)) != len(names):
            raise InvalidInput("an output is asked for twice")
    binary = parameters.flag(options, "binary_data_output", False)
    request = _request(model, inputs, version, names, options, client, now)
    if header is not None and header <= FORM_BYTES and not given.id:
        _remember(bytes(body[:header]), given, _Form((), len(raw), outputs, names, options, binary))
    return Asked(request, given.id, outputs, binary)


def _request(
    model: str, inputs: dict[str, np.ndarray], version: str, names: tuple[str, ...], options: dict[str, Any], client: str, now: float
) -> Request:
    if not options:
        return Request(model, inputs, version, names, client=client)
    deadline, priority = parameters.deadline(options, now), parameters.priority(options)
    return Request(model, inputs, version, names, deadline, priority=priority, client=client)


def _remember(text: bytes, given: _Inference, form: _Form) -> None:
    """Clients ask the same of tensor after tensor: what their JSON says is read once, where nothing but the tensors changes."""
    inputs, at = [], 0
    for each in given.inputs:
        own = each.parameters or _NOTHING
        if list(own) != ["binary_data_size"] or each.datatype in ("BYTES", "BOOL"):
            return
        dtype = tensors.dtype_of(each.datatype)
        count = tensors.elements(each.shape)
        inputs.append((each.name, at, dtype, each.shape, count))
        at += count * dtype.itemsize
    if len(_forms) >= FORMS:
        _forms.clear()
    _forms[text] = form._replace(inputs=tuple(inputs))


def _filled(form: _Form, raw: memoryview, model: str, version: str, client: str, now: float) -> Asked:
    if len(raw) != form.size:
        raise InvalidInput(f"{len(raw)} bytes follow the JSON, and its inputs have {form.size}")
    inputs = {}
    for name, at, dtype, shape, count in form.inputs:
        array = np.frombuffer(raw, dtype, count, at)
        inputs[name] = tensors.native(array).reshape(shape)
    return Asked(_request(model, inputs, version, form.names, form.options, client, now), "", form.outputs, form.binary)


def bare(body: bytes | memoryview, model: Description, version: str, client: str) -> Asked:
    """What a body of nothing but raw contents asks ("raw binary request"): of the only input, all outputs as raw contents too.

    Raises InvalidInput where the model has several inputs, or the contents don't say its shape.
    """
    if len(model.signature.inputs) != 1:
        raise InvalidInput(f"raw contents alone: model {model.name} takes {len(model.signature.inputs)} inputs; say which is which in JSON")
    (spec,) = model.signature.inputs
    datatype = tensors.datatype_of(spec.dtype)
    one = math.prod(axis for axis in spec.shape if isinstance(axis, int)) * tensors.dtype_of(datatype).itemsize
    free = sum(1 for axis in spec.shape if not isinstance(axis, int))
    if free > 1 or not one or len(body) % one or datatype == "BYTES":
        raise InvalidInput(f"{len(body)} raw bytes don't say the shape of {spec.name!r} {spec.shape}; say it in JSON")
    shape = [axis if isinstance(axis, int) else len(body) // one for axis in spec.shape]
    inputs = {spec.name: tensors.from_bytes(body, datatype, shape)}
    return Asked(Request(model.name, inputs, version, client=client), "", None, True)


def answer(
    asked: Asked, found: Answer, description: Description | None, memory: SharedMemory
) -> tuple[list[bytes | memoryview], int | None]:
    """The body in pieces, and the length of its JSON where raw tensors follow it. description: for classes alone.

    Raises InvalidInput, NotFound where what was asked of an output can't be.
    """
    wanted = asked.outputs or [Wanted(name, asked.binary) for name in found.outputs]
    outputs: list[dict[str, Any]] = []
    raw: list[bytes | memoryview] = []
    binary = False
    for each in wanted:
        array = found.outputs[each.name]
        if each.classes:
            array = _classes(array, each, description)
        told: dict[str, Any] = {"name": each.name, "datatype": tensors.datatype_of(array.dtype), "shape": array.shape}
        if each.region:
            data = tensors.to_bytes(array)
            memory.write(asked.request.client, each.region, each.offset, each.size, data)
            told["parameters"] = {
                "shared_memory_region": each.region, "shared_memory_offset": each.offset, "shared_memory_byte_size": len(data)
            }  # fmt: skip
        elif each.binary:
            data = tensors.to_bytes(array)
            told["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
            binary = True
        else:
            told["data"] = tensors.to_text(array)
        outputs.append(told)
    whole: dict[str, Any] = {"model_name": found.model, "model_version": found.version, "outputs": outputs}
    if asked.id:
        whole["id"] = asked.id
    head = _encoder.encode(whole)
    return [head, *raw], len(head) if binary else None


def reply(asked: Asked, found: Answer, description: Description | None, memory: SharedMemory) -> Reply:
    """`answer`, as HTTP has it."""
    parts, header = answer(asked, found, description, memory)
    if header is None:
        return Reply(200, parts)
    return Reply(200, parts, OCTETS, ((b"inference-header-content-length", b"%d" % header),))


def _decoded(data: bytes | memoryview) -> _Inference:
    try:
        return _decoder.decode(data)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(f"no inference request: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _lenient(data, error)


def _lenient(data: bytes | memoryview, error: Exception) -> _Inference:
    """JSON with NaN and Infinity written as they are, which is none, but what Python's json and others write."""
    try:
        if b"NaN" not in bytes(data) and b"Infinity" not in bytes(data):
            raise ValueError
        plain = json.loads(bytes(data), parse_constant=lambda name: name)
        return _decoder.decode(_encoder.encode(plain))
    except (ValueError, RecursionError):
        raise InvalidInput(f"the body is no JSON: {error}") from error


def _wanted(given: _Output, options: dict[str, Any]) -> Wanted:
    own = given.parameters
    if not own:
        return Wanted(given.name, parameters.flag(options, "binary_data_output", False))
    if len(own) == 1 and isinstance(only := own.get("binary_data"), bool):  # as nearly everybody asks
        return Wanted(given.name, only)
    binary = parameters.flag(own, "binary_data", parameters.flag(options, "binary_data_output", False))
    region = parameters.text(own, "shared_memory_region")
    offset, size = (parameters.whole(own, f"shared_memory_{name}") for name in ("offset", "byte_size"))
    return Wanted(given.name, binary, parameters.whole(own, "classification"), region, offset, size)


def _shared(given: _Input, own: dict[str, Any], client: str, memory: SharedMemory) -> np.ndarray:
    offset, size = (parameters.whole(own, f"shared_memory_{name}") for name in ("offset", "byte_size"))
    data = memory.read(client, parameters.text(own, "shared_memory_region"), offset, size)
    return tensors.from_bytes(data, given.datatype, given.shape)


def _classes(array: np.ndarray, wanted: Wanted, description: Description | None) -> np.ndarray:
    labels: Sequence[str] = description.labels if description else ()
    return classification.top(array, wanted.classes, labels, batched=description is None or description.batched)
