"""`edgewise serve` as a user starts it, in a process of its own on a core of its own, and clients that ask it from the others.

What the scripts here share. The client is a socket and a few bytes of HTTP, so that no library's time is in a figure.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import uvloop
from ending import started

from edgewise import measure, package
from edgewise.data import drawn
from edgewise.graph import Graph
from edgewise.serve import tensors
from edgewise.testing import graphs
from edgewise.types import Execution, Inputs

T = TypeVar("T")
EDGEWISE = (sys.executable, "-m", "edgewise")
START_S = 60.0
CORES = sorted(os.sched_getaffinity(0))  # of this process as it was started


def matrices(length: int, width: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.standard_normal((width, width)).astype(np.float32) / np.float32(width**0.5) for _ in range(length)]


def chain(length: int, width: int, batch: str | int = "batch", seed: int = 0) -> Graph:
    """So many products of rows with square matrices, x (batch, width) -> y (batch, width): bound by its weights where they outgrow a
    cache.
    """
    weights = {f"w{i}": matrix for i, matrix in enumerate(matrices(length, width, seed))}
    names = ["x", *(f"h{i}" for i in range(length - 1)), "y"]
    nodes: list[graphs.Node] = [("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(length)]
    return Graph.from_proto(graphs.build(nodes, {"x": (batch, width)}, {"y": (batch, width)}, weights))


def keep(graph: Graph, models: Path, name: str, version: int = 1) -> Path:
    """As models/NAME/VERSION/model.edgew, complete when it is there. Whether rows are independent is found out, as `edgewise fit` does."""
    path = models / name / str(version) / "model.edgew"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = None
    if graph.signature.batched:
        rows = measure.rows(graph, Execution("onnxruntime"), drawn.inputs(graph.signature, batch=3, tokens=8)).verdict
    package.build(graph, created="", coders="none", version=version, rows=rows).save(path)
    return path


def server_core() -> int:
    return CORES[0]


def on_others() -> None:
    """This process, from now on, on the cores that the server hasn't got."""
    others = set(CORES) - {server_core()}
    if not others:
        print("one core alone: server and clients share it, and no figure here is worth anything", file=sys.stderr)
        return
    os.sched_setaffinity(0, others)


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int
    log: Path
    grpc_port: int = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    def rss(self) -> int:
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:  # noqa: PTH123 (read every few ms: no Path in between)
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def connections(self) -> int:
        """Open files that are sockets."""
        count = 0
        for one in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                count += str(one.readlink()).startswith("socket:")
        return count

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.is_file() else ""

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 40.0) -> int:
        """How it ended: its exit status. Raises subprocess.TimeoutExpired where it doesn't, and ends it then."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextlib.contextmanager
def served(
    models: Path, scratch: Path, *options: str, toml: str = "", program: Sequence[str] = EDGEWISE, env: dict[str, str] | None = None
) -> Iterator[Server]:
    """The server over `models`, ready. toml: its settings. program: what is run instead of edgewise. Its words are kept in
    scratch/serve.log.

    Raises RuntimeError, with what it said, where it doesn't start.
    """
    server = start(models, scratch, *options, toml=toml, program=program, env=env)
    try:
        yield server
    finally:
        server.stop()


def start(
    models: Path,
    scratch: Path,
    *options: str,
    toml: str = "",
    program: Sequence[str] = EDGEWISE,
    env: dict[str, str] | None = None,
    port: int = 0,
    log: Path | None = None,
) -> Server:
    """As `served`, to be stopped by whoever asked; it doesn't outlive the script, whatever ends that (Linux, PR_SET_PDEATHSIG)."""
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "serve.toml").write_text(toml)
    log = log or scratch / "serve.log"
    line = [*program, "serve", models, "--port", str(port), "--config", scratch / "serve.toml", *options]
    with log.open("a") as words:
        process = started(
            [str(part) for part in line],
            server_core(),
            stdout=subprocess.PIPE,
            stderr=words,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )
    atexit.register(_end, process)
    assert process.stdout is not None
    timer = threading.Timer(START_S, process.kill)
    timer.start()
    try:
        found = re.search(r"http://[^\s/]+:(\d+)", process.stdout.readline())
    finally:
        timer.cancel()
    if found is None:
        process.kill()
        process.wait()
        raise RuntimeError(f"it doesn't start: {log.read_text()[-2000:]}")
    return Server(process, int(found[1]), log)


def _end(process: subprocess.Popen[str]) -> None:
    """None outlives the script, whatever became of that."""
    if process.poll() is None:
        process.kill()
        process.wait()


