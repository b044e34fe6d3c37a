"""The whole of it over a folder of models: the host of this process, REST, gRPC and the page."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.errors import EdgewiseError
from edgewise.host import Host
from edgewise.host.hosting import LocalHost
from edgewise.host.settings import ModelSettings, Settings, folder_of
from edgewise.serve import page
from edgewise.serve.config import File, Server, settings
from edgewise.serve.http import Application
from edgewise.serve.logs import say
from edgewise.serve.page import Memory
from edgewise.serve.rest import Served
from edgewise.serve.server import Edge, Side
from edgewise.serve.upstream import Mirror

if TYPE_CHECKING:
    from edgewise.package.signing import Trust

# Of the host's settings: what stands in a table of its own, and what is no text.
_ELSEWHERE = ("models", "trust")
MIRROR_S = 60.0


def edge(
    folder: Path,
    file: File,
    *,
    memory_bytes: int | None = None,
    trust: Trust | None = None,
    mirror: Mirror | None = None,
    source: str = "serve.toml",
) -> Edge:
    """The server over `folder`, to be `run`. memory_bytes, trust: instead of the file's.

    mirror: what keeps the folder up to date. Raises InvalidInput.
    """
    told = host_settings(file.host, file.models, source)
    told = replace(told, memory_bytes=memory_bytes or told.memory_bytes, trust=trust or told.trust)
    folder_of(folder)

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Host]:
        host = LocalHost(folder, told)
        await host.start()
        try:
            yield host
        finally:
            await host.close()

    sides: list[Side] = [_grpc(file.server)] if speaks_grpc(file.server) else []
    if mirror is not None:
        kept = mirror
        sides.append(lambda served: _mirrored(kept))
    return Edge(file.server, opened, sides, _page)


def host_settings(table: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]], source: str) -> Settings:
    """What a serve.toml's [execution] and [models.…] say. Raises InvalidInput, with the key."""
    own = {name: settings(ModelSettings, given, f"{source}: models.{name}") for name, given in models.items()}
    return replace(settings(Settings, table, f"{source}: execution", without=_ELSEWHERE), models=own)


def speaks_grpc(server: Server) -> bool:
    """Whether gRPC is asked for, and installed."""
    return server.grpc and all(importlib.util.find_spec(module) is not None for module in ("grpc", "grpc_health", "grpc_reflection"))


def _grpc(server: Server) -> Side:
    from edgewise.serve import grpc

    told = grpc.Settings(host=server.host, port=server.grpc_port, message_bytes=server.body)
    return grpc.side(told, server.drain_s)


def first_sync(mirror: Mirror) -> None:
    """What came before is served where the upstream's index is none, or the disk is full: it's asked again while the server runs.

    Raises InvalidInput, OSError where nothing came before.
    """
    try:
        mirror.sync()
    except (EdgewiseError, OSError) as error:
        if not mirror.holds:
            raise
        told = f"THE UPSTREAM IS OF NO USE, so what came before is served; it is asked again every {MIRROR_S:g} s: {error}"
        say(told, level=logging.ERROR)


@contextlib.asynccontextmanager
async def _mirrored(mirror: Mirror) -> AsyncIterator[None]:
    async def poll() -> None:
        while True:
            await asyncio.sleep(MIRROR_S)
            try:
                await asyncio.to_thread(mirror.sync)
            except (EdgewiseError, OSError) as error:  # a full disk among them: the next look tries again
                say(str(error), level=logging.ERROR)

    polling = asyncio.create_task(poll())
    try:
        yield
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)


def _page(served: Served) -> Application:
    host = served.host

    def memory() -> Memory:
        assert isinstance(host, LocalHost)  # as `edge` opens no other
        vitals = host.vitals()
        return Memory(vitals.above_idle, vitals.cap or 0)

    return page.application(served, memory)
