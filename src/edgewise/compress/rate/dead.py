"""Units that no longer do anything, taken out: tensors become smaller, answers stay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from edgewise.compress.prune.calibration import evaluating, tensors
from edgewise.graph import Part, parts, shrink
from edgewise.models.network import Network
from edgewise.types import Inputs

SAME = 1e-4  # relative: what fp32 sums in another order may differ by


def without_dead_units(network: Network, inputs: Inputs) -> tuple[Network, tuple[str, ...]]:
    """`network` without the units that are read with no weight other than zero, or made with none; and a note of each part that lost some.

    A unit that is made of zeros alone gives what its activation makes of zero, mostly zero: whether the answers stay is looked at, on
    `inputs`, and where they don't, such units stay. One unit of each part stays.
    """
    notes: list[str] = []
    with evaluating(network), torch.no_grad():
        wanted = network.run(tensors(network, inputs))
    while True:  # what alone made or read a dead unit may be dead then, too
        smaller = _smaller(network, by_making=True)
        if smaller is not None and not _same(smaller[0], inputs, wanted):
            smaller = _smaller(network, by_making=False)
        if smaller is None:
            return network, tuple(notes)
        network = smaller[0]
        notes += smaller[1]


def _smaller(network: Network, by_making: bool) -> tuple[Network, list[str]] | None:
    coupling = parts(network.structure)
    keep = {part.name: kept for part in coupling.parts if len(kept := _kept(network, part, by_making)) < part.units}
    if not keep:
        return None
    notes = [
        f"{part.name}: {part.units - len(keep[part.name])} of {part.units} units were dead, and went"
        for part in coupling.parts
        if part.name in keep
    ]
    return Network(shrink(network.to_graph(), keep)), notes


def _kept(network: Network, part: Part, by_making: bool) -> list[int]:
    weights = network.weights()
    read, made = np.zeros(part.units, bool), np.zeros(part.units, bool)
    for one in part.slices:
        if one.tensor not in weights:
            return list(range(part.units))  # a constant takes part: what it does isn't known here
        values = np.moveaxis(weights[one.tensor].detach().cpu().numpy(), one.axis, 0)
        alive = (values[one.indices].reshape(part.units, -1) != 0).any(1)
        if one.role == "in":
            read |= alive
        else:
            made |= alive
    found = np.flatnonzero(read & made if by_making else read).tolist()
    return found or [int(np.argmax(read))]


def _same(network: Network, inputs: Inputs, wanted: Mapping[str, torch.Tensor]) -> bool:
    with evaluating(network), torch.no_grad():
        found = network.run(tensors(network, inputs))
    return all(
        float((found[name] - value).norm()) <= SAME * float(value.norm()) for name, value in wanted.items() if value.is_floating_point()
    )