@dataclass(frozen=True, slots=True)
class Reply:
    """status 0: the connection ended without an answer. sent_s, answered_s: of the monotonic clock."""

    status: int
    body: bytes
    head: bytes
    sent_s: float
    answered_s: float

    @property
    def seconds(self) -> float:
        return self.answered_s - self.sent_s

    @property
    def error(self) -> str:
        """What the server said, where it refused."""
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            return self.body[:200].decode(errors="replace")

    def array(self, place: int = 0) -> np.ndarray:
        """Of the output at that place, which came as binary tensors. Raises ValueError where none did."""
        match = re.search(rb"(?i)inference-header-content-length: *(\d+)", self.head)
        if match is None:
            raise ValueError(f"{self.status}: no binary tensors in this answer: {self.error}")
        at = int(match[1])
        for number, told in enumerate(json.loads(self.body[:at])["outputs"]):
            size = told["parameters"]["binary_data_size"]
            if number == place:
                return tensors.from_bytes(memoryview(self.body)[at : at + size], told["datatype"], told["shape"])
            at += size
        raise ValueError(f"no output {place}")


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.closed = False
        self._have = bytearray()
        self._whole = 0
        self._body_at = 0
        self._answer: asyncio.Future[Reply] | None = None
        self._sent = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self, data: bytes) -> asyncio.Future[Reply]:
        self._answer = asyncio.get_running_loop().create_future()
        self._have.clear()
        self._whole = 0
        self._sent = time.monotonic()
        self.transport.write(data)
        return self._answer

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self._have += data
        if not self._whole:
            end = self._have.find(b"\r\n\r\n")
            if end < 0:
                return
            found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self._have[: end + 2])
            self._body_at = end + 4
            self._whole = self._body_at + (int(found[1]) if found else 0)
        if len(self._have) >= self._whole and self._answer is not None and not self._answer.done():
            head = bytes(self._have[: self._body_at])
            self._answer.set_result(Reply(int(head[9:12]), bytes(self._have[self._body_at : self._whole]), head, self._sent, now))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Reply(0, b"", b"", self._sent, time.monotonic()))


@dataclass
class Client:
    """Connections to a server, as many as are asked on at one time: a request never waits here for another's answer."""

    port: int
    free: list[Connection] = field(default_factory=list)
    made: int = 0

    async def ask(self, data: bytes, seconds: float = 60.0) -> Reply:
        """Raises TimeoutError: whatever is asked, something must be answered."""
        connection = await self._one()
        try:
            reply = await asyncio.wait_for(connection.ask(data), seconds)
        except BaseException:
            connection.transport.abort()
            raise
        if not connection.closed:
            self.free.append(connection)
        return reply

    async def get(self, path: str) -> Reply:
        return await self.ask(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())

    async def post(self, path: str, body: bytes = b"", headers: str = "") -> Reply:
        return await self.ask(posted(path, body, headers))

    async def warm(self, connections: int) -> None:
        self.free += [await self._one() for _ in range(connections)]

    async def _one(self) -> Connection:
        while self.free:
            connection = self.free.pop()
            if not connection.closed:
                return connection
        self.made += 1
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self.port)
        return connection

    def close(self) -> None:
        for connection in self.free:
            connection.transport.abort()


def posted(path: str, body: bytes = b"", headers: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


def request(model: str, inputs: Inputs, timeout_s: float | None = None) -> bytes:
    """An infer request with binary tensors both ways, to the last byte. timeout_s: its deadline."""
    told = [
        {"name": name, "datatype": tensors.datatype_of(array.dtype), "shape": array.shape, "parameters": {"binary_data_size": array.nbytes}}
        for name, array in inputs.items()
    ]
    parameters: dict[str, Any] = {"binary_data_output": True}
    if timeout_s is not None:
        parameters["timeout"] = round(timeout_s * 1e6)
    head = json.dumps({"inputs": told, "parameters": parameters}).encode()
    body = b"".join((head, *(array.tobytes() for array in inputs.values())))
    return posted(f"/v2/models/{model}/infer", body, f"inference-header-content-length: {len(head)}\r\n")


async def saturated(client: Client, take: Callable[[], bytes], clients: int, seconds: float) -> list[Reply]:
    """So many clients, each of which asks as soon as it is answered: all replies that came within `seconds`."""
    replies: list[Reply] = []
    until = time.monotonic() + seconds

    async def one() -> None:
        while time.monotonic() < until:
            replies.append(await client.ask(take()))

    await asyncio.gather(*(one() for _ in range(clients)))
    return [reply for reply in replies if reply.answered_s <= until]


def asking(work: Callable[[], Awaitable[T]]) -> T:
    """Run a client's work on uvloop, and without the garbage collector, whose pauses would be taken for the server's."""

    async def run() -> T:
        return await work()

    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        return uvloop.run(run())
    finally:
        gc.enable()
        gc.unfreeze()


def stolen() -> float | None:
    """Seconds that the hypervisor gave to others, of all cores together, since boot; None where the kernel doesn't say (/proc/stat,
    "steal").
    """
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        return int(fields[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None


class Sampled:
    """What `read` gives, every so often, in a thread."""

    def __init__(self, read: Callable[[], int], every_s: float) -> None:
        self.values: list[int] = []
        self._read, self._every_s = read, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def _work(self) -> None:
        while not self._over.wait(self._every_s):
            with contextlib.suppress(OSError, IndexError):  # it has ended
                self.values.append(self._read())

    def __enter__(self) -> Sampled:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float | int]:
    """For a result file: p50, p99, p99.9 and the maximum."""
    if not seconds:
        return {"n": 0}
    p50, p99, p999 = (round(1e3 * float(value), 3) for value in np.percentile(seconds, (50, 99, 99.9), method="inverted_cdf"))
    return {"p50": p50, "p99": p99, "p99.9": p999, "max": round(1e3 * max(seconds), 3), "n": len(seconds)}


def of(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's values in Prometheus's text, over whatever labels aren't given."""
    total = 0.0
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name and all(f'{key}="{value}"' in (found[2] or "") for key, value in labels.items()):
            total += float(found[3])
    return total
