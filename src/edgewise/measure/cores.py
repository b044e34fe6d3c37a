"""Where measuring processes run: on cores of their own, with the parent elsewhere when there is one left."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgewise import devices
from edgewise.errors import InvalidInput


def choose(threads: int, available: Sequence[int], siblings: dict[int, int]) -> tuple[int, ...]:
    """`threads` of the `available` cores, the last ones first (the first ones serve most interrupts), hyper-threads of one core last.

    siblings: core -> its physical core's number. Raises InvalidInput when there are fewer.
    """
    if not 1 <= threads <= len(available):
        raise InvalidInput(f"threads={threads}: this process may run on {len(available)} core(s); give 1 to {len(available)}")
    seen: dict[int, int] = {}
    ranked = []
    for core in sorted(available, reverse=True):
        physical = siblings.get(core, core)
        seen[physical] = seen.get(physical, -1) + 1
        ranked.append((seen[physical], core))
    ranked.sort(key=lambda pair: pair[0])
    return tuple(sorted(core for _, core in ranked[:threads]))


def physical_cores(root: Path = Path("/")) -> dict[int, int]:
    """Core -> the lowest number among the hyper-threads that share its physical core; empty where the system doesn't tell."""
    found = {}
    for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list"):
        try:
            found[int(path.parents[1].name[3:])] = int(path.read_text().replace("-", ",").split(",")[0])
        except (OSError, ValueError):
            continue
    return found


@contextmanager
def reserved(threads: int) -> Iterator[tuple[int, ...]]:
    """Cores for measuring processes of `threads` threads. Meanwhile the calling thread keeps off them, if any core is left for it."""
    available = devices.affinity()
    cores = choose(threads, available, physical_cores())
    rest = set(available) - set(cores)
    if not rest or not hasattr(os, "sched_setaffinity"):
        yield cores
        return
    os.sched_setaffinity(0, rest)
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, available)
