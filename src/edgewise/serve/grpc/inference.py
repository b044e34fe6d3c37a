"""One inference over gRPC: a ModelInferRequest's bytes to a host's `Request`, its `Answer` back to a ModelInferResponse's.

Outputs go raw, but where every input came as typed contents: then they go as these, as far as the protocol has some for their type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgewise.errors import InvalidInput
from edgewise.host import Answer, Description, Request
from edgewise.serve import classification, parameters, tensors
from edgewise.serve.grpc import wire
from edgewise.serve.grpc.descriptors import message
from edgewise.serve.inference import Wanted
from edgewise.serve.shared_memory import SharedMemory

_NOTHING: dict[str, Any] = {}


class Asked(NamedTuple):
    """outputs: the wanted ones, () for all. typed: whether the answer's tensors go as typed contents."""

    request: Request
    id: str
    outputs: tuple[Wanted, ...]
    typed: bool

    @property
    def classifies(self) -> bool:
        return any(wanted.classes for wanted in self.outputs)


def read(data: bytes, client: str, memory: SharedMemory, now: float, left_s: float | None = None) -> Asked:
    """What a message asks. now: of time.monotonic(). left_s: of the RPC's own deadline; the earlier one counts.

    Raises InvalidInput, NotFound for shared memory that isn't there.
    """
    given, raw = wire.read(data)
    options = _plain(given.parameters)
    inputs, typed = _inputs(given.inputs, raw, client, memory)
    outputs = tuple(_wanted(each) for each in given.outputs)
    names = tuple(each.name for each in outputs)
    if len(set(names)) != len(names):
        raise InvalidInput("an output is asked for twice")
    deadline, priority = None, 0
    if options:
        deadline, priority = parameters.deadline(options, now), parameters.priority(options)
    if left_s is not None:
        deadline = now + left_s if deadline is None else min(deadline, now + left_s)
    request = Request(given.model_name, inputs, given.model_version, names, deadline, priority, client)
    return Asked(request, given.id, outputs, typed)


def write(asked: Asked, found: Answer, description: Description | None, memory: SharedMemory) -> bytes:
    """description: for classes alone. Raises InvalidInput, NotFound where what was asked of an output can't be."""
    response = message("ModelInferResponse")(model_name=found.model, model_version=found.version, id=asked.id)
    wanted = asked.outputs or [Wanted(name) for name in found.outputs]
    arrays = [_array(each, found, description) for each in wanted]
    datatypes = [tensors.datatype_of(array.dtype) for array in arrays]
    typed = asked.typed and all(map(wire.has_contents, datatypes)) and not any(each.region for each in wanted)
    raw: list[bytes | memoryview] = []
    for each, array, datatype in zip(wanted, arrays, datatypes, strict=True):
        told = response.outputs.add(name=each.name, datatype=datatype, shape=array.shape)
        if typed:
            wire.put(told.contents, datatype, array)
        elif each.region:
            data = tensors.to_bytes(array)
            memory.write(asked.request.client, each.region, each.offset, each.size, data)
            told.parameters["shared_memory_region"].string_param = each.region
            told.parameters["shared_memory_offset"].int64_param = each.offset
            told.parameters["shared_memory_byte_size"].int64_param = len(data)
            raw.append(b"")  # clients find an output's raw contents by its number among the outputs
        else:
            raw.append(tensors.to_bytes(array))
    return wire.write(response, raw)


def _array(wanted: Wanted, found: Answer, description: Description | None) -> np.ndarray:
    array = found.outputs[wanted.name]
    if not wanted.classes:
        return array
    labels: Sequence[str] = description.labels if description else ()
    return classification.top(array, wanted.classes, labels, batched=description is None or description.batched)


def _inputs(given: Sequence[Any], raw: Sequence[memoryview], client: str, memory: SharedMemory) -> tuple[dict[str, np.ndarray], bool]:
    """By name, and whether all came as typed contents."""
    inputs: dict[str, np.ndarray] = {}
    at, typed = 0, bool(given)
    for each in given:
        name = each.name
        if name in inputs:
            raise InvalidInput(f"input {name[:80]!r} is given twice")
        own = _plain(each.parameters) if each.parameters else _NOTHING
        try:
            if "shared_memory_region" in own:
                inputs[name], typed = _shared(each, own, client, memory), False
            elif raw:
                if at == len(raw):
                    raise InvalidInput(f"raw_input_contents has {len(raw)} entries, and each input needs one")
                if each.HasField("contents"):
                    raise InvalidInput("has contents, and the message raw_input_contents: give one of them")
                inputs[name], typed = tensors.from_bytes(raw[at], each.datatype, each.shape), False
                at += 1
            else:
                inputs[name] = wire.typed(each.contents, each.datatype, tensors.dtype_of(each.datatype), each.shape)
        except InvalidInput as error:
            raise InvalidInput(f"input {name[:80]!r}: {error}") from error
    if at != len(raw):
        raise InvalidInput(f"raw_input_contents has {len(raw)} entries, and {at} inputs need one")
    if not inputs:
        raise InvalidInput("inputs is empty; give the model's inputs")
    return inputs, typed


def _plain(given: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is not None:
            found[name] = getattr(value, kind)
    return found


def _wanted(given: Any) -> Wanted:
    if not given.parameters:
        return Wanted(given.name)
    own = _plain(given.parameters)
    offset, size = (parameters.whole(own, f"shared_memory_{name}") for name in ("offset", "byte_size"))
    classes, region = parameters.whole(own, "classification"), parameters.text(own, "shared_memory_region")
    return Wanted(given.name, classes=classes, region=region, offset=offset, size=size)


def _shared(given: Any, own: Mapping[str, Any], client: str, memory: SharedMemory) -> np.ndarray:
    offset, size = (parameters.whole(own, f"shared_memory_{name}") for name in ("offset", "byte_size"))
    data = memory.read(client, parameters.text(own, "shared_memory_region"), offset, size)
    return tensors.from_bytes(data, given.datatype, given.shape)
