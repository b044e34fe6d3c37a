"""The key of a device: what is one, and what it lets in."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from edgewise.errors import InvalidInput
from edgewise.wire import keys

pytest.importorskip("cryptography", reason="pip install 'edgewise[keys]'")


def talked(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    """What a client hears of a server that says "hello" to whom it lets in."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(theirs, server_side=True) as link:
                link.sendall(b"hello")
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours) as link:
            return link.recv(16)
    finally:
        thread.join(10)


def test_both_ends_hold_the_same_file(tmp_path: Path) -> None:
    made = keys.make(tmp_path / "device.key")
    assert made.path.stat().st_mode & 0o777 == 0o600
    read = keys.read(made.path)
    assert read.id == made.id and len(made.id) == 16
    assert talked(made.server(), read.client()) == b"hello"


def test_another_key_is_refused_by_both_sides(tmp_path: Path) -> None:
    own, other = keys.make(tmp_path / "own.key"), keys.make(tmp_path / "other.key")
    assert own.id != other.id
    with pytest.raises(ssl.SSLError):
        talked(own.server(), other.client())
    careless = other.client()
    careless.verify_mode = ssl.CERT_NONE  # a client that would take any server still isn't let in
    with pytest.raises(ssl.SSLError):
        talked(own.server(), careless)
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):
        talked(own.server(), nobody)


def test_older_tls_is_refused(tmp_path: Path) -> None:
    own = keys.make(tmp_path / "own.key")
    old = own.client()
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        talked(own.server(), old)


def test_what_is_no_key_is_told(tmp_path: Path) -> None:
    made = keys.make(tmp_path / "device.key")
    with pytest.raises(InvalidInput, match="there already"):
        keys.make(made.path)
    with pytest.raises(InvalidInput, match="edgewise devices key"):
        keys.read(tmp_path / "none.key")
    (tmp_path / "text.key").write_text("hello")
    (tmp_path / "text.key").chmod(0o600)
    with pytest.raises(InvalidInput, match="no device key"):
        keys.read(tmp_path / "text.key")
    halves = made.path.read_text().partition("-----BEGIN CERTIFICATE")
    mixed = tmp_path / "mixed.key"
    mixed.write_text(
        halves[0] + "-----BEGIN CERTIFICATE" + keys.make(tmp_path / "b.key").path.read_text().partition("-----BEGIN CERTIFICATE")[2]
    )
    mixed.chmod(0o600)
    with pytest.raises(InvalidInput, match="can be used"):
        keys.read(mixed)
    made.path.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        keys.read(made.path)
