"""From a coded package to the first inference, against ONNX Runtime from the raw ONNX file: what decoding costs a cold start.

python benchmarks/coded_load.py [MODEL.onnx] [--rounds N]

Without MODEL, 40 int8 matrices of 512 × 512 (10.5 M weights), normally distributed. Every sample is a process of its own, on one core; they
take turns. Time runs from the file, in the page cache, to the first answer; interpreter and imports are not in it. Ratios are medians of
pairs with their 95 % intervals.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))

from common import record, told

from edgewise import backends, package
from edgewise.graph import Graph
from edgewise.measure.statistics import median_interval
from edgewise.types import Execution

CODERS: tuple[package.Coders, ...] = ("none", "fast", "all")
SIDE, LAYERS = 512, 40


def synthetic() -> Graph:
    random = np.random.default_rng(0)
    nodes, weights, last = [], [numpy_helper.from_array(np.float32(1e-3), "step")], "x"
    for i in range(LAYERS):
        matrix = np.rint(random.normal(0, 25, (SIDE, SIDE))).clip(-127, 127).astype(np.int8)
        weights.append(numpy_helper.from_array(matrix, f"w{i}"))
        nodes += [
            helper.make_node("DequantizeLinear", [f"w{i}", "step"], [f"d{i}"]),
            helper.make_node("MatMul", [last, f"d{i}"], [f"h{i}"]),
        ]
        last = f"h{i}"
    x, y = (helper.make_tensor_value_info(name, 1, ["batch", SIDE]) for name in ("x", last))
    model = helper.make_model(
        helper.make_graph(nodes, "layers", [x], [y], weights), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    return Graph.from_proto(model)


def first_answer(path: Path) -> float:
    """Milliseconds, in this process."""
    began = time.perf_counter()
    model = package.open(path).model_bytes() if path.suffix == ".edgew" else path.read_bytes()
    runner = backends.load(model, Execution("onnxruntime"))
    runner.run({spec.name: np.zeros(spec.concrete(), spec.dtype) for spec in runner.signature.inputs})
    return (time.perf_counter() - began) * 1e3


def sample(path: Path) -> float:
    done = subprocess.run([sys.executable, __file__, "--once", path], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if given.once is not None:
        import onnxruntime  # noqa: F401  (both sides need it; its import is no part of what is compared)

        print(first_answer(given.once))
        return
    graph = Graph.load(given.model) if given.model else synthetic()
    with tempfile.TemporaryDirectory() as scratch:
        files = {"raw ONNX": Path(scratch) / "raw.onnx"}
        graph.save(files["raw ONNX"])
        for coders in CODERS:
            files[f"package, {coders}"] = Path(scratch) / f"{coders}.edgew"
            package.build(graph, created="", coders=coders).save(files[f"package, {coders}"])
        samples: dict[str, list[float]] = {name: [] for name in files}
        for _ in range(given.rounds):
            for name, path in files.items():
                samples[name].append(sample(path))
        rows: dict[str, Any] = {}
        raw = samples["raw ONNX"]
        for name, path in files.items():
            times, ratio = median_interval(samples[name]), median_interval([a / b for a, b in zip(samples[name], raw, strict=True)])
            rows[name] = {"bytes": path.stat().st_size, "first_answer_ms": told(times), "of_raw": told(ratio)}
            shown = f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
            print(f"{name:14s} {path.stat().st_size:12,} bytes   {times.value:8.1f} ms   {shown}")
    name = given.model.name if given.model else f"{LAYERS} int8 matrices of {SIDE} × {SIDE}"
    record("coded-load", {"bar": "the fast package to its first answer in at most 1.5x the raw file's time", "model": name, "forms": rows})


if __name__ == "__main__":
    main()
