"""The outside of a minimal file: magic, flags, lengths, the signature's place, and the hash that finds damage (docs/format.md)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from edgewise.coding.cursor import Cursor, varint
from edgewise.errors import InvalidInput, InvalidPackage

# As the full profile's: its first byte is no text.
MAGIC = b"\x89Ew"
VERSION = 1
_FLAGS = len(MAGIC) + 1
SIGNED, CODED = 1, 2
SIGNATURE_BYTES = 64
# It is against damage, and lets 1 of 2**64 damaged files pass. No length would help against a forger, who writes the hash anew. That is
# what the signature is for, and it is over a whole SHA-256.
HASH_BYTES = 8
_LEAST = _FLAGS + 1 + 2 + HASH_BYTES


@dataclass(frozen=True)
class Sections:
    """release: counts the model's. structure: graph and metadata, as stored; `coded` says whether that is through `edgewise.coding`."""

    release: int
    structure: bytes
    weights: bytes
    coded: bool
    signature: bytes | None = None


def join(sections: Sections) -> bytes:
    """The file."""
    body = _header(sections) + sections.structure + sections.weights + (sections.signature or b"")
    return body + _hash(body)


def split(file: bytes, what: str) -> Sections:
    """Undoes `join`. Raises InvalidPackage for what is not a minimal package, or not whole."""
    if not file.startswith(MAGIC):
        raise InvalidPackage(f"{what} is not a package of the minimal profile (it doesn't begin as one)")
    if len(file) < _LEAST:
        raise InvalidPackage(f"{what} is truncated: {len(file)} bytes are no whole package; copy or download it again")
    if file[len(MAGIC)] != VERSION:
        raise InvalidPackage(f"{what} has minimal format {file[len(MAGIC)]}, and this edgewise reads {VERSION}: pip install -U edgewise")
    if _hash(file[:-HASH_BYTES]) != file[-HASH_BYTES:]:
        raise InvalidPackage(f"{what} was altered, damaged or truncated: it doesn't match its SHA-256; copy or download it again")
    flags = file[_FLAGS]
    if flags & ~(SIGNED | CODED):
        raise InvalidPackage(f"{what} uses features (flags {flags:#x}) that this edgewise doesn't know; update it: pip install -U edgewise")
    try:
        cursor = Cursor(memoryview(file)[_FLAGS + 1 : -HASH_BYTES])
        release = cursor.varint(2**53)
        structure = bytes(cursor.framed())
        rest = bytes(cursor.rest())
    except InvalidInput as error:
        raise InvalidPackage(f"{what} is damaged or forged ({error})") from error
    if not release:
        raise InvalidPackage(f"{what} has no version; it counts from 1")
    signature = None
    if flags & SIGNED:
        if len(rest) < SIGNATURE_BYTES:
            raise InvalidPackage(f"{what} says that it is signed, and has no place for that; it is damaged or forged")
        rest, signature = rest[:-SIGNATURE_BYTES], rest[-SIGNATURE_BYTES:]
    return Sections(release, structure, rest, bool(flags & CODED), signature)


def sizes(file: bytes) -> dict[str, int]:
    """Bytes of each part of a file that `split` lets pass."""
    found = split(file, "the package")
    return {
        "header": len(_header(found)),
        "graph_and_metadata": len(found.structure),
        "weights": len(found.weights),
        "signature": len(found.signature or b""),
        "hash": HASH_BYTES,
    }


def content_id(file: bytes) -> bytes:
    """What a signature signs: SHA-256 of all bytes before it, with the flag that says "signed" cleared. Signing doesn't change it.

    file: whole, as `join` made it or `split` let it pass.
    """
    flags = file[_FLAGS]
    end = len(file) - HASH_BYTES - (SIGNATURE_BYTES if flags & SIGNED else 0)
    return hashlib.sha256(file[:_FLAGS] + bytes([flags & ~SIGNED]) + file[_FLAGS + 1 : end]).digest()


def signature(file: bytes) -> bytes | None:
    """The 64 bytes that `with_signature` put there."""
    return file[-HASH_BYTES - SIGNATURE_BYTES : -HASH_BYTES] if file[_FLAGS] & SIGNED else None


def with_signature(file: bytes, signature: bytes | None) -> bytes:
    """The same file with this signature (of its `content_id`), or without one. Raises InvalidInput for one of another length."""
    if signature is not None and len(signature) != SIGNATURE_BYTES:
        raise InvalidInput(f"a signature of {len(signature)} bytes was given; Ed25519's have {SIGNATURE_BYTES}")
    flags = file[_FLAGS]
    end = len(file) - HASH_BYTES - (SIGNATURE_BYTES if flags & SIGNED else 0)
    flags = flags & ~SIGNED if signature is None else flags | SIGNED
    body = file[:_FLAGS] + bytes([flags]) + file[_FLAGS + 1 : end] + (signature or b"")
    return body + _hash(body)


def _header(sections: Sections) -> bytes:
    flags = (CODED if sections.coded else 0) | (SIGNED if sections.signature is not None else 0)
    return MAGIC + bytes([VERSION, flags]) + varint(sections.release) + varint(len(sections.structure))


def _hash(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:HASH_BYTES]
