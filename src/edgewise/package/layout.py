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
HEAD = struct.Struct("<8sHHIQII")  # magic, major, minor, manifest length, file length, flags, checksum of the signature
DIGEST_BYTES = 32
SIGNATURE_BYTES = 64
PREAMBLE_BYTES = HEAD.size + DIGEST_BYTES + SIGNATURE_BYTES
SIGNED = 1  # the one flag
_FLAGS = struct.Struct("<II")  # the last two of HEAD


@dataclass(frozen=True)
class Preamble:
    minor: int
    manifest_bytes: int
    file_bytes: int
    content_id: bytes  # SHA-256 of the head and the manifest, which holds the SHA-256 of every member
    signature: bytes  # of the content id, or empty
    head: bytes

    @property
    def data_start(self) -> int:
        """Where the first member begins: offsets in the manifest count from here."""
        return aligned(PREAMBLE_BYTES + self.manifest_bytes)


def head(minor: int, manifest_bytes: int, members_end: int) -> bytes:
    """The 32 bytes that the content id covers along with the manifest. `members_end`: offset + length of the last member.

    They are those of a file without a signature, so that signing changes no content id.
    """
    file_bytes = aligned(PREAMBLE_BYTES + manifest_bytes) + members_end
    return HEAD.pack(MAGIC, MAJOR, minor, manifest_bytes, file_bytes, 0, 0)


def content_id(head_bytes: bytes, manifest: bytes) -> bytes:
    return hashlib.sha256(head_bytes + manifest).digest()


def preamble(head_bytes: bytes, manifest: bytes, signature: bytes) -> bytes:
    """The first `PREAMBLE_BYTES` of a file. signature: 64 bytes, or empty."""
    flags = _FLAGS.pack(SIGNED, _checksum(signature)) if signature else bytes(_FLAGS.size)
    return head_bytes[: -_FLAGS.size] + flags + content_id(head_bytes, manifest) + (signature or bytes(SIGNATURE_BYTES))


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
    _, major, minor, manifest_bytes, expected, flags, checksum = HEAD.unpack_from(data)
    identity, signature = data[HEAD.size : HEAD.size + DIGEST_BYTES], data[HEAD.size + DIGEST_BYTES : PREAMBLE_BYTES]
    if major != MAJOR:
        raise InvalidPackage(f"{what} has format {major}.{minor}, and this edgewise reads {MAJOR}.x; update it: pip install -U edgewise")
    if flags & ~SIGNED or (not flags and (checksum or any(signature))):
        raise InvalidPackage(f"{what} uses features (flags {flags:#x}) that this edgewise doesn't know; update it: pip install -U edgewise")
    # Without a key nobody can tell a damaged signature from another one; with this, damage shows.
    if flags and checksum != _checksum(signature):
        raise InvalidPackage(f"{what} was altered or damaged: its signature doesn't match its checksum; copy or download it again")
    if manifest_bytes > limits.manifest_bytes:
        raise InvalidPackage(
            f"{what} claims a manifest of {manifest_bytes:,} bytes, over {limits.manifest_bytes:,}; "
            "raise Limits.manifest_bytes if you trust it"
        )
    if file_bytes < expected:
        raise InvalidPackage(f"{what} is truncated: {file_bytes:,} of {expected:,} bytes are there; copy or download it again")
    if file_bytes > expected:
        raise InvalidPackage(f"{what} has {file_bytes - expected:,} bytes behind its end; copy or download it again")
    unsigned = data[: HEAD.size - _FLAGS.size] + bytes(_FLAGS.size)
    found = Preamble(minor, manifest_bytes, expected, identity, signature if flags else b"", unsigned)
    if found.data_start > file_bytes:
        raise InvalidPackage(f"{what} claims a manifest of {manifest_bytes:,} bytes in a file of {file_bytes:,}; it is damaged or forged")
    return found


def _checksum(signature: bytes) -> int:
    return int.from_bytes(hashlib.sha256(signature).digest()[:4], "little")
