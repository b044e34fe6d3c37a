"""The queue: one job at a time, each in a process of its own with a time limit, which ends with all of its children."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgewise.errors import InvalidInput
from edgewise.wire import messages

HEADER = struct.Struct("<BQ")  # of what a job's process writes: a kind of KINDS, and the length of what follows
KINDS = ("progress", "kept", "result", "error")
MOST_EVENT = 256 << 20

MOST_WAITING = 32
KEPT_JOBS = 32  # that are over, for whoever asks late
ALONE_S = 600.0  # nobody asked for a job for so long: it is cancelled
LONGEST_S = 24 * 3600.0
_TAIL = 4096


class Busy(InvalidInput):
    """The queue is full."""


@dataclass
class Held:
    """A job, and what became of it."""

    asked: messages.Job
    state: messages.State = "queued"
    events: list[messages.Event] = field(default_factory=list)
    error: str = ""
    message: str = ""
    heard: float = field(default_factory=time.monotonic)  # when somebody asked for it last
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    process: asyncio.subprocess.Process | None = None

    @property
    def over(self) -> bool:
        return self.state in messages.OVER

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def end(self, state: messages.State, error: str = "", message: str = "") -> None:
        self.state, self.error, self.message = state, error, message
        self.tell()


class Jobs:
    """command: what runs a job, before the folder of packages. log: is told what happens, in words."""

    def __init__(
        self, blobs: Path, log: Callable[[str], None], command: Sequence[str] = (sys.executable, "-m", "edgewise.worker.job")
    ) -> None:
        self._blobs, self._log, self._command = blobs, log, command
        self._known: dict[str, Held] = {}
        self._waiting: deque[Held] = deque()
        self._news = asyncio.Event()
        self._running: Held | None = None

    @property
    def queue(self) -> int:
        """Jobs that run or wait."""
        return len(self._waiting) + (self._running is not None)

    def needed(self) -> set[str]:
        """Packages of jobs that aren't over."""
        return {digest for held in self._known.values() if not held.over for digest in held.asked.blobs}

    def add(self, job: messages.Job) -> None:
        """Take it, once. Raises InvalidInput for an impossible one, Busy."""
        if not messages.is_digest(job.number, 32):
            raise InvalidInput("a job's number has 32 hexadecimal digits")
        if not 0 < job.limit_s <= LONGEST_S:
            raise InvalidInput(f"limit_s={job.limit_s}: give seconds, at most {LONGEST_S:,.0f}")
        if job.number in self._known:
            return
        if len(self._waiting) >= MOST_WAITING:
            raise Busy(f"{len(self._waiting)} jobs are waiting already; ask again later")
        held = Held(job)
        self._known[job.number] = held
        self._waiting.append(held)
        self._forget()
        self._news.set()

    def find(self, number: str) -> Held | None:
        return self._known.get(number)

    def before(self, held: Held) -> int:
        return self._waiting.index(held) + (self._running is not None) if held in self._waiting else 0

    def cancel(self, held: Held, why: str) -> None:
        if held.over:
            return
        if held in self._waiting:
            self._waiting.remove(held)
        held.end("cancelled", message=why)
        if held.process is not None:
            _kill(held.process)

    async def work(self) -> None:
        """Do what comes, for ever."""
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            held = self._running = self._waiting.popleft()
            held.state = "running"
            held.tell()
            for other in self._waiting:
                other.tell()
            started = time.monotonic()
            try:
                await self._run(held)
            finally:
                self._running = None
                took = f"after {time.monotonic() - started:.1f} s"
                self._log(f"{held.asked.kind} {held.asked.number[:8]}: {held.state} {took} {held.message}".rstrip())

    async def tend(self, period_s: float = 15.0) -> None:
        """Cancel what nobody asks for any more."""
        while True:
            await asyncio.sleep(period_s)
            for held in list(self._known.values()):
                if not held.over and time.monotonic() - held.heard > ALONE_S:
                    self.cancel(held, f"nobody asked for it for {ALONE_S:.0f} s")

    async def close(self) -> None:
        for held in list(self._known.values()):
            self.cancel(held, "the worker was stopped")

    async def _run(self, held: Held) -> None:
        line = [*self._command, str(os.getpid()), str(self._blobs)]
        try:
            process = await asyncio.create_subprocess_exec(
                *line, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            held.end("failed", "MeasurementFailed", f"no process could be started on the device ({error.strerror})")
            return
        held.process = process
        assert process.stdin and process.stdout and process.stderr  # all were asked for
        tail = asyncio.create_task(_last(process.stderr))
        try:
            if held.over:  # cancelled while it started
                return
            async with asyncio.timeout(held.asked.limit_s):
                process.stdin.write(messages.encode(held.asked))
                with suppress(ConnectionError):
                    await process.stdin.drain()
                    process.stdin.close()
                await self._listen(held, process.stdout)
                await process.wait()
        except TimeoutError:
            held.end("failed", "MeasurementFailed", f"{held.asked.kind} took over {held.asked.limit_s:g} s on the device and was stopped")
        finally:
            _kill(process)
            await process.wait()
            said = (await tail).decode(errors="replace").strip()
            held.process = None
        if not held.over:
            code = process.returncode or 0
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            hint = "; the device may have run out of memory" if code == -signal.SIGKILL else ""
            last = "\n  its last words:\n  " + "\n  ".join(said.splitlines()[-6:]) if said else ""
            held.end("failed", "MeasurementFailed", f"the process of {held.asked.kind} died on the device ({how}{hint}){last}")

    async def _listen(self, held: Held, stdout: asyncio.StreamReader) -> None:
        while not held.over:
            try:
                kind, size = HEADER.unpack(await stdout.readexactly(HEADER.size))
                if kind >= len(KINDS) or size > MOST_EVENT:
                    return
                data = await stdout.readexactly(size)
            except asyncio.IncompleteReadError:
                return
            if held.over:
                return
            if KINDS[kind] == "error":
                name, _, message = data.decode(errors="replace").partition(":")
                held.end("failed", name, message)
            else:
                held.events.append(messages.Event(KINDS[kind], data))  # type: ignore[arg-type]  # of KINDS, one that is no error
                if KINDS[kind] == "result":
                    held.end("done")
                else:
                    held.tell()

    def _forget(self) -> None:
        over = [number for number, held in self._known.items() if held.over]
        for number in over[: max(0, len(over) - KEPT_JOBS)]:
            del self._known[number]


def _kill(process: asyncio.subprocess.Process) -> None:
    """The process and what is in its group. Measuring processes are in groups of their own, and die with their parent (measure.child)."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


async def _last(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    while piece := await stream.read(_TAIL):
        kept = (kept + piece)[-_TAIL:]
    return kept
