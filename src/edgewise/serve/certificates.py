"""TLS whose certificates may be renewed while the server runs: files that are looked at, and what each new handshake gets."""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from edgewise.errors import InvalidInput
from edgewise.serve.config import Tls
from edgewise.serve.logs import say

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class Pem:
    """What the files hold, as bytes. clients: None where anybody may connect."""

    certificate: bytes
    key: bytes
    clients: bytes | None = None


class Certificates:
    """A certificate, its key, and with mutual TLS those who sign clients'; read again when a file changes (`poll`).

    Every handshake gets what was read last; connections that stand keep what they have. Files that can't be used leave the former ones
    serving, and are told in the log. Raises InvalidInput.

    context: to listen with. pem: what it has now, for servers with a TLS of their own.
    """

    def __init__(self, tls: Tls) -> None:
        self._files = [path for path in (tls.certificate, tls.key, tls.clients) if path is not None]
        self._tls = tls
        self._seen = self._tried = self._stamp()
        self.pem = _read(tls)
        self._current = self.context = context(tls)
        self._clients_since = 0.0
        # No load takes a signer out of a context again. So each renewal makes a new one, and handshakes change to it.
        self.context.sni_callback = self._handshake

    def poll(self) -> bool:
        """Whether handshakes get other certificates from now on. Raises nothing."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        try:
            pem, found = _read(self._tls), context(self._tls)
        except InvalidInput as error:
            # One file is written after the other: what doesn't fit together is an error only where it stays so until the next look.
            if stamp == self._tried:
                self._seen = stamp
                say(f"CERTIFICATES WERE NOT RENEWED, the former ones serve on: {error}", level=logging.ERROR)
            self._tried = stamp
            return False
        if self._stamp() != stamp:
            return False  # written to meanwhile: the next look sees it whole
        if pem.clients != self.pem.clients:
            self._clients_since = time.time()
        self._seen, self.pem, self._current = stamp, pem, found
        say(f"{', '.join(map(str, self._files))}: new connections get these from now on", level=logging.WARNING)
        return True

    def _handshake(self, connection: ssl.SSLObject, name: str | None, listening: ssl.SSLContext) -> int | None:
        """OpenSSL calls it in every handshake, whether the client names a host or not."""
        # With a session from before, TLS 1.2 asks for no certificate: a signer that was taken out would still let its clients in.
        if self._clients_since and connection.session_reused and connection.session.time <= self._clients_since:  # type: ignore[union-attr]
            return ssl.ALERT_DESCRIPTION_ACCESS_DENIED
        connection.context = self._current
        return None

    def _stamp(self) -> Stamp:
        return tuple(map(_stamp, self._files))


def context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 and later; with `clients`, nobody gets in without a certificate that these signed. Raises InvalidInput."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        found.load_cert_chain(tls.certificate, tls.key, password="")  # an encrypted key would be asked for at the terminal
        if tls.clients is not None:
            found.load_verify_locations(tls.clients)
            found.verify_mode = ssl.CERT_REQUIRED
            # Tickets outlive their signers: with one, a client shows no certificate.
            found.options |= ssl.OP_NO_TICKET
            found.num_tickets = 0
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(str(path) for path in (tls.certificate, tls.key, tls.clients) if path is not None)
        raise InvalidInput(f"can't use {names}: {error}; give PEM files, the certificate's key unencrypted") from error
    return found


def _read(tls: Tls) -> Pem:
    try:
        return Pem(tls.certificate.read_bytes(), tls.key.read_bytes(), tls.clients.read_bytes() if tls.clients else None)
    except OSError as error:
        raise InvalidInput(f"can't read {error.filename}: {error.strerror}; give PEM files, the certificate's key unencrypted") from error


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
