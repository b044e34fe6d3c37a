"""Damaged and forged packages and updates: bytes changed anyhow, or with every hash made right again, so that decoders get to see them."""

from __future__ import annotations

import hashlib
import random
import struct
import sys
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parent))

from edgewise.coding.cursor import Cursor, framed, varint
from edgewise.errors import InvalidInput
from edgewise.package import layout, minimal, runs, update
from edgewise.package.manifest import aligned
from edgewise.package.minimal.layout import HASH_BYTES

NUMBERS = (0, 1, -1, 2, 7, 63, 64, 65, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**53 + 1, 2**63, 2**64, 1.5, 1e308)
TEXTS = (
    "",
    "a",
    "raw",
    "coded",
    "lzma",
    "main",
    "weights",
    "graphs/0.onnx",
    "../x",
    "/",
    "float32",
    "int4",
    "onnx",
    "x" * 600,
    "\x1b[2J",
    "0" * 64,
)


def blunt(dice: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Some bytes other than they were."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 8))):
        at = dice.randrange(len(changed) + 1) if dice.random() < 0.6 else dice.randrange(min(200, len(changed)) + 1)
        kind = dice.randrange(7)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << dice.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        elif kind == 2:
            del changed[at : at + dice.choice((1, 2, 8, 64, 1000))]
        elif kind == 3:
            changed[at:at] = dice.randbytes(dice.choice((1, 2, 8, 64)))
        elif kind == 4:
            other = dice.choice(others)
            start, length = dice.randrange(len(other) + 1), dice.choice((4, 16, 64, 512))
            changed[at : at + length] = other[start : start + length]
        elif kind == 5:
            size = struct.Struct(dice.choice(("<H", "<I", "<Q")))
            changed[at : at + size.size] = size.pack(dice.choice(NUMBERS[3:-2]) % 2 ** (8 * size.size))
        else:
            del changed[at:]
        if not changed:
            break
    return bytes(changed)


def elsewhere(dice: random.Random, plain: Any) -> None:
    """One value of JSON data other than it was, in place."""
    here = plain
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return
        key = dice.choice(keys)
        if isinstance(here[key], dict | list) and here[key] and dice.random() < 0.85:
            here = here[key]
            continue
        break
    kind = dice.randrange(6)
    if kind == 0:
        here[key] = dice.choice(NUMBERS)
    elif kind == 1:
        here[key] = dice.choice(TEXTS)
    elif kind == 2:
        here[key] = dice.choice((None, True, [], {}, [[]], {"kind": "image"}))
    elif kind == 3:
        del here[key]
    elif kind == 4 and isinstance(here, list):
        here.insert(dice.randrange(len(here) + 1), msgspec.json.decode(msgspec.json.encode(here[key])))
    elif kind == 5 and isinstance(here[key], int):
        here[key] += dice.choice((-1, 1, 64, -64, 2**32))
    else:
        other = dice.choice(keys)
        here[key], here[other] = here[other], here[key]


def content(data: bytes) -> bytes:
    """A whole package's bytes without its signature."""
    return minimal.with_signature(data, None) if data.startswith(minimal.MAGIC) else data[:24] + data[layout.PREAMBLE_BYTES :]


def package_forged(dice: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """A package whose manifest or members differ, with every hash and length right; of the minimal profile, one that differs anywhere."""
    if data.startswith(minimal.MAGIC):
        body = data[: len(minimal.MAGIC)] + blunt(dice, data[len(minimal.MAGIC) : -HASH_BYTES], others)
        return body + hashlib.sha256(body).digest()[:HASH_BYTES]
    (size,) = struct.unpack_from("<I", data, 12)
    encoded = data[layout.PREAMBLE_BYTES : layout.PREAMBLE_BYTES + size]
    body = data[aligned(layout.PREAMBLE_BYTES + size) :]
    plain = msgspec.json.decode(encoded)
    if dice.random() < 0.5:
        for _ in range(dice.choice((1, 1, 2))):
            elsewhere(dice, plain)
        members = _list(plain, "members")
    else:
        # One member's bytes, and what lies behind it moved.
        members = _list(plain, "members")
        pieces = [body[member["offset"] : member["offset"] + member["length"]] for member in members]
        which = dice.randrange(len(pieces))
        grown = blunt(dice, pieces[which] or b"\0", others)
        pieces[which] = grown if dice.random() < 0.5 else (grown + bytes(len(pieces[which])))[: len(pieces[which])]
        body, end = b"", 0
        for member, piece in zip(members, pieces, strict=True):
            body += bytes(aligned(end) - end) + piece
            member.update(offset=aligned(end), length=len(piece))
            end = len(body)
    for member in members:
        if isinstance(member, dict) and all(isinstance(member.get(key), int) for key in ("offset", "length")) and "sha256" in member:
            start = max(member["offset"], 0)
            member["sha256"] = hashlib.sha256(body[start : start + max(member["length"], 0)]).hexdigest()
    return _packaged(msgspec.json.encode(plain) if dice.random() < 0.9 else blunt(dice, encoded, others), body, data[64:128])


def update_forged(dice: random.Random, data: bytes, others: list[bytes], skeleton: bytes) -> bytes:
    """An update whose head, body or manifest differs, with its own hash right. skeleton: of the old package."""
    head, body = data[: update.HEAD.size], data[update.HEAD.size + update.OWN_BYTES :]
    kind = dice.randrange(5)
    if kind == 0:
        head = (blunt(dice, head, others) + bytes(update.HEAD.size))[: update.HEAD.size]
    elif kind == 1:
        try:
            body = _other_manifest(dice, body, skeleton)
        except (InvalidInput, msgspec.DecodeError):
            body = blunt(dice, body, others)
    else:
        body = blunt(dice, body, others)
    return head + hashlib.sha256(head + body).digest() + body


def _other_manifest(dice: random.Random, body: bytes, skeleton: bytes) -> bytes:
    cursor = Cursor(body)
    minor, signature = cursor.varint(), bytes(cursor.framed())
    plain = msgspec.json.decode(runs.decode(cursor.framed(), skeleton, 1 << 24))
    elsewhere(dice, plain)
    run = runs.encode(msgspec.json.encode(plain), skeleton)
    return varint(minor) + framed(signature) + framed(run) + bytes(cursor.rest())


def _packaged(encoded: bytes, body: bytes, signature: bytes) -> bytes:
    head = layout.HEAD.pack(layout.MAGIC, layout.MAJOR, 0, len(encoded), aligned(layout.PREAMBLE_BYTES + len(encoded)) + len(body), 0, 0)
    front = layout.preamble(head, encoded, signature if any(signature) else b"") + encoded
    return front + bytes(aligned(len(front)) - len(front)) + body


def _list(plain: Any, key: str) -> list[Any]:
    found = plain.get(key) if isinstance(plain, dict) else None
    return found if isinstance(found, list) else []
