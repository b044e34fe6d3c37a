"""Update files, `.edgewd`: what makes a device's package into the next one, to the byte. The format is in docs/format.md."""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgewise.errors import InvalidInput, InvalidPackage
from edgewise.package import atomic, file, layout, rebuild, runs, signing
from edgewise.package.limits import Limits
from edgewise.package.manifest import aligned
from edgewise.package.package import Package

MAGIC = b"\x89EDGED\r\n"
MAJOR = 1
# magic, major version, kind, nothing, bytes of the old file, of the new one, SHA-256 of the old file, of the new one
HEAD = struct.Struct("<8sHHIQQ32s32s")
PARTS, WHOLE = range(2)  # kinds
OWN_BYTES = 32  # SHA-256 of the head and the body
_CHUNK = 1 << 20
_IN_MEMORY = 64 << 20  # members of a new package up to this size never touch the disk but once


@dataclass(frozen=True)
class Update:
    """kind: whether `body` says how the new package's parts come from the old one's (`rebuild`), or how the file's bytes do (`runs`)."""

    kind: int
    old_bytes: int
    new_bytes: int
    old_sha256: bytes
    new_sha256: bytes
    body: bytes

    def encode(self) -> bytes:
        head = HEAD.pack(MAGIC, MAJOR, self.kind, 0, self.old_bytes, self.new_bytes, self.old_sha256, self.new_sha256)
        return head + hashlib.sha256(head + self.body).digest() + self.body


def diff(old: str | os.PathLike[str], new: str | os.PathLike[str], *, reencode: bool = True, limits: Limits | None = None) -> Update:
    """What `patch` needs to make the file `new` of the file `old`; tried before it is returned.

    reencode: weights that are coded in `new` are sent as differences, and coded again by the device, which needs an edgewise whose coders
    give the same bytes (where they don't, `patch` says so and changes nothing). Without it such weights are sent as they are.
    Raises InvalidPackage.
    """
    before, after = file.open(old, limits=limits), file.open(new, limits=limits)
    (old_bytes, old_sha256), (new_bytes, new_sha256) = _size_and_digest(old), _size_and_digest(new)

    def tried(kind: int, body: bytes) -> Update:
        update = Update(kind, old_bytes, new_bytes, old_sha256, new_sha256, body)
        with tempfile.TemporaryFile() as nowhere:
            _rebuild(update, old, before, nowhere, str(new), limits or Limits())
        return update

    try:
        return tried(PARTS, rebuild.encode(before, after, reencode=reencode))
    except InvalidPackage:
        # A package of another profile, or laid out by another writer: its bytes are sent.
        return tried(WHOLE, runs.encode(Path(new).read_bytes(), Path(old).read_bytes()))


def save(update: Update, path: str | os.PathLike[str]) -> None:
    atomic.write_bytes(path, update.encode())


def read(path: str | os.PathLike[str], *, limits: Limits | None = None) -> Update:
    """Raises InvalidPackage: no update, truncated, altered, newer, or over `limits`."""
    limits, what = limits or Limits(), str(path)
    try:
        size = Path(path).stat().st_size
        if size > limits.file_bytes:
            raise InvalidPackage(f"{what} has {size:,} bytes, over {limits.file_bytes:,}; raise Limits.file_bytes if you trust it")
        with Path(path).open("rb") as opened:
            data = opened.read()
    except (OSError, ValueError) as error:
        raise InvalidPackage(f"can't read {what}: {getattr(error, 'strerror', None) or error}; give an .edgewd file") from error
    if data[: len(MAGIC)] != MAGIC:
        kind = "a package, not an update" if data.startswith(layout.MAGIC) else "not an edgewise update"
        raise InvalidPackage(f"{what} is {kind}; expected a file that `edgewise diff` wrote")
    if len(data) < HEAD.size + OWN_BYTES:
        raise InvalidPackage(f"{what} is truncated; copy or download it again")
    _, major, kind, flags, old_bytes, new_bytes, old_sha256, new_sha256 = HEAD.unpack_from(data)
    if major != MAJOR or flags or kind not in (PARTS, WHOLE):
        raise InvalidPackage(
            f"{what} is of the update format {major} (kind {kind}), and this edgewise reads {MAJOR}: pip install -U edgewise"
        )
    body = data[HEAD.size + OWN_BYTES :]
    if hashlib.sha256(data[: HEAD.size] + body).digest() != data[HEAD.size : HEAD.size + OWN_BYTES]:
        raise InvalidPackage(f"{what} was altered or damaged: it doesn't match its SHA-256; copy or download it again")
    return Update(kind, old_bytes, new_bytes, old_sha256, new_sha256, body)


