"""What removing units does to a model's answers, measured part by part: what the solver weighs against time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgewise.compress.prune import obs
from edgewise.compress.prune.calibration import Data, evaluating, tensors
from edgewise.compress.prune.importance import CRITERIA
from edgewise.compress.prune.moments import Moments
from edgewise.graph import Part
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
    parts: Sequence[Part],
    ranking: Mapping[str, Ranking],
    ladders: Mapping[str, Sequence[int]],
    data: Data,
    *,
    repair: bool,
    progress: Progress,
    moments: Moments | None = None,
) -> dict[str, dict[int, float]]:
    """Part -> width -> divergence of the answers from the dense model's when that part alone is that narrow; never less when narrower."""
    dense = answers(network, data)
    total = sum(len(ladders[part.name]) for part in parts)
    done = 0
    found: dict[str, dict[int, float]] = {}
    for part in parts:
        widths = sorted((width for width in ladders[part.name] if width < part.units), reverse=True)
        lost = 0.0
        found[part.name] = {part.units: lost}
        keeps = [ranking[part.name].keep(width) for width in widths]
        for width, other in zip(widths, _narrowed(network, part, keeps, data, repair=repair, moments=moments), strict=True):
            # A few samples can make less look better: the solver must not take noise for a gain.
            lost = max(lost, divergence(dense, other))
            found[part.name][width] = lost
        done += len(ladders[part.name])
        progress(f"what {part.name} is worth", 0.4 + 0.5 * done / total)
    return found


def _narrowed(
    network: Network, part: Part, keeps: Sequence[Sequence[int]], data: Data, *, repair: bool, moments: Moments | None
) -> list[list[torch.Tensor]]:
    """The answers, batch by batch, with nothing but the units of each of `keeps` read. What stands before the part is computed once."""
    changed = changes(network, part, keeps, data, repair=repair, moments=moments)
    readers = {one.node for one in part.slices if one.role == "in"}
    first = next(node.name for node in network.structure.proto.graph.node if node.name in readers)
    output = network.structure.signature.outputs[0].name
    found: list[list[torch.Tensor]] = [[] for _ in keeps]
    with evaluating(network), torch.inference_mode():
        for batch in data.batches:
            run = Run(network, tensors(network, batch))
            run.until(first)
            for answer, weights in zip(found, changed, strict=True):
                answer.append(run.fork(weights).finish()[output])
    return found


def changes(
    network: Network, part: Part, keeps: Sequence[Sequence[int]], data: Data, *, repair: bool, moments: Moments | None = None
) -> list[dict[str, torch.Tensor]]:
    """For each of `keeps` the weights with which nothing reads other units of `part`; with `repair`, those that stay make up for them."""
    if repair:
        return obs.changes(network, part, keeps, data, moments=moments)
    found = []
    for keep in keeps:
        gone = np.setdiff1d(np.arange(part.units), np.asarray(keep, np.int64))
        changed: dict[str, torch.Tensor] = {}
        for one in part.slices:
            if one.role == "in":
                weight = changed.get(one.tensor, network.weight(one.tensor).detach())
                changed[one.tensor] = weight.index_fill(one.axis, torch.from_numpy(one.indices[gone].reshape(-1)).to(weight.device), 0.0)
        found.append(changed)
    return found


def without(network: Network, part: Part, keep: Sequence[int], data: Data, *, repair: bool, moments: Moments | None = None) -> Network:
    """A copy of `network` in which nothing reads the units of `part` but `keep`; with `repair`, these make up for the others."""
    (changed,) = changes(network, part, [keep], data, repair=repair, moments=moments)
    found = copy.deepcopy(network)
    with torch.no_grad():
        for name, value in changed.items():
            found.weight(name).copy_(value)
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
