"""Calibration: check the samples, cut them small, and gather the ranges of activations while they stream through an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from edgewise import backends
from edgewise.compress.quantize.estimators import ESTIMATORS, Histogram
from edgewise.compress.quantize.grid import Grid, activation_grid
from edgewise.compress.quantize.place import Plan
from edgewise.data.padding import Padding
from edgewise.errors import InvalidData
from edgewise.graph import Graph, Index, infer_shapes, taps
from edgewise.types import Execution, Inputs

PIECE = 4  # samples run at once while tapped: every activation of these is held in memory


def default_execution() -> Execution:
    """The first engine that is installed, in fp32, one thread: what calibrates unless told otherwise."""
    return Execution(next(iter(backends.installed())))


def checked(graph: Graph, calibration: Iterable[Inputs]) -> list[Inputs]:
    """Calibration samples that fit the graph's signature. Raises InvalidData."""
    samples = list(calibration)
    if not samples:
        raise InvalidData("calibration is empty; give at least one sample, better 100 to 500, as {input name: array}")
    for i, sample in enumerate(samples):
        names = {spec.name for spec in graph.signature.inputs}
        if not isinstance(sample, Mapping) or set(sample) != names:
            given = ", ".join(sorted(map(str, sample))) if isinstance(sample, Mapping) else type(sample).__name__
            raise InvalidData(f"calibration[{i}] has {given or '(nothing)'}; the model's inputs are {', '.join(sorted(names))}")
        for spec in graph.signature.inputs:
            array = np.asarray(sample[spec.name])
            fits = array.ndim == len(spec.shape) and all(
                isinstance(d, str) or d == n for d, n in zip(spec.shape, array.shape, strict=False)
            )
            if not fits or array.size == 0:
                raise InvalidData(f"calibration[{i}][{spec.name!r}] has shape {array.shape}; the model expects {spec.shape}")
            if array.dtype.name != spec.dtype:
                raise InvalidData(
                    f"calibration[{i}][{spec.name!r}] is {array.dtype.name}; the model expects {spec.dtype}: convert it first"
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise InvalidData(f"calibration[{i}][{spec.name!r}] holds NaN or infinite values; leave that sample out")
    return samples


def pieces(graph: Graph, samples: Iterable[Inputs], size: int = PIECE) -> Iterator[dict[str, np.ndarray]]:
    """The samples in calls of at most `size`, where the model has a batch axis; as they come where it has none."""
    for sample in samples:
        arrays = {name: np.asarray(value) for name, value in sample.items()}
        count = len(next(iter(arrays.values()))) if graph.signature.batched else 0
        if not graph.signature.batched or count <= size:
            yield arrays
            continue
        for start in range(0, count, size):
            yield {name: value[start : start + size] for name, value in arrays.items()}


def drawn(graph: Graph, samples: Iterable[Inputs], count: int) -> list[dict[str, np.ndarray]]:
    """Pieces with about `count` of the samples, evenly drawn; at least one piece."""
    every = list(pieces(graph, samples))
    per_piece = len(next(iter(every[0].values()))) if graph.signature.batched else 1
    wanted = min(max(count // max(per_piece, 1), 1), len(every))
    return [every[i] for i in np.linspace(0, len(every) - 1, wanted).round().astype(int)]


def observe(
    graph: Graph, samples: Sequence[Inputs], tensors: Sequence[str], execution: Execution, on_piece: Callable[[], None] = lambda: None
) -> dict[str, Histogram]:
    """A histogram of each of `tensors` over the samples, padding left out. Raises InvalidData when one turns NaN or infinite."""
    inner = [name for name in tensors if Index(graph).producer(name) is not None]
    histograms = {name: Histogram() for name in tensors}
    padding = Padding.of(graph.signature, samples)
    runner = backends.load(taps(graph, inner).to_bytes(), execution)
    try:
        for piece in pieces(graph, samples):
            values = {**piece, **runner.run(piece)}
            for name, histogram in histograms.items():
                try:
                    histogram.add(padding.without(values[name], piece))
                except ValueError as error:
                    raise InvalidData(f"tensor {name!r} has {error} on a calibration sample; check the samples' preprocessing") from error
            on_piece()
    finally:
        runner.close()
    return histograms


def grids(histograms: Mapping[str, Histogram], plan: Plan, *, estimator: str, symmetric: bool) -> dict[str, Grid]:
    """One grid for each rounded activation; those that must share one get the widest range among them."""
    ranges = {name: ESTIMATORS[estimator](histograms[name], symmetric) for name in plan.rounded}
    for names in plan.shared:
        widest = (min(ranges[name][0] for name in names), max(ranges[name][1] for name in names))
        ranges.update(dict.fromkeys(names, widest))
    return {name: activation_grid(*ranges[name], symmetric=symmetric) for name in plan.rounded}


def held_bytes(graph: Graph, piece: Mapping[str, np.ndarray]) -> list[int]:
    """The most bytes of activations that are alive at once from each node of `graph` to its end, on `piece`, at 4 bytes an element."""
    axes = {d: n for spec in graph.signature.inputs for d, n in zip(spec.shape, piece[spec.name].shape, strict=True) if isinstance(d, str)}
    index = Index(infer_shapes(graph))
    sizes = {}
    for name in (*piece, *index.tensors):
        shape = index.shape(name) or ()
        sizes[name] = 4 * int(np.prod([d if isinstance(d, int) else axes.get(d or "", 1) for d in shape], dtype=np.int64))
    last = {name: i for i, node in enumerate(index.nodes) for name in node.input}
    alive = sum(sizes[name] for name in piece)
    held = []
    for i, node in enumerate(index.nodes):
        alive += sum(sizes.get(name, 0) for name in node.output)
        held.append(max(alive, 1))
        alive -= sum(sizes[name] for name in {*node.input, *node.output} if name in sizes and last.get(name, -1) <= i)
    return np.maximum.accumulate(held[::-1])[::-1].tolist() if held else []
