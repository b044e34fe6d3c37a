"""What an update says: how each part of the new package comes from the old one.

The signature and the manifest's skeleton come first; what follows from the members (their places, lengths and hashes, and the places of
their tensors) is left out of it. Then the members, in the manifest's order: the same as in the old package, or bytes, or tensors one by
one. Both sides know the skeleton and the old package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import msgspec
import numpy as np

from edgewise import coding
from edgewise.coding import against
from edgewise.coding.cursor import Cursor, framed, varint
from edgewise.errors import InvalidInput, InvalidPackage
from edgewise.package import coded, layout, runs
from edgewise.package.limits import Limits
from edgewise.package.manifest import BITS, Manifest, Tensor, aligned, stored_bytes
from edgewise.package.package import Package

_SAME, _BYTES, _TENSORS = range(3)
_SHARED, _COPIED, _STORED, _AGAINST, _ALONE = range(5)
# What a tensor may have been coded by, tried in this order: one coder alone is the quickest to repeat on a device.
_SETS = (coding.FAST, (*coding.FAST, "adaptive"), coding.ALL)


@dataclass(frozen=True)
class Rebuilt:
    """What stands before the new package's members: its preamble and its manifest."""

    preamble: bytes
    encoded: bytes


def encode(old: Package, new: Package, *, reencode: bool = True) -> bytes:
    """How to get `new` from `old`. reencode: tensors that are coded in `new` may be coded again by whoever applies the update.

    Raises InvalidPackage for weights that can't be decoded.
    """
    outline, listed = skeleton(new)
    parts = [
        varint(new.minor),
        framed(new.signature_bytes),
        framed(runs.encode(outline, skeleton(old)[0])),
    ]
    sources = _Sources(old)
    for member in new.manifest.members:
        data, before = bytes(new.members[member.name]), sources.member(member.name)
        if data == before and _places(new, member.name) == _places(old, member.name):
            parts.append(bytes([_SAME]))
        elif member.name in listed:
            parts += [bytes([_TENSORS]), *_encoded_tensors(new, member.name, sources, reencode)]
        else:
            parts += [bytes([_BYTES]), framed(runs.encode(data, before))]
    return b"".join(parts)


def decode(body: bytes | memoryview, old: Package, members: IO[bytes], limits: Limits) -> Rebuilt:
    """Write the new package's members to `members`, and return what goes before them.

    Memory: a tensor or a member of bytes at a time. Raises InvalidInput for a body that `encode` didn't write, where that shows here;
    whether the result is the package that was meant is for the caller to find out by its hash.
    """
    cursor = Cursor(body)
    minor, signature = cursor.varint(0xFFFF), bytes(cursor.framed())
    if len(signature) not in (0, layout.SIGNATURE_BYTES):
        raise InvalidInput(f"an update holds a signature of {len(signature)} bytes: it is damaged or forged; copy it again")
    plain = _plain(runs.decode(cursor.framed(), skeleton(old)[0], limits.manifest_bytes))
    manifest = msgspec.convert(plain, Manifest)
    _bounded(manifest, limits)
    sources = _Sources(old)
    end = 0
    for number, member in enumerate(manifest.members):
        members.write(bytes(aligned(end) - end))
        offset, digest, length = aligned(end), hashlib.sha256(), 0
        for piece in _decoded_member(cursor, plain, member.name, sources, limits):
            members.write(piece)
            digest.update(piece)
            length += len(piece)
        plain["members"][number].update(offset=offset, length=length, sha256=digest.hexdigest())
        end = offset + length
        if end > limits.file_bytes:
            raise InvalidInput(f"an update makes a file of over {limits.file_bytes:,} bytes; raise Limits.file_bytes if you trust it")
    cursor.end()
    encoded = msgspec.json.encode(plain)
    return Rebuilt(layout.preamble(layout.head(minor, len(encoded), end), encoded, signature), encoded)


class _Sources:
    """What both sides know: the old package's members and weights."""

    def __init__(self, old: Package) -> None:
        self.old = old
        self.rows = [tensor for entry in old.manifest.entries for tensor in entry.tensors]
        self._named = {(entry.name, tensor.name): tensor for entry in reversed(old.manifest.entries) for tensor in reversed(entry.tensors)}

    def member(self, name: str) -> bytes:
        return bytes(self.old.members.get(name, b""))

    def named(self, entry: str, row: Tensor) -> Tensor | None:
        """The weight of that name, or what its entry's weight of that name was in the main graph."""
        return self._named.get((entry, row.name)) or self._named.get(("main", row.name))

    def at(self, reference: int, entry: str, row: Tensor) -> Tensor:
        """The weight that `reference` says: 0 the one of this name, or the number (from 1) of any."""
        found = self.named(entry, row) if not reference else self.rows[reference - 1] if reference <= len(self.rows) else None
        if found is None:
            raise InvalidInput(f"an update needs a weight ({row.name[:80]!r}) that the old package hasn't got: it is damaged or forged")
        return found

    def alike(self, row: Tensor, used: set[int]) -> int:
        """The reference of the first weight of this shape that nothing else came from, for one whose name is new; 0 when there is none."""
        for number, each in enumerate(self.rows):
            if number not in used and (each.dtype, each.shape) == (row.dtype, row.shape):
                return number + 1
        return 0


