"""Which version of each model was in use on this device: a small JSON file, so that an older one can be refused."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgewise.errors import InvalidInput
from edgewise.package import atomic

_BYTES_MOST = 1 << 20


def read(path: str | os.PathLike[str]) -> dict[str, int]:
    """The highest version of each model, by its name; nothing where the file isn't there yet.

    Raises InvalidInput for a file that can't be read: taking it for an empty one would let any old version in.
    """
    place = Path(path)
    try:
        with place.open("rb") as file:
            data = file.read(_BYTES_MOST + 1)
        return msgspec.json.decode(data[: _BYTES_MOST + 1], type=dict[str, int])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidInput(f"{place} doesn't say which versions were in use ({error}); mend it, or take it away to begin anew") from error


def keep(path: str | os.PathLike[str], model: str, version: int) -> None:
    """Note that `version` of `model` was in use; a higher one that is noted stays. Written whole, one writer at a time."""
    place = Path(path)
    with _alone(place.parent):
        versions = read(place)
        if versions.get(model, 0) < version:
            data = msgspec.json.encode({**versions, model: version}, order="sorted")
            if len(data) > _BYTES_MOST:
                raise InvalidInput(f"{place} would name too many models; give each device a file of its own")
            atomic.write_bytes(place, data)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: of two programs that note versions at once, none is lost. (The file itself is replaced, and has no lock.)"""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InvalidInput(f"can't write into {folder}: {error.strerror}; does it exist, and is it yours?") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
