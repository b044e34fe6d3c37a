"""`refit`: the layers of a narrow network set anew, one after the other, to give what those of the whole one gave.

Each product with a stored weight is the least-squares best for what it reads *now*, behind layers that are narrow and set anew already, so
that errors don't pile up from layer to layer. One whose output is added to a stream makes up for what is missing there, too. Behind a layer
norm over fewer positions each channel gets the scale and the shift with which it follows the whole one's best.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from edgewise.compress.prune.calibration import Data, evaluating, flattened, present, tensors
from edgewise.compress.prune.obs import DAMPING
from edgewise.compress.prune.readers import Reader, every, matrix, unmatrix
from edgewise.graph import Index
from edgewise.models.network import Network
from edgewise.models.running import Run

# Positions for each column that a least squares needs to be worth more than what it replaces.
LEAST_ROWS = 4

_NORMS = ("LayerNormalization", "RMSNormalization")

Positions = Mapping[str, Sequence[np.ndarray | None]]


@dataclass(frozen=True, eq=False)
class _Stage:
    """What is set anew at `node`: a product (its reader) or a layer norm.

    made: the tensor that is to be as it was in the whole network, bias included. Where that alone is added to another one, `other`, it is
    the sum `total` that is to be as it was.
    """

    node: onnx.NodeProto
    made: str
    reader: Reader | None = None
    other: str = ""
    total: str = ""

    @property
    def target(self) -> str:
        return self.total or self.made


# For each batch a run through the whole network and one through the narrow one, and which positions are more than filling.
Pass = tuple[Run, Run, np.ndarray | None]


def refit(narrow: Network, whole: Network, stays: Positions, data: Data, *, damping: float = DAMPING) -> Network:
    """A copy of `narrow` whose products and layer norms are refitted to what `whole` computes on `data`.

    narrow: what `graph.shrink` made of `whole`; stays: `graph.positions` of the same units. Convolutions, weights that several nodes read,
    and layers that see fewer than 4 positions for each column stay as they are. damping: of the mean of the second moments' diagonal: the
    ridge towards the weights as they are.
    """
    found = copy.deepcopy(narrow)
    stages = [stage for stage in _stages(found) if stage.target in whole.plan.slots]
    targets = {stage.target for stage in stages}
    with evaluating(whole), evaluating(found), torch.no_grad():
        passes = [(Run(whole, tensors(whole, batch), targets), Run(found, tensors(found, batch)), present(batch)) for batch in data.batches]
        for stage in stages:
            if stage.reader is None:
                _norm(found, stage, passes, stays, damping)
            else:
                _product(found, stage, stage.reader, passes, stays, damping)
    return found


def has_norms(network: Network) -> bool:
    """Whether layer norms stand in it: there, least squares layer by layer reaches what lies between."""
    return any(node.op_type in _NORMS for node in network.structure.proto.graph.node)


def _stages(network: Network) -> list[_Stage]:
    index = Index(network.structure)
    readers = {users[0].node.name: users[0] for users in every(network, index).values() if len(users) == 1 and _plain(users[0])}
    weights = network.weights()
    found = []
    for node in index.nodes:
        reader, made = readers.get(node.name), node.output[0]
        if reader is not None:
            if reader.bias is not None and reader.bias.tensor not in node.input:
                made = index.consumers(made)[0].output[0]
            found.append(_Stage(node, made, reader, *_stream(index, made)))
        elif node.op_type in _NORMS and all(name in weights and len(index.consumers(name)) == 1 for name in node.input[1:]):
            found.append(_Stage(node, made))
    return found


def _plain(reader: Reader) -> bool:
    """x @ W + b, no more."""
    factors = (float(reader.attribute(name, 1.0)) for name in ("alpha", "beta"))
    return not reader.convolves and not reader.first and len(reader.shape) == 2 and reader.norm is None and all(one == 1 for one in factors)


def _stream(index: Index, made: str) -> tuple[str, str]:
    """The other side of the sum that alone takes `made`, and the sum; empty where there is none."""
    user = index.sole_consumer(made)
    if user is None or user.op_type != "Add" or user.input[0] == user.input[1]:
        return "", ""
    other = user.input[1 if user.input[0] == made else 0]
    return ("", "") if other in index.initializers else (other, user.output[0])


class _Sums:
    """Of what a layer reads and of what it is to give: means, covariance, and the covariance of both.

    product: of each row with each column; else of each with its own. Sums are of what is left of the first piece's means: squares of large
    constants would lose their digits in float32.
    """

    def __init__(self, product: bool) -> None:
        self.product, self.count = product, 0
        self.near = self.first = self.square = self.cross = self.target_near = self.target_first = torch.zeros(())

    def add(self, x: Tensor, target: Tensor) -> None:
        """x (n, columns), target (n, rows)."""
        if not self.count:
            self.near, self.target_near = x.mean(0), target.mean(0)
        x, target = x - self.near, target - self.target_near
        self.count += len(x)
        self.first = self.first + x.sum(0).cpu().double()
        self.target_first = self.target_first + target.sum(0).cpu().double()
        self.square = self.square + (x.mT @ x if self.product else x.square().sum(0)).cpu().double()
        self.cross = self.cross + (target.mT @ x if self.product else (target * x).sum(0)).cpu().double()

    def moments(self, *, central: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Means of x and of the target, second moments of x, and those of both: about the means, or about zero."""
        x, target = self.first / self.count, self.target_first / self.count
        square, cross = self.square / self.count - self._outer(x, x), self.cross / self.count - self._outer(target, x)
        x, target = x + self.near.cpu().double(), target + self.target_near.cpu().double()
        return (x, target, square, cross) if central else (x, target, square + self._outer(x, x), cross + self._outer(target, x))

    def _outer(self, rows: Tensor, columns: Tensor) -> Tensor:
        return rows[:, None] * columns if self.product else rows * columns


