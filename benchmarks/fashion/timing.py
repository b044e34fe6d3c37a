"""Packages of the Fashion family timed by other hands: the graph is taken out of each package, and held against the dense net in true fp32.

    python benchmarks/fashion/timing.py [PACKAGE.edgew ...] [--half-width 0.01] [--seconds 90]

Of edgewise it knows the package, and the export of the dense net; time is taken with ONNX Runtime's and OpenVINO's own interfaces and a
clock. Two processes on the same core answer in turn, A B B A, in blocks of at least 50 ms, while the other waits in a read. Both start anew
every ten pairs: where memory lies in one process moves a small net's time by a percent or two. The ratio is the median over pairs.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Processes that measure import this file anew, so edgewise and torch are imported where they are used, and not by them.
HERE = Path(__file__).parent
FAMILY = HERE.parent / "results" / "fashion-family"
ENGINES = ("onnxruntime", "openvino")

BLOCK_MS = 50
FIRST_CALLS = 3  # of a block: caches are filled with the other side's data
RENEW = 10  # pairs
LOOKS = (30, 60, 120, 240, 480)  # pairs after which the interval is looked at: few, for each look is a chance to stop too early


class Side(NamedTuple):
    """A model and how it runs."""

    model: bytes
    engine: str
    precision: str = "fp32"
    threads: int = 1
    options: tuple[tuple[str, str], ...] = ()


class Ratio(NamedTuple):
    """Time of the first over time of the second, with a 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def told(self) -> dict[str, float]:
        return {"value": round(self.value, 3), "low": round(self.low, 3), "high": round(self.high, 3), "n": self.n}


def onnxruntime_call(side: Side, feed: dict[str, np.ndarray]) -> Callable[[], Any]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when it is imported
    import onnxruntime as engine

    options = engine.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = side.threads, 1
    options.log_severity_level = 4
    for name, value in side.options:
        if name != "avx2_precise":
            raise SystemExit(f"option {name}={value} of ONNX Runtime: this script doesn't know what it stands for")
        options.add_session_config_entry("session.x64quantprecision", value)
    options.add_free_dimension_override_by_name("batch", 1)
    session = engine.InferenceSession(side.model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feed)


