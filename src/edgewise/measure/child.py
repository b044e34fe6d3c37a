"""The measuring process: `python -m edgewise.measure.child PARENT_PID CORE,CORE…`. Started by `edgewise.measure.process`, never by hand.

One model, one engine, nothing else: several engines in one process disturb each other (laws of measurement, 1). Between
requests it is blocked in a read. It ends when its standard input does, and on Linux when its parent dies in any way.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import statistics
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import BinaryIO

from edgewise import backends
from edgewise.errors import EdgewiseError, MeasurementFailed
from edgewise.measure import messages
from edgewise.types import Execution, Inputs, Runner

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent = int(sys.argv[1])
    cores = [int(core) for core in sys.argv[2].split(",") if core]
    die_with(parent)
    die_first()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    requests = sys.stdin.buffer
    # Replies get a descriptor of their own: what an engine prints on standard output would otherwise garble them.
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    Child(requests, replies).serve()


def die_with(parent: int) -> None:
    """Ask Linux for SIGKILL when the parent dies. The parent may have died before we asked: then we are another's child already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def die_first() -> None:
    """Where memory runs out, Linux ends this process before the one that trains, or serves: it holds the model that is too large."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")


class Child:
    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests, self._replies = requests, replies
        self._runner: Runner | None = None
        self._inputs: Inputs = {}
        self._idle_bytes = 0

    def serve(self) -> None:
        """Answer until standard input ends. An error raised on purpose is an answer; any other ends the process with its traceback."""
        while header := self._requests.read(messages.HEADER.size):
            request = messages.decode_request(self._requests.read(messages.HEADER.unpack(header)[0]))
            try:
                reply = self._answer(request)
            except EdgewiseError as error:
                reply = messages.Failed(type(error).__name__, str(error))
            data = memoryview(messages.framed(reply))
            while data:
                data = data[self._replies.write(data) :]

    def _answer(self, request: messages.Request) -> messages.Reply:
        match request:
            case messages.Load():
                return self._load(request)
            case messages.First():
                start = perf_counter()
                self._loaded().run(self._inputs)
                return messages.Number((perf_counter() - start) * 1e3)
            case messages.Block(min_ms):
                return block(self._loaded(), self._inputs, min_ms)
            case messages.Sample(seconds, min_samples, keep, again):
                return sample(self._loaded(), self._inputs, seconds, min_samples, keep, again=again)
            case messages.Scenario():
                from edgewise.measure.scenarios.driving import drive  # only the process that asks has LoadGen in it

                return drive(self._loaded(), self._inputs, request)
            case messages.Memory():
                return messages.Number(max(0, peak_bytes() - self._idle_bytes))
            case messages.Bandwidth(array_bytes, threads, repeats):
                from edgewise.measure.bandwidth import bandwidth  # only the process that asks pays for it

                return messages.Number(bandwidth(array_bytes, threads, repeats))

    def _load(self, request: messages.Load) -> messages.Reply:
        self._inputs = messages.unpack(request.inputs)
        execution = Execution(request.backend, request.precision, request.threads, request.options)
        gc.collect()
        self._idle_bytes = idle_bytes()
        model = self._requests.read(request.model_bytes)
        start = perf_counter()
        self._runner = backends.load(model, execution)
        elapsed = (perf_counter() - start) * 1e3
        return messages.Loaded(elapsed, backends.get(request.backend).version())

    def _loaded(self) -> Runner:
        if self._runner is None:
            raise MeasurementFailed("the measuring process was asked to run before a model was loaded")
        return self._runner


def block(runner: Runner, inputs: Inputs, min_ms: float, clock: Callable[[], float] = perf_counter) -> messages.Timed:
    """Calls for `min_ms`, after dropping those of the first tenth of that time (at least one): caches and clocks settle in them.

    At least three calls are timed, unless one alone fills the block.
    """
    run = runner.run
    gc.disable()
    try:
        start = clock()
        run(inputs)
        while clock() - start < min_ms / 10e3:
            run(inputs)
        samples: list[float] = []
        start = before = clock()
        while before - start < min_ms / 1e3 or (len(samples) < 3 and before - start < 4 * min_ms / 1e3):
            run(inputs)
            now = clock()
            samples.append((now - before) * 1e3)
            before = now
        return messages.Timed(len(samples), (before - start) * 1e3, [statistics.median(samples)])
    finally:
        gc.enable()


def sample(
    runner: Runner,
    inputs: Inputs,
    seconds: float,
    min_samples: int,
    keep: int,
    clock: Callable[[], float] = perf_counter,
    *,
    again: bool = False,
) -> messages.Timed:
    """Single calls, one at a time (MLPerf's SingleStream). The warm-up is a tenth of `seconds`, at least three calls; one call `again`.

    Where `seconds` hold more than `keep` calls, every k-th is kept, so that what is stored still spans the whole time.
    """
    run = runner.run
    warm: list[float] = []
    start = before = clock()
    while len(warm) < (1 if again else 3) or (not again and before - start < seconds / 10):
        run(inputs)
        now = clock()
        warm.append(now - before)
        before = now
    every = max(1, round(seconds / statistics.median(warm) / keep))
    samples: list[float] = []
    calls = 0
    gc.disable()
    try:
        start = before = clock()
        while before - start < seconds or len(samples) < min_samples:
            run(inputs)
            now = clock()
            if calls % every == 0:
                samples.append((now - before) * 1e3)
            calls += 1
            before = now
        return messages.Timed(calls, (before - start) * 1e3, samples, len(warm))
    finally:
        gc.enable()


def idle_bytes() -> int:
    """Resident memory now, with the high-water mark brought down to it where the system permits (man 5 proc, clear_refs: 5)."""
    with suppress(OSError):  # else the mark is that of the interpreter's start, which lies below any engine's
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS") or peak_bytes()


def peak_bytes() -> int:
    """High-water mark of resident memory. VmHWM, not ru_maxrss: that one is inherited from the parent through fork."""
    peak = _status("VmHWM")
    if peak is not None:
        return peak
    import resource  # POSIX without /proc: macOS, where ru_maxrss counts bytes

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def _status(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":")), None)


if __name__ == "__main__":
    main()
