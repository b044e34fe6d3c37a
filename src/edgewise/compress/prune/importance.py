"""What each unit of a part is worth: one function per criterion, all with one signature.

(network, parts, data) -> name of part -> (units,) float64, higher = keep. Values of two parts compare only where a criterion says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from edgewise.compress.prune import obs
from edgewise.compress.prune.calibration import Data, evaluating, tensors
from edgewise.compress.prune.readers import Reader, readers
from edgewise.graph import Index, Part, Slice
from edgewise.models.network import Network
from edgewise.types import Inputs

__all__ = [
    "CRITERIA", "Criterion", "Data", "activation", "loss_of", "magnitude_l1", "magnitude_l2", "norm_scale", "pieces", "random", "taylor",
    "without_norm",
]  # fmt: skip

Criterion = Callable[[Network, Sequence[Part], Data], dict[str, np.ndarray]]

SQUARED_TOGETHER = 16  # samples in one square of the Taylor criterion: more squares are less noise, larger batches are quicker


def magnitude_l1(network: Network, parts: Sequence[Part], data: Data) -> dict[str, np.ndarray]:
    """Sum of |w| over the weights that make a unit (Li et al. 2017, Pruning filters for efficient ConvNets, 3.1), biases not counted.

    All slices of role "out" add up: a channel of a residual stream is made by every layer that adds to it. `data` isn't looked at.
    """
    return {part.name: sum((_per_unit(network, one, Tensor.abs) for one in _makers(network, part)), np.zeros(part.units)) for part in parts}


def magnitude_l2(network: Network, parts: Sequence[Part], data: Data) -> dict[str, np.ndarray]:
    """Euclidean norm of all the weights that make a unit, as one group: of every slice of role "out", biases not counted.

    `data` isn't looked at.
    """
    return {
        part.name: np.sqrt(sum((_per_unit(network, one, Tensor.square) for one in _makers(network, part)), np.zeros(part.units)))
        for part in parts
    }


def norm_scale(network: Network, parts: Sequence[Part], data: Data) -> dict[str, np.ndarray]:
    """Mean |scale| of the batch norms that a unit goes through (Liu et al. 2017, Network slimming, section 3).

    A part without any, which `without_norm` names, gets `magnitude_l2` instead; its values mean nothing beside the others'. `data` isn't
    looked at.
    """
    index = Index(network.structure)
    found = {}
    for part in parts:
        scales = [_per_unit(network, one, Tensor.abs) / one.indices.shape[1] for one in _norms(index, part)]
        found[part.name] = np.mean(scales, 0) if scales else magnitude_l2(network, [part], data)[part.name]
    return found


def without_norm(network: Network, parts: Sequence[Part]) -> tuple[str, ...]:
    """The names of the parts that `norm_scale` can't judge: no batch norm goes along with their units."""
    index = Index(network.structure)
    return tuple(part.name for part in parts if not _norms(index, part))


def taylor(network: Network, parts: Sequence[Part], data: Data) -> dict[str, np.ndarray]:
    """Mean over batches of (sum of g w)² over the weights w that *read* a unit, g their gradients of the loss; comparable between parts.

    With these the sum is the change of the loss, to first order, when the unit is gone: the gate of Molchanov et al. 2019 (Importance
    estimation for neural network pruning, equation 8), whatever lies between a unit's own weights and its readers. Batches are cut into
    pieces of 16 samples.

    Without `data.loss`, what counts is the divergence from the network's own answers. Its gradient at these answers is zero, so targets
    are drawn around them: classes by the softmax of 2-D outputs, normal noise on others. The mean of the squares then is the divergence
    itself (Kullback–Leibler, or squared error) to second order, because E[g gᵀ] is its Fisher matrix.
    """
    found = {part.name: np.zeros(part.units) for part in parts}
    reads = {part.name: _distinct(one for one in part.slices if one.role == "in") for part in parts}
    weights = {one.tensor: network.weight(one.tensor) for slices in reads.values() for one in slices}
    count = 0
    for each in gradients(network, list(weights.values()), data):
        products = {name: (weight * g).detach() for (name, weight), g in zip(weights.items(), each, strict=True)}
        for name, slices in reads.items():
            found[name] += sum((_summed(products[one.tensor], one) for one in slices), np.zeros(len(found[name]))) ** 2
        count += 1
    return {name: total / count for name, total in found.items()}


