"""TLS, and clients that have to show a certificate of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgewise.errors import InvalidInput
from edgewise.serve.grpc.descriptors import SERVICE, message

grpc = pytest.importorskip("grpc", reason="needs grpc: pip install 'edgewise[grpc]'")


def live(address: str, credentials: Any) -> bool:
    with grpc.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", "localhost")]) as channel:
        method = channel.unary_unary(f"/{SERVICE}/ServerLive", response_deserializer=message("ServerLiveResponse").FromString)
        return bool(method(b"", timeout=10).live)


@pytest.fixture
def pem(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost, signed by itself, and its key."""
    x509 = pytest.importorskip("cryptography.x509", reason="needs cryptography: pip install 'edgewise[keys]'")
    import datetime

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return certificate, private


def test_over_tls(serve: Any, pem: tuple[Path, Path]) -> None:
    certificate, key = pem
    address = serve(certificate=certificate, key=key).address
    assert live(address, grpc.ssl_channel_credentials(certificate.read_bytes()))
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=5)


def test_only_clients_with_a_certificate(serve: Any, pem: tuple[Path, Path]) -> None:
    certificate, key = pem
    address = serve(certificate=certificate, key=key, clients=certificate).address
    with pytest.raises(grpc.RpcError):
        live(address, grpc.ssl_channel_credentials(certificate.read_bytes()))
    assert live(address, grpc.ssl_channel_credentials(certificate.read_bytes(), key.read_bytes(), certificate.read_bytes()))


def test_a_certificate_that_is_not_there(serve: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="can't read"):
        serve(certificate=tmp_path / "no.pem", key=tmp_path / "no.pem")
