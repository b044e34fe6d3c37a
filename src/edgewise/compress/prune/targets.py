"""The weights that can be thinned out: what convolutions and matrix products multiply with, each seen as a matrix."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx
from torch import Tensor, nn

from edgewise.compress.prune.readers import Reader, matrix, reader, unmatrix
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
    found, skipped = [], {}
    for name, weight in weights.items():
        if name in skip:
            skipped[name] = "asked to be left alone"
        elif weight.dim() < 2:
            skipped[name] = "a vector: a bias or a scale, which counts for much and takes few bytes"
        else:
            axes, reason = _axes(index, name, weight.dim())
            if reason:
                skipped[name] = reason
            else:
                found.append(Target(name, tuple(reader(network, index, node, name, axis) for node, axis in axes)))
    return tuple(found), skipped


def _axes(index: Index, name: str, rank: int) -> tuple[list[tuple[onnx.NodeProto, int]], str]:
    """The nodes that read the weight, with the axis along which each reads its inputs; or why they can't all be understood."""
    found = []
    for node in index.consumers(name):
        if node.op_type not in OPERATORS or name not in node.input[:2]:
            return [], f"read by {node.op_type} {node.name}, which is no product"
        group = next((one.i for one in node.attribute if one.name == "group"), 1)
        if node.op_type == "ConvTranspose" and group > 1:
            return [], f"{node.name} is a grouped transposed convolution"
        found.append((node, _axis(node, name, rank)))
    if len({axis for _, axis in found}) != 1:
        return [], "read along several axes" if found else "an output of the graph"
    return found, ""


def _axis(node: onnx.NodeProto, name: str, rank: int) -> int:
    if node.op_type == "Conv":
        return 1
    if node.op_type == "ConvTranspose":
        return 0
    first = node.input[0] == name
    flags: Mapping[str, int] = {one.name: one.i for one in node.attribute if one.name in ("transA", "transB")}
    turned = bool(flags.get("transA" if first else "transB", 0))
    return rank - 1 if first != turned else rank - 2
