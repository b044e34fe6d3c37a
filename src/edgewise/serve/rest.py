"""The REST side: Open Inference Protocol v2 and what stands beside it, as one ASGI application over a `Host`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs, unquote

import msgspec

from edgewise.errors import InvalidInput
from edgewise.host import Answer, Host, Request
from edgewise.serve import describing, http, inference
from edgewise.serve.access import Gate, bearer
from edgewise.serve.certificates import Certificates
from edgewise.serve.http import Application, Gone, Head, Receive, Reply, Scope, Send, json_reply, problem
from edgewise.serve.keys import Client
from edgewise.serve.keys import Scope as Right
from edgewise.serve.logs import say
from edgewise.serve.parameters import digits
from edgewise.serve.problems import NotFound, Unsupported, WrongMethod, closing
from edgewise.serve.shared_memory import SharedMemory
from edgewise.serve.tracing import Tracer
from edgewise.serve.vitals import Vitals

MOST_PREDICTIONS = 1000


@dataclass(frozen=True)
class Served:
    """What the protocols share. hosts: names that a Host header may have; empty for any. body_bytes: the most of a request.

    certificates: with TLS. tracer: where requests are traced. draining: set when the server is about to end; it is then no longer ready.
    """

    host: Host
    gate: Gate
    memory: SharedMemory = field(default_factory=lambda: SharedMemory(enabled=False))
    vitals: Vitals = field(default_factory=Vitals)
    hosts: frozenset[str] = frozenset()
    body_bytes: int = 64 << 20
    log_requests: bool = False
    certificates: Certificates | None = None
    tracer: Tracer | None = None
    draining: asyncio.Event = field(default_factory=asyncio.Event)


class Asking(NamedTuple):
    """One exchange, as its handler sees it."""

    scope: Scope
    receive: Receive
    head: Head
    client: Client
    model: str = ""
    version: str = ""
    rest: str = ""


Handler = Callable[[Asking], Awaitable[Reply]]


class Route(NamedTuple):
    """right: which scope a key needs; None where nobody is asked for one."""

    handler: Handler
    methods: tuple[str, ...]
    right: Right | None
    model: str = ""
    version: str = ""
    rest: str = ""


class Rest:
    """The application. other: what answers where this has nothing. replies: how many, by status."""

    def __init__(self, served: Served, other: Application | None = None) -> None:
        self.served = served
        self.replies: Counter[int] = Counter()
        self._host = served.host
        self._other = other
        get, post = ("GET", "HEAD"), ("POST",)
        self._of_model = {
            "infer": (self._infer, post), "predict": (self._predict, post), "": (self._metadata, get), "config": (self._config, get),
            "ready": (self._model_ready, get), "stats": (self._statistics, get),
        }  # fmt: skip
        self._fixed = {
            "v2": Route(self._server, get, "infer"),
            "v2/": Route(self._server, get, "infer"),
            "v2/health/live": Route(self._live, get, None),
            "v2/health/ready": Route(self._ready, get, None),
            "v2/models/stats": Route(self._statistics, get, "infer"),
            "v2/repository/index": Route(self._index, ("POST", *get), "infer"),
            "metrics": Route(self._metrics, get, "infer"),
            "docs": Route(self._docs, get, None),
            "openapi.json": Route(self._openapi, get, None),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        began = time.perf_counter()
        client = ""
        error: BaseException | None = None
        try:
            head = Head(scope["headers"])
            if self.served.hosts:
                http.check_host(head.host, self.served.hosts)
            route = self._route(scope)
            if route is None:
                if self._other is not None:
                    await self._other(scope, receive, send)
                    return
                raise NotFound(f"there is nothing at {scope['path'][:200]!r}; /docs lists what is")
            if scope["method"] not in route.methods:
                raise WrongMethod(f"{scope['path'][:200]} takes {' or '.join(route.methods)}, not {scope['method'][:20]}")
            if head.origin and scope["method"] == "POST":
                http.check_origin(head.origin, head.host)
            reply, client = await self._answered(route, scope, receive, head)
        except Gone:
            self.replies[499] += 1
            return
        except asyncio.CancelledError:
            if getattr(scope.get("edgewise.connection"), "gone", False):
                self.replies[499] += 1
                return
            error = closing()  # nobody else cancels
            reply = problem(error)
        except Exception as found:  # whatever fails, whoever asked is answered, and the others go on
            error, reply = found, problem(found)
        self.ended(scope["method"], scope["path"], reply.status, client, began, error)
        await http.send_reply(send, reply)

    def ended(self, method: str, path: str, status: int, client: str, began: float, error: BaseException | None) -> None:
        """A request is answered: counted, and logged where that is wanted. began: of time.perf_counter()."""
        self.replies[status] += 1
        if status == 500:
            say("request failed", level=logging.ERROR, error=error, path=path[:200])
        if self.served.log_requests:
            took = round((time.perf_counter() - began) * 1e3, 3)
            more: dict[str, Any] = {"reason": str(error)[:500]} if error is not None else {}
            say("request", method=method, path=path[:200], status=status, ms=took, client=client, **more)

    async def _answered(self, route: Route, scope: Scope, receive: Receive, head: Head) -> tuple[Reply, str]:
        handler, _, right, model, version, rest = route
        if right is None:
            return await handler(Asking(scope, receive, head, _NOBODY, model, version, rest)), ""
        gate, address = self.served.gate, scope.get("client")
        key = (bearer(head.authorization) if head.authorization else None) or head.api_key or None
        client = gate.client(key, address[0] if address else "", right)
        gate.enter(client)
        try:
            return await handler(Asking(scope, receive, head, client, model, version, rest)), client.name
        finally:
            gate.leave(client)

    def _route(self, scope: Scope) -> Route | None:
        raw: bytes = scope.get("raw_path") or scope["path"].encode()
        path = raw.decode("latin-1")[1:]
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed
        parts = path.split("/")
        if "%" in path:
            parts = [unquote(part) for part in parts]
        match parts:
            case ["v2", "models", model, *rest] if model:
                version = ""
                if len(rest) >= 2 and rest[0] == "versions":
                    version, rest = rest[1], rest[2:]
                found = self._of_model.get(rest[0] if rest else "") if len(rest) < 2 else None
                return Route(*found, "infer", model, version) if found else None
            case ["v2", "repository", "models", model, "load" | "unload" as verb]:
                return Route(self._load if verb == "load" else self._unload, ("POST",), "admin", model)
            case ["v2", "systemsharedmemory", *rest]:
                return self._memory_route(rest)
        return None

    def _memory_route(self, rest: list[str]) -> Route | None:
        match rest:
            case ["status"] | ["region", _, "status"]:
                return Route(self._memory_status, ("GET", "HEAD"), "infer", rest="" if len(rest) == 1 else rest[1])
            case ["region", name, "register"]:
                return Route(self._memory_register, ("POST",), "infer", rest=name)
            case ["unregister"] | ["region", _, "unregister"]:
                return Route(self._memory_unregister, ("POST",), "infer", rest="" if len(rest) == 1 else rest[1])
        return None

    async def infer(
        self, head: Head, body: bytes | memoryview, asked: inference.Asked | None, name: str, version: str, client: str
    ) -> Reply:
        """The reply to a whole request. asked: what it asks, where that was read already."""
        memory, header = self.served.memory, inference.length(head.inference)
        if asked is None and header == 0:
            asked = inference.bare(body, await self._host.describe(name, version), version, client)
        elif asked is None:
            asked = inference.read(body, header, name, version, client, memory, time.monotonic())
        description = await self._host.describe(name, version) if asked.classifies else None
        return inference.reply(asked, await self._ask(asked.request), description, memory)

    async def _infer(self, asking: Asking) -> Reply:
        head = asking.head
        body = await http.body_of(asking.receive, head, self.served.body_bytes)
        return await _unless_gone(asking, self.infer(head, body, None, asking.model, asking.version, asking.client.name))

    async def _predict(self, asking: Asking) -> Reply:
        from edgewise.serve.predict import predict

        description = await self._host.describe(asking.model, asking.version)
        body = await http.body_of(asking.receive, asking.head, self.served.body_bytes)
        query = parse_qs(asking.scope.get("query_string", b"").decode("latin-1"))
        top = digits(query.get("top", ["5"])[-1])
        if not 1 <= top <= MOST_PREDICTIONS:
            raise InvalidInput(f"top={top}: give 1 to {MOST_PREDICTIONS}")
        timeout = digits(query["timeout"][-1]) if "timeout" in query else 0
        deadline = time.monotonic() + timeout / 1e6 if timeout else None
        request = Request(asking.model, {}, asking.version, deadline=deadline, client=asking.client.name)
        return json_reply(await _unless_gone(asking, predict(description, asking.head.kind, body, top, self._ask, request)))

    async def _ask(self, request: Request) -> Answer:
        """The host's answer; what became of the request is counted."""
        began, vitals = time.perf_counter(), self.served.vitals
        try:
            found = await self._host.infer(request)
        except Exception as error:  # counted, and raised on as it is
            vitals.failed(request.model, request.version, error, time.perf_counter() - began)
            raise
        vitals.answered(found, time.perf_counter() - began)
        return found

    async def _metadata(self, asking: Asking) -> Reply:
        return json_reply(describing.metadata(await self._host.describe(asking.model, asking.version), self._host.index()))

    async def _config(self, asking: Asking) -> Reply:
        return json_reply(describing.config(await self._host.describe(asking.model, asking.version)))

    async def _model_ready(self, asking: Asking) -> Reply:
        return _empty(not self.served.draining.is_set() and self._host.ready(asking.model, asking.version))

    async def _statistics(self, asking: Asking) -> Reply:
        return json_reply(describing.statistics(self._host.statistics(asking.model, asking.version)))

    async def _load(self, asking: Asking) -> Reply:
        given = await _json_body(asking, self.served.body_bytes)
        if given.get("parameters"):
            raise Unsupported("load takes no parameters here: settings stand in serve.toml, and models in their folder")
        await self._host.load(asking.model)
        return json_reply({})

    async def _unload(self, asking: Asking) -> Reply:
        await self._host.unload(asking.model)
        return json_reply({})

    async def _index(self, asking: Asking) -> Reply:
        given = await _json_body(asking, self.served.body_bytes) if asking.scope["method"] == "POST" else {}
        return json_reply(describing.index(self._host.index(), ready=given.get("ready") is True))

    async def _server(self, asking: Asking) -> Reply:
        return json_reply(describing.server(shared_memory=self.served.memory.enabled))

    async def _live(self, asking: Asking) -> Reply:
        return _empty(True)

    async def _ready(self, asking: Asking) -> Reply:
        return _empty(not self.served.draining.is_set())

    async def _metrics(self, asking: Asking) -> Reply:
        from edgewise.serve import metrics

        return Reply(200, (metrics.text(self._host, self.replies),), metrics.KIND)

    async def _docs(self, asking: Asking) -> Reply:
        from edgewise.serve import openapi

        return Reply(200, (openapi.page(),), b"text/html; charset=utf-8", openapi.PAGE_HEADERS)

    async def _openapi(self, asking: Asking) -> Reply:
        from edgewise.serve import openapi

        return json_reply(openapi.document())

    async def _memory_status(self, asking: Asking) -> Reply:
        found = self.served.memory.status(asking.client.name, asking.rest)
        return json_reply([{"name": each.name, "key": each.key, "offset": each.offset, "byte_size": each.size} for each in found])

    async def _memory_register(self, asking: Asking) -> Reply:
        body = await http.body_of(asking.receive, asking.head, self.served.body_bytes)
        given = _parsed(body, _Registration)
        self.served.memory.register(asking.client.name, asking.rest, given.key, given.offset, given.byte_size)
        return json_reply({})

    async def _memory_unregister(self, asking: Asking) -> Reply:
        self.served.memory.unregister(asking.client.name, asking.rest)
        return json_reply({})


