"""The key of a device: one file that the worker and its clients hold, and the TLS that it makes.

The file is PEM: a private key (P-256) and a certificate that it signed itself. Both sides show the certificate and take no other, so that
who hasn't the file can neither talk nor listen, and nothing that was recorded can be played again (TLS 1.3, RFC 8446). Names and dates say
nothing here: devices have changing addresses, and clocks that begin in 1970. Using a key needs Python's ssl alone; making one needs
`cryptography` (the extra `keys`), on any machine.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

from edgewise import registry
from edgewise.errors import InvalidInput

_MOST_BYTES = 1 << 14
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True)
class Key:
    """path: of the file. certificate: its public part, DER."""

    path: Path
    certificate: bytes

    @property
    def id(self) -> str:
        """Sixteen hexadecimal digits of the certificate's SHA-256: what people compare."""
        return hashlib.sha256(self.certificate).hexdigest()[:16]

    def server(self) -> ssl.SSLContext:
        """For the side that listens: it asks its clients for this certificate."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def client(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.path)
        context.load_verify_locations(cadata=self.certificate)
        return context


def read(path: str | os.PathLike[str]) -> Key:
    """Raises InvalidInput for a file that is no key, or that others may read."""
    what = Path(path)
    try:
        with what.open("rb") as file:
            mode, data = os.fstat(file.fileno()).st_mode, file.read(_MOST_BYTES)
    except OSError as error:
        raise InvalidInput(f"can't read the device key {what}: {error.strerror}; edgewise devices key {what} makes one") from error
    if os.name == "posix" and mode & 0o077:
        raise InvalidInput(f"{what} may be read by others (mode {mode & 0o777:o}): whoever holds it controls the device; chmod 600 {what}")
    text = data.decode("ascii", "replace")
    start, end = text.find(_BEGIN), text.find(_END)
    if start < 0 or end < start or "PRIVATE KEY" not in text:
        raise InvalidInput(f"{what} is no device key (a private key and a certificate, PEM); edgewise devices key FILE makes one")
    try:
        key = Key(what, ssl.PEM_cert_to_DER_cert(text[start : end + len(_END)]))
        key.client()  # that both parts belong together shows now, not at the first connection
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(f"{what} is no device key that can be used ({error}); edgewise devices key FILE makes one") from error
    return key


def make(path: str | os.PathLike[str]) -> Key:
    """A new key at `path`, readable by its owner alone. Raises InvalidInput where something is there already; MissingExtra."""
    registry.need("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edgewise device")])
    always = datetime.datetime(1970, 1, 1), datetime.datetime(9999, 12, 31)
    builder = x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number(), *always)
    certificate = builder.sign(private, hashes.SHA256())
    pem = serialization.Encoding.PEM
    data = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + certificate.public_bytes(pem)
    what = Path(path)
    try:
        handle = os.open(what, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InvalidInput(f"{what} is there already; remove it if no device uses it any more, or give another name") from error
    except OSError as error:
        raise InvalidInput(f"can't write {what}: {error.strerror}") from error
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return read(what)
