"""A process that dies at the n-th thing that it does to files, for every n: what a power cut may leave behind.

`everywhere` runs `patch OLD UPDATE` or `save SOURCE TARGET` of `edgewise.package` in a process of its own, which forks for each n and lets
the child end itself without a word (SIGKILL): before the n-th call that opens, flushes, renames, changes or removes a file, or halfway
through the n-th write.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CALLS = ("fsync", "replace", "open", "close", "chmod", "unlink", "umask")


def everywhere(job: str, first: Path, second: Path) -> Iterator[None]:
    """Yields after each kill, so that what is there can be looked at and put back; ends when the job got through alive.

    Raises RuntimeError where the job itself fails.
    """
    line = [sys.executable, "-m", __name__, job, str(first), str(second)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}  # no threads: the process forks
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdin is not None and process.stdout is not None
        while (said := process.stdout.readline().strip()) == "killed":
            yield
            process.stdin.write("\n")
            process.stdin.flush()
        process.stdin.close()
    if said != "done":
        raise RuntimeError(f"{' '.join(line[2:])} failed")


class _Dying:
    """Counts calls, and ends the process at one of them."""

    def __init__(self, last: int) -> None:
        self.left = last

    def step(self, half: Callable[[], object] | None = None) -> None:
        self.left -= 1
        if not self.left:
            if half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)

    def take_over(self) -> None:
        """Stand before what writes files, in this process."""

        def dying(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                self.step()
                return function(*args, **kwargs)

            return call

        step = self.step

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                whole = bytes(data)
                written = super().write
                step(lambda: written(whole[: len(whole) // 2]))
                return written(whole)

        for name in CALLS:
            setattr(os, name, dying(getattr(os, name)))
        os.fdopen = lambda handle, mode: File(handle, "r+b")  # type: ignore[assignment]


def _main(job: str, first: Path, second: Path) -> None:
    from edgewise import package

    last = 0
    while True:
        last += 1
        child = os.fork()
        if not child:
            source = package.open(first) if job == "save" else None
            _Dying(last).take_over()
            if source is not None:
                source.save(second)
            else:
                package.patch(first, second)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            print("done" if not status else "failed", flush=True)
            return
        print("killed", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
