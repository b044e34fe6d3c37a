"""Traces, as a collector gets them: a receiver of OTLP over HTTP here, the real server before it."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from edgewise.errors import InvalidInput, MissingExtra
from edgewise.host import Answer, Refused
from edgewise.serve import config, tracing
from edgewise.serve.config import Server, Tracing
from edgewise.serve.server import Edge, standing
from edgewise.testing.hosts import FakeHost, identity

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs opentelemetry: pip install 'edgewise[otel]'")
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [7, 8]}]}
ANSWERED = {  # of a span, whatever the protocol
    "edgewise.model.name": "echo",
    "edgewise.model.version": "1",
    "edgewise.queued_s": 0.25,
    "edgewise.computed_s": 0.5,
    "edgewise.rows": 3,
    "edgewise.cached": False,
    "edgewise.outcome": "success",
}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass
class Span:
    """name, kind and so on as OTLP has them; attributes as plain values."""

    told: Any
    attributes: dict[str, Any]
    resource: dict[str, Any]

    @property
    def trace(self) -> str:
        return str(self.told.trace_id.hex())

    @property
    def parent(self) -> str:
        return str(self.told.parent_span_id.hex())

    @property
    def failed(self) -> bool:
        return bool(self.told.status.code == 2)


def plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@dataclass
class Collector:
    """What came, at `address`. status: what it answers."""

    address: str
    paths: list[str] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    status: int = 200

    def got(self, count: int) -> list[Span]:
        """The first `count` spans, in the order in which they began."""
        until = time.monotonic() + 15
        while len(self.spans) < count:
            assert time.monotonic() < until, f"{len(self.spans)} spans of {count}"
            time.sleep(0.01)
        return sorted(self.spans, key=lambda span: span.told.start_time_unix_nano)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "EVERY_S", 0.02)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def collector() -> Iterator[Collector]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            given = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            found.paths.append(self.path)
            if found.status == 200:
                found.spans += [
                    Span(span, plain(span.attributes), plain(told.resource.attributes))
                    for told in given.resource_spans
                    for scope in told.scope_spans
                    for span in scope.spans
                ]
            data = ExportTraceServiceResponse().SerializeToString()
            self.send_response(found.status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *told: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.daemon_threads = True
        found = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join(10)


def ask(port: int, path: str, body: Any = None, method: str = "", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


class Counting(FakeHost):
    """Its answers say how they came about."""

    async def infer(self, request: Any) -> Answer:
        found = await super().infer(request)
        return Answer(found.model, found.version, found.outputs, queued_s=0.25, computed_s=0.5, rows=3)


def busy(inputs: Any) -> Any:
    raise Refused("full")


def broken(inputs: Any) -> Any:
    raise RuntimeError("the engine's")


def test_a_span_of_each_request(serving: Callable[..., Any], collector: Collector) -> None:
    host = Counting({"echo": identity(), "busy": identity(answer=busy), "broken": identity(answer=broken)})
    port = serving(host, Server(tracing=Tracing(collector.address))).port
    began = time.time_ns()
    assert ask(port, "/v2/models/echo/versions/1/infer", BODY, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="a=b") == 200
    assert ask(port, "/v2/models/busy/infer", BODY) == 503
    assert ask(port, "/v2/models/broken/infer", BODY, traceparent="nonsense") == 500
    assert ask(port, "/v2/models/none/infer", BODY) == 404
    assert ask(port, "/v2/models/echo/infer", {}) == 400
    assert ask(port, "/v2/models/echo") == 200
    for unseen in ("/v2/health/live", "/metrics", "/docs", "/wp-login.php", "/v2/models/echo/shell"):
        ask(port, unseen)
    assert ask(port, "/v2/repository/index") == 200
    spans = collector.got(7)
    assert set(collector.paths) == {"/v1/traces"} and len(spans) == 7
    first, refused, failed, absent, wrong, metadata, index = spans
    assert first.told.name == "POST /v2/models/{model}/versions/{version}/infer" and first.told.kind == 2
    assert (first.trace, first.parent, first.told.trace_state) == (TRACE, PARENT, "a=b")
    assert began <= first.told.start_time_unix_nano <= first.told.end_time_unix_nano <= time.time_ns()
    assert first.attributes.pop("server.port") == port and first.attributes == {
        "http.request.method": "POST",
        "http.route": "/v2/models/{model}/versions/{version}/infer",
        "http.response.status_code": 200,
        "url.path": "/v2/models/echo/versions/1/infer",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "client.address": "127.0.0.1",
        "server.address": "127.0.0.1",
        **ANSWERED,
    }
    assert first.resource["service.name"] == "edgewise" and first.resource["service.version"]
    told = [(span.attributes.get("edgewise.outcome"), span.attributes["http.response.status_code"], span.failed) for span in spans]
    assert told == [
        ("success", 200, False), ("refused", 503, True), ("fail", 500, True), ("fail", 404, False), (None, 400, False),
        (None, 200, False), (None, 200, False),
    ]  # fmt: skip
    assert refused.attributes["error.type"] == "503" and "error.type" not in absent.attributes
    assert len({span.trace for span in spans}) == 7 and not any(span.parent for span in spans[1:])
    assert metadata.told.name == "GET /v2/models/{model}" and index.told.name == "GET /v2/repository/index"
    assert failed.attributes["edgewise.model.name"] == "broken" and wrong.told.name == "POST /v2/models/{model}/infer"


def test_a_client_that_goes_away(serving: Callable[..., Any], collector: Collector) -> None:
    host = FakeHost({"slow": identity(delay_s=60.0)})
    port = serving(host, Server(tracing=Tracing(collector.address))).port
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        body = json.dumps(BODY).encode()
        connection.sendall(b"POST /v2/models/slow/infer HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        until = time.monotonic() + 15
        while not host.requests and time.monotonic() < until:
            time.sleep(0.01)
    (span,) = collector.got(1)
    assert span.attributes["edgewise.outcome"] == "cancelled" and not span.failed and "http.response.status_code" not in span.attributes


def test_sampled_by_the_parent_or_by_the_share(serving: Callable[..., Any], collector: Collector) -> None:
    port = serving(FakeHost({"echo": identity()}), Server(tracing=Tracing(collector.address, share=0.0))).port
    for sampled in ("00", "01", "00"):
        assert ask(port, "/v2/models/echo/infer", BODY, traceparent=f"00-{TRACE}-{PARENT}-{sampled}") == 200
    assert ask(port, "/v2/models/echo/infer", BODY) == 200
    every = serving(FakeHost({"echo": identity()}), Server(tracing=Tracing(f"{collector.address}/v1/traces"))).port
    assert ask(every, "/v2/models/echo/infer", BODY, traceparent=f"00-{TRACE}-{PARENT}-00") == 200
    assert ask(every, "/v2/models/echo/infer", BODY) == 200
    first, second = collector.got(2)
    assert first.trace == TRACE and second.trace != TRACE


def test_what_waits_is_sent_before_the_end(serving: Callable[..., Any], collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "EVERY_S", 600.0)
    running = serving(FakeHost({"echo": identity()}), Server(tracing=Tracing(collector.address)))
    for _ in range(5):
        assert ask(running.port, "/v2/models/echo/infer", BODY) == 200
    assert not collector.spans
    running.edge.stop()
    running.thread.join(20)
    assert not running.thread.is_alive() and len(collector.spans) == 5


@pytest.mark.parametrize("how", ["refuses", "is silent"])
def test_a_dead_collector_keeps_nobody(serving: Callable[..., Any], how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not requests, whose spans are thrown away when too many wait, and not the end, though a try would take half a minute."""
    monkeypatch.setattr(tracing, "EXPORT_S", 30.0)
    monkeypatch.setattr(tracing, "WAITING", 8)
    monkeypatch.setattr(tracing, "BATCH", 4)
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        if how == "is silent":
            dead.listen()
        running = serving(FakeHost({"echo": identity()}), Server(tracing=Tracing(f"http://127.0.0.1:{dead.getsockname()[1]}")))
        for _ in range(30):
            assert ask(running.port, "/v2/models/echo/infer", BODY) == 200
        running.edge.stop()
        began = time.monotonic()
        running.thread.join(20)
        assert not running.thread.is_alive() and time.monotonic() - began < 10


