"""`Shared`: a network some of whose weights are values of a codebook each, and codebooks are what trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import embedding

from edgewise.models.network import Network, escaped

_BOOK, _PLACE = "book", "place"


class Shared(nn.Module):
    """`network` with the weights that `books` names looked up in a codebook: weight = book[places].

    books: weight -> (centroids (k,), places of the weight's shape in them). A centroid's gradient is the sum of the gradients of the
    weights that share it (Deep Compression, 1510.00149, equation 3), because that is what autograd gives a value that is used many times.
    A place of -1 is a zero, which stays zero. The other parameters train as they are. `network` itself is taken, not copied.
    """

    def __init__(self, network: Network, books: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        super().__init__()
        self.network = network
        self._names = tuple(books)
        for name, (centroids, places) in books.items():
            weight = network.weight(name).requires_grad_(False)
            self.register_parameter(_BOOK + escaped(name), nn.Parameter(torch.as_tensor(centroids).to(weight)))
            self.register_buffer(_PLACE + escaped(name), torch.as_tensor(places, dtype=torch.int64, device=weight.device))
        self.eval()

    def values(self) -> dict[str, Tensor]:
        """The shared weights as they are now, by initializer; differentiable."""
        return {name: self._value(name) for name in self._names}

    def forward(self, *inputs: Tensor) -> Any:
        return functional_call(self.network, {escaped(name): value for name, value in self.values().items()}, inputs)

    def settled(self) -> Network:
        """The network, with the shared weights written into it."""
        with torch.no_grad():
            for name, value in self.values().items():
                self.network.weight(name).copy_(value)
        for name in self._names:
            self.network.weight(name).requires_grad_(True)
        return self.network

    def _value(self, name: str) -> Tensor:
        book, places = self.get_parameter(_BOOK + escaped(name)), self.get_buffer(_PLACE + escaped(name))
        # Place 0 is the zero, which gets no gradient. An embedding's sums are made in the same order every time, on a GPU too.
        whole = torch.cat((book.new_zeros(1), book))
        return embedding(places + 1, whole[:, None], padding_idx=0)[..., 0]
