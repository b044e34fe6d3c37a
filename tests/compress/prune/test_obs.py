"""OBS on whole units against numpy's least squares, removed and solved by brute force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.compress.prune.calibration import Data
from edgewise.compress.prune.moments import gather
from edgewise.compress.prune.obs import order, update
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, Part, Slice, parts, shrink
from edgewise.models.network import Network
from edgewise.testing.graphs import Node, build

EXACT = 1e-9  # damping that changes no digit that is looked at
ONES = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def made(nodes: list[Node], shape: tuple[int | str, ...], out: tuple[int | str, ...], weights: dict[str, Any]) -> Network:
    return Network(Graph.from_proto(build(nodes, {"x": shape}, {"y": out}, weights)))


def normal(seed: int, *shape: int, scale: float = 1.0, mean: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, scale, shape).astype(np.float32)


def mlp(units: int = 7, *, bias: bool = True, seed: int = 0) -> Network:
    """x (n, 5) -> Gemm, Relu: a (n, units) -> Gemm: y (n, 4). Some units are nearly sums of others, so that the order matters."""
    w1 = normal(seed, units, 5)
    w1[-1] = w1[0] + 0.05 * w1[-1]
    weights = {"w1": w1, "b1": normal(seed + 1, units, mean=0.5), "w2": normal(seed + 2, 4, units)}
    nodes: list[Node] = [("Gemm", ["x", "w1", "b1"], ["h"], {"transB": 1}), ("Relu", ["h"], ["a"])]
    if bias:
        weights["b2"] = normal(seed + 3, 4)
    nodes.append(("Gemm", ["a", "w2", *(["b2"] if bias else [])], ["y"], {"transB": 1}))
    return made(nodes, ("batch", 5), ("batch", 4), weights)


def samples(*shape: int, n: int = 200, batches: int = 2, seed: int = 9) -> Data:
    return Data([{"x": normal(seed + i, n // batches, *shape)} for i in range(batches)])


def tapped(network: Network, data: Data, name: str) -> np.ndarray:
    with torch.no_grad():
        found = [network.run({"x": torch.from_numpy(np.array(batch["x"]))}, taps=(name,))[name] for batch in data.batches]
    return torch.cat(found).double().numpy()


def least(x: np.ndarray, weight: np.ndarray, kept: Sequence[int], *, bias: bool) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) the best weights that read the columns `kept` of x (n, columns) alone, and the mean squared error of each row."""
    if bias:
        x = x - x.mean(0)
    target = x @ weight.T
    best = np.zeros_like(weight)
    if len(kept):
        best[:, kept] = np.linalg.lstsq(x[:, kept], target, rcond=None)[0].T
    return best, ((target - x @ best.T) ** 2).mean(0)


def brute_order(x: np.ndarray, weight: np.ndarray, blocks: list[list[int]], *, bias: bool) -> tuple[list[int], list[float]]:
    energy = least(x, weight, [], bias=bias)[1].sum()
    foreign = sorted(set(range(x.shape[1])) - {column for block in blocks for column in block})
    live, sequence, errors = list(range(len(blocks))), [], []
    while live:
        kept = [foreign + [column for other in live if other != unit for column in blocks[other]] for unit in live]
        tried = [least(x, weight, columns, bias=bias)[1].sum() for columns in kept]
        sequence.append(live.pop(int(np.argmin(tried))))
        errors.append(min(tried) / energy)
    return sequence, errors


def only(network: Network) -> Part:
    (part,) = parts(network.structure).parts
    return part


@pytest.mark.parametrize("bias", [True, False])
def test_order_and_errors_are_those_of_brute_force_greedy_removal(bias: bool) -> None:
    network, data = mlp(bias=bias), samples(5)
    removal = order(network, only(network), data, damping=EXACT)
    x, weight = tapped(network, data, "a"), network.weight("w2").detach().double().numpy()
    sequence, errors = brute_order(x, weight, [[unit] for unit in range(7)], bias=bias)
    assert removal.order.tolist() == sequence
    assert removal.errors == pytest.approx(errors, rel=1e-3, abs=1e-6)
    assert removal.errors[-1] == pytest.approx(1, abs=1e-6)
    assert removal.weights == ("w2",)


