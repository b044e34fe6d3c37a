"""Connections with deadlines: what a slow client may take of the server's time and memory, and how one that went away is noticed.

uvicorn's own protocol over httptools; its callbacks are the parser's. Deadlines are looked at once a second for all connections together:
a timer for each request would cost more than parsing it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgewise.errors import EdgewiseError
from edgewise.serve.direct import Again, Direct, Exchange, again

NEVER = float("inf")


@dataclass(frozen=True)
class Patience:
    """head_s: until a request's headers are whole, from its first byte (of a new connection: from when it was accepted). body_s: until
    its body is, and a second longer for each `body_bytes_per_s` that came. write_s: until a client has taken what waits for it.
    head_bytes: of headers at most. connections: at one time; more are closed as they come. bodies: bytes of bodies that are held at one
    time, of all clients; who sends more is told to come back later.
    """

    head_s: float = 10.0
    body_s: float = 30.0
    body_bytes_per_s: float = 16_384.0
    write_s: float = 60.0
    head_bytes: int = 65_536
    connections: int = 2_048
    bodies: int = 256 << 20


class Bodies:
    """What bodies of all connections take together, in bytes. most: of one."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0


class _Flow(FlowControl):
    """Reads nothing while requests wait for others' answers: whoever sends them quicker than they are answered would fill the memory."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:  # whose body isn't whole is the last one, and waits for nobody
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """due: by when the client has to have sent what it is at; NEVER where it is not its turn. takes_by: the same of what waits for it.
    asking: the task or exchange that waits for an answer. direct: what answers inference without ASGI.
    whole: whether all of the request was there that came last. idle: it is, and was answered.
    """

    def __init__(
        self,
        *args: Any,
        patience: Patience,
        bodies: Bodies,
        direct: Direct | None = None,
        clock: Callable[[], float] = time.monotonic,
        **given: Any,
    ) -> None:
        super().__init__(*args, **given)
        self.direct = direct
        self.idle = self.whole = False
        self._again: Again | None = None
        self.patience = patience
        self.bodies = bodies
        self._held = 0
        self.clock = clock
        self.due = self.takes_by = NEVER
        self.asking: asyncio.Task[Any] | Exchange | None = None
        self.gone = False
        self._head_bytes = 0
        self._in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self.due = self.clock() + self.patience.head_s
        if len(self.connections) > self.patience.connections:
            self._refuse(b"503 Service Unavailable", "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self.due = self.takes_by = NEVER
        self._release()
        super().connection_lost(exc)
        if self.asking is not None:
            self.asking.cancel()

    def data_received(self, data: bytes) -> None:
        if self.idle and self._same(data):
            return
        before, between = self.scope, self.idle or self.scope is None
        super().data_received(data)
        if between and isinstance(self.cycle, Exchange) and not self.pipeline:
            self._again = again(self.cycle, data)
        if not self._in_head:
            return
        if self.scope is before or before is None:  # else it may be the body of the request before
            self._head_bytes += len(data)
        if self._head_bytes > self.patience.head_bytes and not self.transport.is_closing():
            self._refuse(b"431 Request Header Fields Too Large", f"headers of over {self.patience.head_bytes} bytes")

    def _same(self, data: bytes) -> bool:
        """Answer a request that is whole and has the very head of the one before: it needs no parser."""
        again = self._again
        if again is None or len(data) != again.size or not data.startswith(again.head):
            return False
        if self.flow.write_paused or self.bodies.held + len(data) > self.patience.bodies:
            return False
        self._unset_keepalive_if_required()
        self.idle, self.due = False, NEVER
        self._held += len(data)
        self.bodies.held += len(data)
        self.cycle = exchange = again.exchange(data)  # type: ignore[assignment]
        exchange.answer()
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self.takes_by = self.clock() + self.patience.write_s

    def resume_writing(self) -> None:
        super().resume_writing()
        self.takes_by = NEVER

    def on_message_begin(self) -> None:
        self.idle = self.whole = False
        super().on_message_begin()
        self.scope["edgewise.connection"] = self  # type: ignore[typeddict-unknown-key]
        self._in_head = True
        self._head_bytes = 0
        self.due = self.clock() + self.patience.head_s

    def on_headers_complete(self) -> None:
        exchange = None
        if self.direct is not None and self._plain():
            address = self.client[0] if self.client else ""
            exchange = self.direct.exchange(self, self.url, self.headers, address, self.parser.should_keep_alive())
        if exchange is not None:
            self.cycle = exchange  # type: ignore[assignment]
        else:
            super().on_headers_complete()
        self._in_head = False
        # Behind another request nothing is read, so it can't come.
        self.due = NEVER if self.pipeline else self.clock() + self.patience.body_s

    def _plain(self) -> bool:
        """Whether an exchange may begin: a POST of HTTP/1.1, nothing before it unanswered, and the client takes what it is sent."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not (self.pipeline or self.flow.write_paused or self.expect_100_continue)
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
        )

    def on_body(self, body: bytes) -> None:
        """Gathered without waking the application until all of it is there, or too much: uvicorn would stop and start reading meanwhile."""
        cycle = self.cycle
        if cycle.response_complete or self.transport.is_closing():
            return
        if isinstance(cycle, Exchange):
            cycle.pieces.append(body)
        else:
            cycle.body += body
        # What came buys time, what was only announced doesn't.
        self.due += len(body) / self.patience.body_bytes_per_s
        self._held += len(body)
        self.bodies.held += len(body)
        if self.bodies.held > self.patience.bodies:
            self._release()
            self._refuse(b"503 Service Unavailable", "too many bodies at one time", b"retry-after: 1\r\n")
        elif not isinstance(cycle, Exchange) and len(cycle.body) > self.bodies.most:
            self.flow.pause_reading()
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        self._release()
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self.due = self.clock() + self.patience.write_s
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            if not (self.pipeline or self.whole):
                self.due = self.clock() + self.patience.body_s
        elif self.whole:
            self._rest()
        self.flow.resume_reading()

    def _rest(self) -> None:
        """Wait for another request. uvicorn would start a timer for each."""
        self.idle = True
        self.due = self.clock() + self.timeout_keep_alive

    def _release(self) -> None:
        self.bodies.held -= self._held
        self._held = 0

    def on_message_complete(self) -> None:
        self.whole = True
        if self.cycle.response_complete:  # before its body came
            self._rest()
            return
        self.due = NEVER
        if isinstance(self.cycle, Exchange):
            if not self.transport.is_closing():
                self.cycle.answer()
        else:
            super().on_message_complete()

    def give_up(self, error: EdgewiseError) -> None:
        """Answer what waits so. Tasks are uvicorn's to cancel."""
        self.pipeline.clear()
        if isinstance(self.asking, Exchange):
            self.asking.give_up(error)

    def overdue(self, now: float) -> None:
        """Tell a client whose time is over so, and close; with one that doesn't read, there is nothing to say."""
        if now < min(self.due, self.takes_by):
            return
        if now >= self.takes_by or self.transport.is_closing():
            self.transport.abort()
        elif self.idle or self.scope is None:
            self.transport.close()  # it asks nothing
            self.due = now + self.patience.write_s
        else:
            self._refuse(b"408 Request Timeout", "the request took too long to arrive")

    def _refusable(self) -> bool:
        """Whether what is written now answers the request that comes in; not another one that waits, nor the middle of an answer."""
        cycle = self.cycle
        if self._in_head or self.whole:
            return cycle is None or cycle.response_complete
        return not (self.pipeline or cycle.response_started or cycle.response_complete)

    def _refuse(self, status: bytes, reason: str, more: bytes = b"") -> None:
        if not self._refusable():
            self.transport.abort()
            return
        body = b'{"error":"%s"}' % reason.encode()
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n" % (
            status,
            len(body),
            more,
        )
        self.due = NEVER
        self.transport.write(head + body)
        self.transport.close()
        # What its peer doesn't take in a while is thrown away: closing waits for the buffer to empty.
        self.loop.call_later(2.0, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """What the parser makes nothing of, in the protocol's shape."""
        self._refuse(b"400 Bad Request", "this is no HTTP request")


async def watch(connections: set[Any], every_s: float = 1.0) -> None:
    """Looks at all connections' deadlines until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        now = time.monotonic()
        for connection in list(connections):
            if isinstance(connection, Connection):
                connection.overdue(now)
