"""A measuring process seen from its parent: started, asked, and always reaped."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar

from edgewise import errors
from edgewise.errors import EdgewiseError, MeasurementFailed
from edgewise.measure import messages
from edgewise.measure.subject import Subject
from edgewise.types import Inputs

LIMIT_S = 120.0  # for one answer, on top of the time that the request itself asks for
CHUNK = 1 << 20

R = TypeVar("R", messages.Loaded, messages.Timed, messages.Logged, messages.Number)


class Process:
    """One measuring process on `cores`. A context manager: leaving it, by an error or Ctrl-C too, ends the process and reaps it.

    To be used by the thread that made it: the process dies with that thread (Linux, PR_SET_PDEATHSIG), so that none is orphaned.
    Each request raises MeasurementFailed, with the end of what the process wrote on standard error, when it dies or does not answer within
    `limit_s`; and the same error that the process met when that was one of `edgewise.errors` (a model that the engine refuses, say).
    """

    def __init__(self, cores: Sequence[int] = (), *, threads: int = 1, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed in close)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgewise.measure.child", str(os.getpid()), ",".join(map(str, cores))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            env=os.environ | environment(threads),
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends the process
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # for the type checker: both were asked for
        self._to, self._from = self._process.stdin, self._process.stdout
        os.set_blocking(self._to.fileno(), False)
        os.set_blocking(self._from.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(at_once=kind is not None)

    def load(self, subject: Subject, inputs: Inputs) -> messages.Loaded:
        """Load `subject`, its named axes fixed to those of `inputs` (see Subject.fixed)."""
        execution = subject.fixed(inputs)
        request = messages.Load(
            len(subject.model), execution.backend, execution.precision, execution.threads, dict(execution.options), messages.pack(inputs)
        )
        return self._ask(request, messages.Loaded, after=subject.model)

    def first(self) -> float:
        """Milliseconds of the first inference."""
        return self._ask(messages.First(), messages.Number).value

    def block(self, min_ms: float) -> float:
        """Median milliseconds per call of one block of at least `min_ms`."""
        return self._ask(messages.Block(min_ms), messages.Timed, min_ms / 1e3).samples_ms[0]

    def sample(self, seconds: float, min_samples: int, keep: int, *, again: bool = False) -> messages.Timed:
        return self._ask(messages.Sample(seconds, min_samples, keep, again), messages.Timed, 2 * seconds)

    def scenario(self, asked: messages.Scenario, takes_s: float) -> messages.Logged:
        return self._ask(asked, messages.Logged, takes_s)

    def memory(self) -> int:
        """Peak bytes above the process when it was idle, just before the model's bytes arrived."""
        return int(self._ask(messages.Memory(), messages.Number).value)

    def bandwidth(self, array_bytes: int, threads: int, repeats: int) -> float:
        """GB/s of memory; see `edgewise.measure.bandwidth`."""
        return self._ask(messages.Bandwidth(array_bytes, threads, repeats), messages.Number).value

    def close(self, *, at_once: bool = False) -> None:
        """End the process: by closing its input, and by SIGKILL when it has not ended two seconds later (or `at_once`)."""
        self._to.close()
        if at_once:
            self._process.kill()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._from.close()
        self._stderr.close()

    def _ask(self, request: messages.Request, expected: type[R], takes_s: float = 0.0, after: bytes = b"") -> R:
        deadline = time.monotonic() + self._limit_s + takes_s
        what = type(request).__name__.lower()
        self._write(messages.framed(request), deadline, what)
        self._write(after, deadline, what)
        size = messages.HEADER.unpack(self._read(messages.HEADER.size, deadline, what))[0]
        reply = messages.decode_reply(self._read(size, deadline, what))
        if isinstance(reply, messages.Failed):
            kind = getattr(errors, reply.kind, None)
            raise (kind if isinstance(kind, type) and issubclass(kind, EdgewiseError) else MeasurementFailed)(reply.message)
        if not isinstance(reply, expected):
            raise MeasurementFailed(f"the measuring process answered {what!r} with {type(reply).__name__}")
        return reply

    def _write(self, data: bytes, deadline: float, what: str) -> None:
        view = memoryview(data)
        while view:
            self._wait(deadline, what, writing=True)
            try:
                view = view[os.write(self._to.fileno(), view[:CHUNK]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                self._died(what)

    def _read(self, size: int, deadline: float, what: str) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait(deadline, what, writing=False)
            try:
                piece = os.read(self._from.fileno(), min(CHUNK, size - len(data)))
            except BlockingIOError:
                continue
            if not piece:
                self._died(what)
            data += piece
        return bytes(data)

    def _wait(self, deadline: float, what: str, *, writing: bool) -> None:
        left = deadline - time.monotonic()
        ready = select.select([] if writing else [self._from], [self._to] if writing else [], [], max(0.0, left))
        if not (ready[0] or ready[1]):
            self._process.kill()
            self._process.wait()
            raise MeasurementFailed(
                f"{what!r} took over {self._limit_s:g} s and was stopped; give a higher limit_s if it is that slow here{self._tail()}"
            )

    def _died(self, what: str) -> None:
        self._process.kill()
        code = self._process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = "; it may have run out of memory" if code == -9 else ""
        raise MeasurementFailed(f"the measuring process died at {what!r} ({how}{hint}){self._tail()}")

    def _tail(self, lines: int = 8) -> str:
        self._stderr.seek(0)
        text = self._stderr.read()[-4096:].decode(errors="replace").strip()
        return "\n  its last words:\n  " + "\n  ".join(text.splitlines()[-lines:]) if text else ""


def environment(threads: int) -> dict[str, str]:
    """Thread counts of the libraries that read them from the environment: numpy's BLAS gets one, OpenMP what the execution has."""
    return {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": str(threads), "OMP_PROC_BIND": "false"}
