"""TLS over real sockets: certificates, those of clients, and both renewed while the server runs."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewise.errors import InvalidInput
from edgewise.serve import certificates as renewing
from edgewise.serve import server
from edgewise.serve.certificates import Certificates
from edgewise.serve.config import Server, Tls
from edgewise.testing.hosts import FakeHost, identity

pytest.importorskip("cryptography")
ASK = b"GET /v2 HTTP/1.1\r\nhost: localhost\r\n\r\n"
Certificate = Callable[..., Any]


def knowing(*roots: Path, own: tuple[Path, Path] | None = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A client that trusts `roots`."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.minimum_version = found.maximum_version = version
    for root in roots:
        found.load_verify_locations(root)
    if own is not None:
        found.load_cert_chain(*own)
    return found


def enters(client: ssl.SSLContext, port: int, session: Any = None) -> ssl.SSLSession | None:
    """The session of a connection that was answered and closed in order; None where there was none."""
    try:
        connection = client.wrap_socket(socket.create_connection(("127.0.0.1", port), 20), server_hostname="localhost", session=session)
        with connection:
            connection.sendall(ASK)
            data = b""
            while not data.endswith(b"}"):
                piece = connection.recv(65536)
                if not piece:
                    return None
                data += piece
            found = connection.session
            connection.unwrap()
            return found
    except OSError:
        return None


def put(source: Path, target: Path) -> None:
    """In one step, as tools that renew certificates do."""
    shutil.copy(source, target.with_suffix(".next"))
    target.with_suffix(".next").replace(target)


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + 15
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_tls_and_certificates_of_clients(serving: Callable[..., Any], certificate: Certificate, tmp_path: Path) -> None:
    pem, key, authority = certificate(tmp_path, "server")
    theirs = certificate(tmp_path, "camera", authority)[:2]
    port = serving(FakeHost({"echo": identity()}), Server(tls=Tls(pem, key))).port
    assert enters(knowing(pem), port)
    strict = serving(FakeHost({"echo": identity()}), Server(tls=Tls(pem, key, pem))).port
    assert not enters(knowing(pem), strict)
    assert enters(knowing(pem, own=theirs), strict)


def test_a_renewed_certificate_is_served_without_a_restart(
    serving: Callable[..., Any], certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "POLL_S", 0.05)
    pem, key, _ = certificate(tmp_path, "server")
    new, new_key, _ = certificate(tmp_path, "new")
    before = tmp_path / "before.pem"
    shutil.copy(pem, before)
    port = serving(FakeHost({"echo": identity()}), Server(tls=Tls(pem, key))).port
    standing = knowing(before).wrap_socket(socket.create_connection(("127.0.0.1", port), 20), server_hostname="localhost")
    with standing:
        put(new, pem)
        put(new_key, key)
        until(lambda: enters(knowing(new), port))
        assert not enters(knowing(before), port)
        standing.sendall(ASK)  # what stands isn't cut
        assert standing.recv(65536).startswith(b"HTTP/1.1 200")
    nameless = knowing(new)
    nameless.check_hostname = False
    with nameless.wrap_socket(socket.create_connection(("127.0.0.1", port), 20)) as connection:
        assert connection.getpeercert(True) == ssl.PEM_cert_to_DER_cert(new.read_text())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def test_a_signer_that_was_taken_out_lets_nobody_in(
    serving: Callable[..., Any], certificate: Certificate, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Not with a new handshake, and not with a session from before, which would show no certificate."""
    pem, key, _ = certificate(tmp_path, "server")
    signers, own = {}, {}
    for name in ("old", "new"):
        signers[name], _, authority = certificate(tmp_path, name)
        own[name] = certificate(tmp_path, f"camera-{name}", authority)[:2]
    listed = tmp_path / "clients.pem"
    shutil.copy(signers["old"], listed)
    running = serving(FakeHost({"echo": identity()}), Server(tls=Tls(pem, key, listed)))
    old, new = (knowing(pem, own=own[name], version=version) for name in ("old", "new"))
    session = enters(old, running.port)
    assert session and enters(old, running.port, session) and not enters(new, running.port)
    put(signers["new"], listed)
    until(lambda: enters(new, running.port))
    assert not enters(old, running.port)
    assert not enters(old, running.port, session)


