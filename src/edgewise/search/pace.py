"""How far a search is and how long it still takes: planned pieces of work, corrected by what they really took."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, float, float | None], None]


class Pace:
    """Tells `progress` of each piece of work as it starts. `planned` is in seconds, as estimated before; pieces may be added or dropped."""

    def __init__(self, planned: float, progress: Progress | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.planned = max(planned, 1e-9)
        self.clock = clock
        self.started = clock()
        self.done = 0.0
        self.progress = progress or (lambda what, share, left: None)

    def begin(self, what: str) -> None:
        share = min(self.done / self.planned, 0.99)
        rate = (self.clock() - self.started) / self.done if self.done else 1.0
        self.progress(what, share, rate * max(self.planned - self.done, 0.0))

    def finish(self, seconds: float) -> None:
        """A piece that was planned to take `seconds` is done (or was not needed)."""
        self.done += seconds

    def add(self, seconds: float) -> None:
        self.planned += seconds
