"""A network that trains with its weights on grids, and the price of those weights as a part of the loss.

Entropy-penalised reparameterisation (EPR, 1906.06624) trains quantized weights with the entropy of a model of them. Here the model is the
adaptive coder's own: what an integer costs hangs on how much of its row and column is zero, so a row or a column that empties makes each
of its last weights dearer, until none is left. Integers are rounded straight through (Bengio 2013), steps are learned (LSQ, 1902.08153).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgewise import coding
from edgewise.compress.prune.readers import Reader, every, matrix, unmatrix
from edgewise.compress.rate.dead import narrowed
from edgewise.graph import Index
from edgewise.models.network import Network, escaped, unescaped

PERIOD = 20  # training steps that use the same prices
MOST, LEAST = 14.0, 0.2  # bits of one weight that is not zero: beyond them estimates are noise
FIRST_SLOPE, SLOPES = 1e-6, (1e-9, 1e-2)  # of loss per bit
VECTOR = (4.0, 2.0)  # bits of an element of a bias, and of each doubling: too few to learn prices from
OVERHEAD = 3  # bytes of each tensor beside its integers: coder, layout, step


@dataclass(frozen=True, eq=False)
class Price:
    """weights: bits that a one costs over a zero, of the tensor's shape. doubling: bits of each further bit length. bits: of all now."""

    weights: Tensor
    doubling: Tensor
    bits: float


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient


class Penalized(nn.Module):
    """`network` with every trained tensor on a grid of its own; `log_step` holds the logarithms of the steps, tensor by tensor.

    slope: of loss per bit, and correction: of estimated bits to the coder's, are buffers, so that a checkpoint holds them; ticks counts
    steps.
    """

    slope: Tensor
    correction: Tensor
    ticks: Tensor

    def __init__(self, network: Network, readers: Mapping[str, tuple[Reader, ...]]) -> None:
        super().__init__()
        self.network = network
        self.readers = {name: users[0] for name, users in readers.items()}
        self.names = tuple(unescaped(key) for key, _ in network.named_parameters())
        first = [math.log(_first_step(network.weight(name).detach())) for name in self.names]
        self.log_step = nn.ParameterList([nn.Parameter(torch.tensor(one)) for one in first])
        self.register_buffer("slope", torch.tensor(FIRST_SLOPE, dtype=torch.float64))
        self.register_buffer("correction", torch.tensor(1.0, dtype=torch.float64))
        self.register_buffer("ticks", torch.tensor(0))
        self.prices: tuple[Price, ...] = ()

    def scaled(self) -> dict[str, Tensor]:
        """Each tensor in units of its step."""
        return {name: self.network.weight(name) / step for name, step in self.steps().items()}

    def steps(self) -> dict[str, Tensor]:
        return {name: step.exp() for name, step in zip(self.names, self.log_step, strict=True)}

    def forward(self, *inputs: Tensor) -> Any:
        return self._with(self.scaled(), inputs)

    def _with(self, scaled: Mapping[str, Tensor], inputs: tuple[Tensor, ...]) -> Any:
        steps = self.steps()
        held = {escaped(name): Rounded.apply(x) * steps[name] for name, x in scaled.items()}
        return torch.func.functional_call(self.network, held, inputs)

    def penalty(self) -> Tensor:
        """Bits as a function that falls towards zero: linear up to a one, logarithmic beyond."""
        found = []
        for x, price in zip(self.scaled().values(), self.prices, strict=True):
            size = x.abs()
            found.append((price.weights * size.clamp(max=1)).sum() + (price.doubling * size.clamp(min=1).log2()).sum())
        return torch.stack(found).sum()

    @torch.no_grad()
    def integers(self) -> dict[str, Tensor]:
        return {name: x.round() for name, x in self.scaled().items()}

    @torch.no_grad()
    def learn_prices(self) -> float:
        """Prices of the integers as they are now; returns the bits of all of them, as estimated."""
        self.prices = tuple(_price(q, self.readers.get(name)) for name, q in self.integers().items())
        return sum(price.bits for price in self.prices)

    def coded_bytes(self) -> int:
        """What the coder makes of the integers, with the steps."""
        return sum(len(coding.encode(_int(q, self.readers.get(name)))) + OVERHEAD - 1 for name, q in self.integers().items())

    @torch.no_grad()
    def narrowed(self, keeps: Sequence[Mapping[str, list[int]]]) -> Penalized:
        """The same training, of a network with these units of its parts alone (see `dead.alive`)."""
        network = self.network
        for keep in keeps:
            network = narrowed(network, keep)
        found = Penalized(network, every(network, Index(network.structure)))
        steps = dict(zip(self.names, self.log_step, strict=True))
        for name, step in zip(found.names, found.log_step, strict=True):
            step.copy_(steps[name])
        for name, value in self.named_buffers(recurse=False):
            found.get_buffer(name).copy_(value)
        return found

    @torch.no_grad()
    def settled(self) -> Network:
        """The network with its weights on their grids: float32(integer) · step, each step the nearest bfloat16, which takes two bytes.

        That scales a tensor by 0.2 % at most. While training steps stay what they are: one that jumps moves all integers at once.
        """
        found = copy.deepcopy(self.network)
        steps = self.steps()
        for name, q in self.integers().items():
            found.weight(name).copy_((q + 0.0).float() * steps[name].bfloat16().float())  # -0.0 is no integer
        return found


