"""`convert`: a graph as LiteRT's own file, made in a process of its own and held against the graph."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

import edgewise
from edgewise import backends, tflite
from edgewise.backends import signature as signatures
from edgewise.errors import InvalidInput, InvalidModel, MeasurementFailed, MissingExtra
from edgewise.export.litert.hybrid import hybrid
from edgewise.export.litert.prepare import Kind, Prepared, prepared, without_dynamic
from edgewise.graph import Graph
from edgewise.tflite import Card
from edgewise.types import Execution, Inputs, Outputs, Runner, Signature

# Names an interpreter that has litert-torch, where this one hasn't: the converter brings JAX and pins of its own.
INTERPRETER = "EDGEWISE_LITERT_PYTHON"
CONVERTER = "litert-torch==0.10.0"
LIMIT_S = 1800.0

# How far the form's answers may lie from the graph's (relative L2). In float they differ by rounding alone; a dynamic form takes its scales
# per row where ONNX takes one per call, a static one rounds ties and sums otherwise. What is wrong (a layout, a weight) is off by about 1.
MOST: dict[Kind, float] = {"float": 1e-3, "dynamic": 0.25, "static": 0.25}
SAMPLES = 8
# Rows and padding are looked at on the graph, where they change nothing or much; a static one may round a tie the other way.
SAME, SAME_ROUNDED = 1e-4, 0.02


def convert(
    graph: Graph,
    samples: Sequence[Inputs],
    execution: Execution,
    *,
    sizes: Mapping[str, int] | None = None,
    most: float | None = None,
    python: str | None = None,
    limit_s: float = LIMIT_S,
) -> bytes:
    """`graph` (float, or quantized by edgewise: its own integers and scales) as a flatbuffer for `execution`'s engine, with its card.

    Its shapes are fixed while it is converted, for `sizes` of the named axes; left out, those of the first sample, one row of it. What can
    stay open all the same is found by trying it on the graph: a batch whose rows are independent is answered row by row, and an axis may be
    shorter where zeros behind its end change no answer (tokens under a mask).
    samples: real inputs, {name: (batch, …)}, the first `SAMPLES` rows of which the form is held against the graph on. most: the largest
    divergence (relative L2) that is taken, instead of `MOST`. python: an interpreter that has litert-torch; left out, the one that
    EDGEWISE_LITERT_PYTHON names, or this one.

    Raises MissingExtra where nothing can convert, InvalidModel where the graph can't be converted or the form answers otherwise.
    """
    if not samples:
        raise InvalidInput("no samples: a form is held against its graph on some; give a few real inputs")
    fixed = dict(sizes) if sizes is not None else one_row(graph.signature, samples[0])
    rows = _rows(graph.signature, samples, fixed)
    if not rows:
        raise InvalidInput(f"every sample is larger than {_shown(fixed)}; give sizes that hold the longest one")
    with_python = python or interpreter()
    ready = prepared(graph, fixed)
    flat = _converted(ready, with_python, limit_s)
    if ready.kind == "dynamic":
        flat, _ = hybrid(flat)
    _check_boundary(flat, ready.graph.signature)
    here = backends.plain(execution)
    # A scale that is taken per call moves with every row and every zero that comes along, which says nothing of the model.
    with closing(backends.load(without_dynamic(graph).to_bytes(), here)) as plain:
        card = _card(graph.signature, fixed, rows, plain, SAME_ROUNDED if ready.kind == "static" else SAME)
    rows = [row for row in rows if _fits(card.signature, row)]
    if not rows:
        raise InvalidInput(f"no sample is just {_shown(fixed)}, and the model takes nothing shorter; give sizes that some sample has")
    with closing(backends.load(graph.to_bytes(), here)) as plain:
        apart = _divergence(tflite.described(flat, card), execution, rows, plain)
    allowed = MOST[ready.kind] if most is None else most
    if not apart <= allowed:
        raise InvalidModel(
            f"the form for {execution.backend} answers otherwise than the graph: off by {apart:.2g} (relative L2; at most {allowed:g}) on "
            f"{len(rows)} samples; leave that engine out, or take it with a larger `most`"
        )
    made = Card(card.signature, card.sizes, card.rows, card.padded, graph.sha256, float(f"{apart:.3g}"), len(rows))
    return tflite.described(flat, made)


class Flatbuffers:
    """`convert` as a maker of forms (`edgewise.export.forms`)."""

    def obstacle(self) -> str:
        try:
            interpreter()
        except InvalidInput as error:
            return str(error)
        return ""

    def make(self, graph: Graph, samples: Sequence[Inputs], execution: Execution, sizes: Mapping[str, int] | None) -> bytes:
        return convert(graph, samples, execution, sizes=sizes)


def interpreter() -> str:
    """The Python that converts. Raises MissingExtra with the lines that make one."""
    named = os.environ.get(INTERPRETER)
    if named:
        if not os.access(named, os.X_OK):
            raise InvalidInput(f"{INTERPRETER}={named!r} is no program; give the path of a Python that has litert-torch")
        return named
    if importlib.util.find_spec("litert_torch") is not None:
        return sys.executable
    raise MissingExtra(
        "litert-torch isn't installed, which makes LiteRT's form of a model. It goes into an environment of its own: "
        f"python -m venv litert && litert/bin/pip install torch==2.13.0 && litert/bin/pip install {CONVERTER} onnx msgspec && "
        f"export {INTERPRETER}=$PWD/litert/bin/python"
    )


def one_row(signature: Signature, sample: Inputs) -> dict[str, int]:
    """What the named axes are in `sample`, with one row of the batch. Raises InvalidInput where it doesn't fit."""
    axes = signatures.bound_axes(signature, sample)
    if signature.batched:
        axes[str(signature.inputs[0].shape[0])] = 1
    return axes


