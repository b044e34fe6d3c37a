"""A file that is written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from edgewise.errors import InvalidInput


def write(
    path: str | os.PathLike[str],
    fill: Callable[[BinaryIO], None],
    *,
    check: Callable[[Path], None] | None = None,
    mode: int | None = None,
) -> None:
    """Write `path`: after a crash or a full disk, at any moment, the old file is there or the new one, never a mixture.

    The order is: a temporary file in the same folder, which `fill` writes (it may read and seek), its bytes flushed to the disk, renamed
    over `path`, the folder flushed. check: given the whole temporary file before it takes the name; what it raises leaves the old file.
    mode: permissions, instead of those that any written file gets. Raises InvalidInput when the file can't be written.
    """
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial")
    except OSError as error:
        raise InvalidInput(f"can't write {target}: {error.strerror}; does its folder exist, and is it yours?") from error
    try:
        with os.fdopen(handle, "w+b") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(Path(temporary))
        # mkstemp makes the file private.
        Path(temporary).chmod(_usual() if mode is None else mode)
        os.replace(temporary, target)  # noqa: PTH105  (as os.fsync: one place for tests to stand in the way)
    except OSError as error:
        raise InvalidInput(f"can't write {target}: {error.strerror or error}; what was there before is unchanged") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    _flush_folder(target.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes, *, mode: int | None = None) -> None:
    """`write`, for what is in memory."""

    def fill(file: BinaryIO) -> None:
        file.write(data)

    write(path, fill, mode=mode)


def _usual() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _flush_folder(folder: Path) -> None:
    """Make the rename last through a power cut. Where folders can't be flushed (Windows), the system's own order has to do."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
