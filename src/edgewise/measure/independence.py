"""Whether each row of a batch gets the answer that it gets alone. Where it doesn't, strangers must not share a call.

A scale that is taken per call is taken over all rows of it: one large value of a neighbour's moves everybody's integers. Padding does too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgewise import backends
from edgewise.data.padding import Padding
from edgewise.errors import InvalidInput
from edgewise.types import Execution, Inputs, Outputs, Runner

if TYPE_CHECKING:
    from edgewise.graph import Graph

# Other kernels serve other batch sizes, and add in another order; what is rounded behind that falls to the other side here and there.
FLOAT_NOISE = 1e-4
GROUPINGS = 3  # random neighbourhoods that every row is put into
LONGER = 8  # positions of padding that are added where the samples have none


@dataclass(frozen=True)
class Rows:
    """How far the worst row's answer moves from the one that it gives alone, as a share of what an answer's L2 norm is on average.

    together: with all rows in one call. neighbours: in smaller calls with others, at random. padding: alone, with and without positions
    behind its last token; None where the model has no mask. mixing: nodes that take one scale over all rows. tolerance: what still counts
    as the same.
    """

    together: float
    neighbours: float
    padding: float | None
    mixing: tuple[str, ...]
    tolerance: float
    samples: int

    @property
    def largest(self) -> float:
        return max(self.together, self.neighbours, self.padding or 0.0)

    @property
    def verdict(self) -> Literal["independent", "dependent"]:
        """ "independent": any rows may share a call. What mixes rows is never called so, however alike the samples' rows were."""
        return "dependent" if self.mixing or not self.largest <= self.tolerance else "independent"


def rows(graph: Graph, execution: Execution, inputs: Inputs, *, divergence: float = 0.0, seed: int = 0) -> Rows:
    """Run `graph` under `execution` on the rows of `inputs` alone, together, among other neighbours and with other padding.

    inputs: two or more samples, each array (batch, …). divergence: the model's recorded one, relative L2 against its reference: what moves
    answers no further than that is no worse than what was accepted already.
    Raises InvalidInput when the graph's batch isn't free, or there are fewer than two samples.
    """
    if not graph.signature.batched:
        raise InvalidInput(
            "the model takes a fixed number of rows, so it can't be asked whether they are independent; leave its batch axis free"
        )
    count = len(next(iter(inputs.values())))
    if count < 2:
        raise InvalidInput(f"{count} sample can't have neighbours; give at least two")
    runner = backends.load(graph.to_bytes(), execution)
    try:
        alone = [runner.run(_rows(inputs, [i])) for i in range(count)]
        size = _size(alone)
        together = _apart(alone, _split(runner.run(dict(inputs)), count), size)
        neighbours = max(_apart(alone, _grouped(runner, inputs, order), size) for order in _orders(count, seed))
        padding = _padding(graph, runner, inputs, alone, size)
    finally:
        runner.close()
    return Rows(together, neighbours, padding, mixing(graph), max(FLOAT_NOISE, divergence), count)


def mixing(graph: Graph) -> tuple[str, ...]:
    """Nodes that take one scale over all rows of a call."""
    return tuple(node.name for node in graph.proto.graph.node if node.op_type == "DynamicQuantizeLinear")


def _orders(count: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    for _ in range(GROUPINGS):
        yield rng.permutation(count)


def _grouped(runner: Runner, inputs: Inputs, order: np.ndarray) -> list[Outputs]:
    """Every row's answer, in the rows' own order, from calls of about half of them, as `order` brings them together."""
    found: list[Outputs] = [{} for _ in order]
    for part in np.array_split(order, 2) if len(order) > 3 else [order]:
        for i, answer in zip(part, _split(runner.run(_rows(inputs, part)), len(part)), strict=True):
            found[i] = answer
    return found


def _padding(graph: Graph, runner: Runner, inputs: Inputs, alone: Sequence[Outputs], size: float) -> float | None:
    """Answers alone with the padding that `inputs` have against those without; where they have none, against those with some."""
    mask = Padding.of(graph.signature, [inputs]).mask
    axis = next((spec.shape[1] for spec in graph.signature.inputs if spec.name == mask), None)
    if mask is None or not isinstance(axis, str):
        return None
    along = {spec.name: spec.shape.index(axis) for spec in graph.signature.inputs if axis in spec.shape}
    kept = np.asarray(inputs[mask]).astype(bool)
    padded = not kept.all()
    other = []
    for i, row in enumerate(kept):
        given = _rows(inputs, [i])
        for name, at in along.items():
            array = given[name]
            given[name] = np.compress(row, array, at) if padded else np.pad(array, [(0, LONGER * (a == at)) for a in range(array.ndim)])
        other.append(runner.run(given))
    tokens = {spec.name for spec in graph.signature.outputs if spec.shape[1:2] == (axis,)}
    first, second = (alone, other) if padded else (other, alone)  # the padded ones first
    positions = kept if padded else np.pad(kept, [(0, 0), (0, LONGER)])
    short = [{k: v[:, keep] if k in tokens else v for k, v in one.items()} for one, keep in zip(first, positions, strict=True)]
    return _apart(second, short, size)


def _rows(inputs: Inputs, chosen: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(np.asarray(array)[chosen]) for name, array in inputs.items()}


def _split(outputs: Outputs, count: int) -> list[Outputs]:
    return [{name: array[i : i + 1] for name, array in outputs.items()} for i in range(count)]


def _size(answers: Sequence[Outputs]) -> float:
    """The root mean square of the answers' L2 norms."""
    return float(np.sqrt(np.mean([sum(float(np.square(v, dtype=np.float64).sum()) for v in _floats(one)) for one in answers])))


def _apart(reference: Sequence[Outputs], other: Sequence[Outputs], size: float) -> float:
    """The L2 distance of the worst row's answers, as a share of `size`. Infinity on NaN."""
    worst = 0.0
    for a, b in zip(reference, other, strict=True):
        pairs = zip(_floats(a), _floats(b), strict=True)
        found = float(np.sqrt(sum(float(np.square(x.astype(np.float64) - y).sum()) for x, y in pairs)))
        worst = max(worst, found if np.isfinite(found) else np.inf)
    if not np.isfinite(size):
        return float("inf")
    return worst / size if size else (0.0 if worst == 0 else float("inf"))


def _floats(outputs: Outputs) -> list[np.ndarray]:
    return [array for array in outputs.values() if array.dtype.kind == "f"]
