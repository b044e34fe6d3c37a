"""Packages from elsewhere: a folder behind HTTPS, mirrored into one here that a host serves. `edgewise serve https://…/models/`.

The folder holds `index.json` (`index` writes it) beside the packages; any server of files will do. Asked again, an unchanged index is
one short answer (ETag). A file that broke off goes on where it stopped; a version whose predecessor is here comes as the update from it.
Nothing takes its place before its size, its SHA-256, its package and, where `trust` is given, its signature were checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import quote, urlsplit

import msgspec

from edgewise import package
from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.package import Trust, atomic

INDEX = "index.json"
STATE = ".upstream.json"
MOST_INDEX_BYTES = 4 << 20
TIMEOUT_S = 30.0
_PIECE = 1 << 17
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,9}")


class Update(msgspec.Struct, frozen=True, rename={"base": "from"}):
    """base: SHA-256 of the file that it starts from."""

    base: str
    file: str
    sha256: str
    bytes: int


class Version(msgspec.Struct, frozen=True):
    name: str
    version: str
    file: str
    sha256: str
    bytes: int
    updates: tuple[Update, ...] = ()


class Index(msgspec.Struct, frozen=True):
    models: tuple[Version, ...]


class _State(msgspec.Struct):
    """etag: of the index that all of `held` came from. held: file here -> its SHA-256."""

    etag: str = ""
    held: dict[str, str] = {}


@dataclass(frozen=True)
class Got:
    """An answer: its status, its headers in lower case, its body to be read."""

    status: int
    headers: Mapping[str, str]
    body: IO[bytes]


class Fetch(Protocol):
    """GET of a path below the upstream's address. Raises OSError."""

    def __call__(self, path: str, headers: Mapping[str, str]) -> contextlib.AbstractContextManager[Got]: ...


def https(address: str, ca: Path | None = None) -> Fetch:
    """ca: PEM file of who signs the upstream, instead of the system's. Raises InvalidInput for an address that isn't to be trusted."""
    parts = urlsplit(address)
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1"))):
        raise InvalidInput(f"{address}: give an https:// address; over plain HTTP anybody on the way could hand out other models")
    base = parts.path.rstrip("/") + "/"
    context = ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None

    @contextlib.contextmanager
    def fetch(path: str, headers: Mapping[str, str]) -> Iterator[Got]:
        host, port = parts.hostname or "", parts.port
        connection = (
            http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
            if context
            else http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        )
        try:
            connection.request("GET", base + quote(path), headers={"accept-encoding": "identity", **headers})
            with contextlib.closing(connection.getresponse()) as answer:  # one without a length has the socket, not the connection
                yield Got(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer)
        except http.client.HTTPException as error:
            raise OSError(f"{host} gave no HTTP answer: {error!r}") from error
        finally:
            connection.close()

    return fetch


