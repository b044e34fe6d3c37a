"""Inference that a connection answers itself, against the same asked of the ASGI application, and among requests that aren't."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.errors import InvalidInput
from edgewise.host import Refused
from edgewise.serve import direct, inference, keys
from edgewise.serve.config import Server
from edgewise.serve.connections import Connection, Patience
from edgewise.serve.limits import Limits
from edgewise.serve.rest import Rest, Served
from edgewise.serve.shared_memory import SharedMemory
from edgewise.testing.hosts import FakeHost, FakeModel, identity

from .exchanges import BODY, INFER, Client, answered, asked, dial, post


@dataclass
class Started:
    port: int
    edge: Any
    served: Served


@pytest.fixture
def serve(serving: Callable[..., Any]) -> Callable[..., Started]:
    def start(host: FakeHost, settings: Server = Server()) -> Started:  # noqa: B008
        kept: list[Any] = []
        running = serving(host, settings, page=kept.append)
        return Started(running.port, running.edge, kept[0])

    return start


def broken(_: Any) -> Any:
    raise ValueError("inner words")


def models() -> FakeHost:
    return FakeHost(
        {
            "echo": identity(described={"labels": ("a", "b", "c")}),
            "late": identity(delay_s=0.2),
            "soon": identity(delay_s=0.01),
            "broken": identity(answer=broken),
            "broken later": identity(answer=broken, delay_s=0.01),
            "full": identity(answer=_refuse),
        }
    )


def _refuse(_: Any) -> Any:
    raise Refused("full: too many wait", 3.2)


def raw(values: Any, name: str = "x", **more: Any) -> tuple[bytes, str]:
    array = np.asarray(values, np.float32)
    told = {"name": name, "datatype": "FP32", "shape": array.shape, "parameters": {"binary_data_size": array.nbytes}}
    head = json.dumps({"inputs": [told], **more}).encode()
    return head + array.tobytes(), str(len(head))


BINARY, LENGTH = raw([[1, 2, 3]], parameters={"binary_data_output": True}, id="seven")
LARGE, LARGE_LENGTH = raw(np.arange(100_000)[None], parameters={"binary_data_output": True})
CLASSES, CLASSES_LENGTH = raw([[1, 3, 2]], outputs=[{"name": "y", "parameters": {"classification": 2}}])


@pytest.mark.parametrize("path, body, headers", [
    (INFER, BODY, {}),
    ("/v2/models/echo/versions/1/infer", BODY, {}),
    ("/v2/models/echo/versions/9/infer", BODY, {}),
    ("/v2/models/absent/infer", BODY, {}),
    ("/v2/models/soon/infer", BODY, {}),
    ("/v2/models/broken/infer", BODY, {}),
    ("/v2/models/broken%20later/infer", BODY, {}),
    ("/v2/models/full/infer", BODY, {}),
    (INFER, BINARY, {"inference_header_content_length": LENGTH}),
    (INFER, LARGE, {"inference_header_content_length": LARGE_LENGTH}),
    (INFER, CLASSES, {"inference_header_content_length": CLASSES_LENGTH}),
    (INFER, np.ones((2, 3), np.float32).tobytes(), {"inference_header_content_length": "0"}),
    (INFER, BINARY, {"inference_header_content_length": "99999"}),
    (INFER, BINARY, {"inference_header_content_length": "-1"}),
    (INFER, BINARY, {"inference_header_content_length": "1_0"}),
    (INFER, b"", {}),
    (INFER, b"{", {}),
    (INFER, b"[" * 100_000, {}),
    (INFER, BODY, {"host": "elsewhere.example"}),
    (INFER, BODY, {"origin": "http://elsewhere.example"}),
    (INFER, BODY, {"content_encoding": "br"}),
    (INFER + "?a=b", BODY, {}),
    ("/v2/models//infer", BODY, {}),
    ("/v2/models/echo/infer/", BODY, {}),
])  # fmt: skip
def test_the_same_answer_as_by_asgi(serve: Callable[..., Started], path: str, body: bytes, headers: dict[str, str]) -> None:
    served = serve(models())
    lines = {"host": "localhost", "content-length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = (
        f"POST {path} HTTP/1.1\r\n".encode() + b"".join(f"{name}: {value}\r\n".encode() for name, value in lines.items()) + b"\r\n" + body
    )
    rest = Rest(served.served)
    expected = Client(rest).ask("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    with dial(served.port) as connection:
        for _ in range(2):  # a connection is none the worse for it
            connection.sendall(request)
            status, head, found = whole(connection)
            assert (status, found) == (expected.status, expected.body)
            assert head == expected.headers


def whole(connection: Any) -> tuple[int, dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1)
    lines = data.decode().split("\r\n")
    head = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    body = b""
    while len(body) < int(head["content-length"]):
        body += connection.recv(int(head["content-length"]) - len(body))
    return int(lines[0].split()[1]), head, body


def test_it_is_what_answers(serve: Callable[..., Started], monkeypatch: pytest.MonkeyPatch) -> None:
    """Or all else here would test ASGI against itself."""
    begun = []
    answer = direct.Exchange.answer

    def counted(exchange: direct.Exchange) -> None:
        begun.append(exchange.model)
        answer(exchange)

    monkeypatch.setattr(direct.Exchange, "answer", counted)
    with dial(serve(models()).port) as connection:
        for path in (INFER, "/v2/models/late/infer", INFER + "?a=b"):
            assert asked(connection, post(path))[0] == 200
    assert begun == ["echo", "late"]


def test_answers_come_in_the_order_of_their_requests(serve: Callable[..., Started]) -> None:
    """Pipelined: quick ones behind slow ones, inference behind what is none, and the other way round."""
    names = ("late", "echo", "", "soon", "echo", "late", "")
    requests = [post(f"/v2/models/{name}/infer") if name else b"GET /v2/models/echo HTTP/1.1\r\nhost: localhost\r\n\r\n" for name in names]
    with dial(serve(models()).port) as connection:
        connection.sendall(b"".join(requests))
        told = [json.loads(whole(connection)[2]) for _ in names]
    assert [each.get("model_name", "") for each in told] == list(names)


def test_a_request_in_pieces(serve: Callable[..., Started]) -> None:
    with dial(serve(models()).port) as connection:
        data = post(INFER, LARGE, inference_header_content_length=LARGE_LENGTH)
        for at in range(0, len(data), 65_521):
            connection.sendall(data[at : at + 65_521])
            time.sleep(0.005)
        status, body = answered(connection)
        assert status == 200 and body.endswith(LARGE[-400_000:])
        for place in range(len(short := post(INFER))):
            connection.sendall(short[place : place + 1])
        assert answered(connection)[0] == 200


def test_raw_tensors_begin_where_engines_read_them() -> None:
    for pieces in ([b"x" * 7 + b"\0" * 40], [b"x" * 7, b"\0" * 33, b"\0" * 7]):
        exchange = direct.Exchange.__new__(direct.Exchange)
        exchange.pieces = list(pieces)
        body = exchange._body(7)
        assert bytes(body) == b"".join(pieces)
        if len(pieces) > 1:
            assert np.frombuffer(body[7:], np.uint8).ctypes.data % 16 == 0


def test_who_goes_away_takes_the_request_back(serve: Callable[..., Started]) -> None:
    host = FakeHost({"echo": identity(delay_s=30.0)})
    served = serve(host, Server(limits=Limits(concurrent=1)))
    with dial(served.port) as connection:
        connection.sendall(post(INFER))
        until(lambda: len(host.requests) == 1)
        with dial(served.port) as other:
            assert asked(other, post(INFER))[0] == 429
    until(lambda: host.cancelled == 1)
    host.models["echo"].delay_s = 0.0
    with dial(served.port) as other:  # what it took of its limit is back
        assert asked(other, post(INFER))[0] == 200


def test_what_can_not_be_said_is_counted_once(serve: Callable[..., Started]) -> None:
    served = serve(FakeHost({"echo": FakeModel(identity("object").signature, answer=lambda _: {"y": np.array([[b"\xff"]], object)})}))
    body = json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1, 1], "data": ["a"]}]}).encode()
    with dial(served.port) as connection:
        assert asked(connection, post(INFER, body))[0] == 400
    assert (served.served.vitals.recent("echo").requests, served.served.vitals.recent("echo").fail) == (1, 1)


@pytest.mark.parametrize("path", [INFER, INFER + "?a=b"])
def test_a_key_beside_another_scheme(serve: Callable[..., Started], path: str, tmp_path: Path) -> None:
    key = keys.new_key()
    (tmp_path / "keys.toml").write_text(keys.entry("me", key))
    with dial(serve(models(), Server(keys=tmp_path / "keys.toml")).port) as connection:
        assert asked(connection, post(path, authorization="Basic eDp5", x_api_key=key))[0] == 200
        assert asked(connection, post(path, authorization="Basic eDp5"))[0] == 401


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("version, header, stays", [("1.1", "", True), ("1.1", "connection: close\r\n", False), ("1.0", "", False)])
@pytest.mark.parametrize("model", ["echo", "soon"])
def test_connections_close_when_they_should(serve: Callable[..., Started], version: str, header: str, stays: bool, model: str) -> None:
    with dial(serve(models()).port) as connection:
        request = (
            f"POST /v2/models/{model}/infer HTTP/{version}\r\nhost: localhost\r\ncontent-length: {len(BODY)}\r\n{header}\r\n".encode()
            + BODY
        )
        connection.sendall(request)
        _, told, _ = whole(connection)
        assert told.get("connection", "") == ("" if stays else "close")
        if stays:
            assert asked(connection, request)[0] == 200
        else:
            assert connection.recv(1) == b""


@pytest.mark.parametrize("path", [INFER, "/v2"])
def test_an_idle_connection_is_closed(serve: Callable[..., Started], path: str) -> None:
    with dial(serve(models(), Server(keep_alive_s=1.0)).port) as connection:
        began = time.monotonic()
        connection.sendall(post(path) if path == INFER else b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert whole(connection)[0] == 200
        assert connection.recv(1) == b""  # without a word: there is no request that it would answer
        assert 0.9 < time.monotonic() - began < 10


def test_a_client_that_reads_nothing_is_given_no_more(serve: Callable[..., Started]) -> None:
    """Replies wait in memory up to the transport's mark; then requests wait, and in the end the connection goes."""
    host = models()
    served = serve(host, Server(patience=Patience(write_s=1.0)))
    data = post(INFER, LARGE, inference_header_content_length=LARGE_LENGTH)
    with dial(served.port) as connection:
        connection.settimeout(0.5)
        with pytest.raises(OSError):  # a timeout, or a connection that was reset
            for _ in range(400):
                connection.sendall(data)
        assert len(host.requests) < 100
        until(lambda: not served.edge._server.server_state.connections)


