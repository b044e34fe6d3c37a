"""The first 128 bytes of a package: magic, version, lengths, the content id, and the place of the signature (docs/format.md)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from edgewise.errors import InvalidPackage
from edgewise.package.limits import Limits
from edgewise.package.manifest import aligned

# The first byte is no text and the last four change under any newline or 7-bit translation, as in PNG (ISO/IEC 15948, 5.2).
MAGIC = b"\x89EDGEW\r\n"
MAJOR, MINOR = 1, 0
HEAD = struct.Struct("<8sHHIQII")  # magic, major, minor, manifest length, file length, flags, reserved
DIGEST_BYTES = 32
SIGNATURE_BYTES = 64
PREAMBLE_BYTES = HEAD.size + DIGEST_BYTES + SIGNATURE_BYTES


@dataclass(frozen=True)
class Preamble:
    minor: int
    manifest_bytes: int
    file_bytes: int
    content_id: bytes  # SHA-256 of the head and the manifest, which holds the SHA-256 of every member

    @property
    def data_start(self) -> int:
        """Where the first member begins: offsets in the manifest count from here."""
        return aligned(PREAMBLE_BYTES + self.manifest_bytes)


def head(minor: int, manifest_bytes: int, members_end: int) -> bytes:
    """The 32 bytes that the content id covers along with the manifest. `members_end`: offset + length of the last member."""
    file_bytes = aligned(PREAMBLE_BYTES + manifest_bytes) + members_end
    return HEAD.pack(MAGIC, MAJOR, minor, manifest_bytes, file_bytes, 0, 0)


def content_id(head_bytes: bytes, manifest: bytes) -> bytes:
    return hashlib.sha256(head_bytes + manifest).digest()


def read(data: bytes, file_bytes: int, what: str, limits: Limits) -> Preamble:
    """Parse the first `PREAMBLE_BYTES` of a file that is `file_bytes` long. Raises InvalidPackage."""
    if not data:
        raise InvalidPackage(f"{what} is empty; copy or download it again")
    if not MAGIC.startswith(data[: len(MAGIC)]):
        if data[:6] == MAGIC[:6]:
            raise InvalidPackage(f"{what} was changed on its way (its newlines were translated); copy it again as binary")
        raise InvalidPackage(f"{what} is not an edgewise package (it doesn't begin as one); expected a file that `edgewise fit` wrote")
    if len(data) < PREAMBLE_BYTES:
        raise InvalidPackage(f"{what} is truncated: {file_bytes} bytes are no whole header; copy or download it again")
    _, major, minor, manifest_bytes, expected, flags, reserved = HEAD.unpack_from(data)
    if major != MAJOR:
        raise InvalidPackage(f"{what} has format {major}.{minor}, and this edgewise reads {MAJOR}.x; update it: pip install -U edgewise")
    if flags or reserved or any(data[HEAD.size + DIGEST_BYTES : PREAMBLE_BYTES]):
        raise InvalidPackage(f"{what} uses features (flags {flags:#x}) that this edgewise doesn't know; update it: pip install -U edgewise")
    if manifest_bytes > limits.manifest_bytes:
        raise InvalidPackage(
            f"{what} claims a manifest of {manifest_bytes:,} bytes, over {limits.manifest_bytes:,}; "
            "raise Limits.manifest_bytes if you trust it"
        )
    if file_bytes < expected:
        raise InvalidPackage(f"{what} is truncated: {file_bytes:,} of {expected:,} bytes are there; copy or download it again")
    if file_bytes > expected:
        raise InvalidPackage(f"{what} has {file_bytes - expected:,} bytes behind its end; copy or download it again")
    found = Preamble(minor, manifest_bytes, expected, data[HEAD.size : HEAD.size + DIGEST_BYTES])
    if found.data_start > file_bytes:
        raise InvalidPackage(f"{what} claims a manifest of {manifest_bytes:,} bytes in a file of {file_bytes:,}; it is damaged or forged")
    return found
