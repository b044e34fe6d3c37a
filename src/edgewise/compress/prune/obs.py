"""Optimal brain surgeon on whole units: which one a layer misses least, and the weights that make up for those that went.

For a weight W that reads columns x, removing the columns of a unit s and setting the others anew costs, at best, a squared error of
tr(W_s (H⁻¹_ss)⁻¹ W_sᵀ) with H = E[x xᵀ]; the best weights then are W - W_s (H⁻¹_ss)⁻¹ H⁻¹_s: (LeCun 1989; Hassibi and Stork 1993; for whole
structures Kurtic et al., ZipLM, 2302.04089, section 3.1). Where a bias or a batch norm's mean can take up a constant, H is the covariance,
because the mean of what goes moves there. Each row counts as much as the batch norm behind it makes of it, so that a network gets the same
order before and after its batch norms are folded.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgewise.compress.prune.calibration import Data
from edgewise.compress.prune.moments import Moments, gather
from edgewise.compress.prune.readers import Reader, blocks, gains, matrix, readers, unmatrix
from edgewise.errors import InvalidInput
from edgewise.graph import Index, Part
from edgewise.models.network import Network

# Of the mean of H's diagonal, added to it. On held-out digits a ResNet-8 of half the width lost 0.157 nats with it, 0.175 with 0.01, 0.63
# with 0.1; below 0.001 nothing is gained, and the last digits of float32 sums come near.
DAMPING = 0.001


@dataclass(frozen=True, eq=False)
class Removal:
    """order: (units,) the unit to remove first, then the next. weights: those that read the part.

    by_weight: (units, weights) squared error of what each weight gives after so many removals, at the best weights for those that stay,
    over the energy of what it gives when whole (about the mean, where a bias can hold it). Never falls; 1 when all units are gone, or
    less where the weight reads other columns, too.
    """

    order: np.ndarray
    by_weight: np.ndarray
    weights: tuple[str, ...]

    @property
    def errors(self) -> np.ndarray:
        """(units,) mean over the weights."""
        return np.asarray(self.by_weight.mean(1))


@dataclass(frozen=True, eq=False)
class _Layer:
    """A weight that reads the part. matrix: (groups, rows, columns), hessian: (groups, columns, columns), damped; both float64.

    readers: the nodes that use it, with the means of what each reads, (groups, columns). gain: (groups, rows, 1), how much each row counts.
    units: (units, each) the columns of each unit. empty: (columns,) those that are zero already.
    """

    weight: str
    readers: tuple[Reader, ...]
    means: tuple[Tensor, ...]
    matrix: Tensor
    hessian: Tensor
    gain: Tensor
    units: np.ndarray
    empty: np.ndarray


def order(network: Network, part: Part, data: Data, *, moments: Moments | None = None, damping: float = DAMPING) -> Removal:
    """Remove the units of `part` one after the other, each time the one whose loss can best be made up for, until none is left.

    Several weights that read the part count alike: each by its error relative to its own energy, because of what a weight gives only
    the relation to itself means anything once a norm follows. moments: `gather(network, [part], data)`, where it is known already.
    """
    layers = _layers(network, part, data, moments, damping)
    eliminations = [_Elimination(layer) for layer in layers]
    live = list(range(part.units))
    sequence, errors = [], []
    lost = np.zeros(len(layers))
    while live:
        scores = [one.scores() for one in eliminations]
        place = int(torch.stack(scores).sum(0).argmin())
        lost = lost + [float(score[place]) for score in scores]
        sequence.append(live[place])
        errors.append(lost)
        for one in eliminations:
            one.remove(place)
        live[place] = live[-1]
        live.pop()
    return Removal(np.array(sequence, np.int64), np.array(errors), tuple(layer.weight for layer in layers))


def importance(network: Network, parts: Sequence[Part], data: Data) -> dict[str, np.ndarray]:
    """For each part (units,) the error at which a unit goes when the least missed are removed one by one, weights updated in between."""
    found = {}
    moments = gather(network, parts, data)
    for part in parts:
        removal = order(network, part, data, moments=moments)
        found[part.name] = np.empty(part.units)
        found[part.name][removal.order] = removal.errors
    return found


def update(
    network: Network, part: Part, keep: Sequence[int], data: Data, *, moments: Moments | None = None, damping: float = DAMPING
) -> Network:
    """A copy of `network` in which the weights that read `part` read only the units `keep`, and are the least-squares best for it.

    Columns of the other units are zero, so that `shrink` changes nothing of the answers; the bias, or the batch norm's mean, behind each
    weight takes up the mean of what went. Columns that are zero already, as an earlier update leaves them, stay zero.
    moments: `gather(network, [part], data)`, where it is known already. Raises InvalidInput for unknown or repeated units.
    """
    (changed,) = changes(network, part, [keep], data, moments=moments, damping=damping)
    return replaced(network, changed)


def replaced(network: Network, weights: Mapping[str, torch.Tensor]) -> Network:
    """A copy of `network` with these values for these weights."""
    found = copy.deepcopy(network)
    with torch.no_grad():
        for name, value in weights.items():
            found.weight(name).copy_(value)
    return found


def changes(
    network: Network,
    part: Part,
    keeps: Sequence[Sequence[int]],
    data: Data,
    *,
    moments: Moments | None = None,
    damping: float = DAMPING,
) -> list[dict[str, Tensor]]:
    """For each of `keeps` what `update` sets: weight or bias -> its new value, all else as it is."""
    checked = [_checked(part, keep) for keep in keeps]
    layers = _layers(network, part, data, moments, damping)
    found = []
    for units in checked:
        gone = np.setdiff1d(np.arange(part.units), units)
        changed: dict[str, Tensor] = {}
        for layer in layers:
            absent = layer.empty.copy()
            absent[layer.units[gone].reshape(-1)] = True
            best = _least_squares(layer, torch.from_numpy(np.flatnonzero(~absent)))
            weight = network.weight(layer.weight).detach()
            changed[layer.weight] = unmatrix(best, layer.readers[0]).to(weight)
            for reader, mean in zip(layer.readers, layer.means, strict=True):
                if reader.bias is not None:
                    bias = changed.get(reader.bias.tensor, network.weight(reader.bias.tensor).detach())
                    lost = ((layer.matrix - best) @ mean[:, :, None]).reshape(bias.shape)
                    changed[reader.bias.tensor] = bias + (reader.bias.factor * lost).to(bias)
        found.append(changed)
    return found


def _checked(part: Part, keep: Sequence[int]) -> np.ndarray:
    units = np.asarray(keep, np.int64).reshape(-1)
    if len(np.unique(units)) != len(units) or (len(units) and (units.min() < 0 or units.max() >= part.units)):
        raise InvalidInput(f"units {list(keep)[:8]} of {part.name}: give distinct numbers from 0 to {part.units - 1}")
    return units


def _layers(network: Network, part: Part, data: Data, moments: Moments | None, damping: float) -> list[_Layer]:
    index = Index(network.structure)
    found = readers(network, index, part)
    if not found:
        raise InvalidInput(f"nothing reads {part.name} through a stored weight; leave it whole")
    moments = gather(network, [part], data) if moments is None else moments
    layers = []
    for weight, (one, users) in found.items():
        whole = matrix(network.weight(weight).detach().cpu().double(), users[0])
        hessians = []
        for user in users:
            moment = moments[user.key]
            about_zero = moment.covariance + moment.mean[:, :, None] * moment.mean[:, None, :]
            hessians.append(about_zero if user.bias is None else moment.covariance)
        hessian = torch.stack(hessians).mean(0)
        size = hessian.diagonal(dim1=1, dim2=2).mean(1)
        # Where nothing ever comes in, any ridge will do.
        ridge = damping * torch.where(size > 0, size, 1.0)
        hessian = hessian + ridge[:, None, None] * torch.eye(hessian.shape[1], dtype=torch.float64)
        # A weight that several nodes share has one best value only where all of them count its rows alike.
        gain = gains(network, users[0]) if len(users) == 1 else None
        rows = torch.ones(whole.shape[:2], dtype=torch.float64) if gain is None else gain.reshape(whole.shape[:2])
        means = tuple(moments[user.key].mean for user in users)
        empty = ~whole.any(1).any(0).numpy()
        layers.append(_Layer(weight, users, means, whole, hessian, rows[:, :, None], blocks(one.indices, users[0]), empty))
    return layers


def _least_squares(layer: _Layer, kept: Tensor) -> Tensor:
    """W H[:, K] H[K, K]⁻¹ in the columns K that are kept, zero in the others: (groups, rows, columns)."""
    best = torch.zeros_like(layer.matrix)
    if len(kept):
        inner = layer.hessian[:, kept][:, :, kept]
        best[:, :, kept] = torch.cholesky_solve(layer.hessian[:, kept] @ layer.matrix.mT, torch.linalg.cholesky(inner)).mT
    return best


class _Elimination:
    """One weight while units go: what is left of W and of H⁻¹, whose rows and columns of removed units drop out by elimination.

    Columns of foreign units come first, then the blocks of those that are left; the last block takes the place of a removed one, so that
    all that is left is always one leading piece of memory.
    """

    def __init__(self, layer: _Layer) -> None:
        count, self.each = layer.units.shape
        own = layer.units.reshape(-1)
        foreign = np.setdiff1d(np.flatnonzero(~layer.empty), own)
        columns = torch.from_numpy(np.concatenate((foreign, own)))
        counted = layer.gain * layer.matrix
        self.energy = float(((counted @ layer.hessian) * counted).sum())
        self.turned = counted[:, :, columns].mT.contiguous()  # (groups, columns, rows)
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(layer.hessian[:, columns][:, :, columns])).contiguous()
        self.start, self.left = len(foreign), count

    @property
    def end(self) -> int:
        return self.start + self.left * self.each

    def _block(self, place: int) -> slice:
        return slice(self.start + place * self.each, self.start + (place + 1) * self.each)

    def _pivots(self) -> Tensor:
        """(H⁻¹_ss)⁻¹ of each unit that is left: (groups, left, each, each)."""
        own = slice(self.start, self.end)
        square = self.inverse[:, own, own].unflatten(2, (self.left, self.each)).unflatten(1, (self.left, self.each))
        return torch.linalg.inv(square.diagonal(dim1=1, dim2=3).movedim(-1, 1))

    def scores(self) -> Tensor:
        """tr(W_s (H⁻¹_ss)⁻¹ W_sᵀ) of each unit that is left, over the energy: (left,)."""
        weights = self.turned[:, self.start : self.end].unflatten(1, (self.left, self.each))
        errors = ((weights @ weights.mT) * self._pivots()).sum((0, 2, 3))
        return errors.clamp_min(0) / self.energy if self.energy > 0 else torch.zeros(self.left, dtype=torch.float64)

    def remove(self, place: int) -> None:
        block, last, end = self._block(place), self._block(self.left - 1), self.end
        for weights, inverse in zip(self.turned, self.inverse, strict=True):
            column = inverse[:end, block].clone()
            factor = column @ torch.linalg.inv(column[block])
            weights[:end].addmm_(factor, weights[block].clone(), alpha=-1)
            inverse[:end, :end].addmm_(factor, column.mT, alpha=-1)
            weights[block] = weights[last].clone()
            inverse[:end, block] = inverse[:end, last].clone()
            inverse[block, :end] = inverse[last, :end].clone()
        self.left -= 1
