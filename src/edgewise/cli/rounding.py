"""What `pack --max-divergence` does before it packs: it rounds weights for the fewest bytes, and measures how far the answers moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgewise import registry
from edgewise.errors import InvalidInput, InvalidModel

if TYPE_CHECKING:
    import numpy as np

    from edgewise.cli.calibration import Calibration
    from edgewise.cli.progress import Tell
    from edgewise.graph import Graph
    from edgewise.types import Inputs


@dataclass(frozen=True)
class Rounded:
    """The graph with rounded weights. seen, held: relative L2 error of the answers on the samples that rounding saw, and on those that it
    didn't; None where there were none. weights: the same of the weights. samples: how many were seen, and held out.
    """

    graph: Graph
    asked: float
    seen: float | None
    held: float | None
    weights: float
    samples: tuple[int, int]


def possible(divergence: float) -> None:
    """Raises MissingExtra without torch, InvalidInput for a divergence that isn't one."""
    if not 0 < divergence < 1:
        raise InvalidInput(f"--max-divergence {divergence:g}: give a share of the answers' norm above 0 and below 1, as 0.01")
    registry.need("torch")


def rounded(graph: Graph, divergence: float, calibration: Calibration | None, tell: Tell) -> Rounded:
    """Raises InvalidModel where the graph can't be rounded, InvalidInput where no step diverges little enough."""
    from edgewise.compress.rate.rdoq import rdoq
    from edgewise.models.network import Network

    seen = list(calibration.seen) if calibration else []
    held = list(calibration.held) if calibration else []
    wanted = [_answers(graph, part) for part in (seen, held)]  # first: an engine says what is wrong with a sample
    network = Network(graph)
    done = rdoq(network, calibration=seen or None, divergence=divergence, progress=lambda what, share: tell(what, share, None))
    if not done.touched:
        raise InvalidModel("the model has no float weights to round; pack it without --max-divergence")
    made = done.model.to_graph()
    before, after = _weights(graph), _weights(made)
    both = sorted(before.keys() & after.keys())
    same = [name for name in both if before[name].shape == after[name].shape]
    found = [_apart(_answers(made, part), exact) if part else None for part, exact in zip((seen, held), wanted, strict=True)]
    moved = _apart([after[name] for name in same], [before[name] for name in same])
    return Rounded(made, divergence, found[0], found[1], moved, (_count(seen), _count(held)))


def _weights(graph: Graph) -> dict[str, np.ndarray]:
    """Float weights of two axes and more, with batch norms folded into them."""
    from onnx import TensorProto, numpy_helper

    from edgewise.graph import fold

    every = fold(graph).proto.graph.initializer
    return {one.name: numpy_helper.to_array(one) for one in every if one.data_type == TensorProto.FLOAT and len(one.dims) > 1}


def _answers(graph: Graph, batches: Sequence[Inputs]) -> list[np.ndarray]:
    from edgewise import backends
    from edgewise.types import Execution

    if not batches:
        return []
    runner = backends.load(graph.to_bytes(), Execution(next(iter(backends.installed()))))
    try:
        return [array for batch in batches for array in runner.run(batch).values() if array.dtype.kind == "f"]
    finally:
        runner.close()


def _apart(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """Relative L2 error."""

    def squares(arrays: Iterator[np.ndarray]) -> float:
        return sum(float((array**2).sum()) for array in arrays)

    error = squares(one.astype("f8") - other for one, other in zip(found, wanted, strict=True))
    return float((error / max(squares(one.astype("f8") for one in wanted), 1e-30)) ** 0.5)


def _count(batches: Sequence[Inputs]) -> int:
    return sum(len(next(iter(batch.values()))) for batch in batches)
