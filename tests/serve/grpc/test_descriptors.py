"""The table against descriptors that others have compiled from the published protocol."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from edgewise.serve.grpc import descriptors


def theirs() -> dict[str, Any]:
    pytest.importorskip("tritonclient.grpc", reason="needs what others compiled: pip install 'tritonclient[grpc]'")
    from tritonclient.grpc import model_config_pb2, service_pb2

    return {
        "messages": service_pb2.DESCRIPTOR.pool,
        "service": service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"],
        "config": model_config_pb2,
    }


@pytest.mark.parametrize("name", descriptors.MESSAGES)
def test_every_field_has_the_protocols_number_and_type(name: str) -> None:
    other = theirs()["messages"].FindMessageTypeByName(f"inference.{name}")
    ours = descriptors.pool().FindMessageTypeByName(f"inference.{name}")
    for field in ours.fields:
        assert field.name in other.fields_by_name, f"{name} has no field {field.name}"
        assert of(field) == of(other.fields_by_name[field.name]), field.full_name


def of(field: Any) -> tuple[Any, ...]:
    kind = field.message_type or field.enum_type
    inside = [of(each) for each in kind.fields] if field.message_type and kind.GetOptions().map_entry else []
    oneof = field.containing_oneof.name if field.containing_oneof else ""
    return field.number, field.type, field.is_repeated, kind.full_name if kind else "", oneof, inside


@pytest.mark.parametrize("name", [name for name in descriptors.MESSAGES if not name.startswith(("Model", "InferBatch")) or "Infer" in name])
def test_messages_that_are_no_configuration_are_whole(name: str) -> None:
    other = theirs()["messages"].FindMessageTypeByName(f"inference.{name}")
    assert set(descriptors.pool().FindMessageTypeByName(f"inference.{name}").fields_by_name) == set(other.fields_by_name)


@pytest.mark.parametrize("name", descriptors.ENUMS)
def test_values_of_enums(name: str) -> None:
    other = theirs()["messages"].FindEnumTypeByName(f"inference.{name}")
    ours = descriptors.pool().FindEnumTypeByName(f"inference.{name}")
    assert {each.name: each.number for each in ours.values} == {each.name: each.number for each in other.values}


def test_methods() -> None:
    other = theirs()["service"]
    ours = descriptors.pool().FindServiceByName(descriptors.SERVICE)
    for method in ours.methods:
        known = other.methods_by_name[method.name]
        assert (method.input_type.full_name, method.output_type.full_name) == (known.input_type.full_name, known.output_type.full_name)
        assert (method.client_streaming, method.server_streaming) == (known.client_streaming, known.server_streaming)
    assert [method.name for method in ours.methods] == list(descriptors.METHODS)


def test_what_one_side_writes_the_other_reads() -> None:
    theirs()
    from tritonclient.grpc import service_pb2

    written = service_pb2.ModelInferRequest(model_name="net", id="7", raw_input_contents=[b"abcd"])
    written.parameters["priority"].uint64_param = 3
    written.inputs.add(name="x", datatype="FP32", shape=[1, -1])
    read = descriptors.message("ModelInferRequest").FromString(written.SerializeToString())
    assert read.parameters["priority"].uint64_param == 3 and list(read.inputs[0].shape) == [1, -1]
    assert service_pb2.ModelInferRequest.FromString(read.SerializeToString()) == written


def test_without_grpc_the_pip_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewise.errors import MissingExtra
    from edgewise.serve.grpc import Settings, side

    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgewise\[grpc\]'"):
        side(Settings())