def _converted(ready: Prepared, python: str, limit_s: float) -> bytes:
    """The flatbuffer, from a process that is ended after `limit_s`. Raises InvalidModel with what it said."""
    child = Path(__file__).with_name("child.py")
    root = Path(edgewise.__file__).parents[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ready.graph.save(folder / "model.onnx")
        (folder / "kind").write_text(ready.kind)
        # -P: the folder of child.py is no place to import from. What it prints is torch's, JAX's and TensorFlow's.
        line = [python, "-P", str(child), str(root), str(folder)]
        try:
            done = subprocess.run(line, capture_output=True, text=True, errors="replace", timeout=limit_s, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as error:
            raise MeasurementFailed(f"converting took over {limit_s:g} s and was stopped; give a larger limit_s") from error
        except OSError as error:
            raise InvalidInput(f"{python} can't be run ({error.strerror}); give a Python that has litert-torch") from error
        if (folder / "error").exists():
            why = (folder / "error").read_text(errors="replace").strip()
            raise InvalidModel(f"the model can't be converted for LiteRT: {why}; leave that engine out, or replace the operator")
        if not (folder / "model.tflite").exists():
            last = " ".join(done.stderr.strip().splitlines()[-1:])[:300]
            raise InvalidModel(f"converting for LiteRT ended with code {done.returncode}: {last or 'it said nothing'}")
        return (folder / "model.tflite").read_bytes()


def _check_boundary(flat: bytes, wanted: Signature) -> None:
    """The converter may drop an input that nothing reads, or give the boundary another type: then it isn't the graph's any more."""
    found = tflite.interface(flat).signature
    for given, asked, what in ((found.inputs, wanted.inputs, "inputs"), (found.outputs, wanted.outputs, "outputs")):
        if [(spec.shape, spec.dtype) for spec in given] != [(spec.shape, spec.dtype) for spec in asked]:
            shown = [", ".join(f"{spec.dtype} {list(spec.shape)}" for spec in specs) for specs in (given, asked)]
            raise InvalidModel(
                f"LiteRT's converter made {what} of {shown[0] or 'nothing'}, where the graph has {shown[1]}; leave that engine out"
            )


def _rows(signature: Signature, samples: Sequence[Inputs], sizes: Mapping[str, int]) -> list[Inputs]:
    """Single rows of the samples, as far as they fit into `sizes`; whole samples of a graph without a batch."""
    batch = str(signature.inputs[0].shape[0]) if signature.batched else ""
    found: list[Inputs] = []
    for sample in samples:
        axes = signatures.bound_axes(signature, sample)
        if any(size > sizes[axis] for axis, size in axes.items() if axis != batch):
            continue
        count = axes[batch] if batch else 1
        found += [{name: array[at : at + 1] if batch else array for name, array in sample.items()} for at in range(count)]
        if len(found) >= SAMPLES:
            break
    return found[:SAMPLES]


def _fits(signature: Signature, inputs: Inputs) -> bool:
    try:
        signatures.bound_axes(signature, inputs)
    except InvalidInput:
        return False
    return True


def _card(signature: Signature, sizes: Mapping[str, int], rows: Sequence[Inputs], plain: Runner, same: float) -> Card:
    """What may stay open, found on the graph: rows that don't know each other, and axes that may be filled up with zeros."""
    batch = str(signature.inputs[0].shape[0]) if signature.batched else ""
    others = [axis for axis in sizes if axis != batch]
    padded = tuple(axis for axis in others if _fills(signature, axis, sizes, rows, plain, same))
    if batch and not _independent(rows, plain, same):
        batch = ""
    fixed = {axis: size for axis, size in sizes.items() if axis not in (batch, *padded)}
    open_sizes = {axis: size for axis, size in sizes.items() if axis not in fixed}
    return Card(signatures.with_axes(signature, fixed), open_sizes, batch, padded)


def _independent(rows: Sequence[Inputs], plain: Runner, same: float) -> bool:
    """Whether rows of one shape, in one call, give what they give alone. Of the shapes that which most rows have."""
    groups = [[row for row in rows if _shapes(row) == _shapes(first)] for first in rows]
    alike = max(groups, key=len)[:4]
    alone = [plain.run(row) for row in alike]
    together = plain.run({name: np.concatenate([row[name] for row in alike]) for name in alike[0]})
    return _apart([{name: np.concatenate([one[name] for one in alone]) for name in together}], [together]) <= same


def _fills(signature: Signature, axis: str, sizes: Mapping[str, int], rows: Sequence[Inputs], plain: Runner, same: float) -> bool:
    """Whether zeros behind the end of `axis` change no answer: for rows that are shorter, and for the longest, cut."""
    shorter = [row for row in rows if signatures.bound_axes(signature, row)[axis] < sizes[axis]][:3]
    for row in (*shorter, *rows[:1]):
        length = signatures.bound_axes(signature, row)[axis]
        cut = row if length < sizes[axis] else signatures.resized(signature, row, {axis: max(1, length * 3 // 4)})
        if signatures.bound_axes(signature, cut)[axis] == sizes[axis]:
            return False  # one element: nothing shorter could be tried
        axes = signatures.bound_axes(signature, cut)
        try:
            short, filled = plain.run(cut), plain.run(signatures.resized(signature, cut, {axis: sizes[axis]}))
        except InvalidInput:  # the graph itself takes no other length
            return False
        if not _apart([short], [signatures.cut(signature, filled, axes)]) <= same:
            return False
    return True


def _shapes(inputs: Inputs) -> list[tuple[int, ...]]:
    return [array.shape for array in inputs.values()]


def _divergence(form: bytes, execution: Execution, rows: Sequence[Inputs], plain: Runner) -> float:
    runner = backends.load(form, execution)
    try:
        return _apart([plain.run(row) for row in rows], [runner.run(row) for row in rows])
    finally:
        runner.close()


def _apart(wanted: Sequence[Outputs], got: Sequence[Outputs]) -> float:
    """Relative L2 over all floating outputs; infinite where they aren't finite, or another one differs at all."""
    squared = error = 0.0
    for one, other in zip(wanted, got, strict=True):
        for name, value in one.items():
            if value.dtype.kind != "f":
                error += 0.0 if np.array_equal(value, other[name]) else np.inf
                continue
            squared += float(np.square(value, dtype=np.float64).sum())
            error += float(np.square(value.astype(np.float64) - other[name]).sum())
    return float(np.sqrt(error / squared)) if squared else float(np.sqrt(error))


def _shown(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{axis}={size}" for axis, size in sizes.items())
