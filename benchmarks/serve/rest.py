"""What a request costs over REST: CPU of the server and time of one client that asks one after the other, 16 and 37,632 floats.

Server and client have a core each, and a raw socket between them, so that the client's own library is in no figure. The model hands back
what it gets, inside a host in memory unless --host names another: what is measured is the way through sockets, HTTP, JSON and numpy.

    python benchmarks/serve/rest.py [--requests 2000] [--rounds 5] [--keys]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

SIZES = (16, 37_632)


@dataclass(frozen=True)
class Row:
    """cpu_us: of the server, a request, by round. p50_us, p99_us: of all requests of all rounds, as the client saw them."""

    floats: int
    form: str
    cpu_us: list[float]
    p50_us: float
    p99_us: float
    requests: int

    def __str__(self) -> str:
        spread = f"{min(self.cpu_us):.0f}–{max(self.cpu_us):.0f}"
        cpu = statistics.median(self.cpu_us)
        return f"{self.floats:>6} {self.form:<6}  CPU {cpu:6.0f} µs ({spread})   p50 {self.p50_us:6.0f} µs   p99 {self.p99_us:6.0f} µs"


def request(floats: int, form: str, key: str | None) -> bytes:
    array = np.random.default_rng(0).standard_normal((1, floats)).astype(np.float32)
    told: dict[str, object] = {"name": "x", "datatype": "FP32", "shape": [1, floats]}
    headers = [f"authorization: Bearer {key}"] if key else []
    if form == "binary":
        told["parameters"] = {"binary_data_size": array.nbytes}
        head = json.dumps({"inputs": [told], "parameters": {"binary_data_output": True}}).encode()
        body = head + array.tobytes()
        headers.append(f"inference-header-content-length: {len(head)}")
    else:
        # The shortest digits that give the float again, as people and most libraries write them.
        told["data"] = [float(str(value)) for value in array[0]]
        body = json.dumps({"inputs": [told]}).encode()
    lines = ["POST /v2/models/echo/infer HTTP/1.1", "host: localhost", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def exchange(connection: socket.socket, data: bytes, buffer: memoryview) -> int:
    """Bytes of the answer's body. Raises RuntimeError for any other than 200, ConnectionError."""
    connection.sendall(data)
    have = 0
    while True:
        have += _some(connection, buffer[have:])
        end = bytes(buffer[: min(have, 1024)]).find(b"\r\n\r\n")
        if end >= 0:
            break
    head = bytes(buffer[:end])
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(bytes(buffer[:have]).decode(errors="replace")[:500])
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while have < end + 4 + length:
        have += _some(connection, buffer[have:])
    return length


def _some(connection: socket.socket, buffer: memoryview) -> int:
    count = connection.recv_into(buffer)
    if not count:
        raise ConnectionError("the server closed the connection")
    return count


def measured(port: int, process: psutil.Process, floats: int, form: str, key: str | None, requests: int, rounds: int) -> Row:
    data, buffer = request(floats, form, key), memoryview(bytearray(4 << 20))
    times: list[float] = []
    cpu: list[float] = []
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(max(20, requests // 10)):
            exchange(connection, data, buffer)
        for _ in range(rounds):
            before = process.cpu_times()
            for _ in range(requests):
                began = time.perf_counter()
                exchange(connection, data, buffer)
                times.append(time.perf_counter() - began)
            after = process.cpu_times()
            cpu.append((after.user + after.system - before.user - before.system) / requests * 1e6)
    times.sort()
    return Row(floats, form, cpu, times[len(times) // 2] * 1e6, times[int(len(times) * 0.99)] * 1e6, len(times))


def serve(keys: str | None, host: str) -> None:
    """The server's process: until its parent closes its standard input."""
    import asyncio

    from edgewise.serve.config import Server
    from edgewise.serve.server import Edge, listening, standing
    from edgewise.testing.hosts import FakeHost, identity

    module, _, attribute = host.partition(":")
    opened = getattr(importlib.import_module(module), attribute) if host else lambda: standing(FakeHost({"echo": identity()}))
    edge = Edge(Server(keys=Path(keys) if keys else None), opened)

    async def until_closed() -> None:
        listener = listening("127.0.0.1", 0)
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), edge.stop)
        await edge.serve(listener, lambda where: print(where, flush=True))

    with asyncio.Runner(loop_factory=edge.loop_factory) as runner:
        runner.run(until_closed())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help="of 16 floats, in a round; a tenth of that of 37,632")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys", action="store_true", help="with a key in every request")
    parser.add_argument("--host", default="", help="module:function that gives the host, instead of the one in memory")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--key-file", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.key_file, given.host)
        return
    from edgewise.serve import keys

    cores = sorted(os.sched_getaffinity(0))
    key = keys.new_key() if given.keys else None
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, __file__, "--serve", "--host", given.host]
        if key:
            (Path(folder) / "keys.toml").write_text(keys.entry("bench", key))
            line += ["--key-file", str(Path(folder) / "keys.toml")]
        process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1])
            if len(cores) > 1:
                os.sched_setaffinity(process.pid, {cores[0]})
                os.sched_setaffinity(0, {cores[1]})
            rows = []
            for floats in SIZES:
                for form in ("binary", "json"):
                    count = given.requests if floats < 1000 else max(20, given.requests // 10)
                    rows.append(measured(port, psutil.Process(process.pid), floats, form, key, count, given.rounds))
                    print(rows[-1], flush=True)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
    if given.json:
        given.json.write_text(json.dumps([row.__dict__ for row in rows], indent=1))


if __name__ == "__main__":
    main()
