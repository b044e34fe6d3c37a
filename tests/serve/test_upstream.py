"""Packages from an upstream that breaks off, lies or is away: what is here is whole and meant, always."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgewise import package
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.serve import starting, upstream
from edgewise.serve.upstream import Got, Mirror
from edgewise.testing import graphs

CREATED = "2026-01-01T00:00:00Z"


class Files:
    """A server of a folder's files. cut: breaks every body off after so many bytes; lie: changes what a path holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str]] = []
        self.away = False
        self.cut = 0
        self.lie: dict[str, bytes] = {}

    @contextlib.contextmanager
    def __call__(self, path: str, headers: Mapping[str, str]) -> Iterator[Got]:
        self.asked.append((path, headers.get("range", "")))
        if self.away:
            raise OSError("nobody there")
        data = self.lie.get(path) or (self.folder / path).read_bytes()
        etag = f'"{hash(data)}"'
        if headers.get("if-none-match") == etag:
            yield Got(304, {}, io.BytesIO())
            return
        status, told = 200, {"etag": etag}
        if "range" in headers:
            begin = int(headers["range"].removeprefix("bytes=").rstrip("-"))
            status, told["content-range"], data = 206, f"bytes {begin}-{len(data) - 1}/{len(data)}", data[begin:]
        if self.cut and path != upstream.INDEX:
            data = data[: self.cut]
        yield Got(status, told, io.BytesIO(data))


def model(seed: int) -> package.Package:
    """Weights that move a little from one seed to the next."""
    random = np.random.default_rng(0)
    weights = random.standard_normal((64, 64)).astype(np.float32)
    weights[seed] *= 1.5
    made = graphs.build([("MatMul", ["x", "w"], ["y"])], {"x": ("batch", 64)}, {"y": ("batch", 64)}, {"w": weights})
    return package.build(Graph.from_proto(made), created=CREATED)


@pytest.fixture
def there(tmp_path: Path) -> Files:
    put(tmp_path / "there", 1)
    upstream.index(tmp_path / "there")
    return Files(tmp_path / "there")


def put(folder: Path, version: int) -> None:
    (folder / "m" / str(version)).mkdir(parents=True)
    model(version).save(folder / "m" / str(version) / "model.edgew")


@pytest.fixture
def mirror(there: Files, tmp_path: Path) -> Callable[[], tuple[bool, list[str]]]:
    def sync() -> tuple[bool, list[str]]:
        said: list[str] = []
        return Mirror(there, tmp_path / "here", None, said.append).sync(), said

    return sync


def test_what_is_there_comes_and_an_unchanged_index_is_one_question(there: Files, mirror: Callable, tmp_path: Path) -> None:
    assert mirror()[0]
    came = tmp_path / "here" / "m" / "1" / "model.edgew"
    assert came.read_bytes() == (there.folder / "m" / "1" / "model.edgew").read_bytes()
    there.asked.clear()
    assert mirror() == (True, []) and there.asked == [("index.json", "")]
    came.unlink()  # somebody tidied up
    there.away = True
    done, said = mirror()
    assert not done and "stays" in said[0]


def test_a_new_version_comes_as_an_update(there: Files, mirror: Callable, tmp_path: Path) -> None:
    assert mirror()[0]
    put(there.folder, 2)
    upstream.index(there.folder)
    there.asked.clear()
    done, said = mirror()
    assert done and "update" in said[0] and ("m/2/model.edgew", "") not in there.asked
    assert (tmp_path / "here/m/2/model.edgew").read_bytes() == (there.folder / "m/2/model.edgew").read_bytes()
    # A damaged update: all of it is fetched instead.
    (tmp_path / "here/m/2/model.edgew").unlink()
    (tmp_path / "here" / upstream.STATE).write_bytes((tmp_path / "here" / upstream.STATE).read_bytes().replace(b'"etag":"', b'"etag":"no'))
    there.lie["m/2/from-1.edgewd"] = b"nonsense"
    done, said = mirror()
    assert done and "all of it" in said[0] and "whole" in said[1]


def test_what_broke_off_goes_on(there: Files, mirror: Callable, tmp_path: Path) -> None:
    size = (there.folder / "m/1/model.edgew").stat().st_size
    there.cut = size // 3 + 1
    rounds = 0
    while not mirror()[0]:
        assert not (tmp_path / "here/m/1/model.edgew").exists()
        rounds += 1
        assert rounds < 10
    assert rounds == 2 and [each for _, each in there.asked if each] == [f"bytes={there.cut}-", f"bytes={2 * there.cut}-"]
    assert (tmp_path / "here/m/1/model.edgew").read_bytes() == (there.folder / "m/1/model.edgew").read_bytes()