def test_what_is_logged_and_counted(serve: Callable[..., Started], caplog: pytest.LogCaptureFixture) -> None:
    served = serve(models(), Server(log_requests=True))
    with caplog.at_level(logging.INFO, "edgewise"), dial(served.port) as connection:
        for model in ("echo", "soon", "broken", "absent"):
            asked(connection, post(f"/v2/models/{model}/infer"))
        _, body = asked(connection, b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
    text = body.decode()
    for code, count in ((200, 2), (500, 1), (404, 1)):
        assert f'edgewise_http_responses_total{{code="{code}"}} {count}.0' in text
    told = [record.getMessage() for record in caplog.records]
    assert sum("request" in line and "failed" not in line for line in told) >= 4
    assert served.served.vitals.recent("echo").success == 1 and served.served.vitals.recent("soon").success == 1
    assert served.served.vitals.recent("broken").fail == 1


def test_the_same_head_again_asks_of_other_tensors(serve: Callable[..., Started], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose parser is left out: answers are of the tensors that came, and what is wrong with these is told as ever."""
    parsed = []
    begin = Connection.on_message_begin
    monkeypatch.setattr(Connection, "on_message_begin", lambda self: (parsed.append(1), begin(self))[1])
    host = models()
    with dial(serve(host).port) as connection:
        for number in range(5):
            body, length = raw([[number, 2, 3]], parameters={"binary_data_output": True})
            assert asked(connection, post(INFER, body, inference_header_content_length=length))[1].endswith(body[-12:])
        assert len(parsed) == 1 and [request.inputs["x"][0, 0] for request in host.requests] == [0, 1, 2, 3, 4]
        short = body.replace(b"[1, 3]", b"[1, 4]")
        status, told = asked(connection, post(INFER, short, inference_header_content_length=length))
        assert status == 400 and b"16 bytes" in told
        for number in (7, 8):
            later = post("/v2/models/soon/infer", raw([[number]])[0], inference_header_content_length=raw([[number]])[1])
            assert json.loads(asked(connection, later)[1])["outputs"][0]["data"] == [number]
        connection.sendall(later + later)  # in one piece: two requests aren't one
        assert [json.loads(whole(connection)[2])["outputs"][0]["data"] for _ in range(2)] == [[8.0], [8.0]]
        connection.sendall(later)
        connection.sendall(b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert [whole(connection)[0] for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("wrong", [-4, 4])
def test_a_remembered_form_is_held_to_its_size(wrong: int) -> None:
    array = np.ones((1, 3), np.float32)
    body, length = raw(array)
    memory = SharedMemory(enabled=False)
    for _ in range(2):
        asked = inference.read(body, int(length), "echo", "", "", memory, 0.0)
        assert np.array_equal(asked.request.inputs["x"], array)
    with pytest.raises(InvalidInput, match="bytes"):
        inference.read(body[: int(length)] + bytes(12 + wrong), int(length), "echo", "", "", memory, 0.0)


def test_a_remembered_deadline_is_counted_from_each_request() -> None:
    told = {"name": "x", "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": 4}}
    head = json.dumps({"inputs": [told], "parameters": {"timeout": 500_000, "priority": 1}}).encode()
    memory = SharedMemory(enabled=False)
    for now in (1.0, 2.0, 3.0):
        request = inference.read(head + bytes(4), len(head), "echo", "", "", memory, now).request
        assert request.deadline == pytest.approx(now + 0.5) and request.priority == 99


def test_forms_that_are_remembered_are_few() -> None:
    memory = SharedMemory(enabled=False)
    for width in range(1, 2 * inference.FORMS):
        body, length = raw(np.zeros((1, width)))
        inference.read(body, int(length), "echo", "", "", memory, 0.0)
        assert len(inference._forms) <= inference.FORMS