def gradients(network: Network, weights: Sequence[Tensor], data: Data) -> Iterator[tuple[Tensor, ...]]:
    """For each piece of the data, the gradients of the loss (see `taylor`) by these weights, frozen ones too."""
    frozen = [weight for weight in weights if not weight.requires_grad]
    generator = torch.Generator().manual_seed(data.seed)
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        with evaluating(network):
            for batch, targets in pieces(data):
                with torch.enable_grad():
                    loss = loss_of(network, batch, targets, data, generator)
                    found = torch.autograd.grad(loss, list(weights), allow_unused=True, materialize_grads=True)
                yield found
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def activation(network: Network, parts: Sequence[Part], data: Data) -> dict[str, np.ndarray]:
    """Mean |activation| of a unit over calibration samples, in the tensors that its readers read (their mean, where they are several)."""
    index = Index(network.structure)
    reads: dict[str, dict[str, tuple[Slice, Reader]]] = {}
    for part in parts:
        reads[part.name] = {user.data: (one, user) for one, users in readers(network, index, part).values() for user in users}
    axes = {name: user.channel for held in reads.values() for name, (_, user) in held.items()}
    totals = {name: np.zeros(()) for name in axes}
    counts = dict.fromkeys(axes, 0)
    with evaluating(network), torch.no_grad():
        for batch in data.batches:
            values = network.run(tensors(network, batch), taps=tuple(axes))
            for name, axis in axes.items():
                flat = values[name].movedim(axis, 0).flatten(1)
                totals[name] = totals[name] + flat.abs().sum(1, dtype=torch.float64).cpu().numpy()
                counts[name] += flat.shape[1]
    found = {}
    for judged, held in reads.items():
        each = []
        for name, (one, user) in held.items():
            # A grouped convolution's weight has the positions of one group, and the unit lies there in all of them.
            groups = user.groups if user.convolves else 1
            each.append((totals[name] / counts[name]).reshape(groups, -1).mean(0)[one.indices].mean(1))
        found[judged] = np.mean(each, 0)
    return found


def random(network: Network, parts: Sequence[Part], data: Data) -> dict[str, np.ndarray]:
    """Uniform in [0, 1): the control that every other criterion has to beat."""
    rng = np.random.default_rng(data.seed)
    return {part.name: rng.random(part.units) for part in parts}


CRITERIA: dict[str, Criterion] = {
    "obs": obs.importance,
    "taylor": taylor,
    "activation": activation,
    "magnitude_l1": magnitude_l1,
    "magnitude_l2": magnitude_l2,
    "norm_scale": norm_scale,
    "random": random,
}


def _distinct(slices: Iterator[Slice]) -> tuple[Slice, ...]:
    """One for each axis of each tensor: a weight that two nodes share counts once."""
    return tuple({(one.tensor, one.axis): one for one in slices}.values())


def _makers(network: Network, part: Part) -> tuple[Slice, ...]:
    """The weights that make the part, without biases; for a part that has none, the kernels that go along, then those that read it."""
    for role in ("out", "along", "in"):
        found = _distinct(one for one in part.slices if one.role == role and network.weight(one.tensor).dim() > 1)
        if found:
            return found
    return ()


def _norms(index: Index, part: Part) -> tuple[Slice, ...]:
    scales = {node.input[1] for node in index.nodes if node.op_type == "BatchNormalization"}
    return _distinct(one for one in part.slices if one.role == "along" and one.tensor in scales)


def _per_unit(network: Network, one: Slice, measure: Callable[[Tensor], Tensor]) -> np.ndarray:
    return _summed(measure(network.weight(one.tensor).detach().double()), one)


def _summed(values: Tensor, one: Slice) -> np.ndarray:
    """(units,) sums over all that belongs to each unit in a tensor of the slice's shape."""
    positions = values.movedim(one.axis, 0).reshape(values.shape[one.axis], -1).sum(1, dtype=torch.float64)
    return np.asarray(positions.cpu().numpy()[one.indices].sum(1))


def pieces(data: Data) -> Iterator[tuple[Inputs, np.ndarray | None]]:
    """The batches, cut into pieces where all that belongs to one has a common first axis: the samples."""
    known: Sequence[np.ndarray | None] = data.targets if data.targets is not None else [None] * len(data.batches)
    for batch, targets in zip(data.batches, known, strict=True):
        arrays = [*batch.values(), *([] if targets is None else [targets])]
        lengths = {len(array) if np.ndim(array) else 0 for array in arrays}
        if len(lengths) != 1 or 0 in lengths:
            yield batch, targets
            continue
        for start in range(0, lengths.pop(), SQUARED_TOGETHER):
            here = slice(start, start + SQUARED_TOGETHER)
            yield {name: array[here] for name, array in batch.items()}, None if targets is None else targets[here]


def loss_of(network: Network, batch: Inputs, targets: np.ndarray | None, data: Data, generator: torch.Generator) -> Tensor:
    """A scalar whose gradients tell what weights are worth: the task's loss, or one around the network's own answers (see `taylor`)."""
    answers = network.run(tensors(network, batch))
    outputs = [answers[spec.name] for spec in network.structure.signature.outputs]
    if data.loss is not None and targets is not None:
        return data.loss(outputs[0], torch.as_tensor(targets).to(outputs[0].device))
    losses = [_drawn_loss(output, generator) for output in outputs if output.is_floating_point()]
    return torch.stack(losses).sum()


def _drawn_loss(output: Tensor, generator: torch.Generator) -> Tensor:
    """A loss whose gradients, squared, are on average those of the divergence from `output`. Divided by the samples, as a mean loss is."""
    own = output.detach().float().cpu()
    if output.dim() == 2 and output.shape[1] > 1:
        drawn = torch.multinomial(own.softmax(1), 1, generator=generator)[:, 0]
        return cross_entropy(output, drawn.to(output.device))
    noise = torch.randn(own.shape, generator=generator).to(output)
    return (output * noise).sum() / max(len(output) if output.dim() else 1, 1)
