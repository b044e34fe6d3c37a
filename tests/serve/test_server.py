"""A real server on a real socket: slow clients, those that go away, keys that change, TLS, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.errors import InvalidInput
from edgewise.serve import keys, server
from edgewise.serve.certificates import Certificates
from edgewise.serve.config import Server, Tls
from edgewise.serve.connections import Patience
from edgewise.testing.hosts import FakeHost, identity

from .exchanges import BODY, INFER, answered, asked, dial, post


def test_one_connection_many_requests(serving: Callable[..., Any]) -> None:
    port = serving(FakeHost({"echo": identity()})).port
    with dial(port) as connection:
        for _ in range(3):
            assert asked(connection, post(INFER)) == (200, (b'{"model_name":"echo","model_version":"1","outputs":'
                                                            b'[{"name":"y","datatype":"FP32","shape":[1,1],"data":[7.0]}]}'))  # fmt: skip
        connection.sendall(post(INFER) + post(INFER))  # two at once
        found = b""
        while found.count(b'"data":[7.0]') < 2:
            found += connection.recv(65536)
        big = np.arange(200_000, dtype=np.float32)
        told = {"name": "x", "datatype": "FP32", "shape": [1, big.size], "parameters": {"binary_data_size": big.nbytes}}
        head = json.dumps({"inputs": [told], "parameters": {"binary_data_output": True}}).encode()
        status, body = asked(connection, post(INFER, head + big.tobytes(), inference_header_content_length=str(len(head))))
        assert status == 200 and body.endswith(big.tobytes())


def test_a_client_is_who_is_at_the_other_end_of_the_socket(serving: Callable[..., Any]) -> None:
    host = FakeHost({"echo": identity()})
    with dial(serving(host).port) as connection:
        assert asked(connection, post(INFER, x_forwarded_for="203.0.113.9"))[0] == 200
    assert [request.client for request in host.requests] == ["127.0.0.1"]


def test_a_client_that_goes_away_cancels_its_request(serving: Callable[..., Any]) -> None:
    host = FakeHost({"echo": identity(delay_s=30.0)})
    port = serving(host).port
    with dial(port) as connection:
        connection.sendall(post(INFER))
        _until(lambda: len(host.requests) == 1)
    _until(lambda: host.cancelled == 1)


def test_slow_clients_block_nobody_and_are_sent_away(serving: Callable[..., Any]) -> None:
    """Slowloris (heads that never end) and its like with bodies: others are answered all the while."""
    patience = Patience(head_s=1.0, body_s=1.0)
    port = serving(FakeHost({"echo": identity()}), Server(patience=patience)).port
    slow = [dial(port) for _ in range(200)]
    try:
        for place, connection in enumerate(slow):
            match place % 3:
                case 0:
                    connection.sendall(b"POST /v2 HTTP/1.1\r\nhost: lo")
                case 1:
                    connection.sendall(post(INFER)[:-5])
        with dial(port) as connection:
            for _ in range(20):
                assert asked(connection, post(INFER))[0] == 200
        replies = [answered(connection)[0] for connection in slow]
        assert replies == [(408, 408, 0)[place % 3] for place in range(200)]
    finally:
        for connection in slow:
            connection.close()


def test_a_drip_of_bytes_buys_no_time(serving: Callable[..., Any]) -> None:
    port = serving(FakeHost({"echo": identity()}), Server(patience=Patience(head_s=1.0))).port
    with dial(port) as connection:
        connection.sendall(b"GET /v2 HTTP/1.1\r\n")
        connection.settimeout(0.2)
        until = time.monotonic() + 15
        status = 0
        while time.monotonic() < until:
            try:
                connection.sendall(b"x: y\r\n")
                data = connection.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                break
            status = int(data.split()[1]) if data else status
            break
        assert status in (0, 408) and time.monotonic() < until


def test_heads_have_a_size(serving: Callable[..., Any]) -> None:
    port = serving(FakeHost({"echo": identity()}), Server(patience=Patience(head_bytes=10_000))).port
    with dial(port) as connection:
        assert asked(connection, b"GET /v2 HTTP/1.1\r\nx: " + b"y" * 20_000)[0] == 431
    with dial(port) as connection:
        assert asked(connection, b"nonsense\r\n\r\n")[0] == 400
    with dial(port) as connection:
        head = b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: localhost\r\n"
        assert asked(connection, head + b"content-length: 99999999999\r\n\r\n")[0] == 413


def test_bodies_of_all_together_have_a_size(serving: Callable[..., Any]) -> None:
    """Ten clients that each send what one may, and never end, don't fill the memory; room comes back when they leave."""
    host = FakeHost({"echo": identity()})
    port = serving(host, Server(body=1_000_000, patience=Patience(bodies=2_000_000))).port
    head = b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"
    greedy = [dial(port) for _ in range(4)]
    statuses = []
    for connection in greedy:
        connection.sendall(head)
        connection.settimeout(1.0)
        try:
            connection.sendall(bytes(900_000))
            statuses.append(answered(connection)[0])
        except (TimeoutError, ConnectionError):
            statuses.append(0)
    assert statuses.count(503) >= 1 and statuses[0] == statuses[1] == 0
    for connection in greedy:
        connection.close()
    array = np.zeros(200_000, np.float32)
    told = {"name": "x", "datatype": "FP32", "shape": [1, array.size], "parameters": {"binary_data_size": array.nbytes}}
    with dial(port) as connection:
        start = json.dumps({"inputs": [told]}).encode()
        body = post(INFER, start + array.tobytes(), inference_header_content_length=str(len(start)))
        for _ in range(4):  # each is given back
            assert asked(connection, body)[0] == 200


