"""Threads that calls run in. Engines release the interpreter while they compute, so the loop and other calls go on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

Done = Callable[[Any, BaseException | None], None]
PROBE_S = 0.03
WORTH = 1.05  # another thread has to bring this much more


class Workers(Protocol):
    def start(self, work: Callable[[], Any], done: Done) -> None:
        """Run `work` elsewhere, then `done(result, error)` in the event loop."""
        ...

    def close(self) -> None: ...


class Threads:
    """Dedicated threads, so much nicer than this one, and one queue in C.

    `run_in_executor` would add a future, a wrapping and a lock to every call.
    """

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop, nice: int = 0) -> None:
        self._loop, self._nice = loop, nice
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"edgewise-call-{i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def start(self, work: Callable[[], Any], done: Done) -> None:
        self._jobs.put((work, done))

    def close(self) -> None:
        """Ends when what runs has ended."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        if self._nice and sys.platform == "linux":  # where a thread has a niceness of its own
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, min(19, os.getpriority(os.PRIO_PROCESS, own) + self._nice))
        while (job := self._jobs.get()) is not None:
            work, done = job
            try:
                result, error = work(), None
            except BaseException as raised:  # whatever it is, whoever waits in the loop has to be told
                result, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(done, result, error)
            del job, work, done, result, error  # or an idle thread would keep a whole call's arrays


def threads_worth(most: int, *, seconds: float = PROBE_S, clock: Callable[[], float] = time.perf_counter) -> int:
    """How many threads of matrix products this process gets more done with, up to `most`: what quotas, neighbours and shared cores leave.

    Each count has `seconds`, twice, and its better time counts: a neighbour's moment mustn't cost a core for months.
    """
    best, rate = 1, 0.0
    for count in range(1, most + 1):
        more = max(_rate(count, seconds, clock) for _ in range(2)) if most > 1 else 1.0
        if more > rate * WORTH:
            best, rate = count, more
    return best


def _rate(count: int, seconds: float, clock: Callable[[], float]) -> float:
    """Products a second, of so many threads together."""
    done = [0] * count
    gate = threading.Barrier(count + 1)

    def work(place: int) -> None:
        matrix = np.full((96, 96), 0.01, np.float32)
        gate.wait()
        until = clock() + seconds
        while clock() < until:
            for _ in range(8):
                matrix @ matrix
            done[place] += 8

    threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(count)]
    for thread in threads:
        thread.start()
    gate.wait()
    began = clock()
    for thread in threads:
        thread.join()
    return sum(done) / max(clock() - began, 1e-9)
