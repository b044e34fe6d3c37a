"""What `edgewise serve` adds to a model of a millisecond, and keeps of the throughput of one of five: beside the same runner in a loop.

The runner, in a process of its own, and the server share a core and take turns; the clients have the other core. One client gives the
added time, eight that each ask again as soon as they are answered the throughput. Binary REST. Beside the added time stands an exchange of
as many bytes with a process that does nothing but read them and write others back: no server can add less. Two kinds of model, for one row,
so that no two requests become one call: convolutions of a small picture, as a device's nets are, whose few weights stay in the cache; and
a chain of matrix products, 16 MB of weights to a millisecond, which leave the cache with nothing of the server in it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from asking import BINARY, Client, asked, client, median_us
from common import told
from contending import serving

from edgewise.graph import Graph
from edgewise.measure.statistics import median_interval
from edgewise.testing import graphs
from edgewise.types import Execution

WIDTH = 512
CHANNELS, SIDE = 48, 24
HEAD = 300  # bytes around a tensor, either way
KINDS = ("convolutions", "matrices")
SHAPES = {"convolutions": (1, 3, SIDE, SIDE), "matrices": (1, WIDTH)}
CLIENTS = 8
EXECUTION = Execution("onnxruntime")
ECHO = """
import socket, sys
request, answer = int(sys.argv[1]), bytes(int(sys.argv[2]))
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
left = request
while piece := connection.recv(left):
    left -= len(piece)
    if not left:
        connection.sendall(answer)
        left = request
"""
BAR_US, BAR_SHARE = 120.0, 0.9


def net(kind: str, length: int) -> Graph:
    """So many layers on one row: of 3x3 convolutions (1, 3, 24, 24) -> (1, 48, 24, 24), or of square matrices (1, 512) -> (1, 512)."""
    random = np.random.default_rng(0)
    names = ["x", *(f"h{i}" for i in range(length - 1)), "y"]
    weights, nodes = dict[str, np.ndarray](), list[graphs.Node]()
    for i in range(length):
        if kind == "matrices":
            weights[f"w{i}"] = random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5
            nodes.append(("MatMul", [names[i], f"w{i}"], [names[i + 1]]))
        else:
            inner = CHANNELS if i else 3
            weights[f"w{i}"] = random.standard_normal((CHANNELS, inner, 3, 3)).astype(np.float32) / (9 * inner) ** 0.5
            nodes.append(("Conv", [names[i], f"w{i}"], [names[i + 1]], {"pads": [1, 1, 1, 1]}))
    shape = SHAPES[kind]
    nodes.append(("ReduceMean", ["y"], ["mean"], {"keepdims": 1}))  # so that what is answered is small
    return Graph.from_proto(graphs.build(nodes, {"x": shape}, {"mean": (1,) * len(shape)}, weights))


class Alone:
    """The runner by itself, in a process on the server's core: asked for so many seconds of calls, it tells what each took."""

    def __init__(self, model: Path, kind: str, core: int) -> None:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        try:
            line = ["timeout", "3600", sys.executable, __file__, str(model), kind]
            self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        finally:
            os.sched_setaffinity(0, before)

    def times(self, seconds: float) -> list[float]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the runner's process ended with {self._process.wait(5)}")
        return json.loads(line)

    def close(self) -> None:
        """Its standard input ends, and so does it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()


class Floor:
    """What a request of so many bytes and an answer of so many take by themselves, between a process on the server's core and this one."""

    def __init__(self, request: int, answer: int, core: int) -> None:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        try:
            line = ["timeout", "3600", sys.executable, "-c", ECHO, str(request), str(answer)]
            self._process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        finally:
            os.sched_setaffinity(0, before)
        assert self._process.stdout is not None
        self._connection = socket.create_connection(("127.0.0.1", int(self._process.stdout.readline())), timeout=10)
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data, self._answer = bytes(request), answer

    def ask(self) -> int:
        self._connection.sendall(self._data)
        left = self._answer
        while left:
            left -= len(self._connection.recv(left))
        return self._answer

    def close(self) -> None:
        """Its connection ends, and so does it."""
        self._connection.close()
        self._process.wait(10)


def answer_calls(model: Path, kind: str) -> None:
    """The process of `Alone`."""
    from edgewise.host import loading

    runner = loading.Runners(loading.Model((model.read_bytes(),), EXECUTION), eager=True)
    inputs = {"x": np.ones(SHAPES[kind], np.float32)}
    for line in sys.stdin:
        times: list[float] = []
        until = time.perf_counter() + float(line)
        while not times or time.perf_counter() < until:
            began = time.perf_counter()
            runner.run(inputs)
            times.append(time.perf_counter() - began)
        print(json.dumps(times), flush=True)


def length_for(kind: str, milliseconds: float, core: int, folder: Path) -> int:
    """Layers of a net whose call takes about so long on that core: guessed three times, as one that the cache can't hold takes longer."""
    length = max(2, round((16 if kind == "matrices" else 4) * milliseconds))
    for turn in range(3):
        path = folder / f"trial{turn}.onnx"
        net(kind, length).save(path)
        with contextlib.closing(Alone(path, kind, core)) as alone:
            alone.times(0.2)
            # What disturbs only ever lengthens a call.
            took = float(np.percentile(alone.times(1.0), 25))
        path.unlink()
        length = max(2, round(length * milliseconds / 1e3 / took))
    return length