_NOBODY = Client("")
_Given = TypeVar("_Given")


class _Registration(msgspec.Struct):
    key: str
    byte_size: int
    offset: int = 0


async def _unless_gone(asking: Asking, answer: Awaitable[_Given]) -> _Given:
    """What `answer` gives. Where the client goes away meanwhile, `answer` is cancelled, and so is this.

    Our own connections say so themselves (`connections.Connection`), which costs nothing; other servers are asked, by a task besides.
    """
    connection = asking.scope.get("edgewise.connection")
    if connection is not None:
        connection.asking = asyncio.current_task()
        try:
            return await answer
        finally:
            connection.asking = None
    asked, gone = asyncio.ensure_future(answer), asyncio.ensure_future(_disconnected(asking.receive))
    try:
        await asyncio.wait((asked, gone), return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise Gone
        return asked.result()
    finally:
        for task in (asked, gone):
            task.cancel()
        await asyncio.gather(asked, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _empty(ready: bool) -> Reply:
    return Reply(200 if ready else 503)


async def _json_body(asking: Asking, most: int) -> dict[str, Any]:
    body = await http.body_of(asking.receive, asking.head, most)
    return _parsed(body, dict[str, Any]) if body.strip() else {}


def _parsed(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the body isn't what is taken here: {error}") from error
