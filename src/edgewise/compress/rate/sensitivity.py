"""How much the answers feel an error of each row of a matrix, and of each vector: squared gradients, sample by sample.

For outputs z and a random vector v of signs, E[(∂(v·z)/∂y)²] is the sum over outputs of (∂z/∂y)² (Hutchinson 1990): the squared error that
the answers get from a unit error in y. Of a matrix's row, y is what the row gives, summed over positions; of any other parameter, it is
the parameter itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgewise.compress.prune.calibration import Data, evaluating, tensors
from edgewise.compress.prune.readers import Reader, rows_of
from edgewise.graph import fold
from edgewise.models.network import Network, escaped

SAMPLES = 48  # one backward pass for each


def without_norms(network: Network) -> Network:
    """`network` with its batch norms in the weights before them, as engines get it: folding them afterwards would leave every grid."""
    if not any(node.op_type == "BatchNormalization" for node in network.structure.proto.graph.node):
        return network
    return Network(fold(network.to_graph()))


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """rows: reader's key -> (rows,) float64. others: parameter -> mean over its elements. energy: mean square of a sample's answers."""

    rows: Mapping[tuple[str, str], Tensor]
    others: Mapping[str, float]
    energy: float


def felt(network: Network, readers: Mapping[str, tuple[Reader, ...]], data: Data, samples: int = SAMPLES) -> Sensitivity:
    """Measured on the first `samples` of `data`, one by one. All outputs count, as they are."""
    users = [user for group in readers.values() for user in group]
    made = {user.key: user.node.output[0] for user in users}
    rows = {user.key: torch.zeros(rows_of(user), dtype=torch.float64) for user in users}
    names = [name for name in network.weights() if name not in readers and escaped(name) in network._parameters]
    others = dict.fromkeys(names, 0.0)
    generator = torch.Generator().manual_seed(data.seed)
    energy, count = 0.0, 0
    with evaluating(network):
        for batch in data.batches:
            size = len(next(iter(batch.values())))
            for at in range(size):
                if count == samples:
                    break
                one = tensors(network, {name: value[at : at + 1] for name, value in batch.items()})
                found = network.run(one, taps=tuple(dict.fromkeys(made.values())))
                answers = [found[spec.name] for spec in network.structure.signature.outputs if found[spec.name].is_floating_point()]
                energy += sum(float(answer.detach().double().square().sum()) for answer in answers)
                signed = torch.stack([(answer * _signs(answer, generator)).sum() for answer in answers]).sum()
                taps = [found[made[user.key]] for user in users]
                wanted = [*taps, *(network.weight(name) for name in names)]
                gradients = torch.autograd.grad(signed, wanted, allow_unused=True)
                for user, gradient in zip(users, gradients[: len(users)], strict=True):
                    if gradient is not None:
                        rows[user.key] += _by_row(gradient.double(), user)
                for name, gradient in zip(names, gradients[len(users) :], strict=True):
                    if gradient is not None:
                        others[name] += float(gradient.double().square().mean())
                count += 1
    return Sensitivity({key: total / count for key, total in rows.items()}, {n: v / count for n, v in others.items()}, energy / count)


def _by_row(gradient: Tensor, user: Reader) -> Tensor:
    """Squares summed over all but the rows' axis of the output."""
    axis = 1 if user.convolves else gradient.ndim - (2 if user.first else 1)
    squares = gradient.square().movedim(axis, 0).flatten(1).sum(1)
    return squares.reshape(-1) if len(squares) == rows_of(user) else squares.new_full((rows_of(user),), float(squares.mean()))


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)
