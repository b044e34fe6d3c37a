"""Each criterion against plain numpy, or against what the loss does when a unit is really taken out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from edgewise.compress.prune.calibration import Data
from edgewise.compress.prune.importance import CRITERIA, without_norm
from edgewise.graph import Graph, Part, Slice, parts
from edgewise.models.network import Network
from edgewise.testing.graphs import Node, build

SAME = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def normal(seed: int, *shape: int, scale: float = 1.0, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, scale, shape).astype(np.float32)


WEIGHTS: dict[str, Any] = {
    "w1": normal(0, 6, 2, 3, 3), "g": normal(1, 6, mean=1.5), "b": normal(2, 6), "m": normal(3, 6), "v": normal(4, 6) ** 2 + 0.5,
    "w2": normal(5, 8, 6, 3, 3, scale=0.2), "c2": normal(6, 8), "w3": normal(7, 6, 8, 1, 1, scale=0.3), "c3": normal(8, 6),
    "w4": normal(9, 6, 5, scale=0.5), "c4": normal(10, 5),
}  # fmt: skip


def network(**changed: np.ndarray) -> Network:
    """Conv and norm make a residual stream of 6 channels; a branch of 8 reads it and adds to it; a classifier of 5 classes reads it."""
    nodes: list[Node] = [
        ("Conv", ["x", "w1"], ["h1"], SAME),
        ("BatchNormalization", ["h1", "g", "b", "m", "v"], ["n1"]),
        ("Relu", ["n1"], ["a1"]),
        ("Conv", ["a1", "w2", "c2"], ["h2"], SAME),
        ("Relu", ["h2"], ["a2"]),
        ("Conv", ["a2", "w3", "c3"], ["h3"]),
        ("Add", ["a1", "h3"], ["s"]),
        ("GlobalAveragePool", ["s"], ["p"]),
        ("Flatten", ["p"], ["f"]),
        ("Gemm", ["f", "w4", "c4"], ["y"]),
    ]
    return Network(Graph.from_proto(build(nodes, {"x": ("batch", 2, 5, 5)}, {"y": ("batch", 5)}, {**WEIGHTS, **changed})))


def samples(n: int = 16, batches: int = 1, **more: Any) -> Data:
    return Data([{"x": normal(20 + i, n, 2, 5, 5)} for i in range(batches)], **more)


def both(net: Network) -> dict[str, Part]:
    found = {part.name: part for part in parts(net.structure).parts}
    assert {name: part.units for name, part in found.items()} == {"w1": 6, "w2": 8}
    return found


def values(name: str, data: Data | None = None, net: Network | None = None) -> dict[str, np.ndarray]:
    net = net or network()
    return CRITERIA[name](net, list(both(net).values()), data or samples())


def test_magnitudes_add_up_all_that_makes_a_unit() -> None:
    made = np.concatenate([WEIGHTS["w1"].reshape(6, -1), WEIGHTS["w3"].reshape(6, -1)], 1).astype(float)
    first, second = values("magnitude_l1"), values("magnitude_l2")
    assert first["w1"] == pytest.approx(np.abs(made).sum(1))
    assert second["w1"] == pytest.approx(np.linalg.norm(made, axis=1))
    assert first["w2"] == pytest.approx(np.abs(WEIGHTS["w2"].astype(float)).sum((1, 2, 3)))
    assert second["w2"] == pytest.approx(np.sqrt((WEIGHTS["w2"].astype(float) ** 2).sum((1, 2, 3))))


def test_units_of_several_positions_and_shared_weights_count_once() -> None:
    net = network()
    pairs = np.arange(6).reshape(3, 2)
    one = Slice("w1", 0, "out", "Conv_0", pairs)
    part = Part("pairs", "channels", 3, (one, Slice("w1", 0, "out", "Conv_3", pairs), Slice("b", 0, "out", "Conv_0", pairs)))
    found = CRITERIA["magnitude_l1"](net, [part], samples())["pairs"]
    assert found == pytest.approx(np.abs(WEIGHTS["w1"].astype(float)).reshape(3, -1).sum(1))


def test_norm_scales_and_what_has_none() -> None:
    net = network()
    found = values("norm_scale")
    assert found["w1"] == pytest.approx(np.abs(WEIGHTS["g"]))
    assert found["w2"] == pytest.approx(values("magnitude_l2")["w2"])
    assert without_norm(net, list(both(net).values())) == ("w2",)


def test_activation_is_the_mean_of_what_readers_read() -> None:
    net, data = network(), samples(10, 3)
    x = torch.from_numpy(np.concatenate([batch["x"] for batch in data.batches]))
    with torch.no_grad():
        seen = net.run({"x": x}, taps=("a1", "a2", "f"))
    found = values("activation", data)
    assert found["w2"] == pytest.approx(seen["a2"].abs().mean((0, 2, 3)).numpy(), rel=1e-5)
    assert found["w1"] == pytest.approx((seen["a1"].abs().mean((0, 2, 3)) + seen["f"].abs().mean(0)).numpy() / 2, rel=1e-5)


def test_activation_of_a_grouped_convolution_and_of_tokens() -> None:
    weights = {"w1": normal(0, 8, 2, 1, 1), "w2": normal(1, 4, 4, 1, 1), "w3": normal(2, 4, 7), "w4": normal(3, 7, 2)}
    nodes: list[Node] = [
        ("Conv", ["x", "w1"], ["a"]),
        ("Conv", ["a", "w2"], ["b"], {"group": 2}),
        ("Reshape", ["b", "shape"], ["c"]),
        ("Transpose", ["c"], ["t"], {"perm": [0, 2, 1]}),
        ("MatMul", ["t", "w3"], ["d"]),
        ("MatMul", ["d", "w4"], ["y"]),
    ]
    proto = build(nodes, {"x": (6, 2, 3, 3)}, {"y": (6, 9, 2)}, {**weights, "shape": np.array([6, 4, 9])})
    net = Network(Graph.from_proto(proto))
    data = Data([{"x": normal(4, 6, 2, 3, 3)}])
    by_name = {part.name: part for part in parts(net.structure).parts}
    found = CRITERIA["activation"](net, list(by_name.values()), data)
    with torch.no_grad():
        seen = net.run({"x": torch.from_numpy(np.array(data.batches[0]["x"]))}, taps=("a", "d"))
    channels = seen["a"].abs().mean((0, 2, 3)).numpy().reshape(2, 4)
    assert found["w1"] == pytest.approx(channels.mean(0), rel=1e-5)
    assert found["w3"] == pytest.approx(seen["d"].abs().mean((0, 1)).numpy(), rel=1e-5)


def zeroed(net: Network, part: Part, unit: int, share: float = 1.0) -> Network:
    """`net` where what reads the unit reads (1 - share) of it."""
    found = Network(net.to_graph()).double()
    with torch.no_grad():
        for one in part.slices:
            if one.role == "in":
                weight, places = found.weight(one.tensor), torch.from_numpy(one.indices[unit])
                weight.index_copy_(one.axis, places, (1 - share) * weight.index_select(one.axis, places))
    return found


def test_taylor_is_the_squared_change_of_the_loss_when_a_little_of_a_unit_goes() -> None:
    net = network()
    targets = np.random.default_rng(0).integers(0, 5, 16)
    data = samples(targets=[targets], loss=cross_entropy)
    found = values("taylor", data, net)
    x = torch.from_numpy(np.array(data.batches[0]["x"]))

    def loss(one: Network) -> float:
        return float(cross_entropy(one(x.double()), torch.from_numpy(targets)).detach())

    share = 1e-4
    for name, part in both(net).items():
        less, more = (np.array([loss(zeroed(net, part, unit, s)) for unit in range(part.units)]) for s in (share, -share))
        assert found[name] == pytest.approx(((less - more) / (2 * share)) ** 2, rel=1e-3, abs=1e-9)


def test_taylor_averages_squares_over_pieces_of_sixteen() -> None:
    targets = [np.random.default_rng(i).integers(0, 5, n) for i, n in enumerate((16, 32))]
    batches = [{"x": normal(20, 16, 2, 5, 5)}, {"x": normal(21, 32, 2, 5, 5)}]
    whole = values("taylor", Data(batches, targets, cross_entropy))
    pieces = [(batches[0]["x"], targets[0]), (batches[1]["x"][:16], targets[1][:16]), (batches[1]["x"][16:], targets[1][16:])]
    each = [values("taylor", Data([{"x": x}], [t], cross_entropy)) for x, t in pieces]
    for name in ("w1", "w2"):
        assert whole[name] == pytest.approx(np.mean([one[name] for one in each], 0), rel=1e-4)


def test_taylor_without_a_loss_measures_the_divergence_from_the_own_answers() -> None:
    """16 · E[(sum g w)²] is twice the KL divergence per sample, to second order, of what goes as `share` goes to zero."""
    net = network(w4=0.3 * WEIGHTS["w4"])
    data = samples(64, 40)
    found = values("taylor", data, net)
    x = torch.from_numpy(np.concatenate([batch["x"] for batch in data.batches])).double()
    own = torch.log_softmax(Network(net.to_graph()).double()(x), 1).detach()
    share = 1e-2
    for name, part in both(net).items():
        wanted = []
        for unit in range(part.units):
            other = torch.log_softmax(zeroed(net, part, unit, share)(x), 1).detach()
            wanted.append(float((own.exp() * (own - other)).sum(1).mean()) * 2 / share**2)
        # 160 squares: each estimate has a standard error of about a ninth
        assert 16 * found[name] == pytest.approx(wanted, rel=0.5)
        assert np.corrcoef(found[name], wanted)[0, 1] > 0.95


def test_taylor_of_other_outputs_is_the_squared_error() -> None:
    weights = {"w1": normal(0, 3, 4), "w2": normal(1, 4, 2)}
    nodes: list[Node] = [("MatMul", ["x", "w1"], ["h"]), ("Relu", ["h"], ["a"]), ("MatMul", ["a", "w2"], ["y"])]
    net = Network(Graph.from_proto(build(nodes, {"x": ("batch", 7, 3)}, {"y": ("batch", 7, 2)}, weights)))
    data = Data([{"x": normal(2 + i, 1, 7, 3)} for i in range(1500)])
    (part,) = parts(net.structure).parts
    found = CRITERIA["taylor"](net, [part], data)["w1"]
    x = np.concatenate([batch["x"] for batch in data.batches]).astype(float)
    a = np.maximum(x @ weights["w1"], 0)
    error = (a**2).sum(1).mean(0) * (weights["w2"].astype(float) ** 2).sum(1)  # per sample, when the unit goes
    assert found == pytest.approx(error, rel=0.2)


def test_taylor_leaves_the_network_as_it_was() -> None:
    net = network()
    net.weight("w2").requires_grad_(False)
    net.train()
    before = {name: weight.detach().clone() for name, weight in net.weights().items()}
    with torch.no_grad():
        values("taylor", samples(), net)
    assert net.training
    assert not net.weight("w2").requires_grad
    assert net.weight("w3").requires_grad
    assert all(weight.grad is None for weight in net.parameters())
    assert all(torch.equal(before[name], weight) for name, weight in net.weights().items())


def test_random_is_seeded() -> None:
    first, again, other = (values("random", samples(seed=seed)) for seed in (1, 1, 2))
    assert (first["w1"] == again["w1"]).all()
    assert (first["w1"] != other["w1"]).all()
    assert ((first["w2"] >= 0) & (first["w2"] < 1)).all()


def test_obs_is_worth_the_error_at_which_a_unit_goes() -> None:
    found = values("obs", samples(32, 2))
    for name, units in (("w1", 6), ("w2", 8)):
        assert found[name].shape == (units,)
        assert ((found[name] >= 0) & (found[name] <= 1 + 1e-9)).all()
        assert len(set(found[name])) == units


@pytest.mark.parametrize("name", CRITERIA)
def test_each_gives_a_number_per_unit(name: str) -> None:
    for part, found in values(name).items():
        assert found.shape == ({"w1": 6, "w2": 8}[part],)
        assert found.dtype == np.float64
        assert np.isfinite(found).all()


@pytest.mark.parametrize("name", [name for name in CRITERIA if name != "random"])
@settings(max_examples=5, deadline=None)
@given(stream=st.permutations(range(6)), inner=st.permutations(range(8)), seed=st.integers(0, 5))
def test_units_in_another_order_have_the_same_worth(name: str, stream: list[int], inner: list[int], seed: int) -> None:
    moved: dict[str, Any] = {key: WEIGHTS[key][stream] for key in ("w1", "g", "b", "m", "v", "c3", "w4")}
    moved |= {"w2": WEIGHTS["w2"][inner][:, stream], "c2": WEIGHTS["c2"][inner], "w3": WEIGHTS["w3"][stream][:, inner]}
    data = samples(24, seed=seed)
    here, there = values(name, data), values(name, data, network(**moved))
    assert there["w1"] == pytest.approx(here["w1"][stream], rel=1e-3, abs=1e-6)
    assert there["w2"] == pytest.approx(here["w2"][inner], rel=1e-3, abs=1e-6)
