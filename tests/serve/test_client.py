"""The client over a server of ours, and over one that answers as others do."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgewise.errors import InvalidInput, MeasurementFailed
from edgewise.host import Late, NoModel, Refused
from edgewise.serve.client import Address, Remote, signature_of
from edgewise.testing.hosts import FakeHost, identity
from edgewise.types import TensorSpec

X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
METADATA = {
    "name": "net",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
}


def test_tensors_go_and_come_back_raw(serving: Any) -> None:
    running = serving(FakeHost({"same": identity(), "words": identity("object")}))
    remote = Remote(Address(f"http://127.0.0.1:{running.port}", "same"))
    assert remote.binary and remote.server.startswith("edgewise")
    assert remote.signature.batched and remote.signature.inputs[0] == TensorSpec("x", ("batch", "x.1"), "float32")
    for _ in range(3):
        assert np.array_equal(remote.run(X)["y"], X["x"])
    other = {"x": X["x"] + 1}
    assert np.array_equal(remote.run(other)["y"], other["x"])
    remote.close()
    words = Remote(Address(f"http://127.0.0.1:{running.port}", "words", "1"))
    assert words.run({"x": np.array([[b"a", b""]], object)})["y"].tolist() == [[b"a", b""]]
    words.close()
    with pytest.raises(NoModel, match="nowhere"):
        Remote(Address(f"http://127.0.0.1:{running.port}", "nowhere"))


class Other(http.server.BaseHTTPRequestHandler):
    """A server that knows JSON alone. replies: what it answers to inference, one after another, the last for ever."""

    protocol_version = "HTTP/1.1"
    replies: list[tuple[int, dict[str, str], bytes]] = []  # noqa: RUF012
    asked: list[Any] = []  # noqa: RUF012
    hangs_up = 0

    def do_GET(self) -> None:
        self._reply(200, {}, json.dumps(METADATA if "models" in self.path else {"name": "other"}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.headers, body))
        if Other.hangs_up:
            Other.hangs_up -= 1
            self.close_connection = True
            return
        self._reply(*(self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]))

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def answer(values: Any) -> bytes:
    return json.dumps({"outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 3], "data": values}]}).encode()


@pytest.fixture
def other() -> Iterator[Callable[..., Remote]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made: list[Remote] = []

    def start(*replies: tuple[int, dict[str, str], bytes], **more: Any) -> Remote:
        Other.replies, Other.asked, Other.hangs_up = list(replies), [], more.pop("hangs_up", 0)
        made.append(Remote(Address(f"http://127.0.0.1:{server.server_port}", "net", **more)))
        return made[-1]

    yield start
    for remote in made:
        remote.close()
    server.shutdown()
    server.server_close()


def test_a_server_that_knows_json_alone(other: Callable[..., Remote]) -> None:
    remote = other((200, {}, answer([1.0, 2.0, "NaN", 4.0, 5.0, 6.0])), key="ew_1")
    assert not remote.binary
    found = remote.run(X)["y"]
    assert found.shape == (2, 3) and np.isnan(found[0, 2])
    headers, body = Other.asked[0]
    assert json.loads(body)["inputs"][0]["data"] == [0, 1, 2, 3, 4, 5] and headers["Authorization"] == "Bearer ew_1"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(503, Refused), (429, Refused), (504, Late), (404, NoModel), (400, InvalidInput), (401, InvalidInput), (500, MeasurementFailed)],
)
def test_what_a_server_says_no_with(other: Callable[..., Remote], status: int, kind: type[Exception]) -> None:
    remote = other((status, {"Retry-After": "7"}, b'{"error": "the reason"}'), (200, {}, answer([0.0] * 6)))
    with pytest.raises(kind, match=f"{status}: the reason") as caught:
        remote.run(X)
    if isinstance(caught.value, Refused):
        assert caught.value.retry_after_s == 7
    assert remote.run(X)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", answer([1.0]), b'{"outputs": [{"name": "y"}]}', b'{"outputs": 5}'])
def test_answers_that_are_none(other: Callable[..., Remote], body: bytes) -> None:
    with pytest.raises(MeasurementFailed, match="none of the protocol's"):
        other((200, {}, body)).run(X)


def test_a_connection_that_was_closed_meanwhile_is_made_anew_once(other: Callable[..., Remote]) -> None:
    assert other((200, {}, answer([0.0] * 6)), hangs_up=1).run(X)
    with pytest.raises(MeasurementFailed, match="is the server there"):
        other((200, {}, answer([0.0] * 6)), hangs_up=2).run(X)


def test_nobody_there() -> None:
    with pytest.raises(MeasurementFailed, match="is the server there"):
        Remote(Address("http://127.0.0.1:1", "net"))
    for url in ("127.0.0.1:8080", "ftp://here", "http://", "http://here:port"):
        with pytest.raises(InvalidInput, match="where the server listens"):
            Remote(Address(url, "net"))


def test_signatures() -> None:
    tensor = {"datatype": "INT64", "shape": [-1, -1]}
    made = signature_of(
        {"inputs": [{"name": "a", **tensor}, {"name": "b", **tensor}], "outputs": [{"name": "c", "datatype": "FP32", "shape": [2]}]}
    )
    assert not made.batched and made.inputs[1].shape == ("b.0", "b.1") and made.outputs[0].shape == (2,)
    for wrong in ({}, {"inputs": 5, "outputs": []}, {"inputs": [{"name": "a"}], "outputs": []}):
        with pytest.raises(MeasurementFailed):
            signature_of(wrong)
    with pytest.raises(InvalidInput, match="datatype"):
        signature_of({"inputs": [{"name": "a", "datatype": "FP33", "shape": [1]}], "outputs": []})


def test_answers_are_sent_at_once() -> None:
    """asyncio turns Nagle's algorithm off only where a socket names its protocol; with it, an answer waits for a delayed ACK."""
    import socket

    from edgewise.serve.server import listening

    with listening("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
