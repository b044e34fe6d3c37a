"""The way past protobuf against protobuf itself."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from edgewise.errors import InvalidInput
from edgewise.serve.grpc import wire
from edgewise.serve.grpc.descriptors import message

Request: Any = message("ModelInferRequest")
Response: Any = message("ModelInferResponse")

texts = st.text(max_size=20)
blobs = st.lists(st.binary(max_size=300), max_size=4)


@st.composite
def requests(draw: st.DrawFn) -> Any:
    made = Request(model_name=draw(texts), model_version=draw(texts), id=draw(texts))
    if draw(st.booleans()):
        made.parameters[draw(texts)].int64_param = draw(st.integers(-(2**63), 2**63 - 1))
    for _ in range(draw(st.integers(0, 3))):
        tensor = made.inputs.add(name=draw(texts), datatype="FP32", shape=draw(st.lists(st.integers(-5, 2**40), max_size=4)))
        tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32, allow_nan=False), max_size=5)))
    made.raw_input_contents.extend(draw(blobs))
    return made


@given(requests())
def test_a_request_is_read_as_protobuf_reads_it(sent: Any) -> None:
    head, raw = wire.read(sent.SerializeToString())
    head.raw_input_contents.extend(map(bytes, raw))
    assert head == sent


@given(requests(), requests())
def test_fields_in_any_order_and_messages_one_after_the_other_are_merged(one: Any, other: Any) -> None:
    data = other.SerializeToString() + one.SerializeToString()
    head, raw = wire.read(data)
    head.raw_input_contents.extend(map(bytes, raw))
    assert head == Request.FromString(data)


@given(requests(), st.data())
def test_what_protobuf_refuses_is_refused_and_nothing_else_is_raised(sent: Any, data: st.DataObject) -> None:
    whole = bytearray(sent.SerializeToString())
    for _ in range(data.draw(st.integers(0, 3))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        theirs = Request.FromString(damaged)
    except DecodeError:
        theirs = None
    try:
        head, raw = wire.read(damaged)
    except InvalidInput:
        # Stricter in one thing: groups, which proto3 has not.
        assert theirs is None or any(byte & 7 in (3, 4) for byte in damaged)
        return
    head.raw_input_contents.extend(map(bytes, raw))
    if theirs is not None:
        assert head.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        wire.read(data)


@pytest.mark.parametrize("data", [b"\x3a\x05abc", b"\x3a\xff", b"\x3a" + b"\xff" * 11, b"\x0b\x0c", b"\x09\x01", b"\x80"])
def test_damaged_ones(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="damaged"):
        wire.read(data)


def test_raw_contents_are_views_and_no_copies() -> None:
    data = Request(model_name="net", raw_input_contents=[b"0123456789"]).SerializeToString()
    (raw,) = wire.read(data)[1]
    assert raw.obj is data


@given(texts, blobs)
def test_protobuf_reads_what_is_written(name: str, raw: list[bytes]) -> None:
    made = Response(model_name=name, id="7")
    written = wire.write(made, [memoryview(each) for each in raw])
    made.raw_output_contents.extend(raw)
    assert Response.FromString(written) == made


@pytest.mark.parametrize(
    ("datatype", "dtype", "values"),
    [
        ("BOOL", "bool", [True, False]),
        ("INT8", "int8", [-128, 127]),
        ("UINT16", "uint16", [0, 65535]),
        ("INT32", "int32", [-5, 5]),
        ("INT64", "int64", [-(2**62), 2**62]),
        ("UINT64", "uint64", [0, 2**64 - 1]),
        ("FP32", "float32", [0.5, float("inf")]),
        ("FP64", "float64", [0.1, -0.1]),
        ("BYTES", "object", [b"a", b""]),
    ],
)
def test_typed_contents(datatype: str, dtype: str, values: list[Any]) -> None:
    contents = message("InferTensorContents")()
    getattr(contents, wire._CONTENTS[datatype]).extend(values)
    array = wire.typed(contents, datatype, np.dtype(dtype), [2, 1])
    assert array.dtype == dtype and array.shape == (2, 1) and array.ravel().tolist() == values
    empty = wire.typed(message("InferTensorContents")(), datatype, np.dtype(dtype), [0, 4])
    assert empty.dtype == dtype and empty.shape == (0, 4)


def test_typed_contents_that_do_not_fit() -> None:
    contents = message("InferTensorContents")(int_contents=[1, 300])
    for datatype, dtype, shape, said in (
        ("INT8", "int8", [2], "can't hold"),
        ("INT32", "int32", [3], "has 3 elements, and int_contents has 2"),
        ("INT32", "int32", [-1, -2], "0 or more"),
        ("INT32", "int32", [2] + [1] * 70, "axes"),
        ("INT32", "int32", [0, 2**62], "any memory"),
        ("FP32", "float32", [2], "int_contents was given"),
        ("FP16", "float16", [2], "send raw_input_contents"),
    ):
        with pytest.raises(InvalidInput, match=said):
            wire.typed(contents, datatype, np.dtype(dtype), shape)


def test_the_retry_hint_is_a_google_rpc_status() -> None:
    """Parsed by descriptors of google.rpc.Status and RetryInfo, as their definition is published."""
    from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    made = descriptor_pb2.FileDescriptorProto(name="rpc.proto", package="google.rpc", syntax="proto3")
    status, info = made.message_type.add(name="Status"), made.message_type.add(name="RetryInfo")
    status.field.add(name="code", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    status.field.add(name="message", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    repeated = {"label": field.LABEL_REPEATED, "type": field.TYPE_MESSAGE, "type_name": ".google.protobuf.Any"}
    status.field.add(name="details", number=3, **repeated)
    once = {"label": field.LABEL_OPTIONAL, "type": field.TYPE_MESSAGE, "type_name": ".google.protobuf.Duration"}
    info.field.add(name="retry_delay", number=1, **once)
    made.dependency.extend([any_pb2.DESCRIPTOR.name, duration_pb2.DESCRIPTOR.name])
    pool = descriptor_pool.DescriptorPool()
    for each in (any_pb2, duration_pb2):
        pool.AddSerializedFile(each.DESCRIPTOR.serialized_pb)
    pool.Add(made)
    kinds = [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"google.rpc.{name}")) for name in ("Status", "RetryInfo")]
    read = kinds[0].FromString(wire.details(14, "no room: " + "å" * 200, 2.5))
    assert (read.code, len(read.message)) == (14, 209)
    assert read.details[0].type_url == "type.googleapis.com/google.rpc.RetryInfo"
    delay = kinds[1].FromString(read.details[0].value).retry_delay
    assert (delay.seconds, delay.nanos) == (2, 500_000_000)
