"""Training at a price: prices against what the coder would take, grids, dead units, resuming, and a size that is reached."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgewise import coding
from edgewise.compress.prune.readers import every
from edgewise.compress.rate.dead import alive, without_dead_units
from edgewise.compress.rate.penalize import RAMP, Repeated, _judged, due_bytes, penalize, pieces
from edgewise.compress.rate.penalized import Penalized, _bargain
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, Index
from edgewise.models.network import Network
from edgewise.testing.clouds import Clouds
from edgewise.testing.graphs import build
from edgewise.train import train


def drawn(n: int, key: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
    x, targets = Clouds().draw(n, key)
    return {"x": x}, targets


def net(hidden: int = 48, seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, 0.4, (hidden, 8)), "b1": np.zeros(hidden), "w2": rng.normal(0, 0.2, (4, hidden)), "b2": np.zeros(4),
    }  # fmt: skip
    nodes = [
        ("Gemm", ["x", "w1", "b1"], ["h"], {"transB": 1}),
        ("Relu", ["h"], ["r"], {}),
        ("Gemm", ["r", "w2", "b2"], ["y"], {"transB": 1}),
    ]
    stored = {name: value.astype(np.float32) for name, value in weights.items()}
    return Network(Graph.from_proto(build(nodes, {"x": ("batch", 8)}, {"y": ("batch", 4)}, stored)))


def accuracy(network: Network) -> float:
    inputs, targets = drawn(2000, 77)
    with torch.no_grad():
        return float((network(torch.from_numpy(inputs["x"])).argmax(1).numpy() == targets).mean())


OPTIONS: dict[str, Any] = {"size_bytes": 110, "epochs": 24, "batch_size": 64, "learning_rate": 3e-2}


@pytest.fixture(scope="module")
def done() -> Any:
    return penalize(net(), task=Clouds(512), **OPTIONS)


def test_the_size_is_reached_and_the_answers_are_right(done: Any) -> None:
    size = sum(len(coding.encode(np.ascontiguousarray(weight.detach().numpy()))) for weight in done.model.weights().values())
    assert size < 1.5 * 110 and f"{110} asked for" in done.notes[0]
    assert accuracy(done.model) > 0.9
    assert sum(weight.numel() for weight in done.model.weights().values()) < sum(weight.numel() for weight in net().weights().values())
    assert any("units were dead, and went" in note for note in done.notes)


def test_a_network_that_is_too_large_is_judged_below_any_that_is_not() -> None:
    network = net()
    made = Penalized(network, every(network, Index(network.structure)))
    size = made.coded_bytes()
    fits, just_over, far_over = (_judged(Clouds(512), asked)(made) for asked in (size, size - 1, size // 2))
    assert 0 < fits <= 1 and just_over < 0 and far_over < just_over
    assert fits - just_over == pytest.approx(1 + 1 / (size - 1))
    assert _judged(Clouds(512, labelled=False), size) is None


def test_every_tensor_lies_on_its_grid(done: Any) -> None:
    for weight in done.model.weights().values():
        values = np.unique(np.abs(weight.detach().numpy()))
        nonzero = values[values > 0]
        if len(nonzero):
            ratios = nonzero.astype(np.float64) / nonzero.min()
            assert min(np.abs(ratios * k - np.rint(ratios * k)).max() for k in range(1, 65)) < 1e-4


def test_what_was_interrupted_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    short = {**OPTIONS, "epochs": 5}
    whole = penalize(net(), task=Clouds(512), **short).model
    with pytest.raises(KeyboardInterrupt):
        penalize(net(), task=Clouds(512, stop=3), checkpoint=tmp_path, **short)
    resumed = penalize(net(), task=Clouds(512), checkpoint=tmp_path, **short).model
    assert all(torch.equal(weight, resumed.weight(name)) for name, weight in whole.weights().items())


def test_without_labels_the_teacher_is_enough() -> None:
    trained = train(net(), Clouds(512), epochs=6, batch_size=64, learning_rate=0.05).model
    found = penalize(net(), task=Clouds(512, labelled=False), teacher=trained, **OPTIONS)
    assert accuracy(found.model) > 0.85 and any("no labels" in note for note in found.notes)


def test_a_price_is_what_the_next_one_costs() -> None:
    """Where rows are long, the bits of a row with one more set flag are those of before and the price."""
    rng = np.random.default_rng(0)
    flags = torch.from_numpy((rng.random((30, 400)) < rng.uniform(0.02, 0.5, (30, 1))).astype(np.float32))

    def row_bits(row: torch.Tensor) -> float:
        p = float(row.mean())
        return -len(row) * (p * math.log2(p) + (1 - p) * math.log2(1 - p))

    price, _ = _bargain(flags, 1)
    for row in range(30):
        more = flags[row].clone()
        more[int(torch.argmin(more))] = 1
        assert float(price[row].mean()) == pytest.approx(row_bits(more) - row_bits(flags[row]), abs=0.6)


def test_the_bits_that_are_estimated_are_near_the_coders() -> None:
    torch.manual_seed(0)
    network = net(hidden=300)
    penalized = Penalized(network, every(network, Index(network.structure)))
    assert penalized.learn_prices() / 8 == pytest.approx(penalized.coded_bytes(), rel=0.15)


def test_a_row_that_empties_gets_dearer() -> None:
    flags = torch.zeros(10, 100)
    flags[:5, :40] = 1
    flags[6, 3] = 1
    price, _ = _bargain(flags, 1)
    assert float(price[6, 3]) > float(price[0, 3]) + 2 and float(price[6, 90]) > float(price[6, 3])


def test_the_bytes_that_are_due_fall_evenly_and_then_stay() -> None:
    assert due_bytes(0, 100, 1000, 10) == pytest.approx(1000)
    assert due_bytes(int(50 * RAMP), 100, 1000, 10) == pytest.approx(100)
    assert due_bytes(int(100 * RAMP), 100, 1000, 10) == due_bytes(90, 100, 1000, 10) == pytest.approx(10)


def test_dead_units_go_along_the_way_and_what_is_left_is_the_same_training() -> None:
    assert pieces(1) == (0, 1) and pieces(3)[0] == 0 and pieces(3)[-1] == 3
    whole = Penalized(net(), every(net(), Index(net().structure)))
    whole.slope.fill_(3e-5)
    with torch.no_grad():
        whole.network.weight("w1")[5:9] = 0.01 * whole.steps()["w1"]  # rounds to zero
    found = alive(whole.settled(), drawn(64, 1)[0])
    smaller = whole.narrowed(found.keeps)
    kept = [unit for unit in range(48) if unit not in range(5, 9)]
    assert torch.equal(smaller.network.weight("w1"), whole.network.weight("w1")[kept]) and float(smaller.slope) == float(whole.slope)
    assert {name: step.item() for name, step in smaller.steps().items()} == {name: step.item() for name, step in whole.steps().items()}
    x = torch.from_numpy(drawn(64, 1)[0]["x"])
    assert torch.allclose(smaller(x), whole(x), atol=1e-5)


def test_batches_come_again() -> None:
    task = Repeated(Clouds(128), 2)
    first, second, third = (next(iter(task.training_batches(batch_size=32, epoch=epoch, seed=0)))[0]["x"] for epoch in range(3))
    assert np.array_equal(first, third) and not np.array_equal(first, second)


def test_dead_units_go_where_the_answers_stay() -> None:
    network = net(hidden=6)
    with torch.no_grad():
        network.weight("w1")[:3] = 0
        network.weight("b1")[1] = 2.0  # gives a constant, which is read: it stays
        network.weight("w2")[:, 4] = 0
    inputs, _ = drawn(16, 1)
    smaller, notes = without_dead_units(network, inputs)
    assert smaller.weight("w1").shape[0] == 3 and len(notes) == 1 and "3 of 6" in notes[0]
    x = torch.from_numpy(inputs["x"])
    assert torch.allclose(network(x), smaller(x), atol=1e-5)


def test_of_a_part_that_is_dead_one_unit_stays() -> None:
    network = net(hidden=6)
    with torch.no_grad():
        network.weight("w2").zero_()
    assert without_dead_units(network, drawn(4, 1)[0])[0].weight("w1").shape[0] == 1


@pytest.mark.parametrize("wrong", [{"size_bytes": 3}, {"epochs": 0}])
def test_a_size_that_no_training_reaches(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput, match="give more"):
        penalize(net(), task=Clouds(512), **{**OPTIONS, **wrong})
