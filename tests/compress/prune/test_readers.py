"""Nodes as matrix products, and the moments of what they read, against what torch makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgewise.compress.prune.calibration import Data
from edgewise.compress.prune.moments import measured
from edgewise.compress.prune.readers import Reader, columns, matrix, unmatrix
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.models.network import Network
from edgewise.testing.graphs import Node, build


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...], tuple[int, ...], int]] = {
    # name: (operator, attributes, the data's shape, the weight's shape, the axis that is read)
    "gemm": ("Gemm", {}, (6, 5), (5, 3), 0),
    "gemm turned": ("Gemm", {"transA": 1, "transB": 1}, (5, 6), (3, 5), 1),
    "matmul of tokens": ("MatMul", {}, (2, 6, 5), (5, 3), 0),
    "stack of matrices": ("MatMul", {}, (2, 3, 6, 5), (3, 5, 4), 1),
    "stack met by one": ("MatMul", {}, (6, 5), (3, 5, 4), 1),
    "convolution": ("Conv", {"strides": [2, 1], "pads": [1, 0, 2, 1]}, (2, 4, 7, 6), (3, 4, 3, 2), 1),
    "dilated": ("Conv", {"dilations": [2, 1], "pads": [2, 1, 2, 1]}, (2, 4, 7, 6), (3, 4, 3, 2), 1),
    "same": ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (2, 4, 7, 6), (3, 4, 3, 2), 1),
    "grouped": ("Conv", {"group": 2}, (2, 4, 7, 6), (6, 2, 3, 3), 1),
    "one axis": ("Conv", {"pads": [1, 1]}, (2, 4, 7), (3, 4, 3), 1),
    "transposed": ("ConvTranspose", {"strides": [2, 1], "pads": [1, 0, 0, 1]}, (2, 4, 5, 6), (4, 3, 3, 2), 0),
    "transposed dilated": ("ConvTranspose", {"dilations": [2, 2], "strides": [2, 2]}, (2, 4, 5, 6), (4, 3, 2, 3), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_columns_times_matrix_is_what_the_node_gives(name: str) -> None:
    operator, attributes, shape, wide, axis = CASES[name]
    weight = normal(0, *wide)
    node: Node = (operator, ["x", "w"], ["y"], attributes)
    network = Network(Graph.from_proto(build([node], {"x": shape}, {"y": tuple("abcd")[: max(len(shape), len(wide))]}, {"w": weight})))
    x = torch.from_numpy(normal(1, *shape))
    reader = Reader(network.structure.proto.graph.node[0], "w", axis, wide, "x")
    stored = matrix(torch.from_numpy(weight), reader)
    assert (unmatrix(stored, reader).numpy() == weight).all()
    assert stored.shape[2] == reader.columns
    found = columns(x, reader, 10**9, np.random.default_rng(0)) @ stored.mT  # (groups, positions, rows)
    wanted = network(x).detach()
    if reader.convolves:
        wanted = wanted.movedim(1, -1).reshape(-1, reader.groups, stored.shape[1]).movedim(1, 0)
    elif reader.groups > 1:
        wanted = wanted.movedim(-3, 0).reshape(reader.groups, -1, stored.shape[1])
    else:
        wanted = wanted.reshape(1, -1, stored.shape[1])
    assert found.numpy() == pytest.approx(wanted.numpy(), abs=1e-4)


def test_a_weight_may_stand_on_the_left() -> None:
    network = Network(Graph.from_proto(build([("MatMul", ["w", "x"], ["y"])], {"x": (2, 5, 6)}, {"y": (2, 3, 6)}, {"w": normal(0, 3, 5)})))
    x = torch.from_numpy(normal(1, 2, 5, 6))
    reader = Reader(network.structure.proto.graph.node[0], "w", 1, (3, 5), "x")
    found = columns(x, reader, 10**9, np.random.default_rng(0)) @ matrix(network.weight("w").detach(), reader).mT
    assert found[0].numpy() == pytest.approx(network(x).detach().movedim(1, 2).reshape(-1, 3).numpy(), abs=1e-5)


def test_positions_are_drawn_evenly_and_give_nearly_the_same_moments() -> None:
    weight, batches = normal(0, 3, 8, 3, 2), [{"x": normal(i, 16, 8, 7, 6)} for i in range(4)]
    nodes: list[Node] = [("Relu", ["x"], ["a"]), ("Conv", ["a", "w"], ["y"])]
    network = Network(Graph.from_proto(build(nodes, {"x": ("batch", 8, 7, 6)}, {"y": ("batch", 3, 5, 5)}, {"w": weight})))
    reader = Reader(network.structure.proto.graph.node[1], "w", 1, (3, 8, 3, 2), "a")
    a = torch.relu(torch.from_numpy(np.concatenate([batch["x"] for batch in batches])))
    whole = torch.nn.functional.unfold(a, (3, 2)).transpose(1, 2).reshape(-1, 48).numpy()
    some = columns(a, reader, 50, np.random.default_rng(0))
    assert some.shape == (1, 50, 48)
    known = {tuple(row) for row in whole.tolist()}
    assert all(tuple(row) in known for row in some[0].tolist())

    exact = measured(network, [reader], Data(batches))[reader.key]
    assert exact.mean[0].numpy() == pytest.approx(whole.mean(0), abs=1e-5)
    assert exact.covariance[0].numpy() == pytest.approx(np.cov(whole.T.astype(float), bias=True), abs=1e-5)


def test_few_positions_give_nearly_the_moments_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes: list[Node] = [("MatMul", ["x", "w"], ["y"])]
    network = Network(Graph.from_proto(build(nodes, {"x": ("batch", 5)}, {"y": ("batch", 2)}, {"w": normal(0, 5, 2)})))
    reader = Reader(network.structure.proto.graph.node[0], "w", 0, (5, 2), "x")
    data = Data([{"x": 100 + normal(i, 2000, 5) @ normal(9, 5, 5)} for i in range(2)])
    exact = measured(network, [reader], data)[reader.key]
    monkeypatch.setattr("edgewise.compress.prune.moments.ROWS", (1000, 1000))
    first, again = (measured(network, [reader], data)[reader.key] for _ in range(2))
    assert torch.equal(first.covariance, again.covariance)
    assert not torch.equal(first.covariance, exact.covariance)
    assert first.covariance.numpy() == pytest.approx(exact.covariance.numpy(), abs=0.2 * float(exact.covariance.max()))
    # Constants a hundred times as large as what varies cost no digits.
    assert exact.covariance[0].numpy() == pytest.approx(
        np.cov(np.concatenate([b["x"] for b in data.batches]).T.astype(float), bias=True), rel=1e-4
    )


def test_a_loss_needs_targets() -> None:
    with pytest.raises(InvalidInput, match="targets for 0 of 1 batches"):
        Data([{"x": normal(0, 2, 5)}], loss=torch.nn.functional.cross_entropy)
    with pytest.raises(InvalidInput, match="no calibration batches"):
        Data([])
