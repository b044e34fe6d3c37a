"""Sensitivities against the Jacobian that torch gives in full."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgewise.compress.prune.calibration import Data
from edgewise.compress.prune.readers import every
from edgewise.compress.rate.sensitivity import felt
from edgewise.graph import Graph, Index
from edgewise.models.network import Network
from edgewise.testing.graphs import build


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def net(outputs: int) -> Network:
    weights = {"c": normal(0, 3, 2, 3, 3), "b": normal(1, 3), "w": normal(2, 3 * 16, outputs)}
    nodes = [
        ("Conv", ["x", "c", "b"], ["h"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("Relu", ["h"], ["r"], {}),
        ("Flatten", ["r"], ["f"], {}),
        ("MatMul", ["f", "w"], ["y"], {}),
    ]
    return Network(Graph.from_proto(build(nodes, {"x": ("batch", 2, 4, 4)}, {"y": ("batch", outputs)}, weights)))


def test_of_one_output_it_is_the_gradient_squared() -> None:
    network, x = net(1), normal(3, 5, 2, 4, 4)
    found = felt(network, every(network, Index(network.structure)), Data([{"x": x[:3]}, {"x": x[3:]}]))
    rows, bias, energy = np.zeros(3), 0.0, 0.0
    for one in x:
        values = network.run({"x": torch.from_numpy(one[None])}, taps=("h",))
        by_row, by_bias = torch.autograd.grad(values["y"].sum(), [values["h"], network.weight("b")])
        rows += by_row.double().square().sum((0, 2, 3)).numpy()
        bias += float(by_bias.double().square().mean())
        energy += float(values["y"].detach().double().square().sum())
    key = next(key for key in found.rows if key[1] == "c")
    assert found.rows[key].numpy() == pytest.approx(rows / 5, rel=1e-5)
    assert found.others["b"] == pytest.approx(bias / 5, rel=1e-5) and found.energy == pytest.approx(energy / 5, rel=1e-5)


def test_of_many_outputs_it_is_the_sum_over_them_in_the_mean() -> None:
    network, x = net(4), normal(4, 1, 2, 4, 4)
    found = felt(network, every(network, Index(network.structure)), Data([{"x": np.repeat(x, 600, 0)}]), samples=600)
    values = network.run({"x": torch.from_numpy(x)}, taps=("h",))
    exact = sum(torch.autograd.grad(y, values["h"], retain_graph=True)[0].square().sum((0, 2, 3)) for y in values["y"][0])
    key = next(key for key in found.rows if key[1] == "c")
    assert isinstance(exact, torch.Tensor)
    assert found.rows[key].numpy() == pytest.approx(exact.numpy(), rel=0.2)
    head = next(key for key in found.rows if key[1] == "w")
    assert found.rows[head].numpy() == pytest.approx(np.ones(4))
