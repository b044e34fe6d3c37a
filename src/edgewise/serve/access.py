"""Who asks, whether they may, and whether it is too much: the one gate that every protocol goes through."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

from edgewise.serve.keys import Client, KeyFile, Keys, Scope
from edgewise.serve.limits import Limits, Loads
from edgewise.serve.problems import Forbidden, TooMany, Unauthorized

EVERYTHING: frozenset[str] = frozenset({"infer", "admin"})
UNLIMITED = Limits()


class Gate:
    """keys: a file of them, some, or None where whoever reaches the server may ask anything.

    limits: of a client whose key says nothing else; without keys, of an address. clock: seconds, monotonic.
    """

    def __init__(self, keys: KeyFile | Keys | None, limits: Limits = UNLIMITED, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._limits = limits
        self._clock = clock
        self._loads = Loads()

    @property
    def open(self) -> bool:
        return self._keys is None

    def client(self, key: str | None, address: str, scope: Scope) -> Client:
        """key: what stands behind "Bearer" in `authorization`, or in `x-api-key`. Raises Unauthorized, Forbidden."""
        if self._keys is None:
            return Client(address, EVERYTHING)
        keys = self._keys.keys if isinstance(self._keys, KeyFile) else self._keys
        found = keys.client(key) if key else None
        if found is None:
            said = "this key isn't known here" if key else "this server wants a key: send it as Authorization: Bearer KEY"
            raise Unauthorized(said)
        if scope not in found.scopes:
            raise Forbidden(f"the key of {found.name} isn't for this; it needs the scope {scope!r}")
        return found

    def enter(self, client: Client) -> None:
        """Counts a request of `client`; `leave` has to follow. Raises TooMany."""
        wait = self._loads.enter(client.name, self._limits_of(client), self._clock())
        if wait:
            raise TooMany(f"{client.name} asks more than it may; try again in {math.ceil(wait)} s", wait)

    def leave(self, client: Client) -> None:
        self._loads.leave(client.name)

    def _limits_of(self, client: Client) -> Limits:
        if client.requests_per_s is None and client.burst is None and client.concurrent is None:
            return self._limits
        given = {name: getattr(client, name) for name in ("requests_per_s", "burst", "concurrent")}
        return replace(self._limits, **{name: value for name, value in given.items() if value is not None})


def bearer(authorization: str) -> str | None:
    """The key of an `authorization` header; None for another scheme."""
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None
