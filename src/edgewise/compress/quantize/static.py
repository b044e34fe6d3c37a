"""The static way: observe the float model once, settle every integer, write the QDQ graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from onnx import numpy_helper, version_converter

from edgewise.compress.quantize import calibrate
from edgewise.compress.quantize.correct import Settler
from edgewise.compress.quantize.equalize import equalized
from edgewise.compress.quantize.estimators import Histogram
from edgewise.compress.quantize.options import Options
from edgewise.compress.quantize.place import place
from edgewise.compress.quantize.qdq import Settled, write
from edgewise.compress.quantize.smooth import described, smoothed
from edgewise.compress.quantize.tables import with_tables
from edgewise.compress.quantize.walk import obstacle, walk
from edgewise.errors import InvalidInput, InvalidModel
from edgewise.graph import Graph, fold
from edgewise.types import Compressed, Execution, Inputs

LEAST_OPSET = 13  # the first whose DequantizeLinear has an axis
TARGET_OPSET = 18
WALKED = 128  # calibration samples on which layers are settled; on EfficientNet-Lite0, 300 were no better and took twice as long

Progress = Callable[[str, float], None]  # what is being done; the share of it that is done, 0..1


@dataclass(frozen=True, eq=False)
class Observed:
    """A float graph, ready to be quantized in any way: calibration samples and what they showed. Made once, used for many placements."""

    graph: Graph
    samples: Sequence[Inputs]
    histograms: Mapping[str, Histogram]
    execution: Execution
    notes: tuple[str, ...]


def prepared(model: Graph, skip: Collection[str]) -> tuple[Graph, tuple[str, ...]]:
    """`model` canonical, folded, at an opset with per-channel scales. Raises InvalidInput for a name in `skip` that no node has."""
    notes: tuple[str, ...] = ()
    opset = next((o.version for o in model.proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        try:
            model = Graph.from_proto(version_converter.convert_version(model.copy_proto(), TARGET_OPSET), model.notes)
        except (RuntimeError, ValueError) as error:
            raise InvalidModel(
                f"the model has opset {opset}, quantization needs {LEAST_OPSET}, and converting it failed ({error}); export it again"
            ) from error
        notes = (f"opset raised from {opset} to {TARGET_OPSET}",)
    graph = fold(model)
    nodes = [node.name for node in graph.proto.graph.node]
    for name in skip:
        if name not in nodes:
            near = get_close_matches(name, nodes, 3) or nodes[:3]
            raise InvalidInput(f"skip names {name!r}, which no node has; did you mean {' or '.join(map(repr, near))}?")
    if any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in graph.proto.graph.node):
        raise InvalidModel("the model is quantized already; give the float model")
    return graph, notes


def observe(
    model: Graph,
    calibration: Sequence[Inputs],
    options: Options,
    *,
    equalize: bool,
    smooth: bool = True,
    execution: Execution | None,
    progress: Progress,
) -> Observed:
    """Run the float model on the calibration samples once, and keep the ranges of every tensor that any placement may round."""
    graph, notes = prepared(model, options.skip)
    samples = calibrate.checked(graph, calibration)
    execution = execution or calibrate.default_execution()
    if equalize:
        graph, pairs = equalized(graph, samples, execution)
        if pairs:
            notes = (*notes, f"channels of {len(pairs)} tensors equalized")
    if smooth:
        graph, eased = smoothed(graph, place(graph, skip=options.skip), samples, execution)
        notes = (*notes, *described(eased))
    plan = place(graph, residual="both")
    total = sum(1 for _ in calibrate.pieces(graph, samples))
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        progress("calibrating", done / total)

    histograms = calibrate.observe(graph, samples, plan.rounded, execution, advance)
    return Observed(graph, samples, histograms, execution, notes)


def settle(observed: Observed, options: Options, progress: Progress) -> Settled:
    """Decide every integer and scale, by one walk over the graph. Raises InvalidModel when no node can be quantized."""
    graph = observed.graph
    plan = place(graph, skip=options.skip, residual=options.residual)
    if not plan.weighted:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(plan.skipped.items())[:3])
        raise InvalidModel(f"no node can be quantized ({reasons or 'no Conv, Gemm or MatMul'}); pack the model in float")
    grids = calibrate.grids(observed.histograms, plan, estimator=options.estimator, symmetric=options.symmetric)
    if reason := obstacle(graph):
        raise InvalidModel(f"the model can't be calibrated node by node: {reason}; replace it by a constant")
    settler = Settler(
        constants={t.name: numpy_helper.to_array(t) for t in graph.proto.graph.initializer},
        grids=grids,
        bound=64 if options.reduce_range else 127,
        per_channel=options.granularity == "channel",
        symmetric=options.weight_symmetric,
        search=options.estimator != "minmax",
        adaptive=options.rounding == "adaptive",
        bias_correction=options.bias_correction,
    )
    pieces = calibrate.drawn(graph, observed.samples, WALKED)
    layers = walk(graph, pieces, plan, grids, settler, observed.execution, on_node=lambda share: progress("quantizing", share))
    return Settled(graph, plan, grids, layers)


def compressed(settled: Settled, observed: Observed, options: Options) -> Compressed:
    model = write(settled)
    before, after = observed.graph.size_bytes, model.size_bytes
    notes = [*observed.notes, f"{len(settled.plan.weighted)} nodes in 8-bit integers, {before / after:.1f}x smaller"]
    if options.reduce_range:
        notes.append("weights use 7 of 8 bits: on x86 without VNNI, sums of two products saturate otherwise")
    dead = [layer.name for layer in settled.plan.weighted if not np.any(settled.layers[layer.name].integers)]
    if dead:
        notes.append(f"all weights of {', '.join(dead)} are zero")
    done = Compressed(model, tuple(layer.name for layer in settled.plan.weighted), dict(settled.plan.skipped), tuple(notes))
    return with_tables(done, options.skip, options.embeddings) if options.embeddings else done
