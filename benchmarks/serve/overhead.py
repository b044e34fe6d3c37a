"""What a host adds to a call: one client, one request at a time, against the same runner called by itself, in turns.

    python benchmarks/serve/overhead.py [--calls N] [--loop asyncio|uvloop]

An identity model of 16 floats, and a chain of matrix products that takes about a millisecond; each with its calls in the event loop, as a
host on one core does it, and with `inline_ms=0`, which sends all of them to a thread. Added: difference of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgewise.graph import Graph
from edgewise.host import loading
from edgewise.host.hosting import LocalHost
from edgewise.host.requests import Request
from edgewise.host.settings import Settings
from edgewise.testing import graphs
from edgewise.types import Execution, Inputs, Runner

BLOCK = 100


def identity() -> Graph:
    return Graph.from_proto(graphs.build([("Identity", ["x"], ["y"])], {"x": ("batch", 16)}, {"y": ("batch", 16)}, {}))


def chain(length: int, width: int = 512) -> Graph:
    """So many products of a row with a square matrix."""
    random = np.random.default_rng(0)
    weights = {f"w{i}": random.standard_normal((width, width)).astype(np.float32) / width**0.5 for i in range(length)}
    names = ["x", *(f"h{i}" for i in range(length - 1)), "y"]
    nodes: list[graphs.Node] = [("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(length)]
    return Graph.from_proto(graphs.build(nodes, {"x": ("batch", width)}, {"y": ("batch", width)}, weights))


def a_millisecond() -> Graph:
    """The chain whose call takes about a millisecond here."""
    graph = chain(16)
    runner = runner_of(graph)
    taken = list(timed(runner, {"x": np.ones((1, 512), np.float32)}, 200))
    return chain(max(2, round(16 * 1e-3 / statistics.median(taken))))


def runner_of(graph: Graph) -> Runner:
    return loading.Runners(loading.Model((graph.to_bytes(),), Execution("onnxruntime")), eager=True)


def timed(runner: Runner, inputs: Inputs, calls: int) -> Iterator[float]:
    for _ in range(calls):
        began = time.perf_counter()
        runner.run(inputs)
        yield time.perf_counter() - began


async def measured(folder: Path, name: str, inputs: Inputs, calls: int, inline_ms: float | None) -> tuple[float, float, float, float]:
    """Medians, by itself and hosted, in µs; the hosted one's p99, and the host's CPU time a request beyond the runner's."""
    host = LocalHost(folder, Settings(inline_ms=inline_ms, poll_s=0, curves=False, cores=1))
    await host.start()
    alone = runner_of(Graph.load(folder / f"{name}.onnx"))
    own: list[float] = []
    hosted: list[float] = []
    cpu = [0.0, 0.0]
    try:
        request = Request(name, inputs)
        for _ in range(200):
            await host.infer(request)
            alone.run(inputs)
        for _ in range(calls // BLOCK):
            before = time.process_time()
            own += timed(alone, inputs, BLOCK)
            middle = time.process_time()
            for _ in range(BLOCK):
                began = time.perf_counter()
                await host.infer(request)
                hosted.append(time.perf_counter() - began)
            cpu[0] += middle - before
            cpu[1] += time.process_time() - middle
    finally:
        alone.close()
        await host.close()
    p99 = float(np.percentile(hosted, 99))
    return statistics.median(own) * 1e6, statistics.median(hosted) * 1e6, p99 * 1e6, (cpu[1] - cpu[0]) / len(hosted) * 1e6


async def main(calls: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = {"identity": (identity(), 16), "millisecond": (a_millisecond(), 512)}
        print(f"{'model':<14}{'calls in':<12}{'alone µs':>10}{'hosted µs':>11}{'added µs':>10}{'p99 µs':>9}{'added CPU µs':>14}")
        for name, (graph, width) in models.items():
            graph.save(folder / f"{name}.onnx")
            inputs = {"x": np.ones((1, width), np.float32)}
            for place, inline_ms in (("loop", None), ("thread", 0.0)):
                own, hosted, p99, cpu = await measured(folder, name, inputs, calls, inline_ms)
                print(f"{name:<14}{place:<12}{own:>10.1f}{hosted:>11.1f}{hosted - own:>10.1f}{p99:>9.0f}{cpu:>14.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    given = parser.parse_args()
    if given.loop == "uvloop":
        import uvloop

        uvloop.run(main(given.calls))
    else:
        asyncio.run(main(given.calls))
