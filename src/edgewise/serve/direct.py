"""Inference without an ASGI exchange, on our own connections: the reply is written where the request was read, without a task or messages.

What is rare (classes, bare tensors, answers that are kept, models that nobody has looked at yet) goes on in a task, through `Rest.infer`;
what isn't inference, or comes in an unusual form, is ASGI's.
"""

from __future__ import annotations

import asyncio
import http as codes
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.host import Answer, Taken
from edgewise.serve import http, inference
from edgewise.serve.access import bearer
from edgewise.serve.http import Head, Reply, problem
from edgewise.serve.keys import Client

if TYPE_CHECKING:
    from edgewise.serve.rest import Rest

PATHS = 4096  # that are remembered at a time; clients make them up
ALIGNED = 64  # bytes: where raw tensors begin in memory
JOINED = 1 << 16  # bytes of a reply up to which one copy is cheaper than a second piece
_STATUS = {status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in codes.HTTPStatus}
_STATUS[499] = b"HTTP/1.1 499 \r\n"  # of a request that was given up here


class Line(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    asking: Any

    def on_response_complete(self) -> None: ...


class _Nobody:
    """An event that nobody waits for."""

    def set(self) -> None:
        pass


class Exchange:
    """One request and its reply. To uvicorn it is its connection's cycle, hence names that are uvicorn's."""

    __slots__ = (
        "address", "asked", "began", "client", "disconnected", "entered", "head", "keep_alive", "line", "model", "pieces",
        "response_complete", "rest", "version", "waits_for",
    )  # fmt: skip
    message_event = _Nobody()
    response_started = False

    def __init__(self, rest: Rest, line: Line, head: Head, where: tuple[str, str], address: str, keep_alive: bool) -> None:
        self.rest, self.line, self.head, self.address, self.keep_alive = rest, line, head, address, keep_alive
        self.model, self.version = where
        self.pieces: list[bytes | memoryview] = []
        self.disconnected = self.response_complete = self.entered = False
        self.client: Client | None = None
        self.asked: inference.Asked | None = None
        self.waits_for: Taken | asyncio.Task[Reply] | None = None

    def answer(self) -> None:
        """The request is whole: reply, or see to it that a reply comes."""
        self.began = time.perf_counter()
        try:
            reply = self._begin()
        except Exception as error:  # whatever fails, whoever asked is answered, and the connection goes on
            self._failed(error)
            return
        if reply is not None:
            self._reply(reply)

    def cancel(self) -> None:
        """The client has gone."""
        if self.response_complete:
            return
        self._over()
        self.rest.replies[499] += 1
        if self.waits_for is not None:
            self.waits_for.cancel()

    def give_up(self, error: EdgewiseError) -> None:
        """Answer so, whatever it waits for, and close."""
        self.keep_alive = False
        waits_for = self.waits_for
        self._failed(error)
        if waits_for is not None:
            waits_for.cancel()

    def _begin(self) -> Reply | None:
        head, rest, served = self.head, self.rest, self.rest.served
        if served.hosts:
            http.check_host(head.host, served.hosts)
        if head.origin:
            http.check_origin(head.origin, head.host)
        key = (bearer(head.authorization) if head.authorization else None) or head.api_key or None
        self.client = served.gate.client(key, self.address, "infer")
        served.gate.enter(self.client)
        self.entered = True
        header = inference.length(head.inference)
        body = self._body(header or 0)
        if header != 0:
            self.asked = inference.read(body, header, self.model, self.version, self.client.name, served.memory, time.monotonic())
            if not self.asked.classifies:
                taken = served.host.take(self.asked.request)
                if isinstance(taken, Answer):
                    return self._found(taken)
                if taken is not None:
                    self._wait(taken, taken.answer)
                    return None
        task = asyncio.get_running_loop().create_task(rest.infer(head, body, self.asked, self.model, self.version, self.client.name))
        self._wait(task, task)
        return None

    def _wait(self, taken: Taken | asyncio.Task[Reply], future: asyncio.Future[Any]) -> None:
        self.waits_for = taken
        self.line.asking = self
        future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if self.response_complete:
            return
        self.line.asking = None
        if future.cancelled():
            self._failed(asyncio.CancelledError())
        elif error is not None:
            self._failed(error)
        else:
            result = future.result()
            try:
                reply = result if isinstance(result, Reply) else self._found(result)
            except Exception as found:  # shared memory that has gone meanwhile
                self._failed(found)
                return
            self._reply(reply)

    def _found(self, found: Answer) -> Reply:
        assert self.asked is not None
        reply = inference.reply(self.asked, found, None, self.rest.served.memory)
        self.rest.served.vitals.answered(found, time.perf_counter() - self.began)
        return reply

    def _failed(self, error: BaseException) -> None:
        if self.asked is not None and not isinstance(self.waits_for, asyncio.Task):
            self.rest.served.vitals.failed(self.model, self.version, error, time.perf_counter() - self.began)
        self._reply(problem(error), error)

    def _over(self) -> None:
        self.response_complete = True
        self.line.asking = None
        if self.entered and self.client is not None:
            self.rest.served.gate.leave(self.client)

    def _reply(self, reply: Reply, error: BaseException | None = None) -> None:
        self._over()
        client = self.client.name if self.client is not None else ""
        self.rest.ended("POST", f"/v2/models/{self.model}/infer", reply.status, client, self.began, error)
        close = not self.keep_alive or any(name == b"connection" for name, _ in reply.headers)
        size = sum(map(len, reply.parts))
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\n" % (_STATUS[reply.status], reply.kind, size)
        for name, value in reply.headers:
            head += b"%b: %b\r\n" % (name, value)
        head += b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        transport = self.line.transport
        if size <= JOINED:
            transport.write(b"".join((head, *reply.parts)))
        else:
            transport.writelines((head, *reply.parts))
        if close:
            transport.close()
        self.line.on_response_complete()

    def _body(self, header: int) -> bytes | memoryview:
        """All of it; what follows `header` bytes of JSON begins where an engine can read it without another copy."""
        pieces = self.pieces
        if len(pieces) == 1:
            return pieces[0]
        self.pieces = []
        if not header:
            return b"".join(pieces)
        at = -header % ALIGNED
        whole = bytearray(at + sum(map(len, pieces)))
        view = memoryview(whole)
        start = at
        for piece in pieces:
            view[at : at + len(piece)] = piece
            at += len(piece)
        return view[start:]


class Again(NamedTuple):
    """A request as it came, in one piece. head: up to its body; size: of both, in bytes. given: what its exchange was made of."""

    head: bytes
    size: int
    given: tuple[Rest, Line, Head, tuple[str, str], str, bool]

    def exchange(self, data: bytes) -> Exchange:
        """Of one with the same head, and another body."""
        made = Exchange(*self.given)
        made.pieces.append(memoryview(data)[len(self.head) :])
        return made


def again(exchange: Exchange, data: bytes) -> Again | None:
    """What is kept of `exchange` for others like it, where `data` was all of its request and it keeps its connection."""
    head = data.find(b"\r\n\r\n") + 4
    if not exchange.keep_alive or head < 4 or len(data) != head + int(exchange.head.length):
        return None
    where = exchange.model, exchange.version
    return Again(data[:head], len(data), (exchange.rest, exchange.line, exchange.head, where, exchange.address, True))


class Direct:
    """Which requests are answered so. rest: whose they would be else."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._paths: dict[bytes, tuple[str, str]] = {}

    def exchange(self, line: Line, url: bytes, headers: Sequence[tuple[bytes, bytes]], address: str, keep_alive: bool) -> Exchange | None:
        """For a POST whose headers are whole; None where it is ASGI's."""
        where = self._paths.get(url)
        if where is None:
            where = _where(url)
            if where is None:
                return None
            if len(self._paths) >= PATHS:
                self._paths.clear()
            self._paths[url] = where
        try:
            head = Head(headers)
        except InvalidInput:
            return None
        length = head.length
        if head.encoding or not length.isdecimal() or len(length) > 15 or int(length) > self._rest.served.body_bytes:
            return None
        return Exchange(self._rest, line, head, where, address, keep_alive)


def _where(url: bytes) -> tuple[str, str] | None:
    """Model and version ("" for none) of the plain path of an inference."""
    if b"%" in url or b"?" in url or not url.isascii():
        return None
    match url.decode().split("/"):
        case ["", "v2", "models", model, "infer"] if model:
            return model, ""
        case ["", "v2", "models", model, "versions", version, "infer"] if model and version:
            return model, version
    return None
