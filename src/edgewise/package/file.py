"""Write and read `.edgew` files. The format is docs/format.md."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import stat
from collections.abc import Iterator
from io import FileIO
from typing import BinaryIO

from edgewise.errors import InvalidInput, InvalidPackage
from edgewise.package import atomic, layout, minimal, signing
from edgewise.package.check import check
from edgewise.package.limits import Limits
from edgewise.package.manifest import Manifest, aligned, decode
from edgewise.package.package import Package, Profile

_CHUNK = 2**17  # what is hashed is still in the cache that it was copied to


def save(package: Package, path: str | os.PathLike[str], *, profile: Profile | None = None) -> None:
    """Write `package` to `path`: after a crash or a full disk, at any moment, the old file is there or the new one, never a mixture.

    profile: "minimal" is for very small models (see `minimal.encode`, which says what it leaves out); None is the package's own.
    Raises InvalidInput when it can't be written.
    """
    if profile not in (None, "full", "minimal"):
        raise InvalidInput(f"profile={profile!r} isn't known; give 'full' or 'minimal'")
    if profile == "full" and package.profile == "minimal":
        package = minimal.full(package)
    compact = (profile or package.profile) == "minimal"
    pieces = [minimal.encode(package)] if compact else _pieces(package)

    def fill(file: BinaryIO) -> None:
        for piece in pieces:
            file.write(piece)

    atomic.write(path, fill)


def to_bytes(package: Package) -> bytes:
    """The file's bytes, of the full profile."""
    return b"".join(_pieces(package))


def open(path: str | os.PathLike[str], *, limits: Limits | None = None, trust: signing.Trust | None = None) -> Package:
    """Map the package at `path`. Every byte is verified before this returns; nothing is run, and weights stay on disk until they are read.

    Memory: the manifest and one buffer of 128 KB, whatever the file claims. The file must not be changed in place while it is open (`save`
    never does). Raises InvalidPackage: not a package, truncated, altered, newer, hostile, or over `limits`; NotTrusted, when `trust` is
    given, for one that no key of it signed, or that is older than it allows.
    """
    limits = limits or Limits()
    what = str(path)
    with _opened(path, what) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            if size > limits.file_bytes:
                raise InvalidPackage(f"{what} has {size:,} bytes, over {limits.file_bytes:,}; raise Limits.file_bytes if you trust it")
            start = _exactly(file, min(size, layout.PREAMBLE_BYTES), what)
            if start.startswith(minimal.MAGIC):
                # Read whole; of one over the limit, just enough to be refused.
                rest = _exactly(file, max(min(size, limits.minimal_bytes + 1) - len(start), 0), what)
                package = minimal.decode(start + rest, what, limits=limits)
                if trust is not None:
                    signing.require(package, trust)
                return package
            preamble, encoded, manifest = _manifest(file, start, size, what, limits)
            _verify_members(file, manifest, preamble, what)
            mapped = mmap.mmap(file.fileno(), preamble.file_bytes, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InvalidPackage(f"can't read {what}: {error.strerror or error}") from error
    view = memoryview(mapped)
    start_of_data = preamble.data_start
    members = {
        member.name: view[start_of_data + member.offset : start_of_data + member.offset + member.length] for member in manifest.members
    }
    package = Package(manifest, members, encoded, preamble.minor, what, preamble.signature)
    if trust is not None:
        signing.require(package, trust)
    return package


def glance(path: str | os.PathLike[str]) -> Manifest | None:
    """What the package at `path` says of itself, from its first kilobytes: whether its members are what it says, only `open` knows.

    None where it has no manifest of its own (the minimal profile). Raises InvalidPackage.
    """
    what = str(path)
    with _opened(path, what) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            start = _exactly(file, min(size, layout.PREAMBLE_BYTES), what)
            return None if start.startswith(minimal.MAGIC) else _manifest(file, start, size, what, Limits())[2]
        except OSError as error:
            raise InvalidPackage(f"can't read {what}: {error.strerror or error}") from error


def _manifest(file: FileIO, start: bytes, size: int, what: str, limits: Limits) -> tuple[layout.Preamble, bytes, Manifest]:
    """start: what of the file was read already."""
    preamble = layout.read(start, size, what, limits)
    encoded = _exactly(file, preamble.manifest_bytes, what)
    if layout.content_id(preamble.head, encoded) != preamble.content_id:
        raise InvalidPackage(f"{what} was altered or damaged: its header and manifest don't match their SHA-256; copy or download it again")
    manifest = decode(encoded, what)
    check(manifest, what, limits)
    return preamble, encoded, manifest


def _pieces(package: Package) -> Iterator[bytes | memoryview]:
    """The file from its first byte to its last."""
    yield layout.preamble(package.head, package.encoded, package.signature_bytes)
    yield package.encoded
    written = layout.PREAMBLE_BYTES + len(package.encoded)
    yield bytes(aligned(written) - written)
    end = 0
    for member in package.manifest.members:
        yield bytes(member.offset - end)
        yield package.members[member.name]
        end = member.offset + member.length


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str], what: str) -> Iterator[FileIO]:
    try:
        # Without O_NONBLOCK, a named pipe would wait for a writer for ever.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise InvalidPackage(f"{what} does not exist; give the path of an .edgew file") from error
    except (OSError, ValueError) as error:
        raise InvalidPackage(f"can't open {what}: {getattr(error, 'strerror', None) or error}; give the path of an .edgew file") from error
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise InvalidPackage(f"{what} is {kind}; give the path of an .edgew file")
        file = FileIO(handle, "rb", closefd=False)
        yield file
    finally:
        os.close(handle)


def _exactly(file: FileIO, length: int, what: str) -> bytes:
    data = b""
    while len(data) < length:
        piece = file.read(length - len(data))
        if not piece:
            raise InvalidPackage(f"{what} got shorter while it was read; don't write to it in place")
        data += piece
    return data


def _verify_members(file: FileIO, manifest: Manifest, preamble: layout.Preamble, what: str) -> None:
    """Read the rest of the file once, in small pieces: padding is zero, members have their SHA-256, and together they end where it ends."""
    end = manifest.members[-1].offset + manifest.members[-1].length
    if preamble.data_start + end != preamble.file_bytes:
        raise InvalidPackage(
            f"{what}: its members end at {preamble.data_start + end:,}, the file at {preamble.file_bytes:,}; it is damaged or forged"
        )
    at = layout.PREAMBLE_BYTES + preamble.manifest_bytes
    buffer = memoryview(bytearray(min(_CHUNK, max(preamble.file_bytes, 1))))
    for member in manifest.members:
        start = preamble.data_start + member.offset
        if any(_exactly(file, start - at, what)):
            raise InvalidPackage(f"{what} was altered: there is data before the member {member.name}, where there should be zeros")
        digest, left = hashlib.sha256(), member.length
        while left:
            got = file.readinto(buffer[: min(left, len(buffer))])
            if not got:
                raise InvalidPackage(f"{what} got shorter while it was read; don't write to it in place")
            digest.update(buffer[:got])
            left -= got
        if digest.hexdigest() != member.sha256:
            raise InvalidPackage(f"{what} was altered or damaged: {member.name} doesn't match its SHA-256; copy or download it again")
        at = start + member.length
