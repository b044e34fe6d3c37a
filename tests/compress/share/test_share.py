"""The pass `share`: few values a layer, zeros left alone, and centroids that move by the summed gradients."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from edgewise import coding, recipe
from edgewise.compress.prune.pruning import prune
from edgewise.compress.share.codebooks import Shared
from edgewise.compress.share.sharing import codebook, share
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.models.network import Network
from edgewise.testing.clouds import Clouds
from edgewise.testing.graphs import Node, build


def network(seed: int = 0) -> Network:
    """x (batch, 8) -> 24 neurons, a norm, ReLU -> y (batch, 4)."""
    random = np.random.default_rng(seed)
    drawn = {"0.weight": (24, 8), "0.bias": (24,), "g": (24,), "b": (24,), "3.weight": (4, 24), "3.bias": (4,)}
    weights = {name: 0.4 * random.standard_normal(shape, dtype=np.float32) for name, shape in drawn.items()}
    weights |= {"g": weights["g"] + 1, "m": np.zeros(24, np.float32), "v": np.ones(24, np.float32)}
    nodes: list[Node] = [
        ("Gemm", ["x", "0.weight", "0.bias"], ["a"], {"transB": 1}),
        ("BatchNormalization", ["a", "g", "b", "m", "v"], ["n"]),
        ("Relu", ["n"], ["h"]),
        ("Gemm", ["h", "3.weight", "3.bias"], ["y"], {"transB": 1}),
    ]
    return Network(Graph.from_proto(build(nodes, {"x": ("batch", 8)}, {"y": ("batch", 4)}, weights)))


def convolving() -> Network:
    rng = np.random.default_rng(0)
    shapes = {"c1": (6, 2, 3, 3), "c2": (5, 6, 3, 3), "w": (5, 4)}
    weights = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    nodes: list[Node] = [
        ("Conv", ["x", "c1"], ["a"]),
        ("Conv", ["a", "c2"], ["b"]),
        ("GlobalAveragePool", ["b"], ["p"]),
        ("Flatten", ["p"], ["f"]),
        ("MatMul", ["f", "w"], ["y"]),
    ]
    return Network(Graph.from_proto(build(nodes, {"x": ("batch", 2, 8, 8)}, {"y": ("batch", 4)}, weights)))


def different(net: Network) -> dict[str, int]:
    return {name: len(np.unique(w.detach().numpy().view(np.int32))) for name, w in net.weights().items() if w.dim() > 1}


def test_a_layer_has_as_many_values_as_the_bits_can_name() -> None:
    model = network()
    done = share(model, bits=3, epochs=0)
    assert different(done.model) == {"0.weight": 8, "3.weight": 8}
    assert done.touched[0] == "0.weight: 192 weights, 8 values (3 bits)"
    assert "a vector" in done.skipped["0.bias"] and "as before" in done.notes[-1]
    assert different(model)["0.weight"] > 100  # it was left as it came


def test_zeros_stay_zero_and_are_one_of_the_values() -> None:
    pruned = prune(network(), calibration=(), of="weights", ratio=0.7, importance="magnitude", scope="layer", repair=False).model
    done = share(pruned, task=Clouds(), bits=2, epochs=1, batch_size=32)  # type: ignore[arg-type]
    assert different(done.model) == {"0.weight": 4, "3.weight": 4}
    for name, before in pruned.weights().items():
        if before.dim() > 1:
            after = done.model.weight(name)
            assert torch.equal(before == 0, after == 0)
            assert not torch.signbit(after[after == 0]).any()


def test_bits_by_kind_and_by_name() -> None:
    done = share(convolving(), bits={"Conv": 4, "c2": 2}, epochs=0)
    assert different(done.model) == {"c1": 16, "c2": 4, "w": 20}
    assert done.skipped == {"w": "no bits are given for it"}


def test_a_centroid_moves_by_the_sum_of_its_weights_gradients() -> None:
    net, (x, targets) = network(), next(iter(Clouds().training_batches(batch_size=64, epoch=0)))
    books = {name: codebook(net.weight(name).detach().numpy(), 2) for name in ("0.weight", "3.weight")}
    tied = copy.deepcopy(net)
    with torch.no_grad():
        for name, (centroids, places) in books.items():
            tied.weight(name).copy_(torch.from_numpy(centroids[places]))
    shared = Shared(copy.deepcopy(net), books)
    given, truth = torch.from_numpy(x["x"]), torch.from_numpy(targets)
    gradients = []
    for module in (tied, shared):
        loss = Clouds().loss(module(given), truth)
        loss.backward()
        gradients.append({name: p.grad for name, p in module.named_parameters()})
    for name, (centroids, places) in books.items():
        key = ":" + name.replace(".", ":")
        each = gradients[0][key]
        assert each is not None
        summed = np.bincount(places.ravel(), weights=each.double().numpy().ravel(), minlength=len(centroids))
        np.testing.assert_allclose(gradients[1][f"book{key}"], summed, rtol=1e-4, atol=1e-6)
        assert gradients[1][f"network.{key}"] is None


def test_training_the_values_recovers_what_sharing_lost() -> None:
    from edgewise.train import train

    task: Any = Clouds(n=1024)
    model = train(network(), task, epochs=4, batch_size=32).model
    x, targets = next(iter(Clouds(2048).training_batches(batch_size=2048, epoch=99)))

    def lost(net: Any) -> float:
        with torch.no_grad():
            return float(task.loss(net(torch.from_numpy(x["x"])), torch.from_numpy(targets)))

    plain, trained = (share(model, task=task, bits=1, epochs=n, batch_size=32, learning_rate=0.01).model for n in (0, 4))  # type: ignore[arg-type]
    assert different(trained) == different(plain) == {"0.weight": 2, "3.weight": 2}
    assert lost(trained) < lost(plain) - 0.5 * (lost(plain) - lost(model))


def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path: Any) -> None:
    def run(task: Any, **more: Any) -> Network:
        return share(network(), task=task, bits=2, epochs=3, batch_size=32, **more).model  # type: ignore[no-any-return]

    whole = run(Clouds())
    with pytest.raises(KeyboardInterrupt):
        run(Clouds(stop=2), checkpoint=tmp_path)
    resumed = run(Clouds(), checkpoint=tmp_path)
    assert all(torch.equal(w, resumed.weight(name)) for name, w in whole.weights().items())


def test_the_palette_coder_takes_it() -> None:
    weight = share(network(), bits=4, epochs=0).model.weight("0.weight").detach().numpy()
    blob = coding.encode(weight)
    assert len(blob) < weight.nbytes / 4 and np.array_equal(coding.decode(blob, weight.shape, weight.dtype), weight)


def test_a_recipe_prunes_and_shares() -> None:
    text = "prune(of='weights', ratio=0.8, importance='lamp') > distill(epochs=1, batch_size=32) > share(bits={'Gemm': 3}, batch_size=32)"
    steps = recipe.parse(text)
    assert str(steps) == text
    inputs = [{"x": np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)}]
    model = network()
    done = recipe.apply(steps, model, export=lambda net: net.to_graph(), task=Clouds(), teacher=model, calibration=inputs)
    final = Network(done.model)
    assert all(count <= 8 for count in different(final).values())
    assert sum(int((final.weight(n) == 0).sum()) for n in ("0.weight", "3.weight")) == round(0.8 * (192 + 96))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"bits": 0}, "bits=0; give 1 to 8"),
        ({"bits": {"Gemm": 9}}, "bits=9 of Gemm; give 1 to 8"),
        ({"bits": {"Gem": 3}}, "no kind of layer and no weight"),
        ({"bits": {"Conv": 3}}, "can be shared"),
        ({"epochs": 1}, "needs a task"),
        ({"skip": ("nowhere",)}, "which is no weight"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        share(network(), **{"epochs": 0, **arguments})