def test_what_is_not_meant_takes_no_place(there: Files, mirror: Callable, tmp_path: Path) -> None:
    data = (there.folder / "m/1/model.edgew").read_bytes()
    for wrong in (data[:-1] + bytes([data[-1] ^ 1]), data + b"more", bytes(len(data))):
        there.lie["m/1/model.edgew"] = wrong
        done, _ = mirror()
        assert not done and list((tmp_path / "here").rglob("model.edgew")) == []
    there.lie.clear()
    assert mirror()[0]


def test_a_file_that_is_no_package_takes_no_place_whatever_its_hash(there: Files, mirror: Callable, tmp_path: Path) -> None:
    import hashlib

    index = msgspec.json.decode((there.folder / "index.json").read_bytes())
    index["models"][0] |= {"sha256": hashlib.sha256(b"no package").hexdigest(), "bytes": 10}
    there.lie = {"index.json": msgspec.json.encode(index), "m/1/model.edgew": b"no package"}
    assert not mirror()[0] and list((tmp_path / "here").rglob("model.edgew")) == []


def test_what_is_gone_there_goes_here(there: Files, mirror: Callable, tmp_path: Path) -> None:
    put(there.folder, 2)
    upstream.index(there.folder)
    assert mirror()[0]
    (there.folder / "m/1/model.edgew").unlink()
    upstream.index(there.folder)
    assert mirror()[0] and not (tmp_path / "here/m/1/model.edgew").exists() and (tmp_path / "here/m/2/model.edgew").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../m"},
        {"name": ".m"},
        {"version": "0"},
        {"version": "1/.."},
        {"file": "../x"},
        {"file": "/x"},
        {"sha256": "x"},
        {"bytes": -1},
    ],
)
def test_an_index_that_reaches_elsewhere(there: Files, change: dict[str, object]) -> None:
    index = msgspec.json.decode((there.folder / "index.json").read_bytes())
    index["models"][0] |= change
    with pytest.raises(InvalidInput):
        upstream.decode(msgspec.json.encode(index))
    for wrong in (b"", b"[]", b"\xff", b"{}"):
        with pytest.raises(InvalidInput):
            upstream.decode(wrong)


def test_addresses() -> None:
    for wrong in ("http://models.example/", "ftp://x/", "models/", "https://"):
        with pytest.raises(InvalidInput, match="https"):
            upstream.https(wrong)
    upstream.https("http://localhost:1/")


def test_a_folder_without_packages(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no packages"):
        upstream.index(tmp_path)


def test_over_http(there: Files, tmp_path: Path) -> None:
    """A plain server of files; one that knows no ranges sends all of it again."""
    handler = functools.partial(Quiet, directory=str(there.folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            fetch = upstream.https(f"http://127.0.0.1:{server.server_address[1]}")
            said: list[str] = []
            partial = tmp_path / "here/m/1" / f".{upstream.index(there.folder).models[0].sha256[:16]}.partial"
            partial.parent.mkdir(parents=True)
            partial.write_bytes(b"half")
            mirror = Mirror(fetch, tmp_path / "here", None, said.append)
            assert mirror.sync(), said
            assert (tmp_path / "here/m/1/model.edgew").read_bytes() == (there.folder / "m/1/model.edgew").read_bytes()
            with fetch("m/1/model.edgew", {}) as got:
                assert got.body.read(2)
            assert got.body.closed  # read to its end or not
        finally:
            server.shutdown()
            thread.join(10)
    assert not mirror.sync() and "stays" in said[-1]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


def test_what_came_before_is_served_where_the_index_is_none(
    there: Files, mirror: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there.lie["index.json"] = b"<html>moved</html>"
    kept = Mirror(there, tmp_path / "here", None, lambda told: None)
    with pytest.raises(InvalidInput, match="is none"):
        starting.first_sync(kept)
    there.lie.clear()
    starting.first_sync(kept)
    there.lie["index.json"] = b"<html>moved</html>"
    assert not caplog.records
    starting.first_sync(kept)
    (said,) = caplog.records
    assert said.levelno == logging.ERROR and "what came before is served" in said.getMessage() and "is none" in said.getMessage()
    assert (tmp_path / "here/m/1/model.edgew").exists()


def test_a_full_disk_is_not_the_last_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "MIRROR_S", 0.0)
    looks: list[int] = []

    class Full:
        def sync(self) -> bool:
            looks.append(1)
            raise OSError(28, "No space left on device")

    async def story() -> None:
        async with starting._mirrored(Full()), asyncio.timeout(10):  # type: ignore[arg-type]
            while len(looks) < 3:
                await asyncio.sleep(0)

    asyncio.run(story())
