"""What removing units does to a model's answers, measured part by part: what the solver weighs against time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgewise.compress.prune import obs
from edgewise.compress.prune.calibration import Data, evaluating, tensors
from edgewise.compress.prune.importance import CRITERIA
from edgewise.compress.prune.moments import Moments
from edgewise.compress.prune.narrowing import changes, narrowed
from edgewise.graph import Coupling, Part
from edgewise.models.network import Network
from edgewise.models.running import Run

Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class Ranking:
    """order: (units,) the unit to remove first, then the next."""

    order: np.ndarray

    def keep(self, width: int) -> list[int]:
        return sorted(int(unit) for unit in self.order[len(self.order) - width :])


def ranked(
    network: Network, parts: Sequence[Part], data: Data, importance: str, progress: Progress, moments: Moments | None = None
) -> dict[str, Ranking]:
    """The order in which each part's units go, by the criterion called `importance`. moments: of all `parts`, for "obs"."""
    if importance != "obs":
        found = CRITERIA[importance](network, parts, data)
        return {part.name: Ranking(np.argsort(found[part.name], kind="stable")) for part in parts}
    result = {}
    for number, part in enumerate(parts):
        progress(f"ranking the {part.units} units of {part.name}", 0.4 * number / len(parts))
        result[part.name] = Ranking(np.asarray(obs.order(network, part, data, moments=moments).order))
    return result


def losses(
    network: Network,
    coupling: Coupling,
    parts: Sequence[Part],
    ranking: Mapping[str, Ranking],
    ladders: Mapping[str, Sequence[int]],
    data: Data,
    *,
    repair: bool,
    progress: Progress,
    moments: Moments | None = None,
    judged: Data | None = None,
) -> dict[str, dict[int, float]]:
    """Part -> width -> divergence of the answers from the dense model's when that part alone is that narrow; never less when narrower.

    judged: the samples that the answers are compared on, where these aren't all that `data` repairs with.
    """
    judged = judged or data
    dense = answers(network, judged)
    total = sum(len(ladders[part.name]) for part in parts)
    done = 0
    found: dict[str, dict[int, float]] = {}
    for part in parts:
        widths = sorted((width for width in ladders[part.name] if width < part.units), reverse=True)
        keeps = [ranking[part.name].keep(width) for width in widths]
        if part.kind == "hidden":  # what isn't read still counts in layer norms: only a network that is narrow can tell
            others: Iterator[list[torch.Tensor]] = (
                answers(narrowed(network, coupling, {part.name: keep}, data, repair=repair), judged) for keep in keeps
            )
        else:
            changed = changes(network, part, keeps, data, repair=repair, moments=moments)
            others = iter(changed_answers(network, part, changed, judged))
        found[part.name] = rising({part.units: 0.0} | {w: divergence(dense, other) for w, other in zip(widths, others, strict=True)})
        done += len(ladders[part.name])
        progress(f"what {part.name} is worth", 0.4 + 0.5 * done / total)
    return found


def rising(found: Mapping[int, float]) -> dict[int, float]:
    """Losses by width, made to never fall towards narrower ones: by chance a few samples can make less look better, which is no gain."""
    result: dict[int, float] = {}
    lost = -np.inf
    for width in sorted(found, reverse=True):
        lost = result[width] = max(lost, found[width])
    return result


def changed_answers(network: Network, part: Part, changed: Sequence[Mapping[str, torch.Tensor]], data: Data) -> list[list[torch.Tensor]]:
    """For each set of weights that read `part` the answers, batch by batch. What stands before the part is computed once."""
    readers = {one.node for one in part.slices if one.role == "in"}
    first = next(node.name for node in network.structure.proto.graph.node if node.name in readers)
    output = network.structure.signature.outputs[0].name
    found: list[list[torch.Tensor]] = [[] for _ in changed]
    with evaluating(network), torch.inference_mode():
        for batch in data.batches:
            run = Run(network, tensors(network, batch))
            run.until(first)
            for answer, weights in zip(found, changed, strict=True):
                answer.append(run.fork(weights).finish()[output])
    return found


def answers(network: Network, data: Data) -> list[torch.Tensor]:
    """The first output, batch by batch."""
    name = network.structure.signature.outputs[0].name
    with evaluating(network), torch.inference_mode():
        return [network.run(tensors(network, batch))[name] for batch in data.batches]


def divergence(dense: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Of class scores (batch, classes) the mean Kullback–Leibler divergence of their softmax, in nats; else the relative squared error."""
    before, after = torch.cat(list(dense)).double(), torch.cat(list(other)).double()
    if before.ndim == 2 and before.shape[1] > 1:
        first, second = torch.log_softmax(before, 1), torch.log_softmax(after, 1)
        return float((first.exp() * (first - second)).sum(1).mean())
    return float(((before - after) ** 2).sum() / (before**2).sum().clamp_min(1e-30))
