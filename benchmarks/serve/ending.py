"""Processes that end with the script that started them, whatever ends that: no atexit is heard of where a script is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgewise.measure.child import PR_SET_PDEATHSIG

LIBC = ctypes.CDLL(None)  # before any fork: a child of a process with threads loads nothing
# All are children of this one thread: Linux ends a process with the thread that made it, and a script's own threads come and go.
STARTER = ThreadPoolExecutor(1, "starter")


def started(line: Sequence[str], core: int, **given: Any) -> subprocess.Popen[str]:
    """On that core. given: as `subprocess.Popen` takes it."""
    parent = os.getpid()

    def bound() -> None:
        os.sched_setaffinity(0, {core})
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before it was asked
            os._exit(1)

    return STARTER.submit(subprocess.Popen, line, text=True, preexec_fn=bound, **given).result()
