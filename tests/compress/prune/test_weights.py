"""Single weights: criteria against plain numpy or brute force, repair against least squares over all masks, what training keeps."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgewise.compress.distill import distill
from edgewise.compress.prune.calibration import Data
from edgewise.compress.prune.pruning import prune
from edgewise.compress.prune.scores import SCORES
from edgewise.compress.prune.surgery import costs, least_squares, sweep
from edgewise.compress.prune.targets import targets
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, sparse_weights, trainable
from edgewise.models.network import Network
from edgewise.testing.graphs import Node, build

RNG = np.random.default_rng


def network(seed: int = 0) -> Network:
    """x (batch, 4, 6, 6) -> conv 8 with a norm, ReLU -> conv 6 in two groups with a bias -> mean -> classes, and an embedding's worth of
    constants that no product reads."""
    rng = RNG(seed)
    shapes = {"c1": (8, 4, 3, 3), "g": (8,), "b": (8,), "m": (8,), "c2": (6, 4, 3, 3), "b2": (6,), "w": (6, 5), "b3": (5,), "added": (1, 6)}
    weights = {name: 0.5 * rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    weights |= {"v": rng.uniform(0.5, 2, 8).astype(np.float32)}
    nodes: list[Node] = [
        ("Conv", ["x", "c1"], ["h1"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("BatchNormalization", ["h1", "g", "b", "m", "v"], ["n1"]),
        ("Relu", ["n1"], ["a1"]),
        ("Conv", ["a1", "c2", "b2"], ["h2"], {"group": 2, "kernel_shape": [3, 3]}),
        ("Relu", ["h2"], ["a2"]),
        ("GlobalAveragePool", ["a2"], ["p"]),
        ("Flatten", ["p"], ["f"]),
        ("Add", ["f", "added"], ["s"]),
        ("MatMul", ["s", "w"], ["y1"]),
        ("Add", ["y1", "b3"], ["y"]),
    ]
    return Network(Graph.from_proto(build(nodes, {"x": ("batch", 4, 6, 6)}, {"y": ("batch", 5)}, weights)))


def batches(n: int = 32, seed: int = 1) -> list[dict[str, np.ndarray]]:
    mixed = RNG(seed).standard_normal((4, 4))
    x = np.einsum("nchw,cd->ndhw", RNG(seed + 1).standard_normal((n, 4, 6, 6)), mixed)
    return [{"x": x[i : i + 16].astype(np.float32)} for i in range(0, n, 16)]


@dataclass(frozen=True)
class Pictures:
    """A few batches of noise with labels: enough for gradients."""

    def split(self, name: str) -> Any:
        return type("Split", (), {"targets": np.zeros(64, np.int64), "__len__": lambda _: 64})()

    def training_batches(self, *, batch_size: int, epoch: int, seed: int = 0) -> Any:
        rng = RNG((seed, epoch))
        for _ in range(64 // batch_size):
            yield {"x": rng.standard_normal((batch_size, 4, 6, 6), dtype=np.float32)}, rng.integers(0, 5, batch_size)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(outputs, targets)


def score(name: str, net: Network, data: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """By weight, in the weight's own shape."""
    chosen, _ = targets(net)
    found = SCORES[name](net, chosen, Data(batches=data))
    return {target.name: target.unmatrix(found[target.name]).numpy() for target in chosen}


def value(net: Network, name: str) -> np.ndarray:
    return net.weight(name).detach().numpy().astype(np.float64)


def answers(net: Network, data: list[dict[str, np.ndarray]]) -> np.ndarray:
    with torch.no_grad():
        return np.concatenate([net(torch.from_numpy(batch["x"])).numpy() for batch in data])


def test_targets_are_the_weights_of_products() -> None:
    chosen, skipped = targets(network(), skip=("w",))
    assert [target.name for target in chosen] == ["c1", "c2"]
    assert skipped["w"] == "asked to be left alone" and "Add" in skipped["added"] and "a vector" in skipped["b2"]
    assert set(skipped) == {"w", "added", "g", "b", "b2", "b3"}


def test_scores_of_weights_alone() -> None:
    net = network()
    assert score("magnitude", net, batches())["c2"] == pytest.approx(np.abs(value(net, "c2")))
    flat = np.sort(value(net, "w").ravel() ** 2)
    expected = {square: square / flat[i:].sum() for i, square in enumerate(flat)}
    found = score("lamp", net, batches())["w"]
    assert found.ravel() == pytest.approx([expected[square] for square in value(net, "w").ravel() ** 2])


