"""The weights that can be thinned out: what convolutions and matrix products multiply with, each seen as a matrix."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor, nn

from edgewise.compress.prune.readers import Reader, every, matrix, unmatrix
from edgewise.errors import InvalidInput
from edgewise.graph import Index
from edgewise.models.network import Network

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Target:
    """A stored weight, and the nodes that multiply with it, all along one axis."""

    name: str
    readers: tuple[Reader, ...]

    @property
    def operator(self) -> str:
        return str(self.readers[0].node.op_type)

    @property
    def kernel(self) -> int:
        """Positions of the kernel: column `i * kernel + k` reads input i at position k."""
        return self.readers[0].kernel

    def matrix(self, network: Network) -> Tensor:
        """(groups, rows, columns): the values now, float64, on the CPU."""
        return matrix(network.weight(self.name).detach().cpu().double(), self.readers[0])

    def unmatrix(self, values: Tensor) -> Tensor:
        """From (groups, rows, columns) to the weight's own shape."""
        return unmatrix(values, self.readers[0])


def targets(network: Network, skip: Collection[str] = ()) -> tuple[tuple[Target, ...], dict[str, str]]:
    """The weights of products, in the graph's order, and why each other parameter is none.

    skip: weights to leave alone. Raises InvalidInput where it names something that is no weight.
    """
    weights = {name: weight for name, weight in network.weights().items() if isinstance(weight, nn.Parameter)}
    if unknown := [name for name in skip if name not in weights]:
        raise InvalidInput(f"skip names {unknown[0]!r}, which is no weight; the weights are {', '.join([*weights][:8])}")
    index = Index(network.structure)
    products = every(network, index)
    found, skipped = [], {}
    for name, weight in weights.items():
        if name in skip:
            skipped[name] = "asked to be left alone"
        elif weight.dim() < 2:
            skipped[name] = "a vector: a bias or a scale, which counts for much and takes few bytes"
        elif name not in products:
            skipped[name] = _why(index, name)
        elif products[name][0].node.op_type == "ConvTranspose" and products[name][0].groups > 1:
            skipped[name] = "of a grouped transposed convolution"
        else:
            found.append(Target(name, products[name]))
    return tuple(found), skipped


def _why(index: Index, name: str) -> str:
    """What keeps a weight from being seen as a matrix."""
    users = index.consumers(name)
    other = next((node for node in users if node.op_type not in OPERATORS), None)
    return f"read by {other.op_type} {other.name}, which is no product" if other else "read in several ways, or by a product of weights"
