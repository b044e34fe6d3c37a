"""The service over a real channel, asked by a plain stub: answers, errors, deadlines, keys, health, reflection."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.errors import InvalidInput
from edgewise.serve import keys
from edgewise.serve.access import Gate
from edgewise.serve.grpc import Settings
from edgewise.serve.grpc.descriptors import SERVICE, message
from edgewise.serve.limits import Limits

grpc = pytest.importorskip("grpc", reason="needs grpc: pip install 'edgewise[grpc]'")

ROW = np.array([[1.5, -2.0, 3.0]], np.float32)


def request(model: str, array: np.ndarray = ROW, datatype: str = "FP32", **fields: Any) -> Any:
    made = message("ModelInferRequest")(model_name=model, raw_input_contents=[array.tobytes()], **fields)
    made.inputs.add(name="x", datatype=datatype, shape=array.shape)
    return made


def refused(stub: Any, name: str, asked: Any = None, **options: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        stub(name, asked, **options)
    return caught.value


def code(stub: Any, name: str, asked: Any = None, **options: Any) -> str:
    return refused(stub, name, asked, **options).code().name


def test_it_says_what_it_is(stub: Any) -> None:
    assert stub("ServerLive").live and stub("ServerReady").ready
    told = stub("ServerMetadata")
    assert told.name == "edgewise" and "binary_tensor_data" in told.extensions and "system_shared_memory" not in told.extensions
    model = stub("ModelMetadata", message("ModelMetadataRequest")(name="two"))
    assert list(model.versions) == ["1", "2"] and [each.name for each in model.outputs] == ["more", "less"]
    assert (model.inputs[0].datatype, list(model.inputs[0].shape)) == ("FP32", [-1, 3])
    config = stub("ModelConfig", message("ModelConfigRequest")(name="two")).config
    assert config.max_batch_size > 1 and list(config.input[0].dims) == [3] and config.input[0].data_type == 11


def test_raw_contents_both_ways(stub: Any) -> None:
    answer = stub("ModelInfer", request("two", id="seven"))
    assert (answer.model_name, answer.model_version, answer.id) == ("two", "2", "seven")
    assert [each.name for each in answer.outputs] == ["more", "less"]
    assert np.array_equal(np.frombuffer(answer.raw_output_contents[1], np.float32), ROW[0] - 1)
    assert not answer.outputs[0].HasField("contents")


def test_typed_contents_both_ways(stub: Any) -> None:
    asked = message("ModelInferRequest")(model_name="two")
    asked.inputs.add(name="x", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend(ROW[0].tolist())
    answer = stub("ModelInfer", asked)
    assert not answer.raw_output_contents
    assert list(answer.outputs[0].contents.fp32_contents) == (ROW[0] + 1).tolist()


@pytest.mark.parametrize(
    ("model", "datatype", "field", "values"),
    [
        ("whole", "INT64", "int64_contents", [-7, 2**60]),
        ("words", "BYTES", "bytes_contents", [b"caf\xc3\xa9", b""]),
        ("flags", "BOOL", "bool_contents", [True, False]),
    ],
)
def test_typed_contents_of_each_kind(stub: Any, model: str, datatype: str, field: str, values: list[Any]) -> None:
    asked = message("ModelInferRequest")(model_name=model)
    getattr(asked.inputs.add(name="x", datatype=datatype, shape=[1, 2]).contents, field).extend(values)
    assert list(getattr(stub("ModelInfer", asked).outputs[0].contents, field)) == values


def test_only_what_was_asked_for(stub: Any) -> None:
    asked = request("two", model_version="1")
    asked.outputs.add(name="less")
    answer = stub("ModelInfer", asked)
    assert answer.model_version == "1" and [each.name for each in answer.outputs] == ["less"] and len(answer.raw_output_contents) == 1
    asked.outputs.add(name="less")
    assert code(stub, "ModelInfer", asked) == "INVALID_ARGUMENT"


def test_classification(stub: Any) -> None:
    asked = request("classes")
    asked.outputs.add(name="y").parameters["classification"].int64_param = 2
    answer = stub("ModelInfer", asked)
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("BYTES", [1, 2])
    assert answer.raw_output_contents[0] == b"".join(len(e).to_bytes(4, "little") + e for e in (b"3.000000:2:cow", b"1.500000:0:cat"))


def test_priority_and_timeout_reach_the_host(running: Any, stub: Any) -> None:
    asked = request("same")
    asked.parameters["priority"].uint64_param = 1
    asked.parameters["timeout"].int64_param = 2_000_000
    stub("ModelInfer", asked)
    (seen,) = running.host.requests
    assert seen.priority > 0 and 1 < seen.deadline - time.monotonic() < 2.1
    assert seen.client == "127.0.0.1"


def test_the_rpcs_deadline_is_the_requests(running: Any) -> None:
    with grpc.insecure_channel(running.address) as channel:
        method = channel.unary_unary(f"/{SERVICE}/ModelInfer", request_serializer=lambda made: made.SerializeToString())
        with pytest.raises(grpc.RpcError) as caught:
            method(request("slow"), timeout=0.3)
        assert caught.value.code().name == "DEADLINE_EXCEEDED"
    assert running.host.requests[0].deadline - time.monotonic() < 0.3
    eventually(lambda: running.host.cancelled == 1)


def test_a_cancelled_rpc_cancels_the_request(running: Any) -> None:
    with grpc.insecure_channel(running.address) as channel:
        method = channel.unary_unary(f"/{SERVICE}/ModelInfer", request_serializer=lambda made: made.SerializeToString())
        under_way = method.future(request("slow"))
        eventually(lambda: len(running.host.requests) == 1)
        under_way.cancel()
        eventually(lambda: running.host.cancelled == 1)
    assert running.served.vitals.recent().requests == 0


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request("nowhere"), "NOT_FOUND"),
        (request("two", model_version="9"), "NOT_FOUND"),
        (request("same", datatype="FP64"), "INVALID_ARGUMENT"),
        (request("same", datatype="FP33"), "INVALID_ARGUMENT"),
        (message("ModelInferRequest")(model_name="same"), "INVALID_ARGUMENT"),
        (message("ModelInferRequest")(model_name="same", raw_input_contents=[b"1234"]), "INVALID_ARGUMENT"),
        (request("broken"), "INTERNAL"),
    ],
)
def test_codes(stub: Any, asked: Any, expected: str) -> None:
    assert code(stub, "ModelInfer", asked) == expected


def test_faults_of_ours_stay_in_the_log(running: Any, stub: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert "secret" not in refused(stub, "ModelInfer", request("broken")).details()
    assert "the secret of the engine" in caplog.text
    assert running.served.vitals.recent("broken").fail == 1


def test_what_does_not_fit_together(stub: Any) -> None:
    both = request("same")
    both.inputs[0].contents.fp32_contents.extend([1.0])
    twice = request("same")
    twice.inputs.append(twice.inputs[0])
    more = request("same")
    more.raw_input_contents.append(b"")
    wrong = request("same")
    wrong.parameters["priority"].string_param = "first"
    for asked in (both, twice, more, wrong):
        assert code(stub, "ModelInfer", asked) == "INVALID_ARGUMENT"


@pytest.mark.parametrize("data", [b"\x3a\xff", b"\xff" * 20, b"\x2a\x03abc", b""])
def test_damaged_messages(running: Any, data: bytes) -> None:
    with grpc.insecure_channel(running.address) as channel:
        method = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            method(data, timeout=10)
        assert caught.value.code().name in ("INVALID_ARGUMENT", "NOT_FOUND")
        other = channel.unary_unary(f"/{SERVICE}/ModelReady")
        with pytest.raises(grpc.RpcError):
            other(b"\xff\xff", timeout=10)
        assert method(request("same").SerializeToString(), timeout=10)


def test_a_message_over_the_limit(serve: Any) -> None:
    with grpc.insecure_channel(serve(message_bytes=10_000).address) as channel:
        method = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            method(request("same", np.zeros((1, 5000), np.float32)).SerializeToString(), timeout=10)
        assert caught.value.code().name == "RESOURCE_EXHAUSTED"


def test_refusals_say_when_to_ask_again(serve: Any, make_stub: Any) -> None:
    stub = make_stub(serve(gate=Gate(None, Limits(requests_per_s=0.25, burst=1))))
    stub("ModelInfer", request("same"))
    error = refused(stub, "ModelInfer", request("same"))
    assert error.code().name == "RESOURCE_EXHAUSTED"
    trailing = dict(error.trailing_metadata())
    assert 1000 < int(trailing["grpc-retry-pushback-ms"]) <= 4000 and trailing["retry-after"] in "1234"
    assert b"google.rpc.RetryInfo" in trailing["grpc-status-details-bin"]


def test_keys_and_scopes(serve: Any, make_stub: Any) -> None:
    infer, admin = keys.new_key(), keys.new_key()
    stub = make_stub(serve(gate=Gate(keys.parse(keys.entry("camera", infer) + keys.entry("boss", admin, ("infer", "admin"))))))
    assert stub("ServerLive").live
    load = message("RepositoryModelLoadRequest")(model_name="same")
    assert code(stub, "ModelInfer", request("same")) == "UNAUTHENTICATED"
    assert code(stub, "ModelInfer", request("same"), metadata=(("authorization", "Bearer wrong"),)) == "UNAUTHENTICATED"
    assert stub("ModelInfer", request("same"), metadata=(("authorization", f"Bearer {infer}"),)).model_name == "same"
    assert stub("ModelInfer", request("same"), metadata=(("x-api-key", infer),)).model_name == "same"
    assert code(stub, "RepositoryModelLoad", load, metadata=(("x-api-key", infer),)) == "PERMISSION_DENIED"
    stub("RepositoryModelLoad", load, metadata=(("x-api-key", admin),))


def test_the_repository(running: Any, stub: Any) -> None:
    name = "RepositoryModel"
    stub(f"{name}Unload", message(f"{name}UnloadRequest")(model_name="same"))
    assert not stub("ModelReady", message("ModelReadyRequest")(name="same")).ready
    index = stub("RepositoryIndex").models
    assert {(each.name, each.state) for each in index} >= {("same", "UNAVAILABLE"), ("two", "READY")}
    ready = message("RepositoryIndexRequest")(ready=True)
    assert "same" not in {each.name for each in stub("RepositoryIndex", ready).models}
    stub(f"{name}Load", message(f"{name}LoadRequest")(model_name="same"))
    assert stub("ModelReady", message("ModelReadyRequest")(name="same")).ready
    assert code(stub, f"{name}Load", message(f"{name}LoadRequest")(model_name="nowhere")) == "NOT_FOUND"
    overriding = message(f"{name}LoadRequest")(model_name="same")
    overriding.parameters["config"].string_param = "{}"
    assert code(stub, f"{name}Load", overriding) == "INVALID_ARGUMENT"


def test_statistics(stub: Any) -> None:
    stub("ModelInfer", request("two"))
    (one,) = stub("ModelStatistics", message("ModelStatisticsRequest")(name="two", version="2")).model_stats
    assert (one.name, one.version, one.inference_stats.success.count) == ("two", "2", 1)
    assert len(stub("ModelStatistics").model_stats) > 5
    assert code(stub, "ModelStatistics", message("ModelStatisticsRequest")(name="nowhere")) == "NOT_FOUND"


def test_shared_memory(serve: Any, make_stub: Any, tmp_path: Path) -> None:
    stub = make_stub(serve(shared=True, folder=tmp_path))
    (tmp_path / "region").write_bytes(ROW.tobytes() + bytes(12))
    kind = "SystemSharedMemory"
    stub(f"{kind}Register", message(f"{kind}RegisterRequest")(name="r", key="/region", offset=0, byte_size=24))
    assert stub(f"{kind}Status").regions["r"].byte_size == 24
    asked = message("ModelInferRequest")(model_name="same")
    given = asked.inputs.add(name="x", datatype="FP32", shape=[1, 3]).parameters
    wanted = asked.outputs.add(name="y").parameters
    for parameters, offset in ((given, 0), (wanted, 12)):
        parameters["shared_memory_region"].string_param = "r"
        parameters["shared_memory_offset"].int64_param = offset
        parameters["shared_memory_byte_size"].int64_param = 12
    answer = stub("ModelInfer", asked)
    assert list(answer.raw_output_contents) == [b""] and answer.outputs[0].parameters["shared_memory_byte_size"].int64_param == 12
    assert (tmp_path / "region").read_bytes() == ROW.tobytes() * 2
    stub(f"{kind}Unregister", message(f"{kind}UnregisterRequest")())
    assert code(stub, "ModelInfer", asked) == "NOT_FOUND"


def test_shared_memory_is_off_unless_asked_for(stub: Any) -> None:
    assert code(stub, "SystemSharedMemoryStatus") == "UNIMPLEMENTED"


def test_the_stream_answers_in_order_and_goes_on_after_an_error(running: Any) -> None:
    answered = message("ModelStreamInferResponse")
    with grpc.insecure_channel(running.address) as channel:
        method = channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            request_serializer=lambda made: made.SerializeToString(),
            response_deserializer=answered.FromString,
        )
        asked = [request("same", id="a"), request("nowhere", id="b"), *(request("two", id=str(number)) for number in range(40))]
        got = list(method(iter(asked), timeout=20))
    assert [each.infer_response.id for each in got] == ["a", "b", *map(str, range(40))]
    assert "nowhere" in got[1].error_message and not got[0].error_message
    assert got[0].infer_response.raw_output_contents[0] == ROW.tobytes()
    assert got[0].infer_response.parameters["triton_final_response"].bool_param


def test_a_stream_that_is_given_up_cancels_what_it_asked(running: Any) -> None:
    with grpc.insecure_channel(running.address) as channel:
        method = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer", request_serializer=lambda made: made.SerializeToString())
        done = threading.Event()

        def asking() -> Any:
            yield request("slow")
            yield request("slow")
            done.wait(10)

        under_way = method(asking())
        eventually(lambda: len(running.host.requests) == 2)
        under_way.cancel()
        eventually(lambda: running.host.cancelled == 2)
        done.set()


def test_health(running: Any) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(running.address) as channel:
        asked = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            assert asked.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status == health_pb2.HealthCheckResponse.SERVING
        watched = asked.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        watching = asyncio.run_coroutine_threadsafe(running.server.unready(), running.loop)
        running.loop.call_soon_threadsafe(running.served.draining.set)
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watched.cancel()
        watching.result(10)
    with grpc.insecure_channel(running.address) as channel:
        ready = channel.unary_unary(f"/{SERVICE}/ServerReady", response_deserializer=message("ServerReadyResponse").FromString)
        assert not ready(b"", timeout=10).ready


def test_a_stub_made_of_what_reflection_says(running: Any) -> None:
    from google.protobuf import descriptor_pool, message_factory
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    with grpc.insecure_channel(running.address) as channel:
        found = ProtoReflectionDescriptorDatabase(channel)
        assert {SERVICE, "grpc.health.v1.Health"} <= set(found.get_services())
        pool = descriptor_pool.DescriptorPool(found)
        method = pool.FindServiceByName(SERVICE).FindMethodByName("ModelInfer")
        asked = message_factory.GetMessageClass(method.input_type).FromString(request("same").SerializeToString())
        kind = message_factory.GetMessageClass(method.output_type)
        call = channel.unary_unary(f"/{SERVICE}/{method.name}", lambda made: made.SerializeToString(), kind.FromString)
        assert call(asked, timeout=10).raw_output_contents[0] == ROW.tobytes()
        assert pool.FindServiceByName("grpc.health.v1.Health").FindMethodByName("Check")


def test_draining_answers_what_was_taken_and_takes_nothing_new(serve: Any) -> None:
    running = serve()
    running.host.models["slow"].delay_s = 0.5
    with grpc.insecure_channel(running.address) as channel:
        method = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        watching = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=60)
        next(watching)
        under_way = method.future(request("slow").SerializeToString(), timeout=10)
        eventually(lambda: len(running.host.requests) == 1)
        running.call(running.server.drain(30.0))  # longer than `call` waits: the stream that watches is not waited for
        assert under_way.result(timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            method(request("same").SerializeToString(), timeout=2)
        assert caught.value.code().name == "UNAVAILABLE"


def test_beside_rest_in_one_server(serving: Any) -> None:
    """Over the same host, with the same figures; ended with it."""
    import http.client
    import socket

    from edgewise.serve.grpc import side
    from edgewise.serve.page import application
    from edgewise.testing.hosts import FakeHost, identity

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = serving(FakeHost({"same": identity()}), sides=[side(Settings(port=port), 1.0)], page=application)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        channel.unary_unary(f"/{SERVICE}/ModelInfer")(request("same").SerializeToString(), timeout=10)
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
    for path, kind in (("/page/figures", "application/json"), ("/", "text/html; charset=utf-8")):
        connection.request("GET", path)
        reply = connection.getresponse()
        body = reply.read()
        assert (reply.status, reply.headers["content-type"]) == (200, kind)
        if path != "/":
            assert json.loads(body)["models"][0]["recent"]["success"] == 1
        else:
            assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    connection.request("POST", "/")
    assert connection.getresponse().status == 405
    connection.close()


def test_a_port_that_is_taken_is_told(serve: Any, running: Any) -> None:
    with pytest.raises(InvalidInput, match="can't listen"):
        serve(port=running.port)


def eventually(condition: Any) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until, "it never came to that"
        time.sleep(0.005)
