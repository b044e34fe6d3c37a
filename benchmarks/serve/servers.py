"""Servers to be held against each other: each in an environment of its own, on one core, with a time limit, ended by its process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

ENVIRONMENTS = Path(__file__).parents[2] / "out" / "serve-peers"
START_S = 120
INSTALL_S = 900


class Unavailable(Exception):
    """Why a peer can't be installed, started or asked: what the table shows instead of a figure."""


class Server:
    """A process and all its descendants. log: where its output goes."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    def tree(self) -> list[psutil.Process]:
        whole = psutil.Process(self.process.pid)
        return [whole, *whole.children(recursive=True)]

    def cpu_s(self) -> float:
        """User and system time of the whole tree so far, from /proc: in steps of 10 ms."""
        total = 0.0
        for each in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system
        return total

    def last_words(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][-300:] if lines else "it said nothing"

    def end(self) -> None:
        """SIGTERM; after ten seconds SIGKILL for whoever of the tree is left."""
        try:
            tree = self.tree()
        except psutil.NoSuchProcess:
            return
        self.process.terminate()
        _, left = psutil.wait_procs(tree, timeout=10)
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(left, timeout=5)


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, core: int, ready: str, limit_s: int, env: dict[str, str] | None = None) -> Iterator[Server]:
    """The server that `command` starts, once `ready` answers 200; it inherits its core. Raises Unavailable where it doesn't get so far."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        with log.open("wb") as out:
            limited = ["timeout", "--kill-after=10", str(limit_s), *command]
            process = subprocess.Popen(limited, stdout=out, stderr=subprocess.STDOUT, cwd=log.parent, env=os.environ | (env or {}))
    finally:
        os.sched_setaffinity(0, before)
    server = Server(process, log)
    try:
        _await(server, ready)
        yield server
    finally:
        server.end()


def _await(server: Server, ready: str) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if server.process.poll() is not None:
            raise Unavailable(f"ended with {server.process.returncode} before it was ready: {server.last_words()}")
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(ready, timeout=5) as reply:
            if reply.status == 200:
                return
        time.sleep(0.2)
    raise Unavailable(f"not ready after {START_S} s: {server.last_words()}")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in listeners:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in listeners]


def python_of(name: str, *requirements: str) -> str:
    """The interpreter with `requirements`: what NAME_PYTHON says, or out/serve-peers/NAME's, made where it isn't. Raises Unavailable."""
    variable = f"{name.upper()}_PYTHON"
    if variable in os.environ:
        if shutil.which(os.environ[variable]) is None:
            raise Unavailable(f"{variable} names {os.environ[variable]}, which is no interpreter")
        return os.environ[variable]
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return str(python)
    print(f"installing {' '.join(requirements)} into {folder}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    for step in ([sys.executable, "-m", "venv", str(folder)], [str(python), "-m", "pip", "install", "--quiet", *requirements]):
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_S)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"not installed: {' '.join(step[1:])} took over {INSTALL_S} s") from None
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
            raise Unavailable(f"not installed: {' '.join(said)[:300]}")
    (folder / "complete").touch()
    return str(python)
