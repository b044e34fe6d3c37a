"""Models on disk, `NAME/VERSION/model.edgew` (or `.onnx`), or plainly `NAME.edgew`: what is there, and which version a request gets."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewise.host.settings import Versions

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
SUFFIXES = (".edgew", ".onnx")

Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class File:
    """A version's file. stamp: modification time in ns, size, inode: another one, and it has to be looked at again."""

    model: str
    version: str
    path: Path
    stamp: Stamp


def scan(folder: Path) -> dict[str, dict[str, File]]:
    """name -> version -> file, of what is there now. What can't be read is left out: it may be there the next time."""
    found: dict[str, dict[str, File]] = {}
    for entry in _listed(folder):
        stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 (an idle server looks every two seconds: no Path for what is as it was)
        if suffix in SUFFIXES and NAME.fullmatch(stem):
            _add(found, stem, "1", entry)
        elif NAME.fullmatch(entry.name):
            for inner in _listed(entry):
                if inner.name.isdecimal() and inner.name == str(int(inner.name)) and int(inner.name) > 0:
                    _add(found, entry.name, inner.name, _model_in(inner))
    return found


def served(there: Iterable[str], policy: Versions) -> tuple[str, ...]:
    """Versions that requests may get, the one for those that name none first."""
    newest = sorted(there, key=int, reverse=True)
    if policy.only:
        chosen = [version for version in newest if version in policy.only]
    else:
        chosen = newest[: policy.latest or None]
    if policy.canary in chosen:  # what tries itself out isn't what everybody gets
        chosen.remove(policy.canary)
        return (*chosen, policy.canary)
    return (*chosen, policy.canary) if policy.canary in newest else tuple(chosen)


def drawn(number: int, share: float) -> bool:
    """Whether request `number` (from 0) is among a share of all: evenly spread, and of every n so many as n·share, to within one."""
    return int((number + 1) * share) > int(number * share)


def changes(before: Mapping[str, Mapping[str, File]], after: Mapping[str, Mapping[str, File]]) -> set[str]:
    """Names of models of which a version came, went or changed."""
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def _listed(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError:
        return []


def _model_in(folder: os.DirEntry[str]) -> os.DirEntry[str] | None:
    files = _listed(folder)
    for suffix in SUFFIXES:
        fitting = [file for file in files if file.name.endswith(suffix)]
        named = [file for file in fitting if file.name == f"model{suffix}"]
        if named or len(fitting) == 1:
            return (named or fitting)[0]
    return None


def _add(found: dict[str, dict[str, File]], model: str, version: str, file: os.DirEntry[str] | None) -> None:
    if file is None:
        return
    try:
        status = file.stat()
    except OSError:
        return
    if not stat.S_ISREG(status.st_mode):
        return
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    found.setdefault(model, {}).setdefault(version, File(model, version, Path(file.path), stamp))
