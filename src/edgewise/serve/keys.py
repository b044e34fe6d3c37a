"""API keys: who may ask, and for what. A file `keys.toml`, read again when it changes.

    [camera-1]
    hash = "hmac-sha256:…"           # of the key; the key itself is nowhere in it
    scopes = ["infer"]               # "infer", "admin"
    requests_per_s = 50              # limits of its own, instead of the server's
    concurrent = 8

A key is `ew_` and 256 random bits. That is why one HMAC is enough: a slow hash protects what people can remember, and would let anyone who
sends wrong keys keep the server busy. What doesn't look like a key is refused before it is hashed, so nobody can put a password there.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from edgewise.errors import InvalidInput

Scope = Literal["infer", "admin"]
_KEY = re.compile(r"ew_[A-Za-z0-9_-]{43}")
_HASH = re.compile(r"hmac-sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PURPOSE = b"edgewise api key"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Client:
    """Whose a request is. requests_per_s, burst, concurrent: limits of its own; None for the server's."""

    name: str
    scopes: frozenset[str] = frozenset({"infer"})
    requests_per_s: float | None = None
    burst: float | None = None
    concurrent: int | None = None


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    hash: str
    scopes: list[Scope] = msgspec.field(default_factory=lambda: ["infer"])
    requests_per_s: float | None = None
    burst: float | None = None
    concurrent: int | None = None


class Keys:
    """Clients by the hash of their key."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self._clients = dict(clients)

    def __len__(self) -> int:
        return len(self._clients)

    def client(self, key: str) -> Client | None:
        """Whose key it is. The place in a table of hashes tells nothing of the key, however long it takes to find."""
        return self._clients.get(hashed(key)) if _KEY.fullmatch(key) else None


def new_key() -> str:
    return "ew_" + secrets.token_urlsafe(32)


def hashed(key: str) -> str:
    return "hmac-sha256:" + hmac.digest(_PURPOSE, key.encode(), hashlib.sha256).hex()


def entry(name: str, key: str, scopes: tuple[Scope, ...] = ("infer",)) -> str:
    """What stands in keys.toml for a new key. Raises InvalidInput for a name that can't stand there."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"key name {name[:80]!r}: give up to 64 letters, digits, '.', '_' or '-'")
    return f'["{name}"]\nhash = "{hashed(key)}"\nscopes = [{", ".join(f"{scope!r}" for scope in scopes)}]\n'


def parse(text: str, source: str = "keys.toml") -> Keys:
    """Raises InvalidInput, naming the entry that is wrong: a file that is half understood lets in the wrong ones."""
    try:
        rows = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{source} is no TOML: {error}") from error
    clients: dict[str, Client] = {}
    for name, given in rows.items():
        try:
            row = msgspec.convert(given, _Row)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{source}: [{name}]: {error}") from error
        if not _NAME.fullmatch(name) or not _HASH.fullmatch(row.hash):
            raise InvalidInput(f"{source}: [{name}]: hash has to be hmac-sha256: and 64 hexadecimal digits (edgewise serve --new-key NAME)")
        if row.hash in clients:
            raise InvalidInput(f"{source}: [{name}] and [{clients[row.hash].name}] are one key; give each its own")
        for limit in ("requests_per_s", "burst", "concurrent"):
            value = getattr(row, limit)
            if value is not None and not 0 < value < 1e9:
                raise InvalidInput(f"{source}: [{name}]: {limit}={value}: give a number above 0")
        clients[row.hash] = Client(name, frozenset(row.scopes), row.requests_per_s, row.burst, row.concurrent)
    return Keys(clients)


class KeyFile:
    """A file of keys that may be changed while the server runs. A change that can't be read leaves the former keys, and is told."""

    def __init__(self, path: Path, log: Callable[[str], None]) -> None:
        self._path = path
        self._log = log
        self._seen = self._stamp()
        self.keys = parse(self._text(), str(path))
        if not len(self.keys):
            raise InvalidInput(f"{path} holds no keys, so nobody could ask anything; make one: edgewise serve --new-key NAME --keys {path}")

    def poll(self) -> bool:
        """Read the file again if it changed; whether its keys are other ones now. Raises nothing."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self.keys = parse(self._text(), str(self._path))
        except InvalidInput as error:
            self._log(f"keys were not changed: {error}")
            return False
        self._log(f"{self._path}: {len(self.keys)} keys count from now on")
        return True

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _text(self) -> str:
        try:
            data = self._path.read_bytes()[: _MOST_BYTES + 1]
            if len(data) > _MOST_BYTES:
                raise InvalidInput(f"{self._path} is over {_MOST_BYTES} bytes: that is no file of keys")
            return data.decode()
        except OSError as error:
            raise InvalidInput(f"can't read {self._path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{self._path} is not UTF-8") from error
