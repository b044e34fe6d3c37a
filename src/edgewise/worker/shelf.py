"""Packages that were sent, by their SHA-256, under a cap of bytes and in what the disk has: those unused for longest go first."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from edgewise.errors import InvalidInput, InvalidPackage
from edgewise.wire.messages import is_digest

_PARTIAL = ".partial"


class Full(InvalidInput):
    """There is no room: on the disk, or under the cap."""


class Shelf:
    """Files under `folder`. most_bytes: of all together."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, digest: str) -> Path:
        """Where it is, or would be. Raises InvalidInput for what is no digest: no other name ever reaches the file system."""
        if not is_digest(digest):
            raise InvalidInput("a package is named by the 64 hexadecimal digits of its SHA-256")
        return self.folder / digest

    def has(self, digest: str) -> bool:
        """Whether it is here, whole. It counts as used now."""
        path = self.path(digest)
        try:
            os.utime(path)
        except OSError:
            return False
        return True

    def received(self, digest: str) -> int:
        """Bytes that are here: all, or a beginning."""
        for path in (self.path(digest), self._partial(digest)):
            try:
                return path.stat().st_size
            except OSError:
                continue
        return 0

    def add(self, digest: str, at: int, whole: int, piece: bytes, kept: Collection[str]) -> None:
        """The next piece of a package of `whole` bytes, which begins at `at`. kept: digests that mustn't go to make room.

        Raises Full; InvalidInput where another piece comes next; InvalidPackage for one that, whole, isn't what its name says.
        """
        path, partial = self.path(digest), self._partial(digest)
        if path.exists():
            return
        if not 0 < whole <= self.most_bytes:
            raise Full(
                f"a package of {whole:,} bytes is over what is kept here ({self.most_bytes:,}): start the worker with a larger --cache"
            )
        there = partial.stat().st_size if partial.exists() else 0
        if at != there or at + len(piece) > whole:
            raise InvalidInput(f"bytes {at:,} to {at + len(piece):,} of {whole:,} came, and {there:,} are here: ask which come next")
        self._make_room(whole - there, {digest, *kept})
        try:
            with partial.open("ab") as file:
                file.write(piece)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Full(f"the disk is full: {len(piece):,} bytes of a package could not be written in {self.folder}") from error
            raise
        if at + len(piece) < whole:
            return
        with partial.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            partial.unlink()
            raise InvalidPackage("a package came otherwise than its SHA-256 says: it was altered on the way; it is sent again")
        partial.replace(path)

    def bytes(self) -> int:
        return sum(size for _, size, _ in self._files())

    def sweep(self, older_s: float) -> None:
        """Let go of beginnings that nobody went on with."""
        for path, _, used in self._files():
            if path.suffix == _PARTIAL and time.time() - used > older_s:
                path.unlink(missing_ok=True)

    def _partial(self, digest: str) -> Path:
        return self.path(digest).with_suffix(_PARTIAL)

    def _make_room(self, wanted: int, kept: Collection[str]) -> None:
        files = self._files()
        used, free = sum(size for _, size, _ in files), shutil.disk_usage(self.folder).free
        for path, size, _ in sorted(files, key=lambda file: file[2]):
            if used + wanted <= self.most_bytes and wanted <= free:
                return
            if path.name.removesuffix(_PARTIAL) not in kept:
                path.unlink(missing_ok=True)
                used, free = used - size, free + size
        if wanted > free:
            raise Full(f"the disk is full: {free:,} bytes are free in {self.folder}, and {wanted:,} are needed; make room there")
        if used + wanted > self.most_bytes:
            raise Full(
                f"no room for {wanted:,} bytes under {self.most_bytes:,}, beside what waiting jobs need: a larger --cache would help"
            )

    def _files(self) -> list[tuple[Path, int, float]]:
        found = []
        for path in self.folder.iterdir():
            if is_digest(path.name.removesuffix(_PARTIAL)):
                try:
                    told = path.stat()
                except OSError:
                    continue
                found.append((path, told.st_size, told.st_mtime))
        return found
