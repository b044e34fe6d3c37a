"""Units that no longer do anything, taken out: tensors become smaller, answers stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    found = alive(network, inputs)
    for keep in found.keeps:
        network = narrowed(network, keep)
    return network, found.notes


@dataclass(frozen=True)
class Alive:
    """keeps: what `narrowed` takes, one after the other: part -> units that stay. notes: of each part that lost some."""

    keeps: tuple[Mapping[str, list[int]], ...]
    notes: tuple[str, ...]


def alive(network: Network, inputs: Inputs) -> Alive:
    """What stays of `network` without its dead units (see `without_dead_units`); nothing is changed."""
    keeps: list[Mapping[str, list[int]]] = []
    notes: list[str] = []
    with evaluating(network), torch.no_grad():
        wanted = network.run(tensors(network, inputs))
    while True:  # what alone made or read a dead unit may be dead then, too
        keep, said = _kept_of(network, by_making=True)
        smaller = narrowed(network, keep) if keep else network
        if keep and not _same(smaller, inputs, wanted):
            keep, said = _kept_of(network, by_making=False)
            smaller = narrowed(network, keep) if keep else network
        if not keep:
            return Alive(tuple(keeps), tuple(notes))
        network = smaller
        keeps.append(keep)
        notes += said


def narrowed(network: Network, keep: Mapping[str, list[int]]) -> Network:
    """`network` with these units of its parts alone."""
    return Network(shrink(network.to_graph(), keep))


def _kept_of(network: Network, by_making: bool) -> tuple[dict[str, list[int]], list[str]]:
    coupling = parts(network.structure)
    keep = {part.name: kept for part in coupling.parts if len(kept := _kept(network, part, by_making)) < part.units}
    notes = [
        f"{part.name}: {part.units - len(keep[part.name])} of {part.units} units were dead, and went"
        for part in coupling.parts
        if part.name in keep
    ]
    return keep, notes


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