@contextlib.contextmanager
def standing(name: str, kind: str, length: int, folder: Path, core: int, limit_s: int) -> Iterator[tuple[Alone, list[Client]]]:
    """The runner, and clients of the server that has the same model."""
    (folder / name / "1").mkdir(parents=True)
    path = folder / name / "1" / "model.onnx"
    net(kind, length).save(path)
    array = np.ones(SHAPES[kind], np.float32)
    with contextlib.ExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = f'[models.{name}]\nbackend = "{EXECUTION.backend}"\nthreads = {EXECUTION.threads}\n'
        _, rest, grpc = stack.enter_context(serving(folder, own, core, limit_s, config, name))
        alone = stack.enter_context(contextlib.closing(Alone(path, kind, core)))
        clients = [stack.enter_context(contextlib.closing(client(BINARY, array, rest, grpc, name))) for _ in range(CLIENTS)]
        clients[0].ask()  # the model is loaded for the first request
        yield alone, clients


def added(alone: Alone, one: Client, floor: Floor, rounds: int, seconds: float) -> dict[str, Any]:
    """µs at the median, of every round."""
    alone.times(seconds / 2)
    asked(one, seconds / 2)
    own, served, empty = [], [], []
    for turn in range(rounds):
        empty.append(median_us(asked(floor, seconds / 3)))
        if turn % 2:
            served.append(median_us(asked(one, seconds)))
        own.append(median_us(alone.times(seconds)))
        if not turn % 2:
            served.append(median_us(asked(one, seconds)))
    more = median_interval([b - a for a, b in zip(own, served, strict=True)])
    return {
        "runner_p50_us": told(median_interval(own), digits=1),
        "served_p50_us": told(median_interval(served), digits=1),
        "empty_exchange_us": told(median_interval(empty), digits=1),
        "added_us": told(more, digits=1),
        "met": more.value <= BAR_US,
    }


def per_second(clients: list[Client], seconds: float) -> float:
    """Answers a second while every client has a request under way: between the first and the last answer that came before the end."""
    until = time.perf_counter() + seconds
    instants: list[float] = []
    failed: list[BaseException] = []

    def keep_asking(one: Client) -> None:
        try:
            while time.perf_counter() < until:
                one.ask()
                instants.append(time.perf_counter())
        except (RuntimeError, OSError) as error:
            failed.append(error)

    threads = [threading.Thread(target=keep_asking, args=(one,)) for one in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    within = sorted(each for each in instants if each <= until)
    return (len(within) - 1) / (within[-1] - within[0])


def saturated(alone: Alone, clients: list[Client], rounds: int, seconds: float) -> dict[str, Any]:
    alone.times(seconds / 2)
    per_second(clients, seconds / 2)
    own, served = [], []
    for turn in range(rounds):
        if turn % 2:
            served.append(per_second(clients, seconds))
        times = alone.times(seconds)
        own.append(len(times) / sum(times))
        if not turn % 2:
            served.append(per_second(clients, seconds))
    share = median_interval([b / a for a, b in zip(own, served, strict=True)])
    return {
        "clients": len(clients),
        "runner_per_s": told(median_interval(own), digits=1),
        "served_per_s": told(median_interval(served), digits=1),
        "share": told(share),
        "met": share.value >= BAR_SHARE,
    }


def compared(rounds: int, seconds: float, core: int, limit_s: int) -> dict[str, Any]:
    """Of each kind of model, one of a millisecond and one of five."""
    found = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            lengths = {ms: length_for(kind, ms, core, folder) for ms in (1, 5)}
            with standing("millisecond", kind, lengths[1], folder / "one", core, limit_s) as (alone, clients):
                sent = 4 * math.prod(SHAPES[kind]) + HEAD
                with contextlib.closing(Floor(sent, HEAD, core)) as floor:
                    one = added(alone, clients[0], floor, rounds, seconds)
            # A round is to hold some hundred requests.
            with standing("five", kind, lengths[5], folder / "five", core, limit_s) as (alone, clients):
                five = saturated(alone, clients, rounds, max(1.0, 2 * seconds))
        more, share = one["added_us"], five["share"]
        print(f"{kind}, one client: {one['runner_p50_us']['value']:.0f} µs alone, served {one['served_p50_us']['value']:.0f} µs, ", end="")
        print(f"added {more['value']:.0f} µs [{more['low']:.0f}, {more['high']:.0f}], n={more['n']} rounds; ", end="")
        print(f"an empty exchange {one['empty_exchange_us']['value']:.0f} µs")
        print(f"{kind}, {CLIENTS} clients: {five['runner_per_s']['value']:.1f} calls/s alone, ", end="")
        print(f"served {five['served_per_s']['value']:.1f}, ", end="")
        print(f"{100 * share['value']:.1f} % [{100 * share['low']:.1f}, {100 * share['high']:.1f}], n={share['n']} rounds", flush=True)
        found[kind] = {"layers": lengths, "added": one, "saturated": five}
    return found


if __name__ == "__main__":
    answer_calls(Path(sys.argv[1]), sys.argv[2])
