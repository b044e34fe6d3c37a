"""Traces for OpenTelemetry: a server span of each request, sent as OTLP over HTTP by a thread of its own. It is the extra `otel`.

The attributes are those of the semantic conventions for HTTP and RPC; what the conventions have no word for begins with "edgewise.".
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, cast

import edgewise
from edgewise import registry
from edgewise.host import Answer
from edgewise.serve.config import Tracing
from edgewise.serve.http import Application, Receive, Scope, Send
from edgewise.serve.logs import say
from edgewise.serve.problems import told
from edgewise.serve.vitals import outcome

WAITING = 2048  # spans; where more wait for the collector, the oldest are thrown away
BATCH = 512
EVERY_S = 1.0
EXPORT_S = 5.0
GRACE_S = 1.0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
VERBS = frozenset({"infer", "predict", "config", "ready", "stats"})
# Of gRPC's codes, those that are the server's fault, as the conventions have it.
FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


def need() -> None:
    """Raises MissingExtra with the pip line."""
    for module in ("opentelemetry.sdk.trace", _EXPORTER):
        registry.need(module)


class Call:
    """A request's span. status: of HTTP, once a response began. error: what it was answered with."""

    __slots__ = ("error", "span", "status")

    def __init__(self, span: Any) -> None:
        self.span = span
        self.status: int | None = None
        self.error: BaseException | None = None


# What runs for a request finds its span here: the same for whoever speaks a protocol.
_CALL: ContextVar[Call | None] = ContextVar("edgewise.serve.tracing", default=None)


class Tracer:
    """Raises MissingExtra. It belongs to the loop that requests are answered in, and has to be closed."""

    def __init__(self, settings: Tracing) -> None:
        need()
        from opentelemetry.context import Context
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        own = {"service.name": "edgewise", "service.version": edgewise.__version__}
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override it.
        resource = Resource.create(cast(Any, own)).merge(OTELResourceDetector().detect())
        self._exporter = _Telling(OTLPSpanExporter(settings.address, timeout=EXPORT_S), settings.address)
        self._provider = TracerProvider(ParentBased(TraceIdRatioBased(settings.share)), resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                cast(Any, self._exporter), max_queue_size=WAITING, max_export_batch_size=BATCH, schedule_delay_millis=EVERY_S * 1e3
            )
        )
        self._tracer = self._provider.get_tracer("edgewise.serve", edgewise.__version__)
        self._propagator, self._root, self._server, self._error = (
            TraceContextTextMapPropagator(),
            Context(),
            SpanKind.SERVER,
            StatusCode.ERROR,
        )

    def close(self) -> None:
        """Send what waits, for `GRACE_S` at most: a collector that doesn't answer keeps nobody."""
        # The provider would wait half a minute for its thread.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(GRACE_S)
        self._exporter.shutdown()

    def rest(self, application: Application) -> Application:
        """`application`, with a span of every request of the protocol but those for health."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            address = route(scope["path"]) if scope["type"] == "http" else ""
            call = self._begun(f"{_method(scope)} {address}", _carried(scope["headers"]), _of_http(scope, address)) if address else None
            if call is None:
                await application(scope, receive, send)
                return

            async def noted(message: Any) -> None:
                if message["type"] == "http.response.start":
                    call.status = message["status"]
                await send(message)

            token = _CALL.set(call)
            try:
                await application(scope, receive, noted)
            finally:
                _CALL.reset(token)
                if call.status is None:
                    call.span.set_attribute("edgewise.outcome", "cancelled")
                else:
                    call.span.set_attribute("http.response.status_code", call.status)
                self._ended(call, str(call.status), fault=call.status is not None and call.status >= 500)

        return traced

    def rpc(self, service: str, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        """`method`, which takes a request and the RPC's context, and may take more, with a span of every call."""
        full = f"{service}/{name}"
        attributes = {"rpc.system.name": "grpc", "rpc.method": full}

        async def traced(request: Any, context: Any, *more: Any) -> Any:
            given = {key: value for key, value in context.invocation_metadata() or () if key in ("traceparent", "tracestate")}
            call = self._begun(full, given, attributes)
            if call is None:
                return await method(request, context, *more)
            token = _CALL.set(call)
            try:
                return await method(request, context, *more)
            except asyncio.CancelledError as error:
                call.error = error
                call.span.set_attribute("edgewise.outcome", "cancelled")
                raise
            finally:
                _CALL.reset(token)
                code = told(call.error).grpc if call.error is not None else "OK"
                call.span.set_attribute("rpc.response.status_code", code)
                self._ended(call, code, fault=code in FAULTS)

        return traced

    def answered(self, answer: Answer) -> None:
        """The request that runs was answered."""
        call = _CALL.get()
        if call is not None:
            call.span.set_attributes(
                {
                    "edgewise.model.name": answer.model,
                    "edgewise.model.version": answer.version,
                    "edgewise.queued_s": answer.queued_s,
                    "edgewise.computed_s": answer.computed_s,
                    "edgewise.rows": answer.rows,
                    "edgewise.cached": answer.cached,
                    "edgewise.outcome": "success",
                }
            )

    def failed(self, model: str, version: str, error: BaseException) -> None:
        """The request that runs, for a model, wasn't."""
        call = _CALL.get()
        if call is not None:
            call.error = error
            call.span.set_attributes({"edgewise.model.name": model, "edgewise.model.version": version, "edgewise.outcome": outcome(error)})

    def refused(self, error: BaseException) -> None:
        """The request that runs ends with `error`, whatever it was for."""
        call = _CALL.get()
        if call is not None:
            call.error = error

    def _begun(self, name: str, carried: Mapping[str, str], attributes: Mapping[str, Any]) -> Call | None:
        """None for a request that isn't sampled."""
        parent = self._propagator.extract(carried, self._root) if carried else self._root
        span = self._tracer.start_span(name, parent, self._server, attributes)
        return Call(span) if span.is_recording() else None

    def _ended(self, call: Call, code: str, *, fault: bool) -> None:
        if fault:
            call.span.set_attribute("error.type", code)
            call.span.set_status(self._error)
        call.span.end()