def test_a_pair_that_cannot_be_used_leaves_the_old_one_and_is_said_once(
    certificate: Certificate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pem, key, _ = certificate(tmp_path, "server")
    new, new_key, _ = certificate(tmp_path, "new")
    certificates = Certificates(Tls(pem, key))
    before = certificates.pem
    assert not certificates.poll() and not caplog.records
    put(new, pem)  # its key comes later
    assert not certificates.poll() and not caplog.records
    for _ in range(3):
        assert not certificates.poll() and certificates.pem is before
    (said,) = caplog.records
    assert said.levelno == logging.ERROR and "NOT RENEWED" in said.getMessage() and str(pem) in said.getMessage()
    put(new_key, key)
    assert certificates.poll() and certificates.pem.key == new_key.read_bytes() and not certificates.poll()
    caplog.clear()
    key.unlink()
    for _ in range(3):
        assert not certificates.poll()
    assert len(caplog.records) == 1 and certificates.pem.key == new_key.read_bytes()


def test_a_key_with_a_password_is_refused_and_not_asked_for(certificate: Certificate, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    pem, key, (_, secret) = certificate(tmp_path, "server")
    locked = serialization.BestAvailableEncryption(b"word")
    key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    with pytest.raises(InvalidInput, match="unencrypted"):
        Certificates(Tls(pem, key))
    with pytest.raises(InvalidInput, match="can't read"):
        Certificates(Tls(pem, tmp_path / "none.key"))


@pytest.mark.parametrize(("days", "why"), [((-9, -1), "has expired"), ((1, 9), "is not yet valid")])
@pytest.mark.parametrize("mutual", [False, True])
def test_a_certificate_whose_time_is_not_now_leaves_the_old_one(
    certificate: Certificate,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    days: tuple[float, float],
    why: str,
    mutual: bool,
) -> None:
    pem, key, authority = certificate(tmp_path, "server")
    signed, signed_key, _ = certificate(tmp_path, "signed", authority, days)
    certificates = Certificates(Tls(pem, key, pem if mutual else None))
    before = certificates.pem
    put(signed, pem)
    put(signed_key, key)
    for _ in range(3):
        assert not certificates.poll() and certificates.pem is before
    (said,) = caplog.records
    assert said.levelno == logging.ERROR and f"{pem}: certificate {why}" in said.getMessage()
    # It is looked at again, and said again only where something else is wrong.
    monkeypatch.setattr(renewing, "AGAIN_S", 0.0)
    certificates._again_s = 0.0
    assert not certificates.poll() and not certificates.poll() and len(caplog.records) == 1
    monkeypatch.setattr(renewing, "untimely", lambda *_: "")  # its time has come
    assert certificates.poll() and certificates.pem.certificate == pem.read_bytes() and not certificates.poll()


def test_where_the_old_certificate_has_expired_any_other_takes_its_place(certificate: Certificate, tmp_path: Path) -> None:
    """Above all on a machine whose clock is wrong, to which none is valid."""
    pem, key, _ = certificate(tmp_path, "server", None, (-9, -2))
    other, other_key, _ = certificate(tmp_path, "other", None, (-9, -1))
    certificates = Certificates(Tls(pem, key))
    put(other, pem)
    put(other_key, key)
    assert certificates.poll() and certificates.pem.certificate == other.read_bytes()


def test_what_signed_a_certificate_counts_too(certificate: Certificate, tmp_path: Path) -> None:
    root, _, authority = certificate(tmp_path, "root", None, (-9, -1))
    own, key, _ = certificate(tmp_path, "own", authority)
    whole = tmp_path / "whole.pem"
    whole.write_bytes("# größe: a note\n".encode() + own.read_bytes() + root.read_bytes())
    for file, said in ((own, ""), (whole, "certificate has expired")):
        tls = Tls(file, key)
        assert renewing.untimely(renewing.context(tls), Certificates(tls).pem) == said
