"""Resident memory of this process: how much, how much at most while something is done, and giving back what was freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import psutil

from edgewise.host.loading import Facts

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # malloc.h
LARGE_BYTES = 1 << 20

LOOK_S = 0.002  # between looks while a peak is watched
# Measured with one matrix product of 8 and 32 MB, raw and coded: one engine keeps 2.0 times its weights (as they came, and laid out for its
# kernels) and takes 3.0 to 4.1 times as much while it loads, another 1.0 to 2.1 and 3.9 to 4.6. Under a hard cap the worse one counts.
OVERHEAD_BYTES = 4 << 20
COPIES_KEPT = 2.1
COPIES_PEAK = 4.2
# Kept by every graph of a fixed shape: what is laid out for its kernels is its own (`backends.load_all`; benchmarks/serve/copies.py).
COPIES_SHAPE = 1.15


def rss_bytes() -> int:
    """Of this process, now."""
    return _reader()()


@cache
def _reader() -> Callable[[], int]:
    if sys.platform != "linux":
        process = psutil.Process()
        return lambda: int(process.memory_info().rss)
    page = os.sysconf("SC_PAGE_SIZE")
    # Kept open: read again and again, every look costs two system calls less. /proc/self is resolved when opened.
    handle, owner = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC), os.getpid()

    def read() -> int:
        if os.getpid() != owner:
            return int(psutil.Process().memory_info().rss)
        return int(os.pread(handle, 128, 0).split()[1]) * page

    return read


def give_back() -> None:
    """What was freed, to the system: glibc keeps it for later, which under a cap is somebody else's memory.

    No garbage is collected first: runners are freed by count, and a full collection would hold every deadline up for 20 ms.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


def keep_apart() -> None:
    """Have every large array come from the system and go back to it by itself, from now on, in this process (glibc's mallopt(3)).

    Otherwise the first one that is freed, of up to 32 MB, moves the threshold to its own size: later weights of that size lie in the heap
    among small things that stay, and can't be given back (seen: 29 MB of one model of 24, left behind).
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_ARENA_MAX, 2)


@cache
def _trim() -> Any:
    """glibc's malloc_trim(3); None where there is none (musl, macOS: their allocators give back by themselves, or not at all)."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


class Peak:
    """The most resident memory while the block runs, as a thread sees it that looks every 2 ms.

    The kernel's own mark (VmHWM) never goes down; to reset it would take it away from whoever else reads it.
    """

    def __init__(self, read: Callable[[], int] = rss_bytes) -> None:
        self._read = read
        self.before = self.highest = read()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="edgewise-peak", daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.highest = max(self.highest, self._read())

    @property
    def above(self) -> int:
        return max(0, self.highest - self.before)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            self.highest = max(self.highest, self._read())


@dataclass(frozen=True)
class Need:
    """What a model takes: kept once it is loaded, and at most while it is. source: how that is known."""

    kept: int
    peak: int
    source: str


def needed(facts: Facts, *, hint: int | None, learned: tuple[int, int] | None, instances: int) -> Need:
    """By the owner's word, else by an earlier load here, else by the package's record, else by the size of its weights.

    learned: (kept, peak) of an earlier load under the same execution. What a package records was measured on some device, alone in a
    process, with its first call: what is kept can't be more.
    """
    if hint is not None:
        return Need(hint, hint, "as the settings say")
    if learned is not None:
        return Need(*learned, "measured when it was loaded before")
    shapes = facts.shapes * COPIES_SHAPE * facts.weight_bytes
    more = int(shapes + (instances - 1) * (COPIES_KEPT * facts.weight_bytes + OVERHEAD_BYTES + shapes))
    if facts.recorded_bytes is not None:
        return Need(facts.recorded_bytes + more, facts.recorded_bytes + more, "recorded in its package")
    kept = int(COPIES_KEPT * facts.weight_bytes + OVERHEAD_BYTES) + more
    return Need(
        kept, int((COPIES_PEAK - COPIES_KEPT) * facts.weight_bytes) + kept, f"estimated from {facts.weight_bytes:,} bytes of weights"
    )
