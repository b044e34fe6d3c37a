"""`Data`: the samples by which units are judged, and how a network is run on them without being changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgewise.errors import InvalidInput
from edgewise.models.network import Network
from edgewise.types import Inputs

POSITIONS = 32_768  # twenty for each of 1536 columns
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True, eq=False)
class Data:
    """Calibration samples, in batches.

    targets: one array for each batch. loss: (first output, targets) -> scalar, as `TrainingTask.loss` is; without one, the divergence from
    the network's own answers is what counts (see `importance.taylor`). seed: of every draw made for them.
    Raises InvalidInput when there is no batch, or a loss without targets for each.
    """

    batches: Sequence[Inputs]
    targets: Sequence[np.ndarray] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.batches:
            raise InvalidInput("no calibration batches; give at least one, as [{input: array}]")
        given = None if self.targets is None else len(self.targets)
        if self.loss is not None and given != len(self.batches):
            raise InvalidInput(f"a loss with targets for {given or 0} of {len(self.batches)} batches; give one array for each, or no loss")


def enough(calibration: Sequence[Inputs], samples: int) -> list[Inputs]:
    """The batches that hold the first `samples` samples, and of sequences as many more as it takes to POSITIONS.

    A picture has thousands of positions for least squares to look at, a sentence twenty. Raises InvalidInput where there is none.
    """
    found = first(calibration, samples)
    masks = [present(batch) for batch in found]
    held = sum(int(mask.sum()) for mask in masks if mask is not None)
    if any(mask is None for mask in masks):
        return found
    for batch in spread(calibration)[len(found) :]:
        mask = present(batch)
        if held >= POSITIONS or mask is None:
            break
        found.append(batch)
        held += int(mask.sum())
    return found


def first(calibration: Sequence[Inputs], samples: int) -> list[Inputs]:
    """The batches that hold the first `samples` samples, of sequences of all lengths. Raises InvalidInput where there is none."""
    found: list[Inputs] = []
    left = samples
    for batch in spread(calibration):
        if left <= 0:
            break
        found.append({name: array[:left] for name, array in batch.items()})
        left -= len(next(iter(batch.values())))
    if not found:
        raise InvalidInput("no calibration samples; give inputs like those that the model will see")
    return found


def spread(calibration: Sequence[Inputs]) -> list[Inputs]:
    """Batches of sequences, which are sorted by length, in an order every beginning of which has short ones and long ones.

    A network that is judged on short texts alone can do without attention. Other batches stay in their order.
    """
    if len(calibration) < 3 or any(present(batch) is None for batch in calibration):
        return list(calibration)
    return [calibration[i] for i in np.argsort((np.arange(len(calibration)) + 1) * _GOLDEN % 1.0, kind="stable")]


@contextmanager
def evaluating(network: Network) -> Iterator[None]:
    """Inside, batch norms use their running statistics, and leave them as they are; afterwards the mode is what it was."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)


def tensors(network: Network, batch: Inputs | Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """A batch as the network takes it, where its weights are."""
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    return {name: torch.as_tensor(np.ascontiguousarray(value)).to(device) for name, value in batch.items()}


def present(batch: Inputs) -> np.ndarray | None:
    """(batch, tokens) bool: where a sequence goes on, False where it is filled up to the length of the others; None without such a mask.

    A mask is an input of whole numbers (batch, tokens), each row of which is ones first and then zeros.
    """
    for array in batch.values():
        if array.ndim == 2 and array.dtype.kind in "biu" and (array[:, 0] == 1).all() and np.isin(array, (0, 1)).all():
            mask: np.ndarray = array.astype(bool)
            if (mask[:, :-1] >= mask[:, 1:]).all():
                return mask
    return None


def flattened(values: Tensor, mask: np.ndarray | None) -> Tensor:
    """(…, channels) -> (n, channels): of a tensor (batch, tokens, channels) only where `mask` is True (see `present`)."""
    if mask is not None and values.ndim == 3 and tuple(values.shape[:2]) == mask.shape:
        return values[torch.from_numpy(mask).to(values.device)]
    return values.reshape(-1, values.shape[-1])
