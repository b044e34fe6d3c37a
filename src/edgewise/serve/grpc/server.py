"""The gRPC server: the service, `grpc.health.v1` and reflection on one port. grpc itself is optional: pip install 'edgewise[grpc]'.

grpc.aio on the host's loop: a server in threads costs about as much alone, and more with the way to the loop and back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from edgewise import registry
from edgewise.errors import InvalidInput
from edgewise.serve.certificates import Pem
from edgewise.serve.grpc.descriptors import METHODS, SERVICE, message, pool
from edgewise.serve.grpc.service import Service
from edgewise.serve.logs import say
from edgewise.serve.rest import Served

HANDSHAKE_MS = 10_000
KEEPALIVE_MS = 60_000
METADATA_BYTES = 16_384
LOOK_S = 0.02
SENDING_S = 0.25  # for the last answers to leave
HEALTH = ("ServerLive", "ServerReady")


@dataclass(frozen=True)
class Settings:
    """port: 0 for a free one. message_bytes: the most that a message may have, either way. concurrent: RPCs at a time, of all clients."""

    host: str = "127.0.0.1"
    port: int = 8081
    message_bytes: int = 64 << 20
    concurrent: int = 1000


def side(settings: Settings, drain_s: float = 30.0) -> Callable[[Served], AbstractAsyncContextManager[None]]:
    """For `server.Edge`: gRPC beside REST, over the same host. drain_s: how long, in the end, it waits for what was taken.

    Raises MissingExtra, and where it is entered InvalidInput.
    """
    _need()

    @contextlib.asynccontextmanager
    async def standing(served: Served) -> AsyncIterator[None]:
        server = GrpcServer(served, settings)
        port = await server.start()
        say("gRPC listens", host=settings.host, port=port, tls=served.certificates is not None)
        watching = asyncio.create_task(server.unready())
        try:
            yield
        finally:
            watching.cancel()
            await server.drain(drain_s)

    return standing


def _need() -> None:
    for module in ("grpc", "grpc_health", "grpc_reflection"):
        registry.need(module)


class GrpcServer:
    """Belongs to the loop that the host belongs to."""

    def __init__(self, served: Served, settings: Settings) -> None:
        """Raises MissingExtra without grpc."""
        _need()
        import grpc

        self._served, self._settings = served, settings
        self._service = Service(served, grpc.StatusCode)
        self._server: Any = None
        self._health: Any = None

    async def start(self) -> int:
        """The port. Raises InvalidInput where it can't be had."""
        import grpc
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc
        from grpc_reflection.v1alpha import reflection, reflection_pb2

        server = grpc.aio.server(options=self._options(), maximum_concurrent_rpcs=self._settings.concurrent)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers(grpc)),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        for known in (health_pb2, reflection_pb2):
            pool().AddSerializedFile(known.DESCRIPTOR.serialized_pb)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server, pool=pool())
        name = self._settings.host
        address = f"{f'[{name}]' if ':' in name else name}:{self._settings.port}"
        try:
            port = self._bound(server, address)
        except RuntimeError as error:
            raise InvalidInput(f"gRPC can't listen on {address}: {error}; is something else there?") from error
        await server.start()
        self._server = server
        return port

    async def unready(self) -> None:
        """Tells whoever watches its health when the server is about to end."""
        await self._served.draining.wait()
        await self._health.enter_graceful_shutdown()

    async def drain(self, grace_s: float) -> None:
        """Is no longer ready, and ends when nothing is under way, or after `grace_s`.

        Streams that only watch or wait would stand for ever: they are not waited for.
        """
        self._served.draining.set()
        await self._health.enter_graceful_shutdown()
        loop = asyncio.get_running_loop()
        until = loop.time() + grace_s
        while self._service.under_way and loop.time() < until:
            await asyncio.sleep(LOOK_S)
        # Once: to stop a server that has stopped is a segmentation fault (grpcio 1.85).
        await self._server.stop(min(grace_s, SENDING_S))

    def _handlers(self, grpc: Any) -> dict[str, Any]:
        tracer = self._served.tracer
        infer = tracer.rpc(SERVICE, "ModelInfer", self._service.infer) if tracer else self._service.infer
        found = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._service.stream),
        }
        for name, method in self._service.methods().items():
            read, written = message(f"{name}Request").FromString, message(f"{name}Response").SerializeToString
            if tracer and name not in HEALTH:
                method = tracer.rpc(SERVICE, name, method)
            found[name] = grpc.unary_unary_rpc_method_handler(method, request_deserializer=read, response_serializer=written)
        assert set(found) == set(METHODS)
        return found

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_receive_message_length", self._settings.message_bytes),
            ("grpc.max_send_message_length", self._settings.message_bytes),
            ("grpc.max_metadata_size", METADATA_BYTES),
            ("grpc.so_reuseport", 0),  # two servers would share a port, and neither would say so
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),  # a client whose machine is gone gives its requests up
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ]

    def _bound(self, server: Any, address: str) -> int:
        import grpc

        certificates = self._served.certificates
        if certificates is None:
            return int(server.add_insecure_port(address))
        given = certificates.pem

        def configured(pem: Pem) -> Any:
            return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.clients)

        def renewed() -> Any:
            """grpc asks before every handshake, in threads of its own; None leaves it with what it has."""
            nonlocal given
            now = certificates.pem
            if now is given:
                return None
            given = now
            return configured(now)

        credentials = grpc.dynamic_ssl_server_credentials(configured(given), renewed, given.clients is not None)
        return int(server.add_secure_port(address, credentials))
