"""Which nodes suffer most from being integers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgewise import backends
from edgewise.compress.quantize import calibrate
from edgewise.compress.quantize.options import checked, saturates
from edgewise.compress.quantize.place import place
from edgewise.compress.quantize.qdq import Settled, write
from edgewise.compress.quantize.static import Observed, Progress, observe, settle
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.records import Device
from edgewise.types import Execution, Inputs, Outputs

ALONE = ("alone", "rest")


@dataclass(frozen=True)
class Sensitivity:
    """How far the outputs move, as relative L2 error against float, through one node's integers. More is worse."""

    node: str
    divergence: float


def sensitivity(
    model: Graph,
    *,
    calibration: Sequence[Inputs],
    samples: int = 32,
    quantized: str = "alone",
    device: Device | None = None,
    execution: Execution | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> tuple[Sensitivity, ...]:
    """Every node that `quantize` would turn to integers, the most sensitive first.

    quantized: "alone" turns only the node in question to integers; "rest" turns all but this one, and the divergence is how much of the
    whole error goes away without it. samples: of the calibration data, on which outputs are compared. options: `quantize`'s.
    """
    if quantized not in ALONE:
        raise InvalidInput(f"quantized={quantized!r} is unknown; use one of {', '.join(ALONE)}")
    report = progress or (lambda what, share: None)
    options.setdefault("reduce_range", saturates(device))
    equalize, smooth = (bool(options.pop(name, True)) for name in ("equalize", "smooth"))
    settings = checked(**options)
    observed = observe(model, calibration, settings, equalize=equalize, smooth=smooth, execution=execution, progress=report)
    return ranked(settle(observed, settings, report), observed, samples=samples, alone=quantized == "alone", progress=report)


def ranked(settled: Settled, observed: Observed, *, samples: int, alone: bool, progress: Progress) -> tuple[Sensitivity, ...]:
    """The ranking, of what is settled already: each node's own integers are the ones that it has in the whole model."""
    pieces = calibrate.drawn(observed.graph, observed.samples, samples)
    reference = outputs(settled.graph, pieces, observed.execution)
    names = [layer.name for layer in settled.plan.weighted]
    whole = 0.0 if alone else divergence(reference, outputs(write(settled), pieces, observed.execution))
    found = []
    for i, name in enumerate(names):
        left = [other for other in names if other != name] if alone else [name]
        part = write(without(settled, {*left, *settled.plan.skipped}))
        error = divergence(reference, outputs(part, pieces, observed.execution))
        found.append(Sensitivity(name, error if alone else whole - error))
        progress("finding sensitive nodes", (i + 1) / len(names))
    return tuple(sorted(found, key=lambda s: -s.divergence))


def without(settled: Settled, skip: Collection[str]) -> Settled:
    """The same integers and scales, with the nodes of `skip` left in float."""
    return replace(settled, plan=place(settled.graph, skip=skip, residual=settled.plan.residual))


def outputs(graph: Graph, pieces: Sequence[Inputs], execution: Execution) -> list[Outputs]:
    runner = backends.load(graph.to_bytes(), execution)
    try:
        return [runner.run(piece) for piece in pieces]
    finally:
        runner.close()


def divergence(reference: Sequence[Mapping[str, np.ndarray]], other: Sequence[Mapping[str, np.ndarray]]) -> float:
    """Relative L2 error over all outputs that are floats: each output counts the same, whatever its size."""
    errors = []
    for name in reference[0]:
        if reference[0][name].dtype.kind == "f":
            a = np.concatenate([r[name].ravel() for r in reference]).astype(np.float64)
            b = np.concatenate([o[name].ravel() for o in other]).astype(np.float64)
            errors.append(float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(a)), 1e-30))
    return float(np.mean(errors)) if errors else 0.0
