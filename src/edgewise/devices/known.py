"""Devices that the user has named: a small file in their configuration folder, name to address and key."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgewise.errors import InvalidInput
from edgewise.types import from_json, to_json

LOCAL = "local"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Known:
    """url: of its worker. key: the file that both hold. profile: in place of both, the file of a recorded profile."""

    name: str
    url: str = ""
    key: str = ""
    profile: str = ""


def folder() -> Path:
    """EDGEWISE_CONFIG, or where the platform keeps configuration (XDG on Linux)."""
    if given := os.environ.get("EDGEWISE_CONFIG"):
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/edgewise"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgewise"


def all_known(where: Path | None = None) -> tuple[Known, ...]:
    """In the order of their names. Raises InvalidInput for a file that can't be read."""
    path = (where or folder()) / "devices.json"
    try:
        return tuple(sorted(from_json(path.read_bytes(), list[Known]), key=lambda one: one.name))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise InvalidInput(f"can't read {path}: {error.strerror}") from error
    except InvalidInput as error:
        raise InvalidInput(f"{path} is damaged ({error}); mend it, or remove it and add the devices anew") from error


def find(name: str, where: Path | None = None) -> Known:
    """Raises InvalidInput with the names that there are."""
    known = all_known(where)
    for one in known:
        if one.name == name:
            return one
    names = ", ".join([LOCAL, *(one.name for one in known)])
    how = f"edgewise devices add {name} https://ADDRESS:7070 --key FILE adds it"
    raise InvalidInput(f"no device {name!r} is known, there are: {names}; {how}")


def add(one: Known, where: Path | None = None) -> None:
    """Instead of one of the same name. Raises InvalidInput."""
    if not _NAME.fullmatch(one.name) or one.name == LOCAL:
        raise InvalidInput(f"{one.name!r} can't name a device: give letters, digits, . _ - (and not {LOCAL!r}, which is this machine)")
    _write([other for other in all_known(where) if other.name != one.name] + [one], where)


def remove(name: str, where: Path | None = None) -> None:
    find(name, where)
    _write([other for other in all_known(where) if other.name != name], where)


def _write(known: list[Known], where: Path | None) -> None:
    target = where or folder()
    try:
        target.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target, prefix=".devices.")
        with os.fdopen(handle, "wb") as file:
            file.write(to_json(known))
        Path(temporary).replace(target / "devices.json")
    except OSError as error:
        raise InvalidInput(f"can't keep devices in {target}: {error.strerror}; EDGEWISE_CONFIG names another folder") from error
