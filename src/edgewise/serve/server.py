"""The server: a host, its protocols, keys that change, and an orderly end, in one event loop under uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import FrameType
from typing import Any

import uvicorn

from edgewise.errors import InvalidInput
from edgewise.host import Host
from edgewise.serve import tracing
from edgewise.serve.access import Gate
from edgewise.serve.certificates import Certificates
from edgewise.serve.config import Server
from edgewise.serve.connections import Bodies, Connection, watch
from edgewise.serve.direct import Direct
from edgewise.serve.http import LOOPBACK, Application
from edgewise.serve.keys import KeyFile
from edgewise.serve.logs import say
from edgewise.serve.problems import closing
from edgewise.serve.rest import Rest, Served
from edgewise.serve.shared_memory import SharedMemory
from edgewise.serve.vitals import Vitals

POLL_S = 1.0
# Makes the host, and ends it: `async with open_host() as host`.
OpenHost = Callable[[], AbstractAsyncContextManager[Host]]
# What else listens while the server runs (gRPC), on what it shares with REST.
Side = Callable[[Served], AbstractAsyncContextManager[None]]
Page = Callable[[Served], Application]


class Edge:
    """One server. open_host: see `OpenHost`. sides: started after the host and ended before it. page: what answers where REST has nothing.

    Raises InvalidInput where it can't listen there, or keys or certificates can't be read; MissingExtra where traces can't be made.
    """

    def __init__(self, settings: Server, open_host: OpenHost, sides: Sequence[Side] = (), page: Page | None = None) -> None:
        self.settings = settings
        self._open_host, self._sides, self._page = open_host, sides, page
        self._keys = KeyFile(settings.keys, lambda text: say(text, level=logging.WARNING)) if settings.keys else None
        self._certificates = Certificates(settings.tls) if settings.tls else None
        if settings.tracing is not None:
            tracing.need()
        self._server: Draining | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, ready: Callable[[str], None] = lambda address: None) -> None:
        """Until SIGTERM or SIGINT; the first lets what was taken be answered, a second SIGINT doesn't wait."""
        listener = listening(self.settings.host, self.settings.port)
        try:
            with asyncio.Runner(loop_factory=self.loop_factory) as runner:
                runner.run(self.serve(listener, ready))
        finally:
            listener.close()

    @property
    def loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """uvloop's, where that is installed."""
        return self._config().get_loop_factory()

    async def serve(self, listener: socket.socket, ready: Callable[[str], None] = lambda address: None) -> None:
        settings = self.settings
        async with AsyncExitStack() as stack:
            tracer = tracing.Tracer(settings.tracing) if settings.tracing else None
            if tracer is not None:
                stack.push_async_callback(asyncio.to_thread, tracer.close)
            host = await stack.enter_async_context(self._open_host())
            memory = SharedMemory(enabled=settings.shared_memory, most=settings.body)
            stack.callback(memory.close)
            served = Served(
                host,
                Gate(self._keys, settings.limits),
                memory,
                Vitals(watch=tracer),
                hosts=allowed(settings),
                body_bytes=settings.body,
                log_requests=settings.log_requests,
                certificates=self._certificates,
                tracer=tracer,
            )
            for side in self._sides:
                await stack.enter_async_context(side(served))
            rest = Rest(served, self._page(served) if self._page else None)
            config = self._config(None if tracer else Direct(rest))  # a span is of what ASGI sees
            config.app = tracer.rest(rest) if tracer else rest
            config.load()
            config.ssl = self._certificates.context if self._certificates else None
            self._server, self._loop = Draining(config, served, settings.linger_s), asyncio.get_running_loop()
            tasks = [asyncio.create_task(self._poll()), asyncio.create_task(watch(self._server.server_state.connections))]
            try:
                ready(address(listener, tls=self._certificates is not None))
                await self._server.serve([listener])
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """As SIGTERM does, from any thread."""
        if self._server is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended
                self._loop.call_soon_threadsafe(self._server.handle_exit, signal.SIGTERM, None)

    def _config(self, direct: Direct | None = None) -> uvicorn.Config:
        settings = self.settings
        connection = functools.partial(Connection, patience=settings.patience, bodies=Bodies(settings.body), direct=direct)
        # proxy_headers: uvicorn believes X-Forwarded-For from this machine, with which any client here would choose whose limits count.
        return uvicorn.Config(
            _nothing, log_config=None, access_log=False, lifespan="off", server_header=False, date_header=False, proxy_headers=False,
            timeout_keep_alive=max(1, round(settings.keep_alive_s)), timeout_graceful_shutdown=max(1, round(settings.drain_s)), ws="none",
            http=connection, loop="auto",  # type: ignore[arg-type]
        )  # fmt: skip

    async def _poll(self) -> None:
        files = [each for each in (self._keys, self._certificates) if each is not None]
        while files:
            await asyncio.sleep(POLL_S)
            for each in files:
                await asyncio.to_thread(each.poll)


