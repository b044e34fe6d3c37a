"""TLS, and clients that have to show a certificate of their own; both renewed while the server runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewise.serve.config import Tls
from edgewise.serve.grpc.descriptors import SERVICE, message

grpc = pytest.importorskip("grpc", reason="needs grpc: pip install 'edgewise[grpc]'")


def live(address: str, credentials: Any) -> bool:
    # Channels of the same arguments would share a connection.
    options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options=options) as channel:
        method = channel.unary_unary(f"/{SERVICE}/ServerLive", response_deserializer=message("ServerLiveResponse").FromString)
        return bool(method(b"", timeout=10).live)


@pytest.fixture
def pem(certificate: Callable[..., Any], tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost, signed by itself, and its key."""
    made, key, _ = certificate(tmp_path, "server")
    return made, key


def test_over_tls(serve: Any, pem: tuple[Path, Path]) -> None:
    address = serve(tls=Tls(*pem)).address
    assert live(address, grpc.ssl_channel_credentials(pem[0].read_bytes()))
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=5)


def test_only_clients_with_a_certificate(serve: Any, pem: tuple[Path, Path]) -> None:
    certificate, key = pem
    address = serve(tls=Tls(certificate, key, certificate)).address
    with pytest.raises(grpc.RpcError):
        live(address, grpc.ssl_channel_credentials(certificate.read_bytes()))
    assert live(address, grpc.ssl_channel_credentials(certificate.read_bytes(), key.read_bytes(), certificate.read_bytes()))


def test_renewed_while_it_runs(serve: Any, certificate: Callable[..., Any], pem: tuple[Path, Path], tmp_path: Path) -> None:
    (old_pem, old_key), (new_pem, new_key, _) = pem, certificate(tmp_path, "new")
    former, former_key = old_pem.read_bytes(), old_key.read_bytes()
    signers = tmp_path / "ca.pem"
    signers.write_bytes(former)
    running = serve(tls=Tls(old_pem, old_key, signers))

    def enters(root: bytes, key: bytes, own: bytes) -> bool:
        try:
            return live(running.address, grpc.ssl_channel_credentials(root, key, own))
        except grpc.RpcError:
            return False

    assert enters(former, former_key, former)
    old_pem.write_bytes(new_pem.read_bytes())
    old_key.write_bytes(new_key.read_bytes())
    assert running.served.certificates.poll()
    assert enters(new_pem.read_bytes(), former_key, former) and not enters(former, former_key, former)
    signers.write_bytes(new_pem.read_bytes())
    assert running.served.certificates.poll()
    assert enters(new_pem.read_bytes(), new_key.read_bytes(), new_pem.read_bytes())
    assert not enters(new_pem.read_bytes(), former_key, former)
