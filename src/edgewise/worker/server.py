"""The worker itself: what it answers over HTTPS. Whoever gets this far holds the device's key (wire.keys); TLS refuses all others."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edgewise import __version__
from edgewise.errors import EdgewiseError, InvalidInput, MeasurementFailed
from edgewise.wire import messages
from edgewise.worker import vitals
from edgewise.worker.jobs import Busy, Jobs
from edgewise.worker.shelf import Full, Shelf

MOST_PIECE = 4 << 20
LONGEST_WAIT_S = 30.0
SWEEP_S = 24 * 3600.0

Log = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """cache_bytes: of packages that are kept."""

    host: str
    port: int
    folder: Path
    cache_bytes: int


def application(settings: Settings, device: bytes, log: Log) -> Starlette:
    """device: the JSON of this machine's Device."""
    shelf = Shelf(settings.folder / "packages", settings.cache_bytes)
    shelf.sweep(SWEEP_S)
    jobs = Jobs(shelf.folder, log)
    session, started = secrets.token_hex(8), time.monotonic()

    async def here(request: Request) -> Response:
        free, heat = vitals.memory_free_bytes(), vitals.temperature_c()
        told = messages.Here(
            messages.VERSION, session, __version__, device, jobs.queue, shelf.bytes(), free, heat, vitals.boot(), time.monotonic() - started
        )
        return _packed(told)

    async def received(request: Request) -> Response:
        return PlainTextResponse(str(shelf.received(request.path_params["digest"])))

    async def send(request: Request) -> Response:
        at, whole = (_whole(request, name) for name in ("from", "of"))
        shelf.add(request.path_params["digest"], at, whole, await _body(request, MOST_PIECE), jobs.needed())
        return PlainTextResponse("")

    async def begin(request: Request) -> Response:
        job = messages.decode(await _body(request, messages.MOST_BODY), messages.Job)
        missing = tuple(digest for digest in job.blobs if not shelf.has(digest))
        if not missing:
            jobs.add(job)
        return _packed(messages.Missing(missing))

    async def status(request: Request) -> Response:
        held = jobs.find(request.path_params["number"])
        if held is None:
            return _refused(InvalidInput("no such job here"), 404)
        after = _whole(request, "after")
        until = time.monotonic() + min(LONGEST_WAIT_S, _number(request, "wait"))
        held.heard = time.monotonic()
        state = held.state
        while not held.over and len(held.events) <= after and held.state == state and (left := until - time.monotonic()) > 0:
            changed = held.changed
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), left)
        held.heard = time.monotonic()
        return _packed(messages.Status(held.state, jobs.before(held), after, tuple(held.events[after:]), held.error, held.message))

    async def cancel(request: Request) -> Response:
        held = jobs.find(request.path_params["number"])
        if held is not None:
            jobs.cancel(held, "whoever asked for it took it back")
        return PlainTextResponse("")

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(jobs.work()), asyncio.create_task(jobs.tend())]
        try:
            yield
        finally:
            await jobs.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def guarded(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def call(request: Request) -> Response:
            try:
                return await answer(request)
            except Busy as error:
                return _refused(error, 503)
            except Full as error:
                log(f"refused: {error}")
                return _refused(error, 507)
            except EdgewiseError as error:
                log(f"refused {request.method} {request.url.path}: {error}")
                return _refused(error, 400)
            except ClientDisconnect:
                return Response(status_code=400)

        return call

    return Starlette(
        routes=[
            Route("/v1/device", guarded(here), methods=["GET"]),
            Route("/v1/blobs/{digest}", guarded(received), methods=["GET"]),
            Route("/v1/blobs/{digest}", guarded(send), methods=["PUT"]),
            Route("/v1/jobs", guarded(begin), methods=["POST"]),
            Route("/v1/jobs/{number}", guarded(status), methods=["GET"]),
            Route("/v1/jobs/{number}", guarded(cancel), methods=["DELETE"]),
        ],
        lifespan=life,
        exception_handlers={HTTPException: _unknown},
    )


def serve(settings: Settings, tls: Callable[[], ssl.SSLContext], log: Log) -> None:
    """Until SIGTERM or SIGINT. Raises InvalidInput where the address can't be listened at."""
    import uvicorn

    class Patient(uvicorn.Server):
        async def main_loop(self) -> None:
            # uvicorn's own looks round ten times a second, for dates and limits that aren't used here: 0.2 % of a core for nothing.
            while not self.should_exit:
                await asyncio.sleep(1.0)

    config = uvicorn.Config(
        application(settings, described(), log), host=settings.host, port=settings.port, log_config=None, access_log=False, lifespan="on",
        server_header=False, date_header=False, timeout_keep_alive=60, limit_concurrency=64, h11_max_incomplete_event_size=16384,
        timeout_graceful_shutdown=5, ws="none", http="h11", loop="asyncio",
    )  # fmt: skip
    config.load()
    config.ssl = tls()
    Patient(config).run()


def described() -> bytes:
    """The JSON of this machine's Device, found by a process of its own. Raises MeasurementFailed."""
    done = subprocess.run([sys.executable, "-m", "edgewise.worker.describe"], capture_output=True, check=False, timeout=120)
    if done.returncode:
        raise MeasurementFailed(f"this device can't be described: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return done.stdout


async def _body(request: Request, most: int) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise InvalidInput(f"a message has over {most:,} bytes")
    return bytes(body)


def _number(request: Request, name: str) -> float:
    try:
        value = float(request.query_params.get(name, ""))
    except ValueError as error:
        raise InvalidInput(f"{name}= has to be a number") from error
    if not 0 <= value < 2**63:
        raise InvalidInput(f"{name}={value} is out of range")
    return value


def _whole(request: Request, name: str) -> int:
    return int(_number(request, name))


def _packed(message: object) -> Response:
    return Response(messages.encode(message), media_type="application/msgpack")


def _refused(error: EdgewiseError, status: int) -> Response:
    kind = "InvalidInput" if isinstance(error, Busy | Full) else type(error).__name__
    return Response(messages.encode(messages.Refused(kind, str(error))), status, media_type="application/msgpack")


async def _unknown(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 400
    return _refused(InvalidInput("no such question: the two ends are of different releases"), status)
