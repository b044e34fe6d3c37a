"""How far a long command is: a live line on a terminal, and now and then a plain line in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edgewise.interrupts import interruptible

Tell = Callable[[str, float, float | None], None]

EVERY_S = 5.0
BAR = 24


def remaining(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 1.5:
        return "a moment left"
    return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.0f} min left"


@contextmanager
def telling(console: Console | None = None, *, every_s: float = EVERY_S, keep_first: bool = False) -> Iterator[Tell]:
    """Yields a function of (what, share done in 0..1, seconds left or None). It writes to standard error, results go to standard output.

    keep_first: what is told first (an estimate) stays on the terminal, above the line that changes.
    """
    out = console or Console(stderr=True, highlight=False)
    with interruptible() as check:
        if out.is_terminal:
            line = _Line((lambda what: out.print(Text(what))) if keep_first else None)
            # One refresh a second: what is being measured shares the machine with this.
            with Live(line, console=out, refresh_per_second=1, transient=True):
                yield _checked(check, line.tell)
            return
        lines = _Lines(out, every_s)
        try:
            yield _checked(check, lines.tell)
        finally:
            lines.close()


def _checked(check: Callable[[], None], tell: Tell) -> Tell:
    def told(what: str, share: float, left: float | None) -> None:
        check()
        tell(what, share, left)

    return told


class _Line:
    """What Live shows: the bar, the time left (counted down between two calls), and below it what is being done."""

    def __init__(self, first: Callable[[str], None] | None) -> None:
        self._first = first
        self._now: tuple[str, float, float | None, float] = ("", 0.0, None, time.monotonic())

    def tell(self, what: str, share: float, left: float | None) -> None:
        if self._first is not None:
            self._first(what)
            self._first = None
        self._now = (what, share, left, time.monotonic())

    def __rich__(self) -> Group:
        what, share, left, since = self._now
        if left is not None:
            left = max(0.0, left - (time.monotonic() - since))
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=1.0, completed=share, width=BAR), Text(f"{share:4.0%}"), Text(remaining(left), style="dim"))
        return Group(row, Text(what, style="dim", no_wrap=True, overflow="ellipsis"))


class _Lines:
    """Plain lines, not more than one in `every_s`; the last of those held back is shown when its time has come."""

    def __init__(self, out: Console, every_s: float) -> None:
        self._out, self._every_s = out, every_s
        self._last = -every_s
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def tell(self, what: str, share: float, left: float | None) -> None:
        ahead = remaining(left)
        text = f"{share:4.0%}  {what}" + (f"  ({ahead})" if ahead else "")
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            wait = self._last + self._every_s - time.monotonic()
            if wait <= 0:
                self._show(text)
            else:
                self._timer = threading.Timer(wait, self._late, (text,))
                self._timer.daemon = True
                self._timer.start()

    def _late(self, text: str) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer = None
                self._show(text)

    def _show(self, text: str) -> None:
        self._last = time.monotonic()
        self._out.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