def test_trouble_is_said_once_and_its_end_too(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="edgewise.serve")
    collector.status = 401
    tracer = tracing.Tracer(Tracing(collector.address))
    try:

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def send(message: Any) -> None:
            pass

        def asked() -> None:
            scope = {"type": "http", "method": "BREW", "path": "/v2", "headers": []}
            asyncio.run(tracer.rest(application)(scope, None, send))  # type: ignore[arg-type]

        for count in (1, 2, 3):
            asked()
            until = time.monotonic() + 15
            while len(collector.paths) < count and time.monotonic() < until:
                time.sleep(0.01)
        collector.status = 200
        asked()
        (span,) = collector.got(1)
        assert span.told.name == "HTTP /v2" and span.attributes["http.request.method"] == "_OTHER"
    finally:
        tracer.close()
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [("WARNING", "traces can't be sent, and are thrown away"), ("INFO", "traces are sent again")]
    assert "401" in caplog.records[0].told["reason"]  # type: ignore[attr-defined]


def test_spans_of_grpc(serving: Callable[..., Any], collector: Collector) -> None:
    grpc = pytest.importorskip("grpc", reason="needs grpc: pip install 'edgewise[grpc]'")
    from edgewise.serve import grpc as side
    from edgewise.serve.grpc.descriptors import SERVICE, message

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host = Counting({"echo": identity(), "busy": identity(answer=busy)})
    serving(host, Server(tracing=Tracing(collector.address)), sides=[side.side(side.Settings(port=port), 1.0)])

    def asking(model: str) -> bytes:
        made = message("ModelInferRequest")(model_name=model)
        given = made.inputs.add(name="x", datatype="FP32", shape=[1, 1])
        given.contents.fp32_contents.append(7)
        return bytes(made.SerializeToString())

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer, stream = channel.unary_unary(f"/{SERVICE}/ModelInfer"), channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        infer(asking("echo"), timeout=20, metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")])
        with pytest.raises(grpc.RpcError):
            infer(asking("busy"), timeout=20)
        with pytest.raises(grpc.RpcError):
            infer(b"\x03", timeout=20)
        assert len(collector.got(3)) == 3
        assert len(list(stream(iter([asking("echo"), b"\x03"]), timeout=20, metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")]))) == 2
        assert len(collector.got(5)) == 5
        for name in ("ServerLive", "ModelMetadata"):
            channel.unary_unary(f"/{SERVICE}/{name}")(
                message("ModelMetadataRequest")(name="echo").SerializeToString() * (name != "ServerLive")
            )
    first, refused, wrong, *streamed, metadata = collector.got(6)
    assert first.told.name == f"{SERVICE}/ModelInfer" and first.told.kind == 2 and (first.trace, first.parent) == (TRACE, PARENT)
    assert first.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/ModelInfer",
        "rpc.response.status_code": "OK",
        **ANSWERED,
    }
    assert refused.attributes["rpc.response.status_code"] == refused.attributes["error.type"] == "UNAVAILABLE" and refused.failed
    assert refused.attributes["edgewise.outcome"] == "refused" and not refused.parent
    assert wrong.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT" and not wrong.failed
    assert sorted(span.attributes["rpc.response.status_code"] for span in streamed) == ["INVALID_ARGUMENT", "OK"]
    assert {(span.told.name, span.trace) for span in streamed} == {(f"{SERVICE}/ModelStreamInfer", TRACE)}
    assert metadata.told.name == f"{SERVICE}/ModelMetadata"


def test_without_the_extra_it_is_refused_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgewise\[otel\]'"):
        Edge(Server(tracing=Tracing("http://collector:4318")), lambda: standing(FakeHost({})))


def test_settings() -> None:
    (told,) = [config.parse("[tracing]\notlp = 'http://collector:4318/'\nshare = 0.5").server.tracing]
    assert told == Tracing("http://collector:4318/", 0.5) and told.address == "http://collector:4318/v1/traces"
    for wrong in ("collector:4318", "grpc://collector:4317", "http://", "http://collector:4318?x=y"):
        with pytest.raises(InvalidInput, match="collector's address"):
            Tracing(wrong)
    for share in (-0.1, 1.1):
        with pytest.raises(InvalidInput, match="from 0 to 1"):
            Tracing("http://collector:4318", share)
