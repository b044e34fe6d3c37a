"""How much one client may ask: a token bucket for its rate, a count for what it has in flight. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MOST_CLIENTS = 10_000


@dataclass(frozen=True)
class Limits:
    """requests_per_s, on average; burst: how many may come at once. concurrent: at one time. 0 for no limit."""

    requests_per_s: float = 0.0
    burst: float = 0.0
    concurrent: int = 0

    @property
    def bounded(self) -> bool:
        return bool(self.requests_per_s or self.concurrent)


class Bucket:
    """Tokens that fill up at `rate` a second, to `burst` at most; a request takes one (the token bucket of RFC 2697, one colour)."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = max(1.0, burst or rate)
        self._tokens = self._burst
        self._at = now

    def take(self, now: float) -> float:
        """0 and the token is taken, or the seconds until there is one. A clock that went back fills nothing, and takes nothing away."""
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate


class _Load:
    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.bucket = Bucket(limits.requests_per_s, limits.burst, now) if limits.requests_per_s else None
        self.in_flight = 0


class Loads:
    """What each client has taken. Clients that are idle are forgotten, the longest unheard first, when there are too many."""

    def __init__(self, most: int = MOST_CLIENTS) -> None:
        self._loads: OrderedDict[str, _Load] = OrderedDict()
        self._most = most

    def enter(self, client: str, limits: Limits, now: float) -> float:
        """0 where the request may go on (`leave` has to follow), or the seconds after which it may be tried again."""
        if not limits.bounded:
            return 0.0
        load = self._loads.get(client)
        if load is None or load.limits != limits:
            in_flight = load.in_flight if load else 0
            load = self._loads[client] = _Load(limits, now)
            load.in_flight = in_flight
            self._forget()
        else:
            self._loads.move_to_end(client)
        if limits.concurrent and load.in_flight >= limits.concurrent:
            return 1.0
        wait = load.bucket.take(now) if load.bucket else 0.0
        if not wait:
            load.in_flight += 1
        return wait

    def leave(self, client: str) -> None:
        load = self._loads.get(client)
        if load is not None and load.in_flight:
            load.in_flight -= 1

    def _forget(self) -> None:
        if len(self._loads) <= self._most:
            return
        for name, load in self._loads.items():
            if not load.in_flight:
                del self._loads[name]
                return
