"""A REST application over a host in memory, asked without a network; and a server of its own thread, where sockets matter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from edgewise.serve.access import Gate
from edgewise.serve.config import Server
from edgewise.serve.rest import Rest, Served
from edgewise.testing.hosts import FakeHost, identity

from .exchanges import Client

settings.register_profile("serve", deadline=None)  # a busy machine makes no example wrong
settings.load_profile("serve")


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


def _certificate(
    folder: Path, name: str, signer: tuple[Any, Any] | None = None, days: tuple[float, float] = (-1, 1)
) -> tuple[Path, Path, tuple[Any, Any]]:
    """A certificate and its key as PEM files; its own unless signed. days: from when to when it is valid, from now."""
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
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0])).not_valid_after(now + timedelta(days=days[1]))
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
