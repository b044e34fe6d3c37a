"""Pruning while it trains: the schedule, that masks only shrink, that a resumed run is the same, and that training makes up for much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgewise import recipe
from edgewise.compress.prune.patterns import Pattern
from edgewise.compress.prune.pruning import prune
from edgewise.compress.prune.sparsify import EVERY, Gradual, cubic, sparsify
from edgewise.compress.prune.targets import targets
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, mark_sparse
from edgewise.models.network import Network
from edgewise.testing.clouds import Clouds
from edgewise.testing.graphs import Node, build
from edgewise.train import train


def network(seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (8, 32), "b1": (32,), "w2": (32, 4), "b2": (4,)}
    weights = {name: 0.4 * rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    nodes: list[Node] = [("Gemm", ["x", "w1", "b1"], ["a"]), ("Relu", ["a"], ["h"]), ("Gemm", ["h", "w2", "b2"], ["y"])]
    return Network(Graph.from_proto(build(nodes, {"x": ("batch", 8)}, {"y": ("batch", 4)}, weights)))


def zeros(net: Network) -> dict[str, int]:
    return {name: int((net.weight(name) == 0).sum()) for name in ("w1", "w2")}


def accuracy(net: Any) -> float:
    x, wanted = next(iter(Clouds(4000).training_batches(batch_size=4000, epoch=99)))
    with torch.no_grad():
        return float((net(torch.from_numpy(x["x"])).argmax(1).numpy() == wanted).mean())


def run(task: Clouds | None = None, **more: Any) -> Any:
    return sparsify(network(), task=task or Clouds(512, spread=1.2), **{"ratio": 0.8, "epochs": 4, "batch_size": 8, "weight": 0.0, **more})


def test_the_cubic_schedule() -> None:
    steps = np.linspace(0, 1, 11)
    shares = [cubic(step) for step in steps]
    # s_f + (s_i - s_f) (1 - t)³ with s_i = 0, s_f = 1
    assert shares == pytest.approx(1 - (1 - steps) ** 3)
    assert cubic(-1) == 0 and cubic(2) == 1


def test_masks_shrink_as_the_schedule_says_and_are_held_in_between() -> None:
    model = network()
    chosen, _ = targets(model)
    net = Network(mark_sparse(model.to_graph(), ["w1", "w2"])).train()
    gradual = Gradual(chosen, 0.75, 0.5, "magnitude", "global", Pattern(), every=4)
    before = {name: mask.clone() for name, mask in net.masks().items()}
    for step in range(40):
        gradual(net, step, 40)
        gone = sum(int((~mask).sum()) for mask in net.masks().values())
        assert gone == round(cubic(step // 4 * 4 / 20) * 0.75 * 384)
        for name, mask in net.masks().items():
            assert not (mask & ~before[name]).any() and not net.weight(name)[~mask].any()
            before[name] = mask.clone()
        with torch.no_grad():  # an optimizer's momentum
            net.weight("w1").add_(0.01)


@pytest.mark.parametrize("more", [{}, {"optimizer": "adamw"}, {"schedule": "rounds", "rounds": 2}, {"importance": "lamp", "weight": 0.5}])
def test_the_share_that_was_asked_for_is_zero(more: dict[str, Any]) -> None:
    model = network()
    done = sparsify(model, task=Clouds(512, spread=1.2), ratio=0.8, epochs=4, batch_size=8, **{"weight": 0.0, **more})  # type: ignore[arg-type]
    assert sum(zeros(done.model).values()) == round(0.8 * 384)
    assert all(int((~mask).sum()) == zeros(done.model)[name] for name, mask in done.model.masks().items())
    assert zeros(model) == {"w1": 0, "w2": 0} and "as before" in done.notes[1]
    assert done.skipped.keys() == {"b1", "b2"} and EVERY * 4 < 4 * 512 / 8


def test_training_makes_up_for_what_goes() -> None:
    task: Any = Clouds(2048)
    dense = train(network(), task, epochs=3, batch_size=32, learning_rate=0.05).model
    arguments: Any = {"of": "weights", "ratio": 0.85, "importance": "magnitude", "repair": False}
    once = accuracy(prune(dense, calibration=(), **arguments).model)  # type: ignore[arg-type]
    slowly = [
        accuracy(sparsify(dense, task=task, ratio=0.85, epochs=6, batch_size=32, schedule=each, rounds=3).model)  # type: ignore[arg-type]
        for each in ("cubic", "rounds")
    ]
    assert once < accuracy(dense) - 0.05
    assert min(slowly) > accuracy(dense) - 0.03 > once


@pytest.mark.parametrize("more", [{}, {"schedule": "rounds", "rounds": 2}])
def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path: Path, more: dict[str, Any]) -> None:
    whole = run(**more).model
    stop = 2 if not more else 1
    with pytest.raises(KeyboardInterrupt):
        run(replace(Clouds(512, spread=1.2), stop=stop), checkpoint=tmp_path, **more)
    resumed = run(checkpoint=tmp_path, **more).model
    assert all(torch.equal(weight, resumed.weight(name)) for name, weight in whole.weights().items())
    with pytest.raises(InvalidInput, match=r"ratio=0.8 then, 0.7 now|another model"):
        run(checkpoint=tmp_path, **{**more, "ratio": 0.7})


def test_blocks_and_rounds_by_calibration() -> None:
    blocks = run(pattern="1x4").model
    for name, axis in (("w1", 0), ("w2", 0)):  # inputs lie along the first axis
        assert set(((blocks.weight(name) != 0).unflatten(axis, (-1, 4)).sum(axis + 1)).unique().tolist()) <= {0, 4}
    data = [{"x": np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)}]
    done = run(schedule="rounds", rounds=2, importance="obs", calibration=data)
    assert sum(zeros(done.model).values()) == round(0.8 * 384)


def test_in_a_recipe(tmp_path: Path) -> None:
    text = "sparsify(ratio=0.7, epochs=2, batch_size=16) > share(bits=3, batch_size=32)"
    assert str(recipe.parse(text)) == text
    model = network()
    done = recipe.apply(recipe.parse(text), model, task=Clouds(512, spread=1.2), teacher=model, calibration=[], checkpoint=tmp_path)
    assert sum(zeros(done.model).values()) == round(0.7 * 384)
    assert all(len(done.model.weight(name).unique()) == 8 for name in ("w1", "w2"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"ratio": 0.0}, "above 0 and below 1"),
        ({"schedule": "linear"}, "give 'cubic' or 'rounds'"),
        ({"importance": "luck"}, "give one of obs"),
        ({"importance": "obs"}, "too slow for every few steps"),
        ({"importance": "obs", "schedule": "rounds"}, "needs calibration samples"),
        ({"pattern": "2:4"}, "has no share that could grow"),
        ({"until": 0.0}, "above 0 to 1"),
        ({"schedule": "rounds", "rounds": 9}, "each round needs an epoch"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        run(**arguments)