def _product(narrow: Network, stage: _Stage, reader: Reader, passes: list[Pass], stays: Positions, damping: float) -> None:
    sums = _Sums(product=True)
    for dense, run, mask in passes:
        run.until(stage.node.name)
        target = _target(dense, run, stage, stays)
        x = run.value(reader.data).movedim(reader.channel, -1)
        if target is not None and target.shape[:-1] == x.shape[:-1]:
            sums.add(flattened(x, mask), flattened(target, mask))
    if sums.count < LEAST_ROWS * reader.columns:
        return
    before = matrix(narrow.weight(reader.weight).cpu().double(), reader)[0]
    mean, wanted, square, cross = sums.moments(central=reader.bias is not None)
    ridge = damping * square.diagonal().mean().clamp_min(1e-30)
    system = square + ridge * torch.eye(len(square), dtype=torch.float64)
    factor, failed = torch.linalg.cholesky_ex(system)
    # What never varies (the norm of a stream of one unit) says nothing about the weights that read it; the bias still makes up for it.
    after = before if failed else before + torch.cholesky_solve((cross - before @ square).mT, factor).mT
    narrow.weight(reader.weight).copy_(unmatrix(after[None], reader))
    if reader.bias is not None:
        bias = narrow.weight(reader.bias.tensor)
        bias.copy_((wanted - after @ mean).reshape(bias.shape))


def _norm(narrow: Network, stage: _Stage, passes: list[Pass], stays: Positions, damping: float) -> None:
    """y = g z + b in each channel, z what is normalised: the regression of what the whole network gave on z."""
    sums = _Sums(product=False)
    for dense, run, mask in passes:
        run.until(stage.node.name)
        target = _target(dense, run, stage, stays)
        z = _normalised(stage.node, run.value(stage.node.input[0]))
        if target is not None and target.shape == z.shape:
            sums.add(flattened(z, mask), flattened(target, mask))
    scale = narrow.weight(stage.node.input[1])
    if sums.count < LEAST_ROWS:
        return
    shifts = len(stage.node.input) > 2 and bool(stage.node.input[2])
    mean, wanted, square, cross = sums.moments(central=shifts)
    ridge = damping * square.mean()
    after = (cross + ridge * scale.cpu().double()) / (square + ridge)
    scale.copy_(after)
    if shifts:
        narrow.weight(stage.node.input[2]).copy_(wanted - after * mean)


def _normalised(node: onnx.NodeProto, x: Tensor) -> Tensor:
    epsilon = next((one.f for one in node.attribute if one.name == "epsilon"), 1e-5)
    if node.op_type == "LayerNormalization":
        return F.layer_norm(x, x.shape[-1:], eps=epsilon)
    return F.rms_norm(x, x.shape[-1:], eps=epsilon)


def _target(dense: Run, run: Run, stage: _Stage, stays: Positions) -> Tensor | None:
    """What the layer is to give: as much as it gave in the whole network, and what a stream lacks by now that it is added to."""
    whole = dense.reach(stage.target)
    dense.release(stage.target)
    for axis, left in enumerate(stays.get(stage.target, ())):
        if left is not None and not left.all():
            whole = whole.index_select(axis, torch.from_numpy(np.flatnonzero(left)).to(whole.device))
    if not stage.other:
        return whole
    there = run.known(stage.other)
    return None if there is None or there.shape != whole.shape else whole - there
