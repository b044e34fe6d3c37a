"""From a coded package to the first inference, against ONNX Runtime from the raw ONNX file: what decoding costs a cold start.

    python benchmarks/coded_load.py [MODEL.onnx] [--rounds N] [--synthetic]

Without MODEL, all-MiniLM-L6-v2 in int8 (benchmarks/minilm/int8.py: 22.6 M weights); with --synthetic, or where torch, transformers or its
weights aren't installed, 40 int8 matrices of 512 × 512 (10.5 M weights), normally distributed. Every sample is a process of its own, on one
core; they take turns. Time runs from the file, in the page cache, to the first answer; interpreter and imports are not in it. Ratios are
medians of pairs with their 95 % intervals.
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
sys.path.insert(0, str(Path(__file__).parent / "minilm"))

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


def mini_lm() -> Graph | None:
    """None where what it takes isn't installed."""
    try:
        from int8 import in_int8
        from model import Sentence, exported

        return in_int8(exported(Sentence()))
    except ImportError as error:
        print(f"without MiniLM: {error}")
        return None


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--synthetic", action="store_true", help="the int8 matrices, even if MiniLM is there")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if given.once is not None:
        import onnxruntime  # noqa: F401  (both sides need it; its import is no part of what is compared)

        print(first_answer(given.once))
        return
    own = Graph.load(given.model) if given.model else None if given.synthetic else mini_lm()
    name = given.model.name if given.model else "all-MiniLM-L6-v2 in int8" if own else f"{LAYERS} int8 matrices of {SIDE} × {SIDE}"
    graph = own or synthetic()
    with tempfile.TemporaryDirectory() as scratch:
        files = {"raw ONNX": Path(scratch) / "raw.onnx"}
        graph.save(files["raw ONNX"])
        for coders in CODERS:
            files[f"package, {coders}"] = Path(scratch) / f"{coders}.edgew"
            package.build(graph, created="", coders=coders).save(files[f"package, {coders}"])
        samples: dict[str, list[float]] = {form: [] for form in files}
        for _ in range(given.rounds):
            for form, path in files.items():
                samples[form].append(sample(path))
        rows: dict[str, Any] = {}
        raw = samples["raw ONNX"]
        for form, path in files.items():
            times, ratio = median_interval(samples[form]), median_interval([a / b for a, b in zip(samples[form], raw, strict=True)])
            rows[form] = {"bytes": path.stat().st_size, "first_answer_ms": told(times), "of_raw": told(ratio)}
            shown = f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
            print(f"{form:14s} {path.stat().st_size:12,} bytes   {times.value:8.1f} ms   {shown}")
    record("coded-load", {"bar": "the fast package to its first answer in at most 1.5x the raw file's time", "model": name, "forms": rows})


if __name__ == "__main__":
    main()
