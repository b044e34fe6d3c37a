"""What each single weight is worth: one function per criterion, all with one signature.

(network, targets, data) -> name of weight -> (groups, rows, columns) float64 as `Target.matrix` lays it out, 0 or more, higher = keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from edgewise.compress.prune.calibration import Data, evaluating, tensors
from edgewise.compress.prune.importance import gradients
from edgewise.compress.prune.moments import MOST_COLUMNS, ROWS, measured
from edgewise.compress.prune.readers import columns, matrix
from edgewise.compress.prune.surgery import costs, prepared
from edgewise.compress.prune.targets import Target
from edgewise.errors import InvalidInput
from edgewise.models.network import Network

Score = Callable[[Network, Sequence[Target], Data], dict[str, Tensor]]


def magnitude(network: Network, targets: Sequence[Target], data: Data) -> dict[str, Tensor]:
    """|w| (Han et al. 2015, Learning both weights and connections). `data` isn't looked at."""
    return {target.name: target.matrix(network).abs() for target in targets}


def lamp(network: Network, targets: Sequence[Target], data: Data) -> dict[str, Tensor]:
    """w² over the sum of the squares of all weights of the layer that are no smaller (Lee et al. 2021, LAMP, 2010.07611, equation 3).

    Inside a layer it gives the order of magnitudes; between layers it keeps any of them from being emptied. `data` isn't looked at.
    """
    found = {}
    for target in targets:
        square = target.matrix(network).square()
        order = square.flatten().argsort(descending=True, stable=True)
        falling = square.flatten()[order]
        score = torch.zeros_like(falling)
        score[order] = falling / falling.cumsum(0).clamp_min(torch.finfo(torch.float64).tiny)
        found[target.name] = score.reshape(square.shape)
    return found


def taylor(network: Network, targets: Sequence[Target], data: Data) -> dict[str, Tensor]:
    """Mean over pieces of the data of (g w)², g the gradient of the loss: the change of the loss, squared, to first order.

    Without `data.loss` the loss is that of `importance.taylor`, around the network's own answers: g² then is the diagonal of the Fisher
    matrix, and half the score the divergence when this weight alone goes (Optimal brain damage, LeCun et al. 1989, equation 5, with
    Fisher's diagonal for Hessian's). Comparable between layers.
    """
    weights = [network.weight(target.name) for target in targets]
    sums = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
    count = 0
    for each in gradients(network, weights, data):
        for total, weight, gradient in zip(sums, weights, each, strict=True):
            total.add_((weight * gradient).detach().double().square())
        count += 1
    return {target.name: matrix(total.cpu() / count, target.readers[0]) for target, total in zip(targets, sums, strict=True)}


def wanda(network: Network, targets: Sequence[Target], data: Data) -> dict[str, Tensor]:
    """|w| times the norm of what the weight meets, root mean square over positions (Sun et al. 2024, Wanda, 2306.11695, equation 1).

    Meant to be compared inside a row, which is an output (their section 3).
    """
    rng = np.random.default_rng(data.seed)
    sums: dict[str, Tensor] = {target.name: torch.zeros((), dtype=torch.float64) for target in targets}
    counts = dict.fromkeys(sums, 0)
    taps = tuple(dict.fromkeys(reader.data for target in targets for reader in target.readers))
    with evaluating(network), torch.no_grad():
        for batch in data.batches:
            seen = network.run(tensors(network, batch), taps=taps)
            for target in targets:
                for reader in target.readers:
                    met = columns(seen[reader.data].float(), reader, ROWS[1], rng)
                    sums[target.name] = sums[target.name] + met.square().sum(1, dtype=torch.float64).cpu()
                    counts[target.name] += met.shape[1]
    norms = {name: (total / counts[name]).sqrt() for name, total in sums.items()}
    return {target.name: target.matrix(network).abs() * norms[target.name][:, None, :] for target in targets}


def obs(network: Network, targets: Sequence[Target], data: Data) -> dict[str, Tensor]:
    """Optimal brain surgeon (Hassibi and Stork 1993): the layer's squared error when w goes and its row makes up for it, one by one
    where that is quick enough (see `surgery.costs`).

    H: second moments of what a row's columns meet; about the mean where a bias can take that up. Each row counts by what the batch norm
    behind it makes of it. Divided by the energy of what the layer gives, which makes layers comparable: 1 is an output lost whole.
    Raises InvalidInput for a weight of over 8192 columns.
    """
    wide = [target for target in targets if target.readers[0].columns > MOST_COLUMNS]
    if wide:
        raise InvalidInput(
            f"{wide[0].name} has {wide[0].readers[0].columns} columns, too many for least squares (at most {MOST_COLUMNS}); name it in "
            "skip, or use another importance"
        )
    moments = measured(network, [reader for target in targets for reader in target.readers], data)
    found = {}
    for target in targets:
        layer = prepared(network, target, moments)
        counted = layer.gain * layer.matrix
        energy = ((counted @ layer.hessian) * counted).sum().clamp_min(torch.finfo(torch.float64).tiny)
        found[target.name] = costs(counted, layer.hessian) / energy
    return found


def random(network: Network, targets: Sequence[Target], data: Data) -> dict[str, Tensor]:
    """Uniform in (0, 1]: the control that every other criterion has to beat. What is zero already scores 0."""
    rng = np.random.default_rng(data.seed)
    found = {}
    for target in targets:
        values = target.matrix(network)
        found[target.name] = torch.from_numpy(1 - rng.random(tuple(values.shape))) * (values != 0)
    return found


SCORES: dict[str, Score] = {"obs": obs, "taylor": taylor, "wanda": wanda, "magnitude": magnitude, "lamp": lamp, "random": random}
# Those that look at weights alone.
WITHOUT_DATA = ("magnitude", "lamp", "random")
# What a criterion's scores are compared over, unless told otherwise.
USUAL_SCOPE = {"wanda": "row", "sparsegpt": "layer"}