def test_the_score_of_each_unit_is_the_least_squares_error_without_it() -> None:
    network, data = mlp(), samples(5)
    x, weight = tapped(network, data, "a"), network.weight("w2").detach().double().numpy()
    energy = least(x, weight, [], bias=True)[1].sum()
    for unit in range(7):
        alone = Part("one", "neurons", 1, (Slice("w2", 1, "in", "Gemm_2", np.array([[unit]])),))
        wanted = least(x, weight, [other for other in range(7) if other != unit], bias=True)[1].sum() / energy
        assert order(network, alone, data, damping=EXACT).errors == pytest.approx([wanted], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_update_gives_the_least_squares_weights_for_what_is_kept(bias: bool) -> None:
    network, data, keep = mlp(bias=bias), samples(5), [1, 2, 5]
    x, weight = tapped(network, data, "a"), network.weight("w2").detach().double().numpy()
    before = weight.copy()
    changed = update(network, only(network), keep, data, damping=EXACT)
    best, errors = least(x, weight, keep, bias=bias)
    assert changed.weight("w2").detach().numpy() == pytest.approx(best, rel=1e-3, abs=1e-4)
    lost = tapped(network, data, "y") - tapped(changed, data, "y")
    assert (lost**2).mean(0) == pytest.approx(errors, rel=1e-3, abs=1e-6)
    if bias:
        assert lost.mean(0) == pytest.approx(0, abs=1e-5)
    assert (network.weight("w2").detach().numpy() == before.astype(np.float32)).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sets(st.integers(0, 6), min_size=1, max_size=6))
def test_what_is_made_up_for_is_never_worse_than_what_is_just_cut(seed: int, keep: set[int]) -> None:
    network, data = mlp(seed=seed), samples(5, seed=seed)
    dense, gone = tapped(network, data, "y"), sorted(set(range(7)) - keep)
    mended = update(network, only(network), sorted(keep), data)
    with torch.no_grad():
        network.weight("w2")[:, gone] = 0
    cut = ((tapped(network, data, "y") - dense) ** 2).sum()
    assert ((tapped(mended, data, "y") - dense) ** 2).sum() <= cut * (1 + 1e-5) + 1e-6
    assert not mended.weight("w2").detach().numpy()[:, gone].any()


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(7)))
def test_the_order_of_units_does_not_matter(places: list[int]) -> None:
    network, data = mlp(), samples(5)
    weights = {name: network.weight(name).detach().numpy() for name in ("w1", "b1", "w2", "b2")}
    weights |= {"w1": weights["w1"][places], "b1": weights["b1"][places], "w2": weights["w2"][:, places]}
    nodes: list[Node] = [
        ("Gemm", ["x", "w1", "b1"], ["h"], {"transB": 1}),
        ("Relu", ["h"], ["a"]),
        ("Gemm", ["a", "w2", "b2"], ["y"], {"transB": 1}),
    ]
    moved = made(nodes, ("batch", 5), ("batch", 4), weights)
    here, there = (order(net, only(net), data) for net in (network, moved))
    assert [places[unit] for unit in there.order] == here.order.tolist()
    assert there.errors == pytest.approx(here.errors, rel=1e-4)