class Draining(uvicorn.Server):
    """Not ready from the signal on, and for `linger_s` more it takes what comes: so long those who share out load need to notice."""

    def __init__(self, config: uvicorn.Config, served: Served, linger_s: float) -> None:
        super().__init__(config)
        self._served, self._linger_s = served, linger_s
        self._told = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own raises the signal again in the end, which would end the process before its host is closed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop, caught = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        for each in caught:
            loop.add_signal_handler(each, self.handle_exit, each, None)
        try:
            yield
        finally:
            for each in caught:
                loop.remove_signal_handler(each)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._told.set()

    async def main_loop(self) -> None:
        # uvicorn's own looks round ten times a second for dates and limits that aren't used here: an idle server would never sleep long.
        await self._told.wait()
        self._served.draining.set()
        say("draining", level=logging.WARNING, under_way=sum(connection.asking is not None for connection in self._connections()))
        loop = asyncio.get_running_loop()
        until = loop.time() + self._linger_s
        while not self.force_exit and (left := until - loop.time()) > 0:
            await asyncio.sleep(min(0.1, left))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Who isn't answered within the time for it, or by a second SIGINT, is told so: the host then has nobody to wait for."""
        await super().shutdown(sockets)
        for connection in self._connections():
            connection.give_up(closing())
        for task in self.server_state.tasks:
            task.cancel()

    def _connections(self) -> list[Connection]:
        return [connection for connection in self.server_state.connections if isinstance(connection, Connection)]


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """Stands in a Config until the application is there."""


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises InvalidInput where that can't be."""
    try:
        family, _, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # Where the protocol isn't named, asyncio's own loop leaves Nagle's algorithm on: every answer then waits 40 ms for a delayed ACK.
        listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    except OSError as error:
        raise InvalidInput(f"{host}: no address to listen at ({error.strerror}); give one of this machine's") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise InvalidInput(f"can't listen at {host}:{port}: {error.strerror}; is something else there?") from error
    listener.setblocking(False)
    return listener


def address(listener: socket.socket, *, tls: bool) -> str:
    host, port = listener.getsockname()[:2]
    return f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"


def allowed(settings: Server) -> frozenset[str]:
    """Names that a Host header may have, besides any address; empty for all names."""
    if "*" in settings.hosts:
        return frozenset()
    own = () if settings.loopback else (socket.gethostname(), f"{socket.gethostname()}.local")
    return frozenset(name.lower() for name in (*LOOPBACK, *own, settings.host, *settings.hosts))


def exposure(settings: Server) -> str:
    """What has to be said aloud of who can reach this server; "" where nothing has."""
    if settings.loopback or (settings.keys and settings.tls):
        return ""
    if not settings.keys and not (settings.tls and settings.tls.clients):
        return (
            f"WARNING: listening at {settings.host} WITHOUT KEYS: whoever reaches this machine can use, load and unload its models. "
            "Give --keys keys.toml (edgewise serve --new-key NAME --keys keys.toml makes one), or --host 127.0.0.1."
        )
    if not settings.tls:
        return f"WARNING: listening at {settings.host} without TLS: keys and data can be read on the way. Give --tls cert.pem key.pem."
    return ""


@contextlib.asynccontextmanager
async def standing(host: Host) -> AsyncIterator[Host]:
    """A host that needs no start and no end, as an `OpenHost` gives it."""
    yield host