def _first_step(weight: Tensor) -> float:
    """Three quarters of the spread: about half of the weights start as zeros, and few beyond two steps."""
    spread = float(weight.double().square().mean().sqrt())
    return 0.75 * spread if weight.ndim > 1 and spread > 0 else max(spread / 2, 1e-3)


def _int(q: Tensor, reader: Reader | None) -> np.ndarray:
    laid = q.cpu() if reader is None else matrix(q.cpu(), reader).flatten(0, 1)
    whole = laid.numpy().astype(np.int64)
    return whole.astype(np.int8 if np.abs(whole).max(initial=0) < 128 else np.int32)


def _price(q: Tensor, reader: Reader | None) -> Price:
    if q.ndim < 2:
        whole, doubling = VECTOR
        nonzero = q[q != 0].abs()
        return Price(
            torch.full_like(q, whole), q.new_tensor(doubling), float(len(q) + whole * len(nonzero) + doubling * nonzero.log2().sum())
        )
    laid = q.reshape(1, len(q), -1) if reader is None else matrix(q, reader)
    kernel = 1 if reader is None else reader.kernel
    found = [_bargain(group, kernel) for group in laid]
    weights = torch.stack([one[0] for one in found])
    back = weights.reshape(q.shape) if reader is None else unmatrix(weights, reader)
    size = q.abs()
    some = size[size > 0]
    lengths = some.log2().floor()
    longer = float((lengths >= 1).double().mean().clamp(0.05, 0.95)) if len(some) else 0.3
    doubling = 1 - math.log2(longer)
    sign = 1 - math.log2(1 - longer)
    bits = sum(one[1] for one in found) + sign * len(some) + doubling * float(lengths.sum())
    return Price((back + sign).clamp(LEAST, MOST), q.new_tensor(doubling), bits)


def _bargain(q: Tensor, kernel: int) -> tuple[Tensor, float]:
    """(rows, columns) bits that a flag costs more when it is set; and the bits of all flags.

    A flag's chance is that of its row times that of its column over that of all, in odds; a column's is halfway to its whole unit's.
    """
    flags = (q != 0).to(torch.float32)
    rows, columns = flags.shape
    whole = (flags.sum() + 0.5) / (flags.numel() + 1)
    along = (flags.sum(1) + 2 * whole) / (columns + 2)
    across = (flags.sum(0) + 2 * whole) / (rows + 2)
    if kernel > 1 and columns > kernel:
        unit = (flags.reshape(rows, -1, kernel).sum((0, 2)) + 2 * whole) / (rows * kernel + 2)
        across = (across + unit.repeat_interleave(kernel)) / 2
    odds = _odds(along)[:, None] + _odds(across) - _odds(whole)
    chance = torch.sigmoid(odds * math.log(2)).clamp(2e-4, 0.98)
    bits = -(flags * chance.log2() + (1 - flags) * (1 - chance).log2()).sum()
    return -odds, float(bits)


def _odds(chance: Tensor) -> Tensor:
    kept = chance.clamp(1e-4, 1 - 1e-4)
    return (kept / (1 - kept)).log2()
