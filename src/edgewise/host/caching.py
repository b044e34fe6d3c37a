"""Answers kept by what was asked: same model, same inputs, same wanted outputs. For models that their owner says may be cached."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np

from edgewise.host.requests import Answer, Late, Refused, Request

ENTRY_BYTES = 500  # of an entry beyond its arrays: objects, keys and their places


@dataclass(frozen=True, eq=False, slots=True)
class _Kept:
    answer: Answer
    until: float
    size: int
    model: str


@dataclass(eq=False, slots=True)
class _Flight:
    task: asyncio.Task[Answer]
    passengers: int = 0


def key_of(content_id: str, request: Request) -> bytes:
    """SHA-256 over the model's content id, every input's name, dtype, shape and bytes, and the wanted outputs.

    Lengths go before what they are of, so that no two questions are spelled alike.
    """
    digest = sha256(f"{content_id}\n{len(request.outputs)}\n".encode())
    for name in request.outputs:
        digest.update(f"{len(name)} {name}\n".encode())
    for name in sorted(request.inputs):
        array = np.ascontiguousarray(request.inputs[name])
        digest.update(f"{len(name)} {name} {array.dtype} {array.shape}\n".encode())
        if array.dtype.kind == "O":  # the array's own bytes are addresses, which the next request's elements may have too
            for element in map(_plain, array.reshape(-1)):
                digest.update(b"%d\n" % len(element))
                digest.update(element)
        else:
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.digest()


def _plain(element: str | bytes) -> bytes:
    return element.encode() if isinstance(element, str) else element


def _bytes(array: np.ndarray) -> int:
    """What it takes, with the objects that it refers to."""
    return array.nbytes + (sum(map(sys.getsizeof, array.reshape(-1))) if array.dtype.kind == "O" else 0)


class Cache:
    """At most `limit` bytes of answers; who was asked for last leaves last. One flight per key: who asks meanwhile goes along."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.size = 0
        self._clock = clock
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._flights: dict[bytes, _Flight] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def answer(self, key: bytes, model: str, ttl_s: float, ask: Callable[[], Awaitable[Answer]], deadline: float | None) -> Answer:
        """The kept answer, or that of whoever asks already, or `ask`'s.

        Whoever goes along has a deadline of its own: Late comes at it, and where the flight ends because of somebody else's deadline, the
        next one asks anew. A flight that nobody waits for any more is cancelled.
        """
        while True:
            if (found := self._find(key)) is not None:
                return replace(found, queued_s=0.0, computed_s=0.0, cached=True)
            flight = self._flights.get(key)
            own = flight is None
            if flight is None:
                flight = self._flights[key] = _Flight(asyncio.ensure_future(ask()))
                flight.task.add_done_callback(lambda task: self._landed(key, model, ttl_s, task))
            flight.passengers += 1
            try:
                left = None if deadline is None else max(0.0, deadline - self._clock())
                done, _ = await asyncio.wait([flight.task], timeout=None if own else left)
            finally:
                flight.passengers -= 1
                if not flight.passengers and not flight.task.done():
                    flight.task.cancel()
            if not done:
                raise Late(f"{model}: its deadline passed while the same was asked already")
            if flight.task.cancelled():
                continue
            error = flight.task.exception()
            if error is None:
                answer = flight.task.result()
                return answer if own else replace(answer, cached=True)
            if own or not isinstance(error, Late | Refused):
                raise error

    def drop(self, model: str) -> None:
        """Everything of this model: it was loaded anew. Flights land, and nothing of them is kept."""
        for key in [key for key, kept in self._kept.items() if kept.model == model]:
            self.size -= self._kept.pop(key).size
        self._flights = {key: flight for key, flight in self._flights.items() if flight.task.done()}

    def _find(self, key: bytes) -> Answer | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= self._clock():
            self.size -= self._kept.pop(key).size
            return None
        self._kept.move_to_end(key)
        return kept.answer

    def _landed(self, key: bytes, model: str, ttl_s: float, task: asyncio.Task[Answer]) -> None:
        flight = self._flights.get(key)
        if flight is None or flight.task is not task:  # the model was loaded anew meanwhile
            task.cancelled() or task.exception()
            return
        del self._flights[key]
        if task.cancelled() or task.exception() is not None:
            return
        answer = task.result()
        size = sum(map(_bytes, answer.outputs.values())) + ENTRY_BYTES
        if size > self.limit:
            return
        # A copy: what came may be a row of a whole call's array. Read-only: many get the same.
        outputs = {name: np.array(array) for name, array in answer.outputs.items()}
        for array in outputs.values():
            array.flags.writeable = False
        self._kept[key] = _Kept(replace(answer, outputs=outputs), self._clock() + ttl_s, size, model)
        self.size += size
        while self.size > self.limit:
            _, oldest = self._kept.popitem(last=False)
            self.size -= oldest.size