def _rows(manifest: Any, member: str) -> Iterator[tuple[str, Tensor]]:
    for entry in manifest.entries:
        yield from ((entry.name, row) for row in entry.tensors if row.member == member)


def _places(package: Package, member: str) -> list[tuple[int, int]]:
    return [(row.offset, row.length) for _, row in _rows(package.manifest, member)]


def _placed(row: Tensor, end: int) -> int:
    """Where a tensor begins that follows what ends at `end`."""
    return aligned(end) if row.coding == "raw" else end


def skeleton(package: Package) -> tuple[bytes, set[str]]:
    """The manifest without what follows from the members, and the names of members that hold tensors one after the other, nothing else."""
    listed = {member.name for member in package.manifest.members if _one_after_the_other(package, member.name)}
    plain = msgspec.json.decode(package.encoded)
    for member in plain["members"]:
        member.update(offset=0, length=0, sha256="0" * 64)
    for entry in plain["entries"]:
        for row in entry["tensors"]:
            if row["member"] in listed:
                row.update(offset=0, length=0)
    return msgspec.json.encode(plain), listed


def _one_after_the_other(package: Package, member: str) -> bool:
    data = package.members[member]
    end = 0
    seen: set[tuple[int, int]] = set()
    for _, row in _rows(package.manifest, member):
        if (row.offset, row.length) in seen:
            continue
        if row.offset != _placed(row, end) or any(data[end : row.offset]):
            return False
        seen.add((row.offset, row.length))
        end = row.offset + row.length
    return bool(seen) and end == len(data)


def _plain(outline: bytes) -> Any:
    """Raises InvalidInput for what is no manifest."""
    try:
        plain = msgspec.json.decode(outline)
        msgspec.convert(plain, Manifest)
    except (msgspec.MsgspecError, UnicodeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"an update's manifest can't be read ({str(error)[:200]}): it is damaged or forged; copy it again") from error
    return plain


def _bounded(manifest: Manifest, limits: Limits) -> None:
    """What the skeleton alone may make a reader allocate; the new package is held to all of `check` when it is whole."""
    rows = [row for entry in manifest.entries for row in entry.tensors]
    if len(rows) > limits.tensors or len(manifest.members) > limits.members:
        raise InvalidInput(f"an update lists over {limits.tensors:,} tensors or {limits.members:,} members; raise Limits if you trust it")
    for row in rows:
        if row.dtype not in BITS or len(row.shape) > limits.axes:
            raise InvalidInput(f"an update has a tensor {row.dtype[:40]!r} of {len(row.shape)} axes, which this edgewise doesn't know")
    if sum(stored_bytes(row.dtype, row.shape) for row in rows) > limits.model_bytes:
        raise InvalidInput(f"an update makes weights of over {limits.model_bytes:,} bytes; raise Limits.model_bytes if you trust it")


def _encoded_tensors(new: Package, member: str, sources: _Sources, reencode: bool) -> Iterator[bytes]:
    places: dict[tuple[int, int], int] = {}
    # What the name leads to is spoken for, also before its turn comes.
    used = {number for number, row in enumerate(sources.rows) if any(row.name == each.name for _, each in _rows(new.manifest, member))}
    for entry, row in _rows(new.manifest, member):
        if (row.offset, row.length) in places:
            yield bytes([_SHARED]) + varint(places[row.offset, row.length])
            continue
        places[row.offset, row.length] = len(places)
        reference = 0 if _alike(sources.named(entry, row), row) else sources.alike(row, used)
        if reference:
            used.add(reference - 1)
        known = sources.rows[reference - 1] if reference else sources.named(entry, row)
        yield _encoded_tensor(new, row, known if _alike(known, row) else None, reference, sources.old, reencode)


def _alike(known: Tensor | None, row: Tensor) -> bool:
    return known is not None and (known.dtype, known.shape) == (row.dtype, row.shape)


def _encoded_tensor(new: Package, row: Tensor, known: Tensor | None, reference: int, old: Package, reencode: bool) -> bytes:
    stored = bytes(new.stored(row))
    if known is not None and row.coding == known.coding and stored == bytes(old.stored(known)):
        return bytes([_COPIED]) + varint(reference)
    found = [bytes([_STORED]) + framed(stored)]
    data = new.read(row)
    values = _held(data, row)
    coders = _coders_of(stored, data, row) if reencode else None
    if values is not None and values.size and coders is not None:
        if known is not None and (before := _held(old.read(known), known)) is not None:
            found.append(bytes([_AGAINST]) + varint(reference) + varint(coders) + framed(against.encode(values, before)))
        elif row.coding == "raw":
            found.append(bytes([_ALONE]) + varint(coders) + framed(coding.encode(values)))
    return min(found, key=len)


