"""The REST side, byte by byte: what the protocol says, asked of a host in memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.errors import InvalidInput, InvalidModel
from edgewise.host import Late, Refused
from edgewise.serve import keys
from edgewise.serve.access import Gate
from edgewise.serve.http import Head, body_of
from edgewise.serve.limits import Limits
from edgewise.serve.problems import TooLarge
from edgewise.serve.rest import Rest, Served
from edgewise.serve.shared_memory import SharedMemory
from edgewise.testing.hosts import FakeHost, FakeModel, identity
from edgewise.types import Signature, TensorSpec

from .exchanges import Client

INFER = "/v2/models/echo/infer"


def tensor(data: list[Any], **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, len(data)], "data": data}], **more}


def binary(array: np.ndarray, **more: Any) -> tuple[bytes, dict[str, str]]:
    """A body with raw contents, and its headers."""
    shape, raw = list(array.shape), array.tobytes()
    given = {"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [given], **more}).encode()
    return head + raw, {"inference-header-content-length": str(len(head))}


def test_a_body_over_the_limit_is_refused_with_its_first_piece() -> None:
    async def receive() -> dict[str, Any]:
        asked.append(1)
        return {"type": "http.request", "body": bytes(2000), "more_body": True}

    asked: list[int] = []
    with pytest.raises(TooLarge):
        asyncio.run(body_of(receive, Head([]), 1000))
    assert len(asked) == 1


def test_a_key_beside_another_scheme(host: FakeHost) -> None:
    """As a proxy in between adds one of its own."""
    key = keys.new_key()
    asking = Client(Rest(Served(host, Gate(keys.parse(keys.entry("me", key))))))
    for headers in ({"authorization": "Basic eDp5", "x_api_key": key}, {"authorization": f"Bearer {key}"}, {"x_api_key": key}):
        assert asking.post(INFER, tensor([1.0]), **headers).status == 200
    assert asking.post(INFER, tensor([1.0]), authorization="Basic eDp5").status == 401


def test_json_to_the_byte(client: Client) -> None:
    body = b'{"id":"42","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1.5,-2]}]}'
    found = client.post(INFER, body)
    assert found.status == 200 and found.headers == {"content-type": "application/json", "content-length": str(len(found.body))}
    assert found.body == (
        b'{"model_name":"echo","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],"data":[1.5,-2.0]}],"id":"42"}'
    )


def test_raw_contents_to_the_byte(client: Client) -> None:
    head = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],'
    head += b'"parameters":{"binary_data_output":true}}'
    raw = b"\x00\x00\xc0\x3f\x00\x00\x00\xc0"
    found = client.post(INFER, head + raw, inference_header_content_length=str(len(head)))
    told = (
        b'{"model_name":"echo","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[1,2],'
        b'"parameters":{"binary_data_size":8}}]}'
    )
    assert found.body == told + raw
    assert found.headers == {
        "content-type": "application/octet-stream",
        "content-length": str(len(told) + 8),
        "inference-header-content-length": str(len(told)),
    }


def test_raw_contents_alone(client: Client) -> None:
    found = client.post(INFER, struct.pack("<3f", 1, 2, 3), inference_header_content_length="0")
    assert found.status == 400 and "shape" in found.error  # two open axes
    found = client.post("/v2/models/ints/infer", struct.pack("<3i", 1, 2, 3), inference_header_content_length="0")
    assert found.body.endswith(struct.pack("<3i", 1, 2, 3)) and found.status == 200


def test_bodies_in_pieces_and_compressed(client: Client) -> None:
    body, headers = binary(np.arange(1000, dtype=np.float32)[None], parameters={"binary_data_output": True})
    whole = client.ask("POST", INFER, body, headers)
    assert client.ask("POST", INFER, body, headers, pieces=7) == whole
    assert client.ask("POST", INFER, gzip.compress(body), {**headers, "content-encoding": "gzip"}) == whole
    assert client.ask("POST", INFER, zlib.compress(body), {**headers, "content-encoding": "deflate"}) == whole
    for damaged in (gzip.compress(body)[:-9], gzip.compress(body) + b"x", b"nonsense"):
        assert client.ask("POST", INFER, damaged, {**headers, "content-encoding": "gzip"}).status == 400
    assert client.ask("POST", INFER, body, {**headers, "content-encoding": "br"}).status == 415


def test_a_compressed_bomb_is_not_blown_up(host: FakeHost) -> None:
    client = Client(Rest(Served(host, Gate(None), body_bytes=10_000)))
    bomb = gzip.compress(bytes(9_000_000))
    found = client.ask("POST", INFER, bomb, {"content-encoding": "gzip"})
    assert found.status == 413 and "10000" in found.error


def test_a_body_over_the_limit_is_not_read(host: FakeHost) -> None:
    client = Client(Rest(Served(host, Gate(None), body_bytes=1000)))
    for pieces in (1, 50):
        found = client.ask("POST", INFER, bytes(2000), pieces=pieces)
        assert found.status == 413 and found.headers["connection"] == "close" and found.error
    assert client.ask("POST", INFER, bytes(2000), {"content-length": ""}, pieces=50).status == 413
    assert client.ask("POST", INFER, bytes(20), {"content-length": "1e3"}).status == 413


def test_numbers_that_json_has_not(client: Client) -> None:
    found = client.post(INFER, tensor([1, "NaN", "Infinity", "-Infinity"]))
    assert found.json["outputs"][0]["data"] == [1.0, "NaN", "Infinity", "-Infinity"]
    assert client.post(INFER, json.dumps(tensor([1, math.nan, math.inf, -math.inf])).encode()).body == found.body


def test_a_response_carries_what_was_asked_and_nothing_else() -> None:
    """A peer hands out outputs that nobody asked for."""
    spec = TensorSpec("x", ("batch", 2), "float32")
    two = FakeModel(
        Signature((spec,), (TensorSpec("a", ("batch", 2), "float32"), TensorSpec("b", ("batch", 2), "float32"))),
        lambda inputs: {"a": inputs["x"], "b": inputs["x"] + 1},
    )
    host = FakeHost({"two": two})
    client = Client(Rest(Served(host, Gate(None))))
    body = tensor([1, 2])
    assert [each["name"] for each in client.post("/v2/models/two/infer", body).json["outputs"]] == ["a", "b"]
    found = client.post("/v2/models/two/infer", {**body, "outputs": [{"name": "b"}]})
    assert [each["name"] for each in found.json["outputs"]] == ["b"] and host.requests[-1].outputs == ("b",)
    assert "id" not in found.json
    mixed = {**body, "outputs": [{"name": "b", "parameters": {"binary_data": True}}, {"name": "a"}]}
    found = client.post("/v2/models/two/infer", mixed)
    head = json.loads(found.body[: int(found.headers["inference-header-content-length"])])
    assert [each.get("data") for each in head["outputs"]] == [None, [1.0, 2.0]]
    assert found.body.endswith(struct.pack("<2f", 2, 3))
    for wrong in ([{"name": "c"}], [{"name": "a"}, {"name": "a"}], [{"name": "a", "parameters": {"binary_data": "yes"}}], [3]):
        assert client.post("/v2/models/two/infer", {**body, "outputs": wrong}).status == 400


def test_priority_and_deadline(client: Client, host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    for given, priority, deadline in (
        ({}, 0, None),
        ({"priority": 0, "timeout": 0}, 0, None),
        ({"priority": 1, "timeout": 50_000}, 99, 1000.05),
        ({"priority": 100}, 0, None),
        ({"priority": 2**64 - 1}, -100, None),
    ):
        assert client.post(INFER, tensor([1], parameters=given)).status == 200
        assert (host.requests[-1].priority, host.requests[-1].deadline) == (priority, deadline)
    for wrong in (
        {"priority": -1},
        {"priority": True},
        {"timeout": 1.5},
        {"timeout": "soon"},
        {"timeout": "\u00b2"},
        {"binary_data_output": 1},
    ):
        assert client.post(INFER, tensor([1], parameters=wrong)).status == 400


def test_classes_instead_of_scores() -> None:
    host = FakeHost({"echo": identity(described={"labels": ("cat", "dog", "cow")})})
    client = Client(Rest(Served(host, Gate(None))))
    outputs = [{"name": "y", "parameters": {"classification": 2}}]
    found = client.post(INFER, tensor([0.25, 0.5, 0.125], outputs=outputs)).json["outputs"][0]
    assert found == {"name": "y", "datatype": "BYTES", "shape": [1, 2], "data": ["0.500000:1:dog", "0.250000:0:cat"]}


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (Refused("the queue is full", 2.5), 503, "3"),
        (Late("too late"), 504, None),
        (InvalidInput("no"), 400, None),
        (InvalidModel("NaN"), 500, None),
        (ZeroDivisionError("secret words"), 500, None),
    ],
)
def test_errors_have_the_protocols_shape_and_code(error: Exception, status: int, retry: str | None) -> None:
    def fail(inputs: Any) -> Any:
        raise error

    client = Client(Rest(Served(FakeHost({"echo": identity(answer=fail)}), Gate(None))))
    found = client.post(INFER, tensor([1]))
    assert (found.status, found.headers.get("retry-after")) == (status, retry)
    assert "secret" not in found.error


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/other/infer", 404),
        ("POST", "/v2/models/echo/versions/9/infer", 404),
        ("GET", INFER, 405),
        ("POST", "/v2/models/echo", 405),
        ("GET", "/v2/models/echo/nothing", 404),
        ("GET", "/v2/models/echo/infer/more", 404),
        ("GET", "/nothing", 404),
        ("GET", "/v2/models/%ff/ready", 404),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("GET", "/v2/cudasharedmemory/status", 404),
    ],
)
def test_what_is_not_there(client: Client, method: str, path: str, status: int) -> None:
    found = client.ask(method, path, tensor([1]) if method == "POST" else b"")
    assert found.status == status and found.error


def test_what_models_are(client: Client, host: FakeHost) -> None:
    assert client.get("/v2").json["name"] == "edgewise" and client.get("/v2/").json["extensions"]
    told = {"name": "many", "versions": ["1", "2"], "platform": "edgewise"}
    sides = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, -1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, -1]}],
    }
    assert client.get("/v2/models/many").json == told | sides == client.get("/v2/models/many/versions/1").json
    config = client.get("/v2/models/many/config").json
    assert config["max_batch_size"] == 128 and config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1]}]
    assert client.get("/v2/models/ints/config").json["max_batch_size"] == 0
    assert client.get("/v2/models/many/versions/2/ready").status == 200
    assert client.post("/v2/models/many/versions/1/infer", tensor([1])).json["model_version"] == "1"
    assert client.post("/v2/models/many/infer", tensor([1])).json["model_version"] == "2"


def test_load_unload_and_index(client: Client, host: FakeHost) -> None:
    assert client.post("/v2/repository/models/echo/unload").status == 200 and not host.models["echo"].loaded
    assert client.get("/v2/models/echo/ready").status == 503
    index = client.post("/v2/repository/index").json
    assert {"name": "echo", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"} in index and len(index) == 4
    assert len(client.post("/v2/repository/index", {"ready": True}).json) == 3
    assert client.post("/v2/repository/models/echo/load", {}).status == 200 and host.models["echo"].loaded
    assert client.post("/v2/repository/models/echo/load", {"parameters": {"config": "{}"}}).status == 415
    assert client.post("/v2/repository/models/none/load").status == 404


def test_statistics_and_metrics(client: Client) -> None:
    client.post(INFER, tensor([1]))
    (stats,) = client.get("/v2/models/echo/stats").json["model_stats"]
    assert stats["inference_count"] == 1 and stats["inference_stats"]["success"]["count"] == 1
    assert len(client.get("/v2/models/stats").json["model_stats"]) == 4
    text = client.get("/metrics").body.decode()
    assert 'edgewise_requests_total{model="echo",outcome="success",version="1"} 1.0' in text
    assert 'nv_inference_request_success{model="echo",version="1"} 1.0' in text
    assert "_seconds_total" in text and 'edgewise_http_responses_total{code="200"} 3.0' in text


def test_health_and_draining(client: Client) -> None:
    assert client.get("/v2/health/live").status == client.get("/v2/health/ready").status == 200
    client.app.served.draining.set()
    assert client.get("/v2/health/live").status == 200
    assert client.get("/v2/health/ready").status == client.get("/v2/models/echo/ready").status == 503


def test_a_page_of_another_site_is_refused(client: Client, host: FakeHost) -> None:
    load = "/v2/repository/models/echo/load"
    for origin in ("https://evil.example", "null", "http://box:9999", "http://box.evil.example"):
        found = client.ask("POST", load, b"", {"host": "box:8080", "origin": origin})
        assert found.status == 403 and "isn't this server's" in found.error
    assert client.ask("POST", load, b"", {"host": "box:8080", "origin": "http://box:8080"}).status == 200  # its own page
    assert client.ask("POST", load, b"", {"host": "box:8080"}).status == 200  # a program
    assert client.ask("GET", "/v2", b"", {"host": "box:8080", "origin": "https://evil.example"}).status == 200  # reads, and can't show it


def test_keys_and_scopes(host: FakeHost) -> None:
    use, manage = keys.new_key(), keys.new_key()
    known = keys.parse(keys.entry("camera", use) + keys.entry("me", manage, ("infer", "admin")))
    client = Client(Rest(Served(host, Gate(known))))
    assert client.get("/v2/health/ready").status == 200
    for path in ("/v2", "/metrics", "/v2/models/echo", "/v2/models/stats"):
        found = client.get(path)
        assert found.status == 401 and found.headers["www-authenticate"] == "Bearer" and "key" in found.error
        assert client.get(path, authorization=f"Bearer {use}").status == 200
    assert client.ask("POST", INFER, tensor([1]), {"x-api-key": use}).status == 200 and host.requests[-1].client == "camera"
    assert client.ask("POST", INFER, tensor([1]), {"authorization": "Bearer ew_wrong"}).status == 401
    load = "/v2/repository/models/echo/load"
    assert client.ask("POST", load, b"", {"authorization": f"Bearer {use}"}).status == 403
    assert client.ask("POST", load, b"", {"authorization": f"Bearer {manage}"}).status == 200


def test_too_many_are_told_when_to_come_back(host: FakeHost) -> None:
    client = Client(Rest(Served(host, Gate(None, Limits(requests_per_s=0.1, burst=2)))))
    assert [client.post(INFER, tensor([1])).status for _ in range(3)] == [200, 200, 429]
    found = client.get("/v2")
    assert found.status == 429 and 1 <= int(found.headers["retry-after"]) <= 10
    assert client.get("/v2/health/live").status == 200


def test_names_bound_anew_are_refused(host: FakeHost) -> None:
    client = Client(Rest(Served(host, Gate(None), hosts=frozenset({"localhost", "[::1]"}))))
    for name, status in (
        ("localhost", 200), ("LOCALHOST:80", 200), ("[::1]:8080", 200), ("[::1]", 200), ("127.0.0.1:9", 200), ("", 200),
        ("evil.example", 403), ("evil.example:8080", 403), ("localhost.evil.example", 403), ("localhost@evil", 403),
    ):  # fmt: skip
        assert client.get("/v2", host=name).status == status, name


def test_shared_memory(host: FakeHost, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(struct.pack("<4f", 1, 2, 3, 4))
    (tmp_path / "out").write_bytes(bytes(16))
    client = Client(Rest(Served(host, Gate(None), SharedMemory(enabled=True, folder=tmp_path))))
    assert "system_shared_memory" in client.get("/v2").json["extensions"]
    region = "/v2/systemsharedmemory/region"
    for name in ("in", "out"):
        assert client.post(f"{region}/{name}/register", {"key": f"/{name}", "offset": 0, "byte_size": 16}).status == 200
    assert client.post(f"{region}/in/register", {"key": "/in", "byte_size": 16}).status == 400
    assert [each["name"] for each in client.get("/v2/systemsharedmemory/status").json] == ["in", "out"]
    where = {"shared_memory_region": "in", "shared_memory_byte_size": 8, "shared_memory_offset": 4}
    there = {"shared_memory_region": "out", "shared_memory_byte_size": 8}
    body = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": where}],
        "outputs": [{"name": "y", "parameters": there}],
    }
    found = client.post(INFER, body)
    assert found.status == 200 and "data" not in found.json["outputs"][0]
    assert (tmp_path / "out").read_bytes()[:8] == struct.pack("<2f", 2, 3)
    where["shared_memory_byte_size"] = 800
    assert client.post(INFER, body).status == 400
    assert client.post("/v2/systemsharedmemory/region/in/unregister").status == 200
    assert client.post(INFER, body).status == 404


def test_a_client_that_goes_away_takes_its_request_back() -> None:
    """On any ASGI server; ours says it sooner (see test_server)."""

    async def scenario() -> int:
        host = FakeHost({"echo": identity(delay_s=30.0)})
        app = Rest(Served(host, Gate(None)))
        body = json.dumps(tensor([1])).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": INFER, "raw_path": INFER.encode(), "headers": [], "client": None}
        await asyncio.wait_for(app(scope, receive, send), 5)
        assert not sent
        return host.cancelled

    assert asyncio.run(scenario()) == 1


def test_docs_name_every_address(client: Client) -> None:
    document = client.get("/openapi.json").json
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html") and b"http://" not in page.body and b"<script" not in page.body
    for path, operations in document["paths"].items():
        assert path.encode() in page.body
        for method in operations:
            asked = path.replace("{model}", "echo").replace("{version}", "1")
            assert client.ask(method.upper(), asked, tensor([1]) if asked.endswith("infer") else b"").status in (200, 415, 503), path
