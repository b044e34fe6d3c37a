"""Weights that make up for those that went: least squares for a given mask, and SparseGPT's sweep, which chooses the mask on its way.

Both minimise the squared error of what a layer gives, (Ŵ - W) H (Ŵ - W)ᵀ of each row, with H the second moments of what it reads, from
calibration samples. Where a bias can take up a constant, H is about the mean, and the bias takes up the mean of what went.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from edgewise.compress.prune.moments import Moments
from edgewise.compress.prune.obs import DAMPING
from edgewise.compress.prune.readers import gains
from edgewise.compress.prune.targets import Target
from edgewise.models.network import Network

# Columns that the sweep goes through before it tells the rest of the row, and over which it chooses what goes (SparseGPT's B_s).
BLOCK = 128
# Multiplications of all Cholesky factors of a layer, beyond which the sweep solves it instead: some minutes of one core.
MOST_WORK = 1e12
# rows · columns³ up to which weights are judged one by one: half a minute.
MOST_GREEDY = 5e9
# Elements of the systems that are solved together: 256 MB.
TOGETHER = 1 << 25


@dataclass(frozen=True, eq=False)
class Layer:
    """matrix: (groups, rows, columns). hessian: (groups, columns, columns), damped. gain: (groups, rows, 1), how much each row counts.

    means: for each reader (groups, columns), what it reads on average. All float64.
    """

    target: Target
    matrix: Tensor
    hessian: Tensor
    gain: Tensor
    means: tuple[Tensor, ...]


def prepared(network: Network, target: Target, moments: Moments, damping: float = DAMPING) -> Layer:
    """What a layer's least squares need; damping: of the mean of H's diagonal, added to it. moments: of all its readers."""
    whole = target.matrix(network)
    hessians = []
    for user in target.readers:
        moment = moments[user.key]
        outer = moment.mean[:, :, None] * moment.mean[:, None, :]
        hessians.append(moment.covariance if user.bias is not None else moment.covariance + outer)
    hessian = torch.stack(hessians).mean(0)
    size = hessian.diagonal(dim1=1, dim2=2).mean(1)
    ridge = damping * torch.where(size > 0, size, 1.0)
    hessian = hessian + ridge[:, None, None] * torch.eye(hessian.shape[1], dtype=torch.float64)
    gain = gains(network, target.readers[0]) if len(target.readers) == 1 else None
    rows = torch.ones(whole.shape[:2], dtype=torch.float64) if gain is None else gain.reshape(whole.shape[:2]).abs()
    return Layer(target, whole, hessian, rows[:, :, None], tuple(moments[user.key].mean for user in target.readers))


def repaired(layer: Layer, mask: Tensor) -> Tensor:
    """The matrix with zeros where `mask` is False, and the best values elsewhere: exact, or by the sweep where that would take too long."""
    work = float((mask.sum(-1, dtype=torch.float64) ** 3).sum()) / 3
    return least_squares(layer.matrix, layer.hessian, mask) if work <= MOST_WORK else sweep(layer.matrix, layer.hessian, _fixed(mask))


def least_squares(matrix: Tensor, hessian: Tensor, mask: Tensor) -> Tensor:
    """For each row with the kept columns K: w H[:, K] H[K, K]⁻¹ in K, zero elsewhere. All (groups, rows, columns)."""
    best = torch.zeros_like(matrix)
    counts = mask.sum(-1)
    for group, h in enumerate(hessian):
        wanted = matrix[group] @ h
        # Rows of about as many kept columns are solved together, filled up with columns that stand for themselves alone.
        waiting = counts[group].argsort(stable=True)
        while len(waiting):
            most = int(counts[group, waiting[-1]])
            if not most:
                break
            here = waiting[-max(1, TOGETHER // most**2) :]
            waiting = waiting[: len(waiting) - len(here)]
            order = mask[group, here].int().argsort(dim=1, descending=True, stable=True)[:, :most]
            held = torch.arange(most) < counts[group, here][:, None]
            systems = torch.where(held[:, :, None] & held[:, None, :], h[order[:, :, None], order[:, None, :]], torch.eye(most).double())
            right = torch.where(held, wanted[here[:, None], order], 0.0)
            found = torch.cholesky_solve(right[:, :, None], torch.linalg.cholesky(systems))[:, :, 0]
            best[group] = best[group].index_put((here[:, None].expand_as(order), order), torch.where(held, found, 0.0))
    return best


def costs(matrix: Tensor, hessian: Tensor) -> Tensor:
    """What each weight's removal costs its row, (groups, rows, columns): one by one, the cheapest first, the others making up for each.

    Greedy optimal brain surgeon, row by row (Frantar and Alistarh 2022, Optimal brain compression, 2208.11580, algorithm 1): w² / (H⁻¹)_jj
    with both as they are by then; made to rise along the way, so that it orders a row as it went. Where that takes over MOST_GREEDY
    steps of arithmetic, what each costs as the first that goes.
    """
    groups, rows, count = matrix.shape
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    if float(groups * rows) * count**3 > MOST_GREEDY:
        return matrix.square() / inverse.diagonal(dim1=1, dim2=2)[:, None, :]
    found = torch.empty_like(matrix)
    each = max(1, TOGETHER // count**2)
    for group in range(groups):
        for start in range(0, rows, each):
            found[group, start : start + each] = _one_by_one(matrix[group, start : start + each], inverse[group])
    return found


def _one_by_one(matrix: Tensor, inverse: Tensor) -> Tensor:
    """`costs` of rows (rows, columns) that go on together, each with an inverse of its own."""
    rows = torch.arange(len(matrix))
    left, inverses = matrix.clone(), inverse.repeat(len(matrix), 1, 1)
    gone = torch.zeros_like(matrix, dtype=torch.bool)
    found, paid = torch.zeros_like(matrix), torch.zeros(len(matrix), dtype=matrix.dtype)
    for _ in range(matrix.shape[1]):
        diagonal = inverses.diagonal(dim1=1, dim2=2)
        price = torch.where(gone, torch.inf, left.square() / torch.where(gone, 1.0, diagonal))
        at = price.argmin(1)
        # Rising, if by nothing to speak of, so that the order of the scores is that of the removals.
        paid = torch.maximum(paid * (1 + 1e-9), price[rows, at])
        found[rows, at] = paid
        column, pivot = inverses[rows, :, at], diagonal[rows, at].clone()
        left -= column * (left[rows, at] / pivot)[:, None]
        inverses.baddbmm_((column / pivot[:, None])[:, :, None], column[:, None, :], alpha=-1)
        gone[rows, at] = True
    return found


# (first column, weights as they are now (groups, rows, columns of the block), what losing each costs) -> True where one stays.
Choose = Callable[[int, Tensor, Tensor], Tensor]


def sweep(matrix: Tensor, hessian: Tensor, choose: Choose, block: int = BLOCK) -> Tensor:
    """SparseGPT (Frantar and Alistarh 2023, 2301.00774, algorithm 1): column after column goes, and those behind it make up for it.

    choose: which weights of a block of columns stay, from their values at that moment and the cost w² / (H⁻¹)_jj of each given the columns
    that were decided before.
    """
    left = matrix.clone()
    identity = torch.eye(hessian.shape[1], dtype=hessian.dtype).expand_as(hessian)
    inverse = torch.cholesky_solve(identity, torch.linalg.cholesky(hessian))
    # U with H⁻¹ = Uᵀ U: its row j is the inverse's own row j once all columns before it are decided, over the root of its diagonal.
    factor = torch.linalg.cholesky(inverse, upper=True)
    for start in range(0, left.shape[2], block):
        end = min(start + block, left.shape[2])
        now = left[:, :, start:end]
        diagonal = factor.diagonal(dim1=1, dim2=2)[:, None, start:end]
        keep = choose(start, now, (now / diagonal).square())
        errors = torch.zeros_like(now)
        for column in range(start, end):
            place = column - start
            value = left[:, :, column]
            lost = torch.where(keep[:, :, place], 0.0, value) / factor[:, column, column, None]
            left[:, :, column:end] -= lost[:, :, None] * factor[:, None, column, column:end]
            left[:, :, column] = torch.where(keep[:, :, place], left[:, :, column], 0.0)
            errors[:, :, place] = lost
        left[:, :, end:] -= errors @ factor[:, start:end, end:]
    return left


def _fixed(mask: Tensor) -> Choose:
    return lambda start, values, costs: mask[:, :, start : start + values.shape[2]]


def put(network: Network, layer: Layer, values: Tensor) -> None:
    """Write a layer's new matrix into `network`, in place; biases behind it take up the mean of what changed."""
    with torch.no_grad():
        network.weight(layer.target.name).copy_(layer.target.unmatrix(values))
        for reader, mean in zip(layer.target.readers, layer.means, strict=True):
            if reader.bias is not None:
                bias = network.weight(reader.bias.tensor)
                lost = ((layer.matrix - values) @ mean[:, :, None]).reshape(bias.shape)
                bias.add_((reader.bias.factor * lost).to(bias))