def _held(data: bytes | memoryview, row: Tensor) -> np.ndarray | None:
    """The elements; None where the unused bits of the last byte say something, which elements can't hold."""
    values = coded.elements(data, row.dtype, row.shape)
    return values if coded.raw(values, row.dtype) == data else None


def _coders_of(stored: bytes, data: memoryview, row: Tensor) -> int | None:
    """The coders, as bits by their number, that give `stored` again; 0 for what is raw. None where none of the likely sets does."""
    if row.coding == "raw":
        return 0
    for names in ((coding.coder_of(stored),), *_SETS):
        if coded.encode_tensor(bytes(data), row.dtype, row.shape, names) == stored:
            return sum(1 << coding.CODERS[name].number for name in names)
    return None


def _decoded_member(cursor: Cursor, plain: Any, member: str, sources: _Sources, limits: Limits) -> Iterator[bytes | memoryview]:
    """The member's bytes in pieces. Notes in `plain` where its tensors lie."""
    kind = cursor.byte()
    if kind in (_SAME, _BYTES):
        before = sources.member(member)
        yield before if kind == _SAME else runs.decode(cursor.framed(), before, limits.file_bytes)
        if kind == _SAME:
            _place_as_before(plain, member, sources)
        return
    if kind != _TENSORS:
        raise InvalidInput(f"an update has a member of the unknown kind {kind}: it is damaged, or made by a newer edgewise")
    places: list[tuple[int, int]] = []
    end = 0
    for entry, record in _records(plain, member):
        row = msgspec.convert(record, Tensor)
        method = cursor.byte()
        if method == _SHARED:
            number = cursor.varint(max(len(places) - 1, 0))
            if not places:
                raise InvalidInput("an update shares a weight before there is one: it is damaged or forged; copy it again")
            record.update(offset=places[number][0], length=places[number][1])
            continue
        stored = _decoded_tensor(cursor, method, entry, row, sources)
        offset = _placed(row, end)
        yield bytes(offset - end)
        yield stored
        record.update(offset=offset, length=len(stored))
        places.append((offset, len(stored)))
        end = offset + len(stored)


def _records(plain: Any, member: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in plain["entries"]:
        yield from ((entry["name"], record) for record in entry.get("tensors", ()) if record["member"] == member)


def _place_as_before(plain: Any, member: str, sources: _Sources) -> None:
    """The same bytes hold the same tensors, in the same order, at the same places."""
    before = list(_rows(sources.old.manifest, member))
    records = list(_records(plain, member))
    if len(before) != len(records):
        raise InvalidInput(
            f"an update keeps the member {member[:80]!r} and lists other tensors in it: it is damaged or forged; copy it again"
        )
    for (_, row), (_, record) in zip(before, records, strict=True):
        record.update(offset=row.offset, length=row.length)


def _decoded_tensor(cursor: Cursor, method: int, entry: str, row: Tensor, sources: _Sources) -> bytes | memoryview:
    """The tensor as it stands in the new file."""
    if method == _COPIED:
        return bytes(sources.old.stored(sources.at(cursor.varint(), entry, row)))
    if method == _STORED:
        return bytes(cursor.framed())
    if method == _ALONE:
        coders, blob = cursor.varint(), cursor.framed()
        template = _elements(bytes(stored_bytes(row.dtype, row.shape)), row)
        return _stored(coding.decode(blob, template.shape, template.dtype), coders, row)
    if method == _AGAINST:
        known = sources.at(cursor.varint(), entry, row)
        if not _alike(known, row):
            raise InvalidInput(f"an update takes {known.name[:80]!r} for {row.name[:80]!r}, of another shape: it is damaged or forged")
        coders, blob = cursor.varint(), cursor.framed()
        return _stored(against.decode(blob, _elements(sources.old.read(known), row)), coders, row)
    raise InvalidInput(f"an update has a weight of the unknown kind {method}: it is damaged, or made by a newer edgewise")


def _elements(data: bytes | memoryview, row: Tensor) -> Any:
    found = _held(data, row)
    if found is None:
        raise InvalidInput(f"an update needs the weight {row.name[:80]!r} otherwise than it is: it is damaged or forged; copy it again")
    return found


def _stored(values: Any, coders: int, row: Tensor) -> bytes | memoryview:
    data = coded.raw(values, row.dtype)
    if not coders:
        return data
    names = [name for name, coder in coding.CODERS.items() if coders >> coder.number & 1]
    if sum(1 << coding.CODERS[name].number for name in names) != coders:
        raise InvalidInput("an update needs a coder that this edgewise hasn't got; update it: pip install -U edgewise")
    blob = coded.encode_tensor(bytes(data), row.dtype, row.shape, names)
    if blob is None:
        raise InvalidPackage(f"an update's weight {row.name[:80]!r} can't be coded as it says: it is damaged, or made by another edgewise")
    return blob
