"""The roofs: what this device reaches in matrix products and in memory, measured once and kept in the user's cache folder."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from edgewise import backends
from edgewise.devices.probe import memory
from edgewise.errors import InvalidInput, InvalidModel, MeasurementFailed
from edgewise.measure import elsewhere
from edgewise.measure.cores import reserved
from edgewise.measure.process import Process
from edgewise.measure.subject import Subject
from edgewise.records import Device, Peaks
from edgewise.types import Execution, Inputs, from_json, to_json

ROWS, INNER, COLUMNS = 256, 1024, 1024  # 0.54 G operations; fp32 operands fill 6 MB, int8 ones 1.5 MB
BLOCKS = 5
BLOCK_MS = 100.0


def peaks(device: Device, threads: int, *, cache: Path | None = None, again: bool = False) -> Peaks:
    """This device's peaks with `threads` threads: the best installed engine's fp32 and int8 matrix product, and memory bandwidth.

    Each is the best of several blocks in a process of its own; int8 is u8 × s8 in the forms that engines take (QDQ, MatMulInteger). Read
    from `device.peaks` or the cache folder when it was measured before; `again` measures anew. Takes some five seconds.
    """
    known = next((found for found in device.peaks if found.threads == threads), None)
    if known and not again:
        return known
    there = elsewhere.of(device)
    path = (cache or cache_folder()) / f"peaks-{device.key}-{threads}.json"
    if path.is_file() and not again:
        try:
            return from_json(path.read_bytes(), Peaks)
        except InvalidInput:
            pass  # truncated, or written by another version: measure anew
    found = measured(threads) if there is None else there.peaks(threads, again)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(to_json(found))
    Path(file.name).replace(path)
    return found


def cache_folder() -> Path:
    """EDGEWISE_CACHE, or where the platform keeps caches (XDG on Linux)."""
    if folder := os.environ.get("EDGEWISE_CACHE"):
        return Path(folder)
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/edgewise"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "edgewise/Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgewise"


def measured(threads: int, *, blocks: int = BLOCKS, block_ms: float = BLOCK_MS, array_bytes: int | None = None) -> Peaks:
    """Measure now, without any cache."""
    operations = 2.0 * ROWS * INNER * COLUMNS
    with reserved(threads) as cores:
        best = {"float": 0.0, "int8": 0.0}
        for kind, model, inputs in _products():
            for name in backends.taking():
                took = _best_ms(Subject(model, Execution(name, threads=threads)), inputs, cores, blocks, block_ms)
                best[kind] = max(best[kind], operations / took / 1e6) if took else best[kind]
        with Process(cores, threads=threads) as process:
            gbps = process.bandwidth(array_bytes or triad_bytes(), threads, 2 * blocks)
    if not best["float"]:
        raise MeasurementFailed("no installed engine could run a matrix product; `edgewise doctor` lists the engines")
    # Without int8 kernels an engine may be slower than float: then float's roof is the roof.
    return Peaks(threads, best["float"], max(best["int8"], best["float"]), gbps)


def triad_bytes(root: Path = Path("/")) -> int:
    """Bytes per array: four times the last level cache (STREAM's rule), from 64 MB up to 1/16 of the memory."""
    sizes = [_size(path) for path in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max(1 << 20, min(max(64 << 20, 4 * max(sizes, default=0)), memory(root) // 16))


def _size(path: Path) -> int:
    try:
        text = path.read_text().strip()
        return int(text.rstrip("KMG")) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
    except (OSError, ValueError):
        return 0


def _best_ms(subject: Subject, inputs: Inputs, cores: tuple[int, ...], blocks: int, block_ms: float) -> float | None:
    """The fastest block's milliseconds per call; None when the engine hasn't the operator."""
    with ExitStack() as stack:
        process = stack.enter_context(Process(cores, threads=subject.execution.threads))
        try:
            process.load(subject, inputs)
            return min(process.block(block_ms) for _ in range(blocks))
        except (InvalidModel, InvalidInput):
            return None


def _products() -> Iterator[tuple[str, bytes, dict[str, np.ndarray]]]:
    """(kind, model, inputs) of one matrix product each: fp32, int8 in QDQ form, int8 as MatMulInteger."""
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    floats = generator.standard_normal((INNER, COLUMNS), dtype=np.float32)
    integers = generator.integers(-63, 64, (INNER, COLUMNS), dtype=np.int8)  # 7 bits: no sum of two products saturates in 16
    left = generator.standard_normal((ROWS, INNER), dtype=np.float32)
    bytes_ = generator.integers(0, 128, (ROWS, INNER), dtype=np.uint8)

    def model(nodes: list, weights: dict[str, np.ndarray], taken: int, given: int) -> bytes:
        graph = helper.make_graph(
            [helper.make_node(op, inputs, outputs) for op, inputs, outputs in nodes],
            "product",
            [helper.make_tensor_value_info("x", taken, [ROWS, INNER])],
            [helper.make_tensor_value_info("y", given, [ROWS, COLUMNS])],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString())

    yield "float", model([("MatMul", ["x", "w"], ["y"])], {"w": floats}, TensorProto.FLOAT, TensorProto.FLOAT), {"x": left}
    scales = {
        "s": np.float32(0.03),
        "z": np.uint8(128),
        "ws": np.float32(0.01),
        "wz": np.int8(0),
        "ys": np.float32(0.5),
        "w": integers,
    }
    nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        ("DequantizeLinear", ["xq", "s", "z"], ["xf"]),
        ("DequantizeLinear", ["w", "ws", "wz"], ["wf"]),
        ("MatMul", ["xf", "wf"], ["p"]),
        ("QuantizeLinear", ["p", "ys", "z"], ["pq"]),
        ("DequantizeLinear", ["pq", "ys", "z"], ["y"]),
    ]
    arrays = {name: np.asarray(value) for name, value in scales.items()}
    yield "int8", model(nodes, arrays, TensorProto.FLOAT, TensorProto.FLOAT), {"x": left}
    yield "int8", model([("MatMulInteger", ["x", "w"], ["y"])], {"w": integers}, TensorProto.UINT8, TensorProto.INT32), {"x": bytes_}
