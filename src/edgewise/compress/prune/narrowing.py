"""A network with fewer units, what stays of its weights making up for what went."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from edgewise.compress.prune import obs
from edgewise.compress.prune.calibration import Data
from edgewise.compress.prune.moments import Moments
from edgewise.compress.prune.refit import has_norms, refit
from edgewise.graph import Coupling, Part, positions, shrink
from edgewise.models.network import Network


def narrowed(
    network: Network,
    coupling: Coupling,
    keep: Mapping[str, Sequence[int]],
    data: Data,
    *,
    repair: bool = True,
    tell: Callable[[Part, int], None] = lambda part, number: None,
) -> Network:
    """`network`, of which `coupling` tells the parts, with only these units: part -> those that stay, ascending.

    repair: in a network with layer norms all that is left is refitted to the whole (`refit`), layer after layer. In others, part by part,
    the weights that read one are set to the least-squares best for the units that stay (`obs.update`). tell: called with each part, and how
    many were before it.
    """
    pruned, refits = network, has_norms(network)
    for number, part in enumerate(part for part in coupling.parts if part.name in keep):
        tell(part, number)
        if repair and not refits:
            pruned = without(pruned, part, keep[part.name], data, repair=True)
    small = Network(shrink(pruned.to_graph(), keep, coupling=coupling))
    return refit(small, network, positions(coupling, keep), data) if repair and refits and keep else small


def without(network: Network, part: Part, keep: Sequence[int], data: Data, *, repair: bool, moments: Moments | None = None) -> Network:
    """A copy of `network` in which nothing reads the units of `part` but `keep`; with `repair`, these make up for the others."""
    (changed,) = changes(network, part, [keep], data, repair=repair, moments=moments)
    return obs.replaced(network, changed)


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
