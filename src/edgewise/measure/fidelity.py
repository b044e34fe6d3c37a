"""What a model answers: its outputs over a split, its quality, how far two models' outputs lie apart, and in which layer they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewise import backends
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.measure.independence import mixing
from edgewise.records import Quality
from edgewise.types import Execution, Inputs, Outputs, Runner, Split

if TYPE_CHECKING:
    from edgewise.graph import Graph


def collect(runner: Runner, split: Split, batch: int = 64) -> np.ndarray:
    """The first output for every sample of `split`, in its order: (samples, …). A split that `combined` its batches' outputs itself does.

    A runner whose leading axis is fixed to n gets n samples at a time, the last ones padded with repeats that are cut off again.
    Raises InvalidModel when the outputs hold NaN or infinity, or don't lead with the batch; InvalidData when the split is empty.
    """
    leading = {spec.shape[0] for spec in runner.signature.inputs if spec.shape}
    fixed = [size for size in leading if isinstance(size, int)]
    size = fixed[0] if fixed else batch
    name = runner.signature.outputs[0].name
    parts = []
    for inputs, _ in split.batches(size):
        n = len(next(iter(inputs.values())))
        if fixed and n < size:
            inputs = {key: np.concatenate([array, np.repeat(array[-1:], size - n, axis=0)]) for key, array in inputs.items()}
        output = runner.run(inputs)[name]
        if output.ndim == 0 or len(output) not in (n, size):
            raise InvalidModel(f"output {name!r} has shape {output.shape} for {n} samples; its first axis must be the batch")
        parts.append(output[:n])
    if not parts:
        raise InvalidData(f"split {split.name!r} is empty; give it at least one sample")
    outputs = split.combined(parts) if hasattr(split, "combined") else np.concatenate(parts)
    if not np.isfinite(outputs).all():
        raise InvalidModel(f"output {name!r} holds NaN or infinity on split {split.name!r}; compare with the reference layer by layer")
    return outputs


def answers(graph: Graph, execution: Execution, split: Split, model: bytes | None = None) -> np.ndarray:
    """What `graph` gives for every sample of `split` under `execution`: (samples, …) of the first output (see `collect`).

    model: what the engine loads, where that is a form of its own.

    Samples are fed one by one where they can influence each other: a scale that is taken per call is taken over all rows of it.
    """
    alone = bool(mixing(graph))
    runner = backends.load(graph.to_bytes() if model is None else model, execution)
    try:
        return collect(runner, split, 1 if alone else 64)
    finally:
        runner.close()


def quality(runner: Runner, split: Split, *, metric: str, labels: Sequence[str], batch: int = 64) -> Quality:
    """`runner`'s metric on a labelled `split`, with its interval and one score per sample (see `edgewise.data.metrics.quality`)."""
    from edgewise.data import metrics

    if split.targets is None:
        raise InvalidData(f"split {split.name!r} has no labels; compare outputs with a reference instead")
    return metrics.quality(metric, split.name, collect(runner, split, batch), split.targets, labels)


def divergence(reference: np.ndarray, outputs: np.ndarray) -> float:
    """Relative L2 error: |outputs − reference| / |reference|. 0 when both are zero, infinity when the reference alone is, or on NaN."""
    if reference.shape != outputs.shape:
        raise InvalidInput(f"outputs of shape {outputs.shape} can't be held against a reference of shape {reference.shape}")
    wanted, got = np.asarray(reference, np.float64), np.asarray(outputs, np.float64)
    apart, size = float(np.linalg.norm(got - wanted)), float(np.linalg.norm(wanted))
    if not np.isfinite(apart):
        return float("inf")
    return apart / size if size else (0.0 if apart == 0 else float("inf"))


@dataclass(frozen=True)
class Layer:
    """A tensor that both graphs compute, and its relative L2 divergence."""

    tensor: str
    op: str  # what makes it in the first graph
    divergence: float


@dataclass(frozen=True)
class Parting:
    """Every shared tensor in the first graph's order, and the first one whose divergence exceeds the tolerance (None: they don't part)."""

    layers: tuple[Layer, ...]
    first: Layer | None
    tolerance: float


def layers(a: Graph, b: Graph, inputs: Inputs, *, tolerance: float = 0.1, execution: Execution | None = None) -> Parting:
    """Run both graphs on `inputs` with every tensor that both name as an output, and compare tensor by tensor.

    Tensors whose shapes differ (a pruned width) are left out. `execution` defaults to the first installed backend in fp32; a tapped graph
    can't be fused across the taps, so this says where graphs part and nothing about time.
    """
    from edgewise.graph import Index, taps

    where = execution or Execution(next(iter(backends.installed())))
    index = Index(a)
    shared = [name for name in index.tensors if name in set(Index(b).tensors)]
    left, right = _outputs(taps(a, shared), inputs, where), _outputs(taps(b, shared), inputs, where)
    rows = []
    for name in shared:
        node = index.producer(name)
        if node is not None and left[name].shape == right[name].shape and left[name].dtype.kind == "f":
            rows.append(Layer(name, node.op_type, divergence(left[name], right[name])))
    return Parting(tuple(rows), next((row for row in rows if row.divergence > tolerance), None), tolerance)


def _outputs(graph: Graph, inputs: Inputs, execution: Execution) -> Outputs:
    runner = backends.load(graph.to_bytes(), execution)
    try:
        return runner.run(inputs)
    finally:
        runner.close()