def test_wanda_is_magnitude_times_the_norm_of_the_input() -> None:
    net, data = network(), batches()
    with torch.no_grad():
        seen = [net.run({"x": torch.from_numpy(batch["x"])}, taps=("a1", "s")) for batch in data]
    s = np.concatenate([one["s"].numpy() for one in seen]).astype(np.float64)
    found = score("wanda", net, data)
    assert found["w"] == pytest.approx(np.abs(value(net, "w")) * np.sqrt((s**2).mean(0))[:, None], rel=1e-5)
    a = np.concatenate([one["a1"].numpy() for one in seen]).astype(np.float64)
    for group in (0, 1):
        for i in range(4):
            windows = np.lib.stride_tricks.sliding_window_view(a[:, 4 * group + i], (3, 3), axis=(1, 2))
            norms = np.sqrt((windows**2).mean((0, 1, 2)))
            rows = slice(3 * group, 3 * group + 3)
            assert found["c2"][rows, i] == pytest.approx(np.abs(value(net, "c2")[rows, i]) * norms, rel=1e-5)


def test_taylor_is_the_mean_of_squared_products() -> None:
    net, data = network(), batches(16)
    labels = RNG(3).integers(0, 5, 16)
    loss = torch.nn.functional.cross_entropy
    chosen, _ = targets(net)
    found = SCORES["taylor"](net, chosen, Data(batches=data, targets=[labels], loss=loss))
    loss(net(torch.from_numpy(data[0]["x"])), torch.from_numpy(labels)).backward()
    for target in chosen:
        weight = net.weight(target.name)
        assert weight.grad is not None
        expected = (weight * weight.grad).detach().double().square()
        assert target.unmatrix(found[target.name]).numpy() == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-12)


def test_obs_is_what_the_layer_loses_at_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewise.compress.prune.surgery.MOST_GREEDY", 0)
    net, data = network(), batches(64)
    with torch.no_grad():
        s = np.concatenate([net.run({"x": torch.from_numpy(b["x"])}, taps=("s",))["s"].numpy() for b in data]).astype(np.float64)
    found, w = score("obs", net, data)["w"], value(net, "w")
    centred = s - s.mean(0)  # b3 takes up what the mean of an input gave
    energy = ((centred @ w) ** 2).sum()
    for row in (0, 3):
        for out in (0, 4):
            others = [i for i in range(6) if i != row]
            best, *_ = np.linalg.lstsq(centred[:, others], centred @ w[:, out], rcond=None)
            lost = ((centred[:, others] @ best - centred @ w[:, out]) ** 2).sum() / energy
            assert found[row, out] == pytest.approx(lost, rel=0.02)  # damping


def problem(rows: int, columns: int, seed: int = 0) -> tuple[Tensor, Tensor, np.ndarray]:
    rng = RNG(seed)
    x = rng.standard_normal((200, columns)) @ rng.standard_normal((columns, columns))
    return torch.from_numpy(rng.standard_normal((1, rows, columns))), torch.from_numpy(x.T @ x / 200)[None], x


def error(hessian: Tensor, whole: Tensor, other: Tensor) -> float:
    apart = whole - other
    return float(((apart @ hessian) * apart).sum())


