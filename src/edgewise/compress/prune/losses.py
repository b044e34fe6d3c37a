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
        lost = 0.0
        found[part.name] = {}
        for width in sorted(ladders[part.name], reverse=True):
            if width < part.units:
                narrow = without(network, part, ranking[part.name].keep(width), data, repair=repair, moments=moments)
                # A few samples can make less look better: the solver must not take noise for a gain.
                lost = max(lost, divergence(dense, answers(narrow, data)))
            found[part.name][width] = lost
            done += 1
            progress(f"what {part.name} is worth", 0.4 + 0.5 * done / total)
    return found


def without(network: Network, part: Part, keep: Sequence[int], data: Data, *, repair: bool, moments: Moments | None = None) -> Network:
    """A copy of `network` in which nothing reads the units of `part` but `keep`; with `repair`, these make up for the others."""
    if repair:
        return obs.update(network, part, keep, data, moments=moments)
    found = copy.deepcopy(network)
    gone = np.setdiff1d(np.arange(part.units), np.asarray(keep, np.int64))
    with torch.no_grad():
        for one in part.slices:
            if one.role == "in":
                weight = found.weight(one.tensor)
                weight.index_fill_(one.axis, torch.from_numpy(one.indices[gone].reshape(-1)), 0.0)
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
