"""Ctrl-C that nothing on the way can swallow."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Ctrl-C ends what is inside, even where it is swallowed on the way; yields a function that raises it again if it was.

    A KeyboardInterrupt inside an engine's C++ comes out as an ImportError or a RuntimeError, which looks like a model that can't be run:
    who keeps results asks that function before keeping one. The handler that was there before still decides whether a signal interrupts,
    so that one of these may stand inside another, and a program's own way to stop is left to it. Outside the main thread, or where SIGINT
    has no handler in Python, nothing is changed and nothing is heard.
    """
    seen = False
    before = signal.getsignal(signal.SIGINT)
    handler: Callable[[int, FrameType | None], Any] | None = before if callable(before) else None
    here = handler is not None and threading.current_thread() is threading.main_thread()

    def heard(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        try:
            if handler is not None:
                handler(number, frame)
        except KeyboardInterrupt:
            seen = True
            raise

    def check() -> None:
        if seen:
            raise KeyboardInterrupt

    if here:
        signal.signal(signal.SIGINT, heard)
    try:
        yield check
        check()
    except Exception as error:  # whatever an engine's bindings made of the interrupt; any other error goes on as it is
        if seen:
            raise KeyboardInterrupt from error
        raise
    finally:
        if here:
            signal.signal(signal.SIGINT, before)