def openvino_call(side: Side, feed: dict[str, np.ndarray]) -> Callable[[], Any]:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it would report every import
    import openvino as engine

    hint = {"fp32": "f32", "bf16": "bf16"}[side.precision]  # without it "fp32" runs in bf16 where the CPU can
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": side.threads, "NUM_STREAMS": 1}
    config |= {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    for name, value in side.options:
        if name != "dynamic_quantization":
            raise SystemExit(f"option {name}={value} of OpenVINO: this script doesn't know what it stands for")
        config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = int(value)
    core = engine.Core()
    # A model that OpenVINO's own tools made lies in two files, the first of which is named.
    model = core.read_model(side.model.decode() if side.model.endswith(b".xml") else side.model)
    model.reshape({name: list(array.shape) for name, array in feed.items()})
    request = core.compile_model(model, "CPU", config).create_infer_request()
    for name, array in feed.items():
        request.set_tensor(name, engine.Tensor(array, shared_memory=True))
    return lambda: request.infer(share_outputs=True).to_tuple()[0].copy()


def litert_call(side: Side, feed: dict[str, np.ndarray]) -> Callable[[], Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=side.model, num_threads=side.threads)
    interpreter.allocate_tensors()
    places = {one["name"].split(":")[0].removeprefix("serving_default_"): one for one in interpreter.get_input_details()}
    given = [(places[name]["index"], array.astype(places[name]["dtype"])) for name, array in feed.items()]
    made = interpreter.get_output_details()[0]["index"]

    def call() -> Any:
        for place, array in given:
            interpreter.set_tensor(place, array)
        interpreter.invoke()
        return interpreter.get_tensor(made)

    return call


CALLS = {"onnxruntime": onnxruntime_call, "openvino": openvino_call, "litert": litert_call}


def answer(pipe: Connection, side: Side, feed: dict[str, np.ndarray], cores: tuple[int, ...]) -> None:
    """A process that measures: one block for each message, until it gets None."""
    os.sched_setaffinity(0, cores)
    call = CALLS[side.engine](side, feed)
    pipe.send(True)
    while pipe.recv():
        for _ in range(FIRST_CALLS):
            call()
        times: list[float] = []
        began = last = time.perf_counter()
        while last - began < BLOCK_MS / 1000 or len(times) < 5:
            call()
            now = time.perf_counter()
            times.append(now - last)
            last = now
        pipe.send(statistics.median(times))


@contextlib.contextmanager
def running(sides: tuple[Side, Side], feed: dict[str, np.ndarray], cores: tuple[int, ...]) -> Iterator[list[Connection]]:
    """Both sides in processes of their own; their first block warms them up and isn't counted."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for side in sides:
        ours, theirs = context.Pipe()
        process = context.Process(target=answer, args=(theirs, side, feed, cores), daemon=True)
        process.start()
        theirs.close()  # so that a process that dies is an EOFError here, and no endless wait
        ours.recv()
        block(ours)
        pipes.append(ours)
        processes.append(process)
    try:
        yield pipes
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.send(None)
            process.join(10)


def block(pipe: Connection) -> float:
    """Seconds of a call, the median over a block."""
    pipe.send(True)
    found: float = pipe.recv()
    return found


def compared(first: Side, second: Side, feed: dict[str, np.ndarray], half_width: float, seconds: float) -> Ratio:
    """How many times faster the second is."""
    available = sorted(os.sched_getaffinity(0))
    cores = tuple(available[-first.threads :])
    os.sched_setaffinity(0, set(available) - set(cores) or available)
    began, pairs = time.monotonic(), []
    try:
        while True:
            with running((first, second), feed, cores) as (a, b):
                for number in range(RENEW):
                    if number % 2 == 0:
                        one, other = block(a), block(b)
                    else:
                        other, one = block(b), block(a)
                    pairs.append(one / other)
            late = time.monotonic() - began > seconds
            if len(pairs) in LOOKS or late:
                ratio = median(pairs)
                if late or len(pairs) >= LOOKS[-1] or (ratio.high - ratio.low) / 2 <= half_width * ratio.value:
                    return ratio
    finally:
        os.sched_setaffinity(0, available)


def median(values: list[float]) -> Ratio:
    """With an interval that assumes no distribution: between the k-th lowest and the k-th highest of n lies the true median, unless a fair
    coin falls fewer than k times of n on one side. k is the largest for which that has a probability of at most 5 %."""
    ordered, n = sorted(values), len(values)
    below, k = 0, 0
    while (below + math.comb(n, k)) * 2 <= 0.05 * 2**n:
        below += math.comb(n, k)
        k += 1
    k = max(k, 1)
    return Ratio(statistics.median(ordered), ordered[k - 1], ordered[n - k], n)


def dense() -> bytes:
    """The Fashion net as trained, in fp32."""
    import edgewise as ew

    module: Any = ew.models.intake("edgewise.models.resnet:resnet20", weights=HERE / "resnet20.safetensors").module
    return ew.export.export(module, {"image": np.zeros((2, 1, 28, 28), np.float32)}, output_names=["logits"]).to_bytes()


def reference(model: bytes, feed: dict[str, np.ndarray], given: argparse.Namespace) -> tuple[Side, Ratio]:
    """The dense net on the engine where it is fastest, and the other engine's time over its."""
    one, other = (Side(model, engine) for engine in ENGINES)
    ratio = compared(one, other, feed, given.half_width, given.seconds)
    if ratio.value < 1:
        return one, Ratio(1 / ratio.value, 1 / ratio.high, 1 / ratio.low, ratio.n)
    return other, ratio


def timed(path: Path, base: Side, feed: dict[str, np.ndarray], given: argparse.Namespace) -> dict[str, Any]:
    """A row of the table: what was asked, what the package says of itself, what is found here."""
    import edgewise as ew

    package = ew.package.open(path)
    execution, measured = package.execution, package.manifest.measured
    if execution is None or measured is None:
        raise SystemExit(f"{path}: this package says nothing of how it runs; give one that fit made")
    side = Side(package.model_bytes(), execution.backend, execution.precision, execution.threads, tuple(execution.options.items()))
    asked = next((outcome.asked for outcome in measured.outcomes if outcome.limit == "speedup"), None)
    found = compared(base._replace(threads=side.threads), side, feed, given.half_width, given.seconds)
    claimed = measured.speedup
    return {
        "package": str(Path(*path.parts[-2:])),
        "content_id": package.content_id,
        "execution": str(execution),
        "asked": asked,
        "claimed": Ratio(claimed.value, claimed.low, claimed.high, claimed.n).told(),
        "claimed_on": str(package.manifest.provenance.reference),
        "found": found.told(),
        "half_width": round((found.high - found.low) / 2 / found.value, 4),
        "met": None if asked is None else found.value >= 0.98 * asked,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", type=Path, help="left out, the members of benchmarks/results/fashion-family")
    parser.add_argument("--half-width", type=float, default=0.01, help="of the interval, relative, at which a comparison may end")
    parser.add_argument("--seconds", type=float, default=90.0, help="after which it ends all the same")
    given = parser.parse_args()
    packages = given.packages or sorted(FAMILY.glob("*/model.edgew"), key=lambda path: float(path.parent.name.removesuffix("x")))
    if not packages:
        raise SystemExit("there is no package in benchmarks/results/fashion-family; run benchmarks/fashion/family.py, or name packages")
    sys.path.insert(0, str(HERE.parent))
    from common import record

    feed = {"image": np.random.default_rng(0).standard_normal((1, 1, 28, 28), dtype=np.float32)}
    base, lead = reference(dense(), feed, given)
    print(f"reference: {base.engine} in true fp32, {lead.value:.2f}x [{lead.low:.2f}, {lead.high:.2f}] as fast as the other engine\n")
    print(f"{'package':24} {'asked':>6}  {'claimed':>20}  {'found':>20}  {'half':>5}  met")
    rows = []
    for path in packages:
        rows.append(row := timed(path, base, feed, given))
        claimed, found = ("{value:5.2f} [{low:.2f}, {high:.2f}]".format(**row[key]) for key in ("claimed", "found"))
        asked = f"{row['asked']:.2f}x" if row["asked"] else "-"
        print(f"{row['package']:24} {asked:>6}  {claimed:>20}  {found:>20}  {row['half_width']:5.1%}  {row['met']}", flush=True)
    record(
        "fashion-timing",
        {
            "bar": "an independent timing finds each package's speedup from 2 % below what was asked upwards",
            "reference": base.engine,
            "reference_lead": lead.told(),
            "packages": rows,
            "met": all(row["met"] for row in rows if row["met"] is not None),
        },
    )


if __name__ == "__main__":
    main()
