"""A REST application over a host in memory, asked without a network; and a server of its own thread, where sockets matter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings

from edgewise.serve.access import Gate
from edgewise.serve.config import Server
from edgewise.serve.rest import Rest, Served
from edgewise.testing.hosts import FakeHost, identity

settings.register_profile("serve", deadline=None)  # a busy machine makes no example wrong
settings.load_profile("serve")


@dataclass
class Replied:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> str:
        """Of the protocol's shape, and nothing besides."""
        told = self.json
        assert list(told) == ["error"] and isinstance(told["error"], str)
        return str(told["error"])


@dataclass
class Client:
    """Asks an ASGI application as a server would. pieces: how a body arrives."""

    app: Any
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = b"", headers: dict[str, str] | None = None, pieces: int = 1) -> Replied:
        return asyncio.run(self.asked(method, path, body, headers, pieces))

    def get(self, path: str, **headers: str) -> Replied:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any = b"", **headers: str) -> Replied:
        return self.ask("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})

    async def asked(self, method: str, path: str, body: Any = b"", headers: dict[str, str] | None = None, pieces: int = 1) -> Replied:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        given = {"host": "localhost", "content-length": str(len(data)), **self.headers, **(headers or {})}
        target, _, query = path.partition("?")
        scope = {
            "type": "http", "method": method, "path": target, "raw_path": target.encode(), "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()], "client": ("10.0.0.1", 1),
        }  # fmt: skip
        step = max(1, -(-len(data) // pieces))
        parts = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if not parts:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: Any) -> None:
            sent.append(message)

        await asyncio.wait_for(self.app(scope, receive, send), 10)
        start, *rest = sent
        return Replied(
            start["status"],
            {name.decode(): value.decode() for name, value in start["headers"]},
            b"".join(bytes(each["body"]) for each in rest),
        )


@pytest.fixture
def host() -> FakeHost:
    return FakeHost({"echo": identity(), "ints": identity("int32", (3,)), "many": identity(versions=("1", "2"))})


@pytest.fixture
def client(host: FakeHost) -> Client:
    return Client(Rest(Served(host, Gate(None))))


@dataclass
class Running:
    port: int
    edge: Any
    thread: threading.Thread


@pytest.fixture
def serving() -> Iterator[Callable[..., Running]]:
    """Starts servers on free ports of loopback, each in a thread of its own; ends them all."""
    from edgewise.serve.server import Edge, listening, standing

    started: list[Running] = []

    def start(host: FakeHost, settings: Server = Server(), **more: Any) -> Running:  # noqa: B008
        edge = Edge(replace(settings, port=0), lambda: standing(host), **more)
        listener = listening("127.0.0.1", 0)
        up = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(edge.serve(listener, lambda address: up.set())), daemon=True)
        thread.start()
        assert up.wait(10)
        running = Running(listener.getsockname()[1], edge, thread)
        started.append(running)
        return running

    yield start
    for running in started:
        running.edge.stop()
    for running in started:
        running.thread.join(20)
        assert not running.thread.is_alive()


def _certificate(folder: Path, name: str, signer: tuple[Any, Any] | None = None) -> tuple[Path, Path, tuple[Any, Any]]:
    """A certificate and its key as PEM files; its own unless signed."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(signer[0].subject if signer else subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
    )  # fmt: skip
    made = builder.sign(signer[1] if signer else key, hashes.SHA256())
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return *paths, (made, key)


@pytest.fixture
def certificate() -> Callable[..., Any]:
    """Makes one: `certificate(folder, name, signer)`."""
    return _certificate
