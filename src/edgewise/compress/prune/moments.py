"""Second moments of what weights read, from calibration samples: all that the least squares of `obs.py` needs to know of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from edgewise.compress.prune.calibration import Data, evaluating, flattened, present, tensors
from edgewise.compress.prune.readers import Reader, columns, readers
from edgewise.errors import InvalidInput
from edgewise.graph import Index, Part
from edgewise.models.network import Network

ROWS_PER_COLUMN = 20  # positions of the output that are looked at, for each column of the weights …
ROWS = (4096, 65536)  # … and the least and most of them
MOST_COLUMNS = 8192  # half a gigabyte of moments, and minutes to invert them


@dataclass(frozen=True, eq=False)
class Moment:
    """Of what one reader's weights meet. mean: (groups, columns), covariance: (groups, columns, columns); float64, on the CPU."""

    mean: Tensor
    covariance: Tensor


Moments = Mapping[tuple[str, str], Moment]  # by Reader.key


def gather(network: Network, parts: Sequence[Part], data: Data) -> Moments:
    """What `order` and `update` need to know of the data for these parts, in one pass over it.

    Holds 8 bytes for each pair of columns of each weight that reads them: 3 MB for 64 channels of 3×3, 170 MB for 512.
    Raises InvalidInput for a weight of over 8192 columns.
    """
    index = Index(network.structure)
    wanted = {}
    for part in parts:
        for _, users in readers(network, index, part).values():
            wanted.update({one.key: one for one in users})
            if users[0].columns > MOST_COLUMNS:
                raise InvalidInput(
                    f"{part.name} is read by {users[0].weight} with {users[0].columns} columns, too many for least squares (at most "
                    f"{MOST_COLUMNS}); leave {part.name} whole, or prune by another importance without repair"
                )
    return measured(network, tuple(wanted.values()), data)


def measured(network: Network, wanted: Sequence[Reader], data: Data) -> Moments:
    """The moments of each reader's columns, over positions drawn evenly from all batches; filling at the end of sequences is left out."""
    rng = np.random.default_rng(data.seed)
    sums = [_Sums() for _ in wanted]
    quota = [max(int(np.clip(ROWS_PER_COLUMN * one.columns, *ROWS)) // len(data.batches), 1) for one in wanted]
    taps = tuple(dict.fromkeys(one.data for one in wanted))
    with evaluating(network), torch.no_grad():
        for batch in data.batches:
            found, mask = network.run(tensors(network, batch), taps=taps), present(batch)
            for one, most, total in zip(wanted, quota, sums, strict=True):
                values = found[one.data].float()
                if mask is not None and not one.convolves and one.groups == 1 and one.channel == -1:
                    values = flattened(values, mask)
                total.add(columns(values, one, most, rng))
    return {one.key: total.moment() for one, total in zip(wanted, sums, strict=True)}


class _Sums:
    """Sums over pieces, near the first one's mean: squares of what is left of large constants would lose their digits in float32."""

    def __init__(self) -> None:
        self.count = 0
        self.near = self.first = self.square = torch.zeros(())

    def add(self, piece: Tensor) -> None:
        """piece: (groups, n, columns)."""
        if not self.count:
            self.near = piece.mean(1, keepdim=True)
        piece = piece - self.near
        self.square = self.square + (piece.mT @ piece).cpu().double()
        self.first = self.first + piece.sum(1).cpu().double()
        self.count += piece.shape[1]

    def moment(self) -> Moment:
        mean = self.first / self.count
        covariance = self.square / self.count - mean[:, :, None] * mean[:, None, :]
        return Moment(mean + self.near[:, 0].cpu().double(), covariance)
