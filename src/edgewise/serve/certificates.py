"""TLS whose certificates may be renewed while the server runs: files that are looked at, and what each new handshake gets."""

from __future__ import annotations

import contextlib
import logging
import math
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from edgewise.errors import InvalidInput
from edgewise.serve.config import Tls
from edgewise.serve.logs import say

AGAIN_S = 60.0  # between looks at a certificate whose time hasn't come
EXPIRED, NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID (openssl/x509_vfy.h)

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
    serving, and are told in the log; so do those that no client would take today, for as long as it would take the former ones. Raises
    InvalidInput.

    context: to listen with. pem: what it has now, for servers with a TLS of their own.
    """

    def __init__(self, tls: Tls) -> None:
        self._files = [path for path in (tls.certificate, tls.key, tls.clients) if path is not None]
        self._tls = tls
        self._seen = self._tried = self._stamp()
        self.pem = _read(tls)
        self._current = self.context = context(tls)
        self._clients_since = 0.0
        self._again_s = math.inf  # when files that were untimely are tried again
        self._told = ""
        # No load takes a signer out of a context again. So each renewal makes a new one, and handshakes change to it.
        self.context.sni_callback = self._handshake

    def poll(self) -> bool:
        """Whether handshakes get other certificates from now on. Raises nothing."""
        stamp = self._stamp()
        if stamp == self._seen and time.monotonic() < self._again_s:
            return False
        try:
            pem, found = _read(self._tls), context(self._tls)
        except InvalidInput as error:
            # One file is written after the other: what doesn't fit together is an error only where it stays so until the next look.
            if stamp == self._tried:
                self._keep(stamp, str(error), math.inf)
            self._tried = stamp
            return False
        if self._stamp() != stamp:
            return False  # written to meanwhile: the next look sees it whole
        if (why := untimely(found, pem)) and not untimely(self._current, self.pem):
            self._keep(stamp, f"{self._tls.certificate}: {why} by this machine's clock", time.monotonic() + AGAIN_S)
            return False
        if pem.clients != self.pem.clients:
            self._clients_since = time.time()
        self._seen, self.pem, self._current, self._again_s, self._told = stamp, pem, found, math.inf, ""
        say(f"{', '.join(map(str, self._files))}: new connections get these from now on", level=logging.WARNING)
        return True

    def _keep(self, stamp: Stamp, why: str, again_s: float) -> None:
        """The former ones serve on, which is said once."""
        if stamp != self._seen or why != self._told:
            say(f"CERTIFICATES WERE NOT RENEWED, the former ones serve on: {why}", level=logging.ERROR)
        self._seen, self._again_s, self._told = stamp, again_s, why

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


def untimely(serving: ssl.SSLContext, pem: Pem) -> str:
    """Why any client would refuse this certificate today, or one beside it that signed it: it "has expired"; "" where its time is now.

    What OpenSSL says in a handshake in memory whose client trusts just these: Python reads no dates of a certificate that isn't verified.
    """
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    asking.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    asking.load_verify_locations(cadata=pem.certificate.decode("ascii", "ignore"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = asking.wrap_bio(to_client, to_server), serving.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (client, server, client):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message if error.verify_code in (EXPIRED, NOT_YET) else ""
    except ssl.SSLError:
        pass  # of something else, which each client may judge for itself
    return ""


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