class _Heard(logging.Filter):
    """Keeps what a library logs to itself. last: its words."""

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.last = record.getMessage()
        return False


_HEARD = _Heard()


class _Telling:
    """An exporter that says once that it can't send, and once that it can again; its library would say so of each try."""

    def __init__(self, exporter: Any, address: str) -> None:
        self._exporter, self._address = exporter, address
        self._well = True
        self._closed = False
        for name in (_EXPORTER, "opentelemetry.sdk._shared_internal"):
            logging.getLogger(name).addFilter(_HEARD)

    def export(self, spans: Sequence[Any]) -> Any:
        found = self._exporter.export(spans)
        well = found.name == "SUCCESS"
        if well != self._well and not self._closed:
            self._well = well
            if well:
                say("traces are sent again", to=self._address)
            else:
                say("traces can't be sent, and are thrown away", level=logging.WARNING, to=self._address, reason=_HEARD.last[:500])
        return found

    def shutdown(self) -> None:
        """Breaks off a try that waits to be repeated."""
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


def route(path: str) -> str:
    """An address of the protocol with its names left out, as a span is called; "" for what isn't traced."""
    match path.split("/")[1:]:
        case ["v2", "models", "stats"] | ["v2", "repository", "index"] | ["v2"]:
            return path
        case ["v2", "models", _, "versions", _, *rest]:
            begin = "/v2/models/{model}/versions/{version}"
        case ["v2", "models", _, *rest]:
            begin = "/v2/models/{model}"
        case ["v2", "repository", "models", _, "load" | "unload" as verb]:
            return f"/v2/repository/models/{{model}}/{verb}"
        case _:
            return ""
    if not rest:
        return begin
    return f"{begin}/{rest[0]}" if len(rest) == 1 and rest[0] in VERBS else ""


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in METHODS else "HTTP"


def _carried(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode("latin-1") for name, value in headers if name in (b"traceparent", b"tracestate")}


def _of_http(scope: Scope, address: str) -> dict[str, Any]:
    known = scope["method"] in METHODS
    found: dict[str, Any] = {
        "http.request.method": scope["method"] if known else "_OTHER",
        "http.route": address,
        "url.path": scope["path"][:200],
        "url.scheme": scope.get("scheme", "http"),
        "network.protocol.version": scope.get("http_version", "1.1"),
    }
    if scope.get("client"):
        found["client.address"] = scope["client"][0]
    if scope.get("server"):
        found["server.address"], found["server.port"] = scope["server"][:2]
    return found
