"""Layers set anew behind narrow ones, against numpy's least squares for the same inputs and targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgewise.compress.prune.calibration import Data, first, flattened, present
from edgewise.compress.prune.losses import answers
from edgewise.compress.prune.moments import measured
from edgewise.compress.prune.narrowing import narrowed
from edgewise.compress.prune.readers import every
from edgewise.compress.prune.refit import refit
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, Index, parts, positions, shrink
from edgewise.models.network import Network
from edgewise.testing.encoders import encoder, texts
from edgewise.testing.graphs import Node, build

EXACT = 1e-9


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def residual() -> Network:
    """x (n, 6) -> stream s = x @ w0; s + relu(s @ w1 + b1) @ w2 + b2 = u; LayerNormalization of u -> y (n, 6)."""
    nodes: list[Node] = [
        ("MatMul", ["x", "w0"], ["s"], {}),
        ("Gemm", ["s", "w1", "b1"], ["h"], {}),
        ("Relu", ["h"], ["a"], {}),
        ("MatMul", ["a", "w2"], ["p"], {}),
        ("Add", ["p", "b2"], ["q"], {}),
        ("Add", ["q", "s"], ["u"], {}),
        ("LayerNormalization", ["u", "g", "b"], ["y"], {"axis": -1}),
    ]
    weights = {
        **{
            name: normal(i, *shape)
            for i, (name, shape) in enumerate({"w0": (6, 6), "w1": (6, 9), "b1": (9,), "w2": (9, 6), "b2": (6,)}.items())
        },
        "g": 1 + normal(7, 6) / 4,
        "b": normal(8, 6),
    }
    return Network(Graph.from_proto(build(nodes, {"x": ("batch", 6)}, {"y": ("batch", 6)}, weights)))


def seen(network: Network, data: Data, *names: str) -> list[np.ndarray]:
    with torch.no_grad():
        found = [network.run({"x": torch.from_numpy(np.asarray(batch["x"]))}, taps=names) for batch in data.batches]
    return [torch.cat([one[name] for one in found]).double().numpy() for name in names]


def samples(n: int = 400) -> Data:
    return Data([{"x": normal(20 + i, n // 2, 6)} for i in range(2)])


def test_each_layer_is_the_least_squares_best_for_what_it_reads_by_then() -> None:
    whole, data = residual(), samples()
    part = next(part for part in parts(whole.structure).parts if part.units == 9)
    keep = {part.name: [0, 2, 3, 5, 8]}
    narrow = Network(shrink(whole.structure, keep))
    found = refit(narrow, whole, positions(parts(whole.structure), keep), data, damping=EXACT)
    # What makes the units is as it was: it reads what it read.
    for name in ("w0", "w1", "b1"):
        np.testing.assert_allclose(found.weight(name).detach().numpy(), narrow.weight(name).detach().numpy(), atol=1e-4)
    a, u = seen(narrow, data, "a")[0], seen(whole, data, "u")[0]
    s = seen(whole, data, "s")[0]
    wanted = np.linalg.lstsq(np.column_stack([a, np.ones(len(a))]), u - s, rcond=None)[0]
    np.testing.assert_allclose(found.weight("w2").detach().numpy(), wanted[:-1], atol=1e-4)
    np.testing.assert_allclose(found.weight("b2").detach().numpy(), wanted[-1], atol=1e-4)
    sums, target = seen(found, data, "u")[0], seen(whole, data, "y")[0]
    z = (sums - sums.mean(1, keepdims=True)) / np.sqrt(sums.var(1, keepdims=True) + 1e-5)
    lines = [np.polyfit(z[:, i], target[:, i], 1) for i in range(6)]
    np.testing.assert_allclose(found.weight("g").detach().numpy(), [slope for slope, _ in lines], atol=1e-4)
    np.testing.assert_allclose(found.weight("b").detach().numpy(), [shift for _, shift in lines], atol=1e-4)


def test_a_layer_makes_up_for_what_a_stream_lacks_that_was_narrowed_before() -> None:
    whole, data = residual(), samples()
    damaged = Network(whole.to_graph())
    with torch.no_grad():
        damaged.weight("w0").mul_(0.7)  # what it reads is all that is amiss: it gets its own values back
    found = refit(damaged, whole, {}, data, damping=EXACT)
    np.testing.assert_allclose(found.weight("w0").detach().numpy(), whole.weight("w0").detach().numpy(), atol=1e-4)
    np.testing.assert_allclose(seen(found, data, "y")[0], seen(whole, data, "y")[0], atol=1e-3)
    assert damaged.weight("w0").detach().numpy() == pytest.approx(0.7 * whole.weight("w0").detach().numpy())


def test_a_whole_network_stays_as_it_is_and_so_does_what_sees_too_little() -> None:
    whole = residual()
    same = refit(whole, whole, {}, samples())
    for name, weight in whole.weights().items():
        np.testing.assert_allclose(same.weight(name).detach().numpy(), weight.detach().numpy(), atol=2e-4)
    damaged = Network(whole.to_graph())
    with torch.no_grad():
        damaged.weight("w0").mul_(0.7)
    few = refit(damaged, whole, {}, Data([{"x": normal(1, 23, 6)}]))  # of 6 columns: 24 would do
    assert torch.equal(few.weight("w0"), damaged.weight("w0"))


def encoded(seed: int = 0) -> tuple[Network, Data]:
    network = Network(encoder(seed=seed, width=16, heads=4, inner=32))
    return network, Data([texts(120, 12, seed=i) for i in range(4)])


@pytest.mark.parametrize("kinds", [("hidden",), ("heads",), ("neurons",), ("hidden", "heads", "neurons")])
def test_a_narrow_encoder_comes_closer_to_the_whole_one(kinds: tuple[str, ...]) -> None:
    network, data = encoded()
    coupling = parts(network.structure)
    keep = {part.name: list(range(part.units * 3 // 4 or 1)) for part in coupling.parts if part.kind in kinds}
    held = Data([texts(200, 12, seed=99)])
    dense = answers(network, held)[0]
    errors = {}
    for repair in (False, True):
        small = narrowed(network, coupling, keep, data, repair=repair)
        errors[repair] = float((answers(small, held)[0] - dense).square().mean() / dense.square().mean())
        for part in parts(small.structure).parts:
            assert part.units == len(keep.get(part.name, range(coupling.part(part.name).units)))
    assert errors[True] < 0.7 * errors[False]


def test_what_fills_sequences_up_counts_nowhere() -> None:
    batch = texts(6, 9, pad=20)
    mask = present(batch)
    assert mask is not None and (mask == batch["attention_mask"].astype(bool)).all()
    assert present({"x": normal(0, 3, 4)}) is None and present({"types": np.zeros((2, 5), np.int64)}) is None
    assert present({"ids": np.array([[1, 0, 1]])}) is None
    values = torch.arange(6 * 29 * 2.0).reshape(6, 29, 2)
    assert torch.equal(flattened(values, mask), values[torch.from_numpy(mask)])
    assert flattened(values[:, :3], mask).shape == (18, 2)
    network, _ = encoded()
    found = []
    for pad in (0, 20):
        data = Data([texts(120, 12, pad=pad, seed=3)])
        readers = [users[0] for users in every(network, Index(network.structure)).values()]
        found.append(measured(network, readers, data))
    for key, moment in found[0].items():
        np.testing.assert_allclose(moment.covariance.numpy(), found[1][key].covariance.numpy(), atol=1e-4)


def test_the_first_samples() -> None:
    batches = [{"x": np.zeros((3, 2))}, {"x": np.ones((3, 2))}]
    assert [len(batch["x"]) for batch in first(batches, 4)] == [3, 1]
    with pytest.raises(InvalidInput, match="no calibration samples"):
        first([], 4)