@pytest.mark.parametrize("together", [1, 1 << 20])
def test_least_squares_is_the_best_for_its_mask(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewise.compress.prune.surgery.TOGETHER", together)
    whole, hessian, x = problem(7, 9)
    mask = torch.from_numpy(RNG(5).random((1, 7, 9)) < 0.5)
    mask[0, 2], mask[0, 3] = False, True
    found = least_squares(whole, hessian, mask)
    assert not found[~mask].any() and torch.allclose(found[0, 3], whole[0, 3])
    for row in (0, 1, 6):
        kept = np.flatnonzero(mask[0, row].numpy())
        best, *_ = np.linalg.lstsq(x[:, kept], x @ whole[0, row].numpy(), rcond=None)
        np.testing.assert_allclose(found[0, row, kept], best, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("block", [1, 3, 128])
def test_the_sweep_is_the_best_when_only_first_columns_go(block: int) -> None:
    """Every column behind those that went is still free then, so that greedy is exact; and blocks change nothing."""
    whole, hessian, _ = problem(5, 8)
    mask = torch.ones(1, 5, 8, dtype=torch.bool)
    mask[0, :, :3] = torch.from_numpy(RNG(1).random((5, 3)) < 0.3)
    found = sweep(whole, hessian, lambda start, values, costs: mask[:, :, start : start + values.shape[2]], block)
    # Of columns that stay, those ahead of the last one that went are decided by then.
    assert not found[~mask].any()
    assert error(hessian, whole, least_squares(whole, hessian, mask)) <= error(hessian, whole, found) + 1e-9
    assert error(hessian, whole, found) < error(hessian, whole, whole * mask)
    gone = torch.ones_like(mask)
    gone[0, :, :3] = False
    exact = sweep(whole, hessian, lambda start, values, costs: gone[:, :, start : start + values.shape[2]], block)
    torch.testing.assert_close(exact, least_squares(whole, hessian, gone))


def test_costs_are_those_of_one_removal_after_the_other() -> None:
    whole, hessian, _ = problem(3, 7)
    found = costs(whole, hessian)
    for row in range(3):
        mask, w, before, most = torch.ones(1, 1, 7, dtype=torch.bool), whole[:, row : row + 1], 0.0, 0.0
        for at in found[0, row].argsort(stable=True).tolist():
            each = []
            for column in range(7):
                trial = mask.clone()
                trial[..., column] = False
                each.append(error(hessian, w, least_squares(w, hessian, trial)) - before if mask[..., column] else np.inf)
            assert each[at] == pytest.approx(min(each))
            mask[..., at] = False
            before, most = before + each[at], max(most, each[at])
            assert float(found[0, row, at]) == pytest.approx(most)


def test_obs_and_repair_come_near_the_best_of_all_masks() -> None:
    """A layer of one row, 4 of its 8 weights: every mask is tried with its own least squares."""
    lost = {"best": 0.0, "obs": 0.0, "magnitude": 0.0}
    for seed in range(12):
        whole, hessian, _ = problem(1, 8, seed)
        every = []
        for kept in combinations(range(8), 4):
            mask = torch.zeros(1, 1, 8, dtype=torch.bool)
            mask[..., list(kept)] = True
            every.append(error(hessian, whole, least_squares(whole, hessian, mask)))
        lost["best"] += min(every)
        for name, scores in (("obs", costs(whole, hessian)[0, 0]), ("magnitude", whole[0, 0].abs())):
            mask = torch.zeros(1, 1, 8, dtype=torch.bool)
            mask[0, 0, scores.argsort(descending=True)[:4]] = True
            lost[name] += error(hessian, whole, least_squares(whole, hessian, mask))
    assert lost["best"] <= lost["obs"] < 1.5 * lost["best"] < 0.8 * lost["magnitude"]


@pytest.mark.parametrize("importance", [*SCORES, "sparsegpt"])
@pytest.mark.parametrize("repair", [True, False])
def test_the_share_that_was_asked_for_goes(importance: str, repair: bool) -> None:
    model, data = network(), batches()
    before = copy.deepcopy(model.state_dict())
    done = prune(model, calibration=data, of="weights", ratio=0.6, importance=importance, repair=repair)
    zeros = {name: int((done.model.weight(name) == 0).sum()) for name in ("c1", "c2", "w")}
    assert sum(zeros.values()) == pytest.approx(0.6 * (288 + 216 + 30), abs=10)
    assert not any(torch.signbit(w[w == 0]).any() for w in (done.model.weight(name) for name in zeros))
    assert sparse_weights(done.model.to_graph().proto) == {"c1", "c2", "w"}
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert "as before" in done.notes[1] and "weights are zero" in done.notes[0] and len(done.touched) == 3


def test_repair_makes_up_for_some_of_it() -> None:
    model, data = network(), batches(128)
    wanted = answers(model, data)

    def lost(**more: Any) -> float:
        return float(((answers(prune(model, calibration=data, of="weights", ratio=0.5, **more).model, data) - wanted) ** 2).sum())

    assert lost(importance="magnitude") < 0.3 * lost(importance="magnitude", repair=False)
    assert lost(importance="obs") < lost(importance="random")
    assert lost(importance="sparsegpt") < lost(importance="wanda", repair=False)


def test_scopes() -> None:
    model = network()
    for scope, even in (("row", True), ("layer", True), ("global", False)):
        done = prune(model, calibration=(), of="weights", ratio=0.5, importance="magnitude", scope=scope, repair=False)  # type: ignore[arg-type]
        shares = [float((done.model.weight(name) == 0).float().mean()) for name in ("c1", "c2", "w")]
        assert all(share == pytest.approx(0.5, abs=0.01) for share in shares) == even
        rows = (done.model.weight("c1") == 0).flatten(1).sum(1)
        assert bool((rows == 18).all()) == (scope == "row")
    largest = sorted(np.concatenate([np.abs(value(model, name)).ravel() for name in ("c1", "c2", "w")]))[267]
    kept = prune(model, calibration=(), of="weights", ratio=0.5, importance="magnitude", repair=False).model
    assert all((np.abs(value(model, name)) >= largest).sum() == np.count_nonzero(value(kept, name)) for name in ("c1", "c2", "w"))


def test_ratios_by_weight() -> None:
    done = prune(network(), calibration=(), of="weights", ratio={"c1": 0.25, "w": 0.9}, importance="magnitude", repair=False)
    assert [int((done.model.weight(name) == 0).sum()) for name in ("c1", "c2", "w")] == [72, 0, 27]
    assert done.skipped["c2"] == "no ratio is given for it"


@pytest.mark.parametrize("importance", ["magnitude", "obs", "sparsegpt"])
def test_two_of_four_inputs_stay(importance: str) -> None:
    done = prune(network(), calibration=batches(), of="weights", pattern="2:4", importance=importance)
    for name in ("c1", "c2"):  # four inputs each (of a group)
        stay = value(done.model, name) != 0
        assert (stay.sum(1) == 2).all()
    assert "don't divide into pieces of 4" in done.skipped["w"]
    if importance == "magnitude":
        plain = prune(network(), calibration=(), of="weights", pattern="2:4", importance="magnitude", repair=False).model
        whole = np.abs(value(network(), "c1"))
        assert np.where(value(plain, "c1") != 0, whole, 0).sum(1) == pytest.approx(np.sort(whole, 1)[:, 2:].sum(1))


def test_blocks_stay_or_go_whole() -> None:
    done = prune(network(), calibration=batches(), of="weights", pattern="2x2", ratio=0.5, importance="magnitude", scope="layer")
    blocks = (value(done.model, "c1") != 0).reshape(4, 2, 2, 2, 9).sum((1, 3))
    assert set(np.unique(blocks)) == {0, 4} and (blocks == 4).sum() == 36
    sums = np.abs(value(network(), "c1")).reshape(4, 2, 2, 2, 9).sum((1, 3))
    assert sums[blocks == 4].min() >= sums[blocks == 0].max()
    assert "outputs" in done.skipped["c2"]  # three in each group


def test_zeros_survive_distillation_and_another_look_at_the_graph() -> None:
    model = prune(network(), calibration=batches(), of="weights", ratio=0.7).model
    again = Network(trainable(model.to_graph()))
    assert again.masks().keys() == {"c1", "c2", "w"}
    for optimizer in ("sgd", "adamw"):
        done = distill(again, task=Pictures(), teacher=network(), epochs=2, batch_size=16, optimizer=optimizer)  # type: ignore[arg-type]
        for name in ("c1", "c2", "w"):
            before, after = model.weight(name), done.model.weight(name)
            assert torch.equal(before == 0, after == 0) and not torch.equal(before, after)
            assert not torch.signbit(after[after == 0]).any()


def test_what_is_zero_stays_so_when_more_goes() -> None:
    model, data = network(), batches()
    first = prune(model, calibration=data, of="weights", ratio=0.5).model
    more = prune(first, calibration=data, of="weights", ratio=0.8).model
    for name in ("c1", "c2", "w"):
        assert (value(more, name)[value(first, name) == 0] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "needs ratio"),
        ({"ratio": 1.0}, "give a share from 0 to below 1"),
        ({"ratio": {"c1": 2}}, "of c1; give a share"),
        ({"ratio": {"b2": 0.5}}, "ratio names 'b2' .a vector"),
        ({"ratio": 0.5, "pattern": "2:4"}, "leave ratio out"),
        ({"pattern": "4:2"}, "give 'none', N:M"),
        ({"ratio": 0.5, "pattern": "7x1"}, "no weight of this model can be pruned so"),
        ({"ratio": 0.5, "importance": "luck"}, "give one of obs, taylor, wanda"),
        ({"ratio": 0.5, "scope": "world"}, "give one of auto, global"),
        ({"ratio": 0.5, "importance": "sparsegpt", "pattern": "2x2"}, "can't keep blocks"),
        ({"ratio": 0.5, "importance": "sparsegpt", "scope": "row"}, "decides inside a layer"),
        ({"ratio": 0.5, "speedup": 2.0}, "zeros are no faster"),
        ({"ratio": 0.5, "skip": ("nowhere",)}, "which is no weight"),
        ({"ratio": 0.5, "calibration": ()}, "needs calibration samples"),
        ({"ratio": 0.5, "of": "channels", "pattern": "2:4"}, "are for single weights"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        prune(network(), **{"calibration": batches(), "of": "weights", **arguments})
