"""A server on a free port, its loop in a thread, so that tests may ask as clients do: blocking."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from edgewise.serve.access import Gate
from edgewise.serve.certificates import Certificates
from edgewise.serve.config import Tls
from edgewise.serve.rest import Served
from edgewise.serve.shared_memory import SharedMemory
from edgewise.testing.hosts import FakeHost, FakeModel, identity
from edgewise.types import Signature, TensorSpec

grpc = pytest.importorskip("grpc", reason="needs grpc: pip install 'edgewise[grpc]'")
LIMIT_S = 20.0


def two_outputs() -> FakeModel:
    """x: (batch, 3) -> the sum and the difference of its columns with 1."""
    batch = ("batch", 3)
    signature = Signature(
        (TensorSpec("x", batch, "float32"),), (TensorSpec("more", batch, "float32"), TensorSpec("less", batch, "float32"))
    )
    return FakeModel(signature, lambda inputs: {"more": inputs["x"] + 1, "less": inputs["x"] - 1}, versions=("1", "2"))


def models() -> dict[str, FakeModel]:
    def fails(inputs: Any) -> Any:
        raise RuntimeError("the secret of the engine")

    return {
        "same": identity(),
        "whole": identity("int64"),
        "half": identity("float16"),
        "words": identity("object"),
        "flags": identity("bool"),
        "two": two_outputs(),
        "slow": identity(delay_s=5.0),
        "classes": identity(described={"labels": ("cat", "dog", "cow")}),
        "broken": identity(answer=fails),
    }


@dataclass
class Running:
    """port: where it listens."""

    host: FakeHost
    served: Served
    loop: Any
    server: Any = None
    port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(LIMIT_S)


Serve = Callable[..., Running]


@pytest.fixture(scope="session")
def turning() -> asyncio.AbstractEventLoop:
    """One loop for all servers, as a process that serves has: grpc.aio polls for all loops of a process, and may call into a closed one."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


@pytest.fixture
def serve(turning: asyncio.AbstractEventLoop) -> Iterator[Serve]:
    """Starts servers; keywords are those of `Settings`, `gate` and `tls` besides."""
    from edgewise.serve.grpc import GrpcServer, Settings

    loop = turning
    started: list[Running] = []

    def start(gate: Gate | None = None, shared: bool = False, folder: Any = None, tls: Tls | None = None, **settings: Any) -> Running:
        memory, host = SharedMemory(enabled=shared, **({"folder": folder} if folder else {})), FakeHost(models())
        served = Served(host, gate or Gate(None), memory, certificates=Certificates(tls) if tls else None)
        made = Running(host, served, loop)

        async def begin() -> tuple[Any, int]:
            server = GrpcServer(made.served, Settings(**{"port": 0, **settings}))
            return server, await server.start()

        made.server, made.port = made.call(begin())
        started.append(made)
        return made

    try:
        yield start
    finally:
        for each in started:
            each.call(each.server.drain(0.0))


@pytest.fixture
def running(serve: Serve) -> Running:
    return serve()


class Stub:
    """A plain client of ours, with messages from the table."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def __call__(self, name: str, request: Any = None, **options: Any) -> Any:
        from edgewise.serve.grpc.descriptors import SERVICE, message

        kind = message(f"{name}Request")
        method = self._channel.unary_unary(
            f"/{SERVICE}/{name}", request_serializer=kind.SerializeToString, response_deserializer=message(f"{name}Response").FromString
        )
        return method(kind() if request is None else request, timeout=LIMIT_S, **options)


@pytest.fixture
def make_stub() -> Iterator[Callable[[Running], Stub]]:
    with contextlib.ExitStack() as stack:
        yield lambda running: Stub(stack.enter_context(grpc.insecure_channel(running.address)))


@pytest.fixture
def stub(running: Running, make_stub: Callable[[Running], Stub]) -> Stub:
    return make_stub(running)
