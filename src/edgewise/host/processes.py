"""A Runner in a process of its own: for an engine that gives no memory back while its process lives, or that may crash.

It costs an interpreter with its engine, some 60 MB a model, and copies of every input and output through a pipe.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil

from edgewise import errors
from edgewise.errors import EdgewiseError
from edgewise.host import child
from edgewise.host.loading import Facts
from edgewise.measure.messages import HEADER, Failed, pack, unpack
from edgewise.measure.process import environment
from edgewise.types import Inputs, Outputs, Signature

PATIENCE_S = 2.0  # for a process whose input was closed to end by itself

_living: set[ProcessRunner] = set()


def resident_bytes() -> int:
    """Of all these processes together."""
    return sum(runner.rss_bytes() for runner in tuple(_living))


class ProcessRunner:
    """One caller at a time. A process that died is told to whoever called it, and started anew for the next call."""

    def __init__(self, file: Path, facts: Facts, *, backend: str | None = None, threads: int | None = None) -> None:
        self._asked = child.Open(str(file), facts.content_id if file.suffix != ".onnx" else "", backend, threads)
        self._threads = facts.execution.threads
        self.signature: Signature = facts.signature
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # of starting and ending: a close may come while a call runs elsewhere
        self._closed = False
        self._begin()

    def run(self, inputs: Inputs) -> Outputs:
        """Raises what the engine raises for these inputs; EdgewiseError where the process died at it."""
        if self._process is None:
            self._begin()
        told = self._ask(child.Run(pack(inputs)))
        if not isinstance(told, child.Ran):
            raise EdgewiseError(f"the model's process answered a call with {type(told).__name__}")
        return unpack(told.outputs)

    def rss_bytes(self) -> int:
        process = self._process
        if process is None:
            return 0
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(process.pid).memory_info().rss)
        return 0

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._end()

    def _begin(self) -> None:
        with self._lock:
            if self._closed:
                raise errors.InvalidInput("this runner is closed; load the model again")
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in _end)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgewise.host.child", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=os.environ | environment(self._threads),
                start_new_session=True,  # Ctrl-C reaches the server alone, which answers what it took and then ends this
            )
            _living.add(self)
        try:
            self._ask(self._asked)
        except BaseException:
            with self._lock:
                self._end()
            raise

    def _ask(self, what: child.Asked) -> child.Told:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise EdgewiseError("the model's process is gone")
        body = child.encode(what)
        try:
            process.stdin.write(HEADER.pack(len(body)))
            process.stdin.write(body)
            process.stdin.flush()
            header = process.stdout.read(HEADER.size)
            data = process.stdout.read(HEADER.unpack(header)[0]) if len(header) == HEADER.size else b""
        except (OSError, ValueError):
            header = data = b""
        if len(header) < HEADER.size or len(data) < HEADER.unpack(header)[0]:
            raise self._died()
        told = child.decode_told(data)
        if isinstance(told, Failed):
            kind = getattr(errors, told.kind, EdgewiseError)
            raise (kind if isinstance(kind, type) and issubclass(kind, EdgewiseError) else EdgewiseError)(told.message)
        return told

    def _died(self) -> EdgewiseError:
        with self._lock:
            process = self._process
            code = process.wait() if process is not None and not self._closed else None
            self._errors.seek(0)
            last = self._errors.read()[-500:].decode(errors="replace").strip().splitlines()[-1:]
            self._end()
        how = "was ended" if code is None else f"died by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return EdgewiseError(f"the model's process {how}; the next call starts it anew" + (f" ({last[0]})" if last else ""))

    def _end(self) -> None:
        _living.discard(self)
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._errors.close()