class Mirror:
    """An upstream's packages in `folder`, as NAME/VERSION/model.edgew. log: told what came, and what couldn't."""

    def __init__(self, fetch: Fetch, folder: Path, trust: Trust | None, log: Callable[[str], None]) -> None:
        self._fetch, self._folder, self._trust, self._log = fetch, folder, trust, log
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def holds(self) -> bool:
        """Whether packages that came before lie here."""
        return any(self._folder.glob("*/*/model.edgew"))

    def sync(self) -> bool:
        """Bring the folder up to date; whether all of it is. What fails is told and left as it was: the next call tries it again.

        Raises InvalidInput for an index that is none.
        """
        state = self._read_state()
        try:
            with self._fetch(INDEX, {"if-none-match": state.etag} if state.etag else {}) as got:
                if got.status == 304:
                    return True
                if got.status != 200:
                    raise OSError(f"the upstream answered {got.status}")
                index, etag = decode(got.body.read(MOST_INDEX_BYTES + 1)), got.headers.get("etag", "")
        except OSError as error:
            self._log(f"the upstream can't be asked, so what is here stays: {error}")
            return False
        whole = True
        for version in sorted(index.models, key=lambda each: (each.name, int(each.version))):
            place = f"{version.name}/{version.version}/model.edgew"
            if state.held.get(place) == version.sha256 and (self._folder / place).exists():
                continue
            try:
                how = self._get(version, self._folder / place, state)
            except (EdgewiseError, OSError) as error:
                self._log(f"{place} can't be had: {error}")
                whole = False
                continue
            state.held[place] = version.sha256
            self._log(f"{place} came {how}")
            self._write_state(state)
        wanted = {f"{version.name}/{version.version}/model.edgew" for version in index.models}
        for place in [place for place in state.held if place not in wanted]:
            (self._folder / place).unlink(missing_ok=True)
            del state.held[place]
            self._log(f"{place} isn't there any more")
        state.etag = etag if whole else ""
        self._write_state(state)
        return whole

    def _get(self, version: Version, target: Path, state: _State) -> str:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / f".{version.sha256[:16]}.partial"
        for update in version.updates:
            old = next((self._folder / place for place, held in state.held.items() if held == update.base), None)
            if old is not None and old.exists() and update.bytes < version.bytes:
                try:
                    return self._patched(update, old, version, target)
                except (EdgewiseError, OSError) as error:
                    self._log(f"{version.name} {version.version}: no update from what is here ({error}); all of it is fetched")
        self._download(version.file, version.sha256, version.bytes, partial)
        self._checked(partial)
        partial.replace(target)
        return f"whole, {version.bytes:,} bytes"

    def _patched(self, update: Update, old: Path, version: Version, target: Path) -> str:
        delta, made = (target.parent / f".{update.sha256[:16]}.{end}" for end in ("edgewd", "edgew"))
        try:
            self._download(update.file, update.sha256, update.bytes, delta)
            package.patch(old, delta, made, trust=self._trust)
            if _sha256(made) != version.sha256:
                raise InvalidInput("what the update made isn't what the index says")
            made.replace(target)
        finally:
            delta.unlink(missing_ok=True)
            made.unlink(missing_ok=True)
        return f"as an update of {update.bytes:,} bytes, of {version.bytes:,}"

    def _download(self, path: str, sha256: str, size: int, partial: Path) -> None:
        """To `partial`, going on where it stopped. Raises InvalidInput, and deletes it, where it isn't what was to come; OSError."""
        have = partial.stat().st_size if partial.exists() else 0
        if have < size:
            with self._fetch(path, {"range": f"bytes={have}-"} if have else {}) as got:
                if got.status == 206 and not got.headers.get("content-range", "").startswith(f"bytes {have}-"):
                    raise OSError(f"{path}: the upstream sent another range than was asked for")
                if got.status not in (200, 206):
                    raise OSError(f"{path}: the upstream answered {got.status}")
                with partial.open("ab" if got.status == 206 else "wb") as file:
                    while piece := got.body.read(_PIECE):
                        if file.tell() + len(piece) > size:
                            break  # more than it was to have: the hash will say so
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
        if partial.stat().st_size < size:
            raise OSError(f"{path}: it broke off after {partial.stat().st_size:,} of {size:,} bytes; it will go on from there")
        if _sha256(partial) != sha256:
            partial.unlink()
            raise InvalidInput(f"{path} isn't what the index says (its SHA-256 differs); it was thrown away")

    def _checked(self, file: Path) -> None:
        try:
            package.open(file, trust=self._trust)
        except EdgewiseError:
            file.unlink()
            raise

    def _read_state(self) -> _State:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode((self._folder / STATE).read_bytes(), type=_State)
        return _State()

    def _write_state(self, state: _State) -> None:
        atomic.write_bytes(self._folder / STATE, msgspec.json.encode(state))


def decode(data: bytes) -> Index:
    """Raises InvalidInput for what is no index, or names what lies outside of its folder."""
    if len(data) > MOST_INDEX_BYTES:
        raise InvalidInput(f"the upstream's {INDEX} has over {MOST_INDEX_BYTES:,} bytes")
    try:
        found = msgspec.json.decode(data, type=Index)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the upstream's {INDEX} is none: {error}") from error
    for version in found.models:
        fine = _NAME.fullmatch(version.name) and _VERSION.fullmatch(version.version) and version.bytes >= 0
        files = (version.file, *(update.file for update in version.updates))
        if not fine or any(part in ("", ".", "..") for file in files for part in file.split("/")):
            raise InvalidInput(f"the upstream's {INDEX} names {version.name[:80]!r} {version.version[:20]!r}, which can't be a model here")
        digests = (version.sha256, *(update.sha256 for update in version.updates))
        if not all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests):
            raise InvalidInput(f"the upstream's {INDEX}: {version.name} {version.version} has no SHA-256")
    return found


def index(folder: Path, *, updates: bool = True) -> Index:
    """Of the packages in `folder`, NAME/VERSION/model.edgew; written to its index.json, for a server of files to hand out.

    updates: with the update from each version to the next one, beside it, where that is smaller. Raises InvalidInput.
    """
    found: list[Version] = []
    for path in sorted(folder.glob("*/*/model.edgew"), key=lambda path: (path.parts[-3], path.parts[-2].zfill(10))):
        name, version = path.parts[-3], path.parts[-2]
        if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
            continue
        package.open(path)
        before = found[-1] if found and found[-1].name == name else None
        digest, size = _sha256(path), path.stat().st_size
        delta = _updated(folder, before, path, size) if before and updates else ()
        found.append(Version(name, version, str(path.relative_to(folder).as_posix()), digest, size, delta))
    if not found:
        raise InvalidInput(f"{folder} holds no packages as NAME/VERSION/model.edgew; an upstream hands out these")
    made = Index(tuple(found))
    atomic.write_bytes(folder / INDEX, msgspec.json.format(msgspec.json.encode(made), indent=1))
    return made


def _updated(folder: Path, before: Version, path: Path, size: int) -> tuple[Update, ...]:
    data = package.diff(folder / before.file, path).encode()
    if len(data) >= size:
        return ()
    target = path.parent / f"from-{before.version}.edgewd"
    atomic.write_bytes(target, data)
    return (Update(before.sha256, str(target.relative_to(folder).as_posix()), hashlib.sha256(data).hexdigest(), len(data)),)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
