"""The pass: grids that are exact, a divergence that is kept, and an account of all that it did."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgewise import coding
from edgewise.compress.prune.readers import every
from edgewise.compress.rate.rdoq import rdoq
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, Index
from edgewise.models.network import Network
from edgewise.testing.graphs import build


def normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def net() -> Network:
    """x (n, 4, 6, 6) -> grouped Conv -> Relu -> ConvTranspose -> mean -> MatMul, Add -> y (n, 5); a dead row, and a weight of zeros."""
    weights = {
        "c": normal(0, 6, 2, 3, 3), "cb": normal(1, 6, scale=0.1), "t": normal(2, 6, 7, 2, 2), "w": normal(3, 7, 5), "wb": normal(4, 5),
        "none": np.zeros((5,), np.float32),
    }  # fmt: skip
    weights["c"][2] = 0
    nodes = [
        ("Conv", ["x", "c", "cb"], ["h"], {"group": 2, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("Relu", ["h"], ["r"], {}),
        ("ConvTranspose", ["r", "t"], ["u"], {"strides": [2, 2]}),
        ("GlobalAveragePool", ["u"], ["g"], {}),
        ("Flatten", ["g"], ["f"], {}),
        ("MatMul", ["f", "w"], ["m"], {}),
        ("Add", ["m", "wb"], ["a"], {}),
        ("Add", ["a", "none"], ["y"], {}),
    ]
    return Network(Graph.from_proto(build(nodes, {"x": ("batch", 4, 6, 6)}, {"y": ("batch", 5)}, weights)))


CALIBRATION = [{"x": normal(10 + i, 40, 4, 6, 6)} for i in range(3)]


def outputs(network: Network, seed: int) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(normal(seed, 200, 4, 6, 6))).numpy()


def size(network: Network) -> int:
    return sum(len(coding.encode(np.ascontiguousarray(weight.detach().numpy()))) for weight in network.weights().values())


def test_every_node_with_a_weight_is_a_reader() -> None:
    network = net()
    found = every(network, Index(network.structure))
    assert {name: users[0].axis for name, users in found.items()} == {"c": 1, "t": 0, "w": 0}
    assert found["c"][0].bias is not None and found["w"][0].bias is not None


@pytest.mark.parametrize("allowed", [0.02, 0.1])
def test_the_divergence_is_kept_and_nearly_used(allowed: float) -> None:
    network = net()
    before = {name: weight.clone() for name, weight in network.weights().items()}
    done = rdoq(network, calibration=CALIBRATION, divergence=allowed)
    assert all(bool((weight == before[name]).all()) for name, weight in network.weights().items())  # the input is never changed
    wanted, found = outputs(network, 99), outputs(done.model, 99)
    apart = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    assert 0.3 * allowed < apart < 1.3 * allowed  # on samples that it hasn't seen
    assert "none" in done.skipped and {line.split(":")[0] for line in done.touched} == {"c", "cb", "t", "w", "wb"}
    assert "operations and time stay" in done.notes[0]


def test_weights_lie_on_grids_to_the_bit() -> None:
    done = rdoq(net(), calibration=CALIBRATION, divergence=0.05)
    for row in done.model.weight("c").detach().numpy().reshape(6, -1):
        nonzero = np.abs(row[row != 0])
        candidates = np.float32(2.0) ** (np.arange(-60, 8) / 2).astype(np.float32) if len(nonzero) else ()
        exact = [s for s in candidates if (np.rint(row / s).astype(np.float32) * s == row).all() and np.abs(row / s).max() < 4096]
        assert exact or not len(nonzero)


def test_what_is_allowed_more_takes_fewer_bytes() -> None:
    network = net()
    sizes = [size(rdoq(network, calibration=CALIBRATION, divergence=allowed).model) for allowed in (0.01, 0.05, 0.2)]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 0.75 * sizes[0]


@pytest.mark.parametrize("allowed", [260, 400])
def test_a_size_is_kept_and_nearly_used(allowed: int) -> None:
    done = rdoq(net(), calibration=CALIBRATION, size_bytes=allowed)
    assert 0.8 * allowed < size(done.model) <= allowed
    with pytest.raises(InvalidInput, match="even the coarsest step tried takes more"):
        rdoq(net(), calibration=CALIBRATION, size_bytes=5)


def test_data_buys_bytes() -> None:
    """At one divergence of the outputs, the step that was chosen by data takes fewer bytes than plain rounding of all weights alike."""
    network = net()
    wanted = outputs(network, 99)

    def apart(other: Network) -> float:
        return float(np.linalg.norm(outputs(other, 99) - wanted) / np.linalg.norm(wanted))

    blind = rdoq(network, divergence=0.04).model
    seeing = rdoq(network, calibration=CALIBRATION, divergence=0.9 * apart(blind)).model
    assert apart(seeing) < 1.05 * apart(blind) and size(seeing) < size(blind)


def test_it_is_the_same_every_time_and_a_step_can_be_given() -> None:
    first, second = (rdoq(net(), calibration=CALIBRATION, step=0.002, seed=3).model for _ in range(2))
    assert all(bool((weight == second.weight(name)).all()) for name, weight in first.weights().items())


@pytest.mark.parametrize("wrong", [{"divergence": 0.0}, {"divergence": 1.5}, {"slope": -1.0}, {"step": 0.0}, {"size_bytes": 0}])
def test_options_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=r"give 0 < divergence < 1"):
        rdoq(net(), calibration=CALIBRATION, **wrong)  # type: ignore[arg-type]