def test_a_body_that_says_no_length_ends_at_the_limit(serving: Callable[..., Any]) -> None:
    port = serving(FakeHost({"echo": identity()}), Server(body=100_000)).port
    with dial(port) as connection:
        connection.sendall(b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
        status = 0
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                connection.sendall(b"4000\r\n" + bytes(0x4000) + b"\r\n")
            status = answered(connection)[0]
        assert status in (413, 0)
    with dial(port) as connection:
        chunked = b"POST /v2/models/echo/infer HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        assert asked(connection, chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))[0] == 200


def test_connections_have_a_number(serving: Callable[..., Any]) -> None:
    port = serving(FakeHost({"echo": identity()}), Server(patience=Patience(connections=2))).port
    first, second, third = (dial(port) for _ in range(3))
    with first, second, third:
        assert asked(first, post(INFER))[0] == asked(second, post(INFER))[0] == 200
        assert answered(third)[0] == 503


def test_keys_are_rotated_while_it_runs(serving: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "POLL_S", 0.05)
    file, old, new = tmp_path / "keys.toml", keys.new_key(), keys.new_key()
    file.write_text(keys.entry("me", old))
    port = serving(FakeHost({"echo": identity()}), Server(keys=file)).port
    with dial(port) as connection:
        assert asked(connection, post(INFER, authorization=f"Bearer {old}"))[0] == 200
        assert asked(connection, post(INFER, authorization=f"Bearer {new}"))[0] == 401
        file.write_text(keys.entry("me", new) + "# rotated\n")
        _until(lambda: asked(connection, post(INFER, authorization=f"Bearer {new}"))[0] == 200)
        assert asked(connection, post(INFER, authorization=f"Bearer {old}"))[0] == 401


def test_an_idle_server_sleeps(serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it looks round more than once a second; that it ends at once all the same, every other test sees."""
    slept, sleep = list[float](), asyncio.sleep

    async def noted(seconds: float, *rest: Any) -> Any:
        slept.append(seconds)
        return await sleep(seconds, *rest)

    monkeypatch.setattr(asyncio, "sleep", noted)
    with dial(serving(FakeHost({})).port) as connection:
        for _ in range(3):
            assert asked(connection, b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")[0] == 200
    assert slept and min(slept) >= 1.0


def test_what_was_taken_is_answered_before_the_end(serving: Callable[..., Any]) -> None:
    host = FakeHost({"echo": identity(delay_s=0.5)})
    running = serving(host)
    with dial(running.port) as busy, dial(running.port) as idle:
        busy.sendall(post(INFER))
        _until(lambda: len(host.requests) == 1)
        running.edge.stop()
        assert answered(busy)[0] == 200
        assert idle.recv(1) == b""  # closed, as nothing was under way
        running.thread.join(20)
        assert not running.thread.is_alive()
        with pytest.raises(OSError):
            dial(running.port)


@pytest.mark.parametrize("path", [INFER, INFER + "?by=asgi"])
def test_who_is_not_answered_in_time_is_told_so_in_the_end(serving: Callable[..., Any], path: str) -> None:
    host = FakeHost({"echo": identity(delay_s=3600.0)})
    running = serving(host, Server(drain_s=1.0))
    with dial(running.port) as busy:
        busy.sendall(post(path))
        _until(lambda: len(host.requests) == 1)
        running.edge.stop()
        assert answered(busy) == (503, b'{"error":"the server is closing"}') and busy.recv(1) == b""
    running.thread.join(20)
    assert not running.thread.is_alive() and host.cancelled == 1


@pytest.mark.parametrize("path", [INFER, INFER + "?by=asgi"])
def test_a_second_interrupt_waits_for_nobody(serving: Callable[..., Any], path: str) -> None:
    host = FakeHost({"echo": identity(delay_s=3600.0)})
    running = serving(host, Server(drain_s=3600.0, linger_s=3600.0))
    with dial(running.port) as busy:
        busy.sendall(post(path))
        _until(lambda: len(host.requests) == 1)
        for _ in range(2):
            running.edge._server.handle_exit(signal.SIGINT, None)
        assert answered(busy)[0] == 503
    running.thread.join(20)
    assert not running.thread.is_alive() and host.cancelled == 1


SCRIPT = """
import sys
from edgewise.serve import logs
from edgewise.serve.config import Server
from edgewise.serve.server import Edge, standing
from edgewise.testing.hosts import FakeHost, identity
logs.set_up()
Edge(Server(port=0, linger_s=1.0), lambda: standing(FakeHost({"echo": identity(delay_s=0.3)}))).run(lambda where: print(where, flush=True))
print("closed", flush=True)
"""


def test_sigterm_drains_and_ends_with_zero() -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        with dial(port) as connection, dial(port) as probe:
            connection.sendall(post(INFER))
            assert asked(probe, b"GET /v2/health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n")[0] == 200
            process.send_signal(signal.SIGTERM)
            _until(lambda: asked(probe, b"GET /v2/health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n")[0] == 503)
            assert answered(connection)[0] == 200
        out, errors = process.communicate(timeout=20)
        assert process.returncode == 0 and out.strip() == "closed"
        assert [json.loads(line)["event"] for line in errors.splitlines()] == ["draining"]
    finally:
        process.kill()
        process.wait()


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="PEM"):
        Certificates(Tls(tmp_path / "a", tmp_path / "b"))
    with server.listening("127.0.0.1", 0) as taken, pytest.raises(InvalidInput, match="something else"):
        server.listening("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InvalidInput, match="no address"):
        server.listening("256.0.0.1.invalid", 0)


def test_exposure_is_said_aloud(tmp_path: Path) -> None:
    assert server.exposure(Server()) == server.exposure(Server(host="localhost")) == ""
    assert "WITHOUT KEYS" in server.exposure(Server(host="0.0.0.0"))
    assert "without TLS" in server.exposure(Server(host="0.0.0.0", keys=tmp_path))
    tls = Tls(tmp_path, tmp_path)
    assert "WITHOUT KEYS" in server.exposure(Server(host="0.0.0.0", tls=tls))
    assert server.exposure(Server(host="0.0.0.0", tls=Tls(tmp_path, tmp_path, tmp_path))) == ""
    assert "evil" not in server.allowed(Server(host="0.0.0.0")) and server.allowed(Server(hosts=("*",))) == frozenset()


def test_tritonclient_works_unchanged(serving: Callable[..., Any]) -> None:
    http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    port = serving(FakeHost({"echo": identity(described={"labels": ("a", "b")})})).port
    client = http.InferenceServerClient(f"127.0.0.1:{port}", network_timeout=20, connection_timeout=20)
    try:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("echo") and not client.is_model_ready("none")
        assert client.get_server_metadata()["name"] == "edgewise"
        assert client.get_model_metadata("echo")["inputs"][0]["datatype"] == "FP32"
        assert client.get_model_config("echo")["max_batch_size"] == 128
        assert client.get_model_repository_index()[0]["state"] == "READY"
        array = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
        for binary in (True, False):
            given = http.InferInput("x", array.shape, "FP32")
            given.set_data_from_numpy(array, binary_data=binary)
            for outputs in (None, [http.InferRequestedOutput("y", binary_data=binary)]):
                found = client.infer("echo", [given], outputs=outputs, request_id="7", priority=1, timeout=10_000_000)
                assert np.array_equal(found.as_numpy("y"), array) and found.get_response()["id"] == "7"
            for how in ("gzip", "deflate"):
                found = client.infer("echo", [given], request_compression_algorithm=how, response_compression_algorithm=how)
                assert np.array_equal(found.as_numpy("y"), array)
        classes = client.infer("echo", [given], outputs=[http.InferRequestedOutput("y", class_count=1)]).as_numpy("y")
        assert classes.shape == (3, 1) and classes.dtype == object
        pending = [client.async_infer("echo", [given]) for _ in range(4)]
        assert all(np.array_equal(each.get_result().as_numpy("y"), array) for each in pending)
        assert client.get_inference_statistics("echo")["model_stats"][0]["inference_stats"]["success"]["count"] > 0
        client.unload_model("echo")
        assert not client.is_model_ready("echo")
        client.load_model("echo")
        with pytest.raises(Exception, match="no model"):
            client.infer("none", [given])
    finally:
        client.close()
        del client
        gc.collect()  # it closes itself once more when it goes, which has to be in the thread that it was made in


def test_curl(serving: Callable[..., Any], tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    port = serving(FakeHost({"echo": identity()})).port
    line = ["curl", "-s", "-m", "20", "--fail-with-body", f"http://127.0.0.1:{port}"]

    def curl(path: str, *more: str) -> bytes:
        return subprocess.run([*line[:-1], *more, line[-1] + path], capture_output=True, check=True, timeout=30).stdout

    assert json.loads(curl("/v2"))["name"] == "edgewise"
    assert json.loads(curl(INFER, "-d", BODY.decode()))["outputs"][0]["data"] == [7.0]
    (tmp_path / "big.json").write_text(
        json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 50_000], "data": [0.5] * 50_000}]})
    )
    assert (
        len(json.loads(curl(INFER, "--data-binary", f"@{tmp_path / 'big.json'}", "-H", "expect: 100-continue"))["outputs"][0]["data"])
        == 50_000
    )


def _until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)
