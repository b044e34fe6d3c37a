"""`serve.toml`: the server's settings and its models', as frozen data.

    host = "0.0.0.0"
    port = 8080
    hosts = ["camera.local"]         # names that clients may ask by

    [limits]                         # of one client
    requests_per_s = 100

    [models.mobilenet]               # what a host may be told of a model
    deadline_ms = 50

What the dataclasses have as fields, the file has as keys; an unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from edgewise.errors import InvalidInput
from edgewise.serve.connections import Patience
from edgewise.serve.limits import Limits

T = TypeVar("T")
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


@dataclass(frozen=True)
class Tls:
    """certificate, key: PEM files. clients: certificates of those who sign clients' (mutual TLS); without it anybody may connect."""

    certificate: Path
    key: Path
    clients: Path | None = None


@dataclass(frozen=True)
class Tracing:
    """otlp: the address of an OpenTelemetry collector that takes OTLP over HTTP, as http://collector:4318.

    share: of requests whose client says nothing of a trace, how many are traced (0 to 1). What a client says (`traceparent`) counts first.
    """

    otlp: str
    share: float = 1.0

    def __post_init__(self) -> None:
        found = urlsplit(self.otlp)
        if found.scheme not in ("http", "https") or not found.netloc or found.query or found.fragment:
            raise InvalidInput(f"otlp={self.otlp!r}: give a collector's address for OTLP over HTTP, as http://collector:4318")
        if not 0 <= self.share <= 1:
            raise InvalidInput(f"share={self.share}: give a number from 0 to 1, as 0.1 for one request of ten")

    @property
    def address(self) -> str:
        """Where spans go."""
        return self.otlp if self.otlp.endswith("/v1/traces") else f"{self.otlp.rstrip('/')}/v1/traces"


@dataclass(frozen=True)
class Server:
    """Where it listens, and what it takes of anybody.

    hosts: names that a Host header may have, besides the address itself and loopback's names; "*" for any. keys: a keys.toml.
    body: the most bytes of a request. keep_alive_s: an idle connection. linger_s: how long it goes on taking requests, unready, before it
    drains. drain_s: how long it then waits for those under way. grpc: whether it speaks gRPC too, where that is installed.
    shared_memory: whether clients on this machine may hand tensors over in it. log_requests: one line each. log: "json", or "plain" for
    people. tracing: where traces of requests go.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    grpc: bool = True
    grpc_port: int = 8081
    hosts: tuple[str, ...] = ()
    keys: Path | None = None
    tls: Tls | None = None
    body: int = 64 << 20
    keep_alive_s: float = 60.0
    linger_s: float = 0.0
    drain_s: float = 30.0
    shared_memory: bool = False
    log_requests: bool = False
    log: typing.Literal["json", "plain"] = "json"
    limits: Limits = field(default_factory=Limits)
    patience: Patience = field(default_factory=Patience)
    tracing: Tracing | None = None

    def __post_init__(self) -> None:
        for name, port in (("port", self.port), ("grpc_port", self.grpc_port)):
            if not 0 <= port < 65536:
                raise InvalidInput(f"{name}={port}: give a port from 1 to 65535, or 0 for a free one")
        if self.body < 1024:
            raise InvalidInput(f"body={self.body}: give the most bytes of a request, 1024 or more")
        for name in ("keep_alive_s", "linger_s", "drain_s"):
            if not 0 <= getattr(self, name) < 86_400:
                raise InvalidInput(f"{name}={getattr(self, name)}: give seconds, less than a day")

    @property
    def loopback(self) -> bool:
        """Whether this machine alone can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


@dataclass(frozen=True)
class File:
    """A serve.toml. models: tables by name, and `host`, as they stand: their fields are the host's to know (`settings`)."""

    server: Server = field(default_factory=Server)
    host: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read(path: Path) -> File:
    """Raises InvalidInput, naming the file and the key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"can't read {path}: {error}") from error
    return parse(text, str(path))


def parse(text: str, source: str = "serve.toml") -> File:
    """Raises InvalidInput. The host's own settings stand under [execution], so that `host` is where the server listens."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{source} is no TOML: {error}") from error
    models = tables.pop("models", {})
    host = tables.pop("execution", {})
    known = ("models", "execution")
    for name, table in (("models", models), ("execution", host), *((f"models.{name}", table) for name, table in _items(models))):
        if not isinstance(table, dict):
            raise InvalidInput(f"{source}: {name} has to be a table: [{name}]")
    return File(settings(Server, tables, source, more=known), host, models)


def settings(kind: type[T], table: Mapping[str, Any], where: str, *, more: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> T:
    """`table` as a `kind`, a frozen dataclass. more: keys that may stand beside, for the words of an error. without: fields that it hasn't.

    Raises InvalidInput.
    """
    # What a class imports for type checkers alone is nothing that stands in a file.
    hints = typing.get_type_hints(kind, localns={"Trust": object})
    fields = {each.name for each in dataclasses.fields(kind)} - set(without)  # type: ignore[arg-type]
    for name in table:
        if name not in fields:
            near = difflib.get_close_matches(name, [*fields, *more], n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted([*fields, *more]))}"
            raise InvalidInput(f"{where}: unknown key {name!r}; {hint}")
    missing = [
        each.name
        for each in dataclasses.fields(kind)  # type: ignore[arg-type]
        if each.name not in table and each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InvalidInput(f"{where}: {missing[0]!r} is missing")
    try:
        return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in table.items()})
    except InvalidInput as error:
        raise InvalidInput(str(error) if str(error).startswith(where) else f"{where}: {error}") from error


def size(text: str) -> int:
    """Bytes, from "256MB" or "64 MiB" or a plain number. Raises InvalidInput."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or found[2] not in _UNITS:
        raise InvalidInput(f"size {text[:40]!r}: give a number with {', '.join(filter(None, _UNITS))}, as 256MB")
    return round(float(found[1]) * _UNITS[found[2]])


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _value(next(each for each in arguments if each is not type(None)), value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise InvalidInput(f"{where}={value!r}: give {' or '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InvalidInput(f"{where} has to be a list")
        return tuple(_value(arguments[0], each, where) for each in value)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise InvalidInput(f"{where} has to be a table")
        return settings(typing.cast(type, hint), value, where)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint is float:
        raise InvalidInput(f"{where}={value!r} has to be a number")
    if hint is int and isinstance(value, str):
        return size(value)
    if type(value) is not hint:
        kinds = {int: "a whole number", bool: "true or false", str: "text", Path: "text"}
        raise InvalidInput(f"{where}={value!r} has to be {kinds.get(hint, getattr(hint, '__name__', hint))}")
    return value


def _items(models: Any) -> list[tuple[str, Any]]:
    return list(models.items()) if isinstance(models, dict) else []
