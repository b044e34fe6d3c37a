"""Every way in which a file can be wrong is told, and an interrupted write leaves the old one."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgewise import package
from edgewise.errors import InvalidInput, InvalidPackage
from edgewise.package import Limits, Package, layout


def test_every_truncation_is_refused(small: Package, tmp_path: Path) -> None:
    path = tmp_path / "a.edgew"
    small.save(path)
    for length in reversed(range(small.size_bytes)):
        os.truncate(path, length)
        with pytest.raises(InvalidPackage):
            package.open(path)


def test_every_flipped_bit_is_refused(small: Package, tmp_path: Path) -> None:
    path = tmp_path / "a.edgew"
    small.save(path)
    data = path.read_bytes()
    assert package.open(path).content_id == small.content_id
    with path.open("r+b", buffering=0) as file:
        for at, byte in enumerate(data):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), at)
                with pytest.raises(InvalidPackage):
                    package.open(path)
            os.pwrite(file.fileno(), bytes([byte]), at)
    assert package.open(path).content_id == small.content_id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"", "empty"),
        (lambda data: data[:-1], "truncated: .* copy or download it again"),
        (lambda data: data[:100], "truncated"),
        (lambda data: data + b"\0", "1 bytes behind its end"),
        (lambda data: data + data, "behind its end"),
        (lambda data: b"PK\3\4" + data[4:], "not an edgewise package"),
        (lambda data: data.replace(b"\r\n", b"\n", 1), "newlines were translated"),
        (lambda data: data[:8] + b"\2\0" + data[10:], r"format 2\.0, .*pip install -U"),
        (lambda data: data[:24] + b"\2" + data[25:], r"flags 0x2.*pip install -U"),
        (lambda data: data[:24] + b"\1" + data[25:], "signature doesn't match its checksum"),
        (lambda data: data[:70] + b"\1" + data[71:], "features"),
        (lambda data: data[:12] + b"\xff\xff\xff\xff" + data[16:], "claims a manifest of 4,294,967,295 bytes"),
        (lambda data: data[:16] + b"\xff" * 8 + data[24:], "truncated"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "weights doesn't match its SHA-256"),
        (lambda data: data[:200] + b"?" + data[201:], "header and manifest"),
    ],
)
def test_what_is_wrong_is_said(
    change: Callable[[bytes], bytes], message: str, small: Package, tmp_path: Path, written: Callable[[bytes], Path]
) -> None:
    small.save(tmp_path / "a.edgew")
    path = written(change((tmp_path / "a.edgew").read_bytes()))
    with pytest.raises(InvalidPackage, match=message) as caught:
        package.open(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPackage, match="is a folder"):
        package.open(tmp_path)
    with pytest.raises(InvalidPackage, match="does not exist"):
        package.open(tmp_path / "none.edgew")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InvalidPackage, match="symbolic links"):
        package.open(tmp_path / "loop")
    with pytest.raises(InvalidPackage, match="null"):
        package.open("a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidPackage, match="no regular file"):
        package.open(tmp_path / "pipe")


def test_limits_hold(small: Package, tmp_path: Path) -> None:
    small.save(tmp_path / "a.edgew")
    for limits in (
        Limits(file_bytes=100), Limits(manifest_bytes=100), Limits(graph_bytes=10), Limits(members=1), Limits(entries=0), Limits(tensors=0),
        Limits(model_bytes=10), Limits(axes=1),
    ):  # fmt: skip
        with pytest.raises(InvalidPackage, match=r"over|Limits"):
            package.open(tmp_path / "a.edgew", limits=limits)


def test_an_opened_package_is_a_view_of_the_file(small: Package, tmp_path: Path) -> None:
    small.save(tmp_path / "a.edgew")
    opened = package.open(tmp_path / "a.edgew")
    assert all(isinstance(data, memoryview) and data.readonly for data in opened.members.values())
    opened.save(tmp_path / "a.edgew")  # over the file that it is mapped from
    assert opened.graph().to_bytes() == small.graph().to_bytes()


def test_a_newer_minor_version_is_read_and_kept(small: Package, tmp_path: Path) -> None:
    """A minor version may add to the manifest; what this release doesn't know is skipped in reading and kept in writing."""
    encoded = small.encoded[:-1] + b',"added_later":{"a":[1,2]}}'
    newer = Package(small.manifest, small.members, encoded, minor=7)
    newer.save(tmp_path / "a.edgew")
    opened = package.open(tmp_path / "a.edgew")
    assert opened.manifest == small.manifest
    opened.save(tmp_path / "b.edgew")
    assert (tmp_path / "b.edgew").read_bytes() == (tmp_path / "a.edgew").read_bytes()
    assert opened.describe()["format"] == "1.7"


def test_the_order_of_writing(small: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes reach the disk before the name does, and the name before `save` returns (see fsync(2), rename(2))."""
    happened: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(handle: int) -> None:
        happened.append("flush folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "flush file")
        assert stat.S_ISDIR(os.fstat(handle).st_mode) or os.fstat(handle).st_size == small.size_bytes
        fsync(handle)

    def spy_replace(source: str, target: Path) -> None:
        happened.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    small.save(tmp_path / "a.edgew")
    assert happened == ["flush file", "rename", "flush folder"]


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("where", ["fsync", "replace", "write", "chmod"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file(
    where: str, error: BaseException, small: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.edgew"
    path.write_bytes(b"the old file")
    if where == "write":

        def pieces(package: Package) -> Iterator[bytes]:
            yield b"half of it"
            raise error

        monkeypatch.setattr("edgewise.package.file._pieces", pieces)
    elif where == "chmod":
        monkeypatch.setattr(Path, "chmod", failing(error))
    else:
        monkeypatch.setattr(os, where, failing(error))
    with pytest.raises(InvalidInput if isinstance(error, OSError) else KeyboardInterrupt):
        small.save(path)
    assert path.read_bytes() == b"the old file"
    assert [file.name for file in tmp_path.iterdir()] == ["a.edgew"]


def test_a_folder_that_is_not_there(small: Package, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="folder"):
        small.save(tmp_path / "none" / "a.edgew")
    (tmp_path / "dir").mkdir()
    with pytest.raises(InvalidInput, match="can't write"):
        small.save(tmp_path / "dir")
    assert [file.name for file in tmp_path.iterdir()] == ["dir"]


def test_written_files_have_usual_permissions(small: Package, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    small.save(tmp_path / "a.edgew")
    assert (tmp_path / "a.edgew").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_readers_see_the_old_or_the_new_file(small: Package, make_graph: Callable[..., Any], tmp_path: Path) -> None:
    other = package.build(make_graph(), created="2027-01-01T00:00:00Z")
    path = tmp_path / "a.edgew"
    small.save(path)
    done = threading.Event()

    def write() -> None:
        for _ in range(20):
            other.save(path)
            small.save(path)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(package.open(path).content_id)
    writer.join()
    assert seen <= {small.content_id, other.content_id}


def test_the_preamble_is_what_it_says(small: Package) -> None:
    assert layout.PREAMBLE_BYTES == 128
    assert layout.HEAD.size == 32
    assert len(small.head) == 32