def convolved(
    *, group: int = 1, norm: bool = False, strides: Sequence[int] = (1, 1), pads: Sequence[int] = (1, 1, 1, 1), seed: int = 0
) -> Network:
    """x (n, 2, 7, 6) -> Conv, Relu: a (n, 8, 7, 6) -> Conv 3×2 [, BatchNormalization]: y with 4 channels."""
    weights: dict[str, Any] = {
        "w1": normal(seed, 8, 2, 3, 3), "b1": normal(seed + 1, 8), "w2": normal(seed + 2, 4, 8 // group, 3, 2),
    }  # fmt: skip
    nodes: list[Node] = [
        ("Conv", ["x", "w1", "b1"], ["h"], ONES),
        ("Relu", ["h"], ["a"]),
        ("Conv", ["a", "w2"], ["c" if norm else "y"], {"group": group, "strides": list(strides), "pads": list(pads)}),
    ]
    if norm:
        weights |= {"g": normal(5, 4, mean=2.0), "b": normal(6, 4), "m": normal(7, 4), "v": normal(8, 4) ** 2 + 0.1}
        nodes.append(("BatchNormalization", ["c", "g", "b", "m", "v"], ["y"], {"epsilon": 1e-3}))
    return made(nodes, ("batch", 2, 7, 6), ("batch", 4, "h", "w"), weights)


def unfolded(a: np.ndarray, kernel: tuple[int, int], strides: Sequence[int], pads: Sequence[int]) -> np.ndarray:
    """(positions, channels * kernel) by torch."""
    padded = torch.nn.functional.pad(torch.from_numpy(a), (pads[1], pads[3], pads[0], pads[2]))
    found = torch.nn.functional.unfold(padded, kernel, stride=tuple(strides))
    return found.transpose(1, 2).reshape(-1, found.shape[1]).numpy()


@pytest.mark.parametrize("norm", [True, False])
def test_convolutions_are_judged_on_what_torch_unfolds(norm: bool) -> None:
    strides, pads = (2, 1), (1, 0, 2, 1)
    network, data = convolved(norm=norm, strides=strides, pads=pads), samples(2, 7, 6, n=40)
    x = unfolded(tapped(network, data, "a"), (3, 2), strides, pads)
    weight = network.weight("w2").detach().double().numpy().reshape(4, -1)
    if norm:
        weight *= (network.weight("g").detach().double() / (network.weight("v").double() + 1e-3).sqrt()).numpy()[:, None]
    sequence, errors = brute_order(x, weight, [list(range(6 * unit, 6 * unit + 6)) for unit in range(8)], bias=norm)
    removal = order(network, only(network), data, damping=EXACT)
    assert removal.order.tolist() == sequence
    assert removal.errors == pytest.approx(errors, rel=2e-3, abs=1e-6)
    keep = sequence[5:]
    changed = update(network, only(network), keep, data, damping=EXACT)
    errors = least(x, weight, [6 * unit + tap for unit in sorted(keep) for tap in range(6)], bias=norm)[1]
    lost = (tapped(network, data, "y") - tapped(changed, data, "y")) ** 2
    assert lost.mean((0, 2, 3)) == pytest.approx(errors, rel=2e-3)


def test_groups_of_a_convolution_are_solved_apart() -> None:
    network, data = convolved(group=2, pads=(0, 0, 0, 0)), samples(2, 7, 6, n=40)
    part = only(network)
    assert part.units == 4
    x = unfolded(tapped(network, data, "a"), (3, 2), (1, 1), (0, 0, 0, 0))
    weight = network.weight("w2").detach().double().numpy().reshape(2, 2, -1)
    keep = [0, 3]
    inside = [6 * unit + tap for unit in keep for tap in range(6)]
    errors = np.concatenate([least(x[:, 24 * g : 24 * g + 24], weight[g], inside, bias=False)[1] for g in range(2)])
    changed = update(network, part, keep, data, damping=EXACT)
    lost = (tapped(network, data, "y") - tapped(changed, data, "y")) ** 2
    assert lost.mean((0, 2, 3)) == pytest.approx(errors, rel=2e-3)
    removal = order(network, part, data, damping=EXACT)
    pair = sorted(removal.order[2:].tolist())
    changed = update(network, part, pair, data, damping=EXACT)
    dense = tapped(network, data, "y")
    assert removal.errors[1] == pytest.approx(((tapped(changed, data, "y") - dense) ** 2).sum() / (dense**2).sum(), rel=2e-3)


def test_units_that_a_flatten_spreads_go_with_all_their_positions() -> None:
    weights = {"w1": normal(0, 4, 2, 3, 3), "b1": normal(1, 4), "w2": normal(2, 24, 3), "b2": normal(3, 3)}
    nodes: list[Node] = [
        ("Conv", ["x", "w1", "b1"], ["h"], ONES),
        ("Relu", ["h"], ["r"]),
        ("Flatten", ["r"], ["a"]),
        ("MatMul", ["a", "w2"], ["m"]),
        ("Add", ["m", "b2"], ["y"]),
    ]
    network, data = made(nodes, ("batch", 2, 2, 3), ("batch", 3), weights), samples(2, 2, 3, n=120)
    part = only(network)
    x, weight = tapped(network, data, "a"), weights["w2"].T.astype(float)
    sequence, errors = brute_order(x, weight, [list(range(6 * unit, 6 * unit + 6)) for unit in range(4)], bias=True)
    removal = order(network, part, data, damping=EXACT)
    assert removal.order.tolist() == sequence
    assert removal.errors == pytest.approx(errors, rel=1e-3, abs=1e-6)
    changed = update(network, part, [0, 2], data, damping=EXACT)
    lost = tapped(network, data, "y") - tapped(changed, data, "y")
    kept = [*range(6), *range(12, 18)]
    assert (lost**2).mean(0) == pytest.approx(least(x, weight, kept, bias=True)[1], rel=1e-3)
    assert lost.mean(0) == pytest.approx(0, abs=1e-5)  # the Add behind the MatMul took it up


def branches(seed: int = 0) -> Network:
    """Two layers side by side, joined, and read together; the first is also read alone."""
    weights = {
        "left": normal(seed, 5, 4), "right": normal(seed + 1, 5, 3), "both": normal(seed + 2, 7, 4), "alone": normal(seed + 3, 4, 4),
    }  # fmt: skip
    nodes: list[Node] = [
        ("MatMul", ["x", "left"], ["l"]),
        ("MatMul", ["x", "right"], ["r"]),
        ("Relu", ["l"], ["la"]),
        ("Relu", ["r"], ["ra"]),
        ("Concat", ["la", "ra"], ["a"], {"axis": 1}),
        ("MatMul", ["a", "both"], ["yb"]),
        ("MatMul", ["la", "alone"], ["ya"]),
        ("Add", ["yb", "ya"], ["y"]),
    ]
    return made(nodes, ("batch", 5), ("batch", 4), weights)


def test_columns_of_foreign_units_help_and_weights_count_alike() -> None:
    network, data = branches(), samples(5)
    part = next(one for one in parts(network.structure).parts if one.name == "left")
    removal = order(network, part, data, damping=EXACT)
    assert removal.by_weight.shape == (4, 2)
    first = removal.order[0]
    rest = [unit for unit in range(4) if unit != first]
    for place, (tap, name, foreign) in enumerate((("a", "both", [4, 5, 6]), ("la", "alone", []))):
        assert removal.weights[place] == name
        x, weight = tapped(network, data, tap), network.weight(name).detach().double().numpy().T
        energy = least(x, weight, [], bias=False)[1].sum()
        wanted = least(x, weight, rest + foreign, bias=False)[1].sum() / energy
        assert removal.by_weight[0, place] == pytest.approx(wanted, rel=1e-3, abs=1e-6)
        last = least(x, weight, foreign, bias=False)[1].sum() / energy
        assert removal.by_weight[-1, place] == pytest.approx(last, rel=1e-3)
    assert (np.diff(removal.by_weight, axis=0) >= 0).all()


def test_what_an_earlier_update_removed_stays_removed() -> None:
    network, data = branches(), samples(5)
    left, right = (next(one for one in parts(network.structure).parts if one.name == name) for name in ("left", "right"))
    once = update(network, left, [0, 2], data)
    twice = update(once, right, [1], data)
    both = twice.weight("both").detach().numpy()
    assert not both[[1, 3, 4, 6]].any()
    assert both[[0, 2, 5]].all()
    small = Network(shrink(twice.to_graph(), {"left": [0, 2], "right": [1]}))
    assert tapped(small, data, "y") == pytest.approx(tapped(twice, data, "y"), abs=1e-5)


def test_a_shared_weight_is_fitted_to_all_that_it_reads() -> None:
    weights = {"w1": normal(0, 5, 6), "w2": normal(1, 6, 3), "b": normal(2, 6)}
    nodes: list[Node] = [
        ("MatMul", ["x", "w1"], ["h"]),
        ("Relu", ["h"], ["a1"]),
        ("Abs", ["h"], ["a2"]),
        ("MatMul", ["a1", "w2"], ["y1"]),
        ("MatMul", ["a2", "w2"], ["y2"]),
        ("Mul", ["y1", "y2"], ["y"]),
    ]
    network, data = made(nodes, ("batch", 5), ("batch", 3), weights), samples(5)
    changed = update(network, only(network), [0, 3, 4], data, damping=EXACT)
    both = np.concatenate([tapped(network, data, "a1"), tapped(network, data, "a2")])
    best, _ = least(both, weights["w2"].T.astype(float), [0, 3, 4], bias=False)
    found = changed.weight("w2").detach().numpy()
    assert found == pytest.approx(best.T, rel=1e-3, abs=1e-4)


def test_folded_batch_norms_change_no_order() -> None:
    data = samples(2, 7, 6, n=40)
    network = convolved(norm=True)
    scale = (network.weight("g") / (network.weight("v") + 1e-3).sqrt()).detach()
    weights = {name: network.weight(name).detach().numpy() for name in ("w1", "b1")}
    weights["w2"] = (network.weight("w2").detach() * scale[:, None, None, None]).numpy()
    weights["b2"] = ((-network.weight("m")) * scale + network.weight("b")).detach().numpy()
    nodes: list[Node] = [
        ("Conv", ["x", "w1", "b1"], ["h"], ONES),
        ("Relu", ["h"], ["a"]),
        ("Conv", ["a", "w2", "b2"], ["y"], {"pads": [1, 1, 1, 1]}),
    ]
    folded = made(nodes, ("batch", 2, 7, 6), ("batch", 4, "h", "w"), weights)
    here, there = (order(net, only(net), data) for net in (network, folded))
    assert here.order.tolist() == there.order.tolist()
    assert here.errors == pytest.approx(there.errors, rel=1e-4)
    mended = [update(net, only(net), [0, 4, 6], data) for net in (network, folded)]
    assert tapped(mended[0], data, "y") == pytest.approx(tapped(mended[1], data, "y"), abs=1e-3)


def test_moments_known_already_give_the_same_and_the_mode_stays() -> None:
    network, data = convolved(norm=True), samples(2, 7, 6, n=40)
    network.train()
    mean = network.weight("m").clone()
    part = only(network)
    known = gather(network, [part], data)
    assert order(network, part, data, moments=known).order.tolist() == order(network, part, data).order.tolist()
    first, second = (update(network, part, [1, 2], data, **more) for more in ({}, {"moments": known}))
    assert torch.equal(first.weight("w2"), second.weight("w2"))
    assert torch.equal(first.weight("m"), second.weight("m"))
    assert network.training
    assert torch.equal(network.weight("m"), mean)


def test_without_any_unit_left_the_mean_is() -> None:
    network, data = mlp(), samples(5)
    emptied = update(network, only(network), [], data)
    wanted = tapped(network, data, "y").mean(0)
    assert tapped(emptied, data, "y") == pytest.approx(np.broadcast_to(wanted, (200, 4)), abs=1e-4)


def test_dead_units_go_first_and_cost_nothing() -> None:
    network = mlp()
    with torch.no_grad():
        network.weight("b1")[[2, 4]] = -1e3
    removal = order(network, only(network), samples(5), damping=EXACT)
    assert set(removal.order[:2].tolist()) == {2, 4}
    assert removal.errors[1] == pytest.approx(0, abs=1e-6)


def test_few_samples_and_silence_are_borne() -> None:
    network = mlp()
    removal = order(network, only(network), samples(5, n=2, batches=1))
    assert np.isfinite(removal.errors).all()
    assert sorted(removal.order.tolist()) == list(range(7))
    with torch.no_grad():
        network.weight("w2").zero_()
    assert order(network, only(network), samples(5)).errors.tolist() == [0.0] * 7


@pytest.mark.parametrize("keep", [[0, 0], [7], [-1]])
def test_unknown_and_repeated_units_are_refused(keep: list[int]) -> None:
    network = mlp()
    with pytest.raises(InvalidInput, match="distinct numbers from 0 to 6"):
        update(network, only(network), keep, samples(5))


def test_weights_too_wide_for_least_squares_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgewise.compress.prune.moments.MOST_COLUMNS", 6)
    network = mlp()
    with pytest.raises(InvalidInput, match="w1 is read by w2 with 7 columns, too many"):
        order(network, only(network), samples(5))


def test_a_part_that_nothing_reads_is_refused() -> None:
    network = mlp()
    part = Part("w1", "neurons", 7, (Slice("w1", 0, "out", "Gemm_0", np.arange(7)[:, None]),))
    with pytest.raises(InvalidInput, match="nothing reads w1"):
        order(network, part, samples(5))
