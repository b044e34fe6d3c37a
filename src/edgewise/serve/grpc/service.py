"""What each method of the service answers. Those of inference take and give bytes (see `wire`), the others protobuf's messages."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format

from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.serve import describing
from edgewise.serve.access import bearer
from edgewise.serve.grpc import inference, wire
from edgewise.serve.grpc.descriptors import SERVICE, message
from edgewise.serve.keys import Client, Scope
from edgewise.serve.logs import say
from edgewise.serve.problems import told
from edgewise.serve.rest import Served

MOST_WORDS = 2000  # clients take 8 kB of metadata, which errors are part of
IN_STREAM = 16  # requests of one stream that are under way at a time
Method = Callable[[Any, Any], Awaitable[Any]]

# The scope that a method needs; "infer" unless named, None for what anyone may ask.
SCOPES: dict[str, Scope | None] = {
    "ServerLive": None,
    "ServerReady": None,
    "RepositoryModelLoad": "admin",
    "RepositoryModelUnload": "admin",
}


class Service:
    """The methods by name (`methods`). codes: grpc.StatusCode, as grpc itself is an optional part."""

    def __init__(self, served: Served, codes: Any) -> None:
        self._host, self._gate, self._memory, self._vitals = served.host, served.gate, served.memory, served.vitals
        self._draining, self._tracer, self._codes = served.draining, served.tracer, codes
        self._each = self._tracer.rpc(SERVICE, "ModelStreamInfer", self._streamed) if self._tracer else self._streamed
        self.under_way = 0  # requests that were taken and have no answer yet

    def methods(self) -> dict[str, Method]:
        """All but the two of inference. Each takes a request and the RPC's context, and gives the response."""
        return {
            "ServerLive": self._answering("ServerLive", self._server_live),
            "ServerReady": self._answering("ServerReady", self._server_ready),
            "ModelReady": self._answering("ModelReady", self._model_ready),
            "ServerMetadata": self._answering("ServerMetadata", self._server_metadata),
            "ModelMetadata": self._answering("ModelMetadata", self._model_metadata),
            "ModelConfig": self._answering("ModelConfig", self._model_config),
            "ModelStatistics": self._answering("ModelStatistics", self._model_statistics),
            "RepositoryIndex": self._answering("RepositoryIndex", self._repository_index),
            "RepositoryModelLoad": self._answering("RepositoryModelLoad", self._load),
            "RepositoryModelUnload": self._answering("RepositoryModelUnload", self._unload),
            "SystemSharedMemoryStatus": self._answering("SystemSharedMemoryStatus", self._regions),
            "SystemSharedMemoryRegister": self._answering("SystemSharedMemoryRegister", self._register),
            "SystemSharedMemoryUnregister": self._answering("SystemSharedMemoryUnregister", self._unregister),
        }

    async def infer(self, data: bytes, context: Any) -> bytes:
        """ModelInfer."""
        try:
            return await self._inferred(data, self._client(context, "infer"), context.time_remaining())
        except Exception as error:  # whatever it is, the client is told, and the RPC ends
            await self._abort(context, error)
            raise  # never reached: an abort raises

    async def stream(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """ModelStreamInfer: an answer or an error for each request, in their order. The stream's own deadline is each request's."""
        try:
            client = self._client(context, "infer")
        except EdgewiseError as error:
            await self._abort(context, error)
            raise  # never reached: an abort raises
        waiting: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(IN_STREAM)

        async def take(group: asyncio.TaskGroup) -> None:
            async for data in requests:
                await waiting.put(group.create_task(self._each(data, context, client)))
            await waiting.put(None)

        async with asyncio.TaskGroup() as group:
            taking = group.create_task(take(group))
            while (task := await waiting.get()) is not None:
                await context.write(await task)
            await taking

    async def _streamed(self, data: bytes, context: Any, client: Client) -> bytes:
        try:
            return wire.streamed(await self._inferred(data, client, context.time_remaining()))
        except Exception as error:  # one request's error is an answer: the stream goes on
            if self._tracer is not None:
                self._tracer.refused(error)
            return wire.stream_error(self._words(error), data)

    async def _inferred(self, data: bytes, client: Client, left_s: float | None) -> bytes:
        began = time.perf_counter()
        self._gate.enter(client)
        self.under_way += 1
        asked = None
        try:
            asked = inference.read(data, client.name, self._memory, time.monotonic(), left_s)
            answer = await self._host.infer(asked.request)
            description = await self._host.describe(answer.model, answer.version) if asked.classifies else None
            written = inference.write(asked, answer, description, self._memory)
            self._vitals.answered(answer, time.perf_counter() - began)
            return written
        except Exception as error:  # counted, and raised on as it is
            if asked is not None:
                self._vitals.failed(asked.request.model, asked.request.version, error, time.perf_counter() - began)
            raise
        finally:
            self.under_way -= 1
            self._gate.leave(client)

    def _answering(self, name: str, method: Callable[[Any, Client], Awaitable[dict[str, Any]]]) -> Method:
        """`method` between protobuf's messages, for those that may ask, with its errors as the protocol has them."""
        scope = SCOPES.get(name, "infer")
        response = message(f"{name}Response")

        async def call(request: Any, context: Any) -> Any:
            try:
                if scope is None:
                    return filled(await method(request, Client("")))
                client = self._client(context, scope)
                self._gate.enter(client)
                self.under_way += 1
                try:
                    return filled(await method(request, client))
                finally:
                    self.under_way -= 1
                    self._gate.leave(client)
            except Exception as error:  # whatever it is, the client is told, and the RPC ends
                await self._abort(context, error)

        def filled(told_of: dict[str, Any]) -> Any:
            # A field that the table of messages lacks is no error: what is told is JSON's too, where others read it.
            return json_format.ParseDict(told_of, response(), ignore_unknown_fields=True)

        return call

    def _client(self, context: Any, scope: Scope) -> Client:
        key = None
        if not self._gate.open:
            given = dict(context.invocation_metadata() or ())
            key = bearer(_text(given.get("authorization", ""))) or _text(given.get("x-api-key", "")) or None
        return self._gate.client(key, address_of(context.peer()), scope)

    async def _abort(self, context: Any, error: Exception) -> None:
        if self._tracer is not None:
            self._tracer.refused(error)
        how = told(error)
        code = self._codes[how.grpc]
        words = self._words(error)
        trailing: list[tuple[str, str | bytes]] = []
        if how.retry_after_s:
            trailing = [
                ("retry-after", str(max(1, math.ceil(how.retry_after_s)))),
                ("grpc-retry-pushback-ms", str(round(how.retry_after_s * 1e3))),
                ("grpc-status-details-bin", wire.details(code.value[0], words, how.retry_after_s)),
            ]
        await context.abort(code, words, tuple(trailing))

    def _words(self, error: Exception) -> str:
        if not isinstance(error, EdgewiseError):
            say("request failed", level=logging.ERROR, error=error)
        return told(error).message[:MOST_WORDS]

    async def _server_live(self, request: Any, client: Client) -> dict[str, Any]:
        return {"live": True}

    async def _server_ready(self, request: Any, client: Client) -> dict[str, Any]:
        return {"ready": not self._draining.is_set()}

    async def _model_ready(self, request: Any, client: Client) -> dict[str, Any]:
        return {"ready": not self._draining.is_set() and self._host.ready(request.name, request.version)}

    async def _server_metadata(self, request: Any, client: Client) -> dict[str, Any]:
        return describing.server(shared_memory=self._memory.enabled)

    async def _model_metadata(self, request: Any, client: Client) -> dict[str, Any]:
        return describing.metadata(await self._host.describe(request.name, request.version), self._host.index())

    async def _model_config(self, request: Any, client: Client) -> dict[str, Any]:
        return {"config": describing.config(await self._host.describe(request.name, request.version))}

    async def _model_statistics(self, request: Any, client: Client) -> dict[str, Any]:
        return describing.statistics(self._host.statistics(request.name, request.version))

    async def _repository_index(self, request: Any, client: Client) -> dict[str, Any]:
        return {"models": describing.index(self._host.index(), ready=request.ready)}

    async def _load(self, request: Any, client: Client) -> dict[str, Any]:
        if request.parameters:
            raise InvalidInput(
                f"load takes no parameters here ({', '.join(sorted(request.parameters))}): what a model is stands in its folder"
            )
        await self._host.load(request.model_name)
        return {}

    async def _unload(self, request: Any, client: Client) -> dict[str, Any]:
        await self._host.unload(request.model_name)
        return {}

    async def _regions(self, request: Any, client: Client) -> dict[str, Any]:
        found = self._memory.status(client.name, request.name)
        told_of = {each.name: {"name": each.name, "key": each.key, "offset": each.offset, "byte_size": each.size} for each in found}
        return {"regions": told_of}

    async def _register(self, request: Any, client: Client) -> dict[str, Any]:
        self._memory.register(client.name, request.name, request.key, request.offset, request.byte_size)
        return {}

    async def _unregister(self, request: Any, client: Client) -> dict[str, Any]:
        self._memory.unregister(client.name, request.name)
        return {}


@lru_cache(maxsize=4096)
def address_of(peer: str) -> str:
    """The address in what gRPC calls a peer ("ipv4:127.0.0.1:5000", "ipv6:%5B::1%5D:5000", "unix:")."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind
    return unquote(rest.rpartition(":")[0]).strip("[]")


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else ""
