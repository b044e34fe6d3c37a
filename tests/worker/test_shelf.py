"""Packages that were sent: whole ones under their names, beginnings that go on, and room for new ones."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgewise.errors import InvalidInput, InvalidPackage
from edgewise.worker.shelf import Full, Shelf


def sent(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_pieces_become_a_package(tmp_path: Path) -> None:
    shelf, data = Shelf(tmp_path / "shelf", 1000), bytes(range(100))
    digest = sent(data)
    assert not shelf.has(digest) and shelf.received(digest) == 0
    shelf.add(digest, 0, 100, data[:60], ())
    assert not shelf.has(digest) and shelf.received(digest) == 60
    again = Shelf(tmp_path / "shelf", 1000)  # a worker that was started anew
    with pytest.raises(InvalidInput, match="60 are here"):
        again.add(digest, 50, 100, data[50:], ())
    again.add(digest, 60, 100, data[60:], ())
    assert again.has(digest) and again.path(digest).read_bytes() == data
    again.add(digest, 0, 100, data, ())  # twice does no harm


def test_what_was_altered_on_the_way_is_dropped(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 1000)
    with pytest.raises(InvalidPackage, match="altered"):
        shelf.add(sent(b"right"), 0, 5, b"wrong", ())
    assert shelf.received(sent(b"right")) == 0


@pytest.mark.parametrize("name", ["../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "/", "", "a" * 60 + "/../"])
def test_no_other_name_reaches_the_file_system(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="64 hexadecimal digits"):
        Shelf(tmp_path, 1000).add(name, 0, 1, b"x", ())


def test_the_unused_go_first_and_the_needed_stay(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 250)
    packages = [bytes([i]) * 100 for i in range(4)]
    for age, data in enumerate(packages[:2]):
        shelf.add(sent(data), 0, 100, data, ())
        os.utime(shelf.path(sent(data)), (1000 + age, 1000 + age))
    shelf.add(sent(packages[2]), 0, 100, packages[2], {sent(packages[0])})
    assert [shelf.has(sent(data)) for data in packages] == [True, False, True, False]
    with pytest.raises(Full, match="no room"):
        shelf.add(sent(packages[3]), 0, 100, packages[3], {sent(packages[0]), sent(packages[2])})
    with pytest.raises(Full, match="over what is kept here"):
        shelf.add(sent(b"x" * 300), 0, 300, b"x" * 300, ())
    assert shelf.bytes() == 200


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(tmp_path, 1000)

    def full(self: Path, *args: Any, **given: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(Full, match="disk is full"):
        shelf.add(sent(b"x"), 0, 1, b"x", ())


def test_old_beginnings_are_swept(tmp_path: Path) -> None:
    shelf, data = Shelf(tmp_path, 1000), b"y" * 10
    shelf.add(sent(data), 0, 10, data[:5], ())
    shelf.sweep(3600)
    assert shelf.received(sent(data)) == 5
    shelf.sweep(-1)
    assert shelf.received(sent(data)) == 0


def test_a_disk_that_fills_up_costs_the_unused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(tmp_path, 10_000)
    packages = [bytes([i]) * 100 for i in range(3)]
    for age, data in enumerate(packages[:2]):
        shelf.add(sent(data), 0, 100, data, ())
        os.utime(shelf.path(sent(data)), (1000 + age, 1000 + age))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=30))
    shelf.add(sent(packages[2]), 0, 100, packages[2], ())
    assert [shelf.has(sent(data)) for data in packages] == [False, True, True]
    with pytest.raises(Full, match="30 bytes are free"):
        shelf.add(sent(b"x" * 90), 0, 90, b"x" * 90, {sent(data) for data in packages})