def patch(
    old: str | os.PathLike[str],
    update: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    trust: signing.Trust | None = None,
    limits: Limits | None = None,
) -> Package:
    """Make the new package of the old one and the update, at `out` or in the old one's place, and return it opened.

    All of it is checked before it takes the name: its SHA-256 and its size as the update states them, then as `open` checks any package,
    `trust` included; where `trust` is given, it is no older than the old one either. Whatever happens, the old file or the new one is
    there, never a mixture. Raises InvalidPackage: another base, a damaged update, a result that isn't what was meant; NotTrusted.
    """
    what, limits = str(update), limits or Limits()
    given = read(update, limits=limits)
    size, digest = _size_and_digest(old)
    if (size, digest) != (given.old_bytes, given.old_sha256):
        raise InvalidPackage(
            f"{what} is for another package than {old}: it begins from SHA-256 {given.old_sha256.hex()[:16]}…, this one is "
            f"{digest.hex()[:16]}…; "
            "get the update for this one, or the whole new package"
        )
    before = file.open(old, limits=limits)
    target = Path(old if out is None else out)

    def check(temporary: Path) -> None:
        found = file.open(temporary, limits=limits, trust=trust)
        if trust is not None and found.manifest.version < before.manifest.version:
            raise signing.NotTrusted(
                f"{what} leads back from version {before.manifest.version} to {found.manifest.version}; get one that leads to a newer one"
            )

    atomic.write(target, lambda opened: _rebuild(given, old, before, opened, what, limits), check=check)
    return file.open(target, limits=limits)


def _rebuild(update: Update, old: str | os.PathLike[str], before: Package, opened: BinaryIO, what: str, limits: Limits) -> None:
    """Write the new file to `opened`. Raises InvalidPackage where it isn't what the update states."""
    digest = hashlib.sha256()
    try:
        for piece in _pieces(update, old, before, limits):
            digest.update(piece)
            opened.write(piece)
    except InvalidPackage:
        raise
    except InvalidInput as error:
        raise InvalidPackage(f"{what}: {error}") from error
    if digest.digest() != update.new_sha256:
        raise InvalidPackage(
            f"{what} doesn't give the package that it states: it was forged, or another release of edgewise codes weights otherwise; "
            "nothing was changed. Make it with `edgewise diff --no-reencode`, or get the whole new package"
        )


def _pieces(update: Update, old: str | os.PathLike[str], before: Package, limits: Limits) -> Iterator[bytes]:
    """The new file from its first byte to its last. Its members are made first: lengths and hashes stand before them."""
    if update.kind == WHOLE:
        yield runs.decode(update.body, Path(old).read_bytes(), limits.file_bytes)
        return
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as members:
        rebuilt = rebuild.decode(update.body, before, members, limits)
        members.seek(0)
        yield rebuilt.preamble
        yield rebuilt.encoded
        used = layout.PREAMBLE_BYTES + len(rebuilt.encoded)
        yield bytes(aligned(used) - used)
        while piece := members.read(_CHUNK):
            yield piece


def _size_and_digest(path: str | os.PathLike[str]) -> tuple[int, bytes]:
    """Raises InvalidPackage when it can't be read."""
    try:
        with Path(path).open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").digest()
            return opened.tell(), digest
    except (OSError, ValueError) as error:
        raise InvalidPackage(f"can't read {path}: {getattr(error, 'strerror', None) or error}; give an .edgew file") from error
