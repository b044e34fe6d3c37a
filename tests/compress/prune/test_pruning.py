"""The pass `prune`, on networks that no line of it knows by name."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch

from edgewise import backends, recipe
from edgewise.compress.prune.pruning import prune
from edgewise.compress.prune.surveying import MOST_WIDTHS, survey
from edgewise.errors import InvalidInput
from edgewise.export import export, run_torch
from edgewise.graph import cost, fold, parts, total
from edgewise.models.network import Network
from edgewise.testing import nets
from edgewise.types import Execution

NETS = ("mobilenet_like", "densenet_like", "unet_like", "two_inputs", "vit_like", "gated", "grouped", "shared")


def drawn(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    shape = (8, *like.shape[1:])
    return (rng.normal(size=shape) if like.dtype.kind == "f" else rng.integers(0, 2, shape)).astype(like.dtype)


@cache
def network(name: str) -> tuple[Network, list[dict[str, np.ndarray]]]:
    example = nets.example(name)
    graph = export(getattr(nets, name)(), example, norms=True)
    rng = np.random.default_rng(0)
    batches = [{key: drawn(rng, value) for key, value in example.items()} for _ in range(2)]
    return Network(graph), batches


@pytest.mark.parametrize("name", NETS)
def test_half_the_operations_of_any_network_and_the_engine_agrees_with_torch(name: str) -> None:
    model, batches = network(name)
    done = prune(model, calibration=batches, operations=2.0, samples=16)
    before, after = (total(cost(fold(each.to_graph()))).macs for each in (model, done.model))
    assert after <= before / 2
    assert done.touched and sum(p.numel() for p in done.model.parameters()) < sum(p.numel() for p in model.parameters())
    folded = fold(done.model.to_graph())
    runner = backends.load(folded.to_bytes(), Execution("onnxruntime"))
    got = runner.run(batches[0])
    expected = run_torch(done.model, batches[0], names=[spec.name for spec in folded.signature.outputs])
    for key in expected:
        np.testing.assert_allclose(got[key], expected[key], rtol=1e-3, atol=1e-3 * np.abs(expected[key]).max())


def test_a_wide_part_is_looked_at_in_some_of_its_widths() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 400), torch.nn.ReLU(), torch.nn.Linear(400, 3)).eval()
    batches = [{"x": np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)}]
    found = survey(Network(export(net, batches[0], norms=True)), batches, importance="magnitude_l2")
    (widths,) = (sorted(losses) for losses in found.losses.values())
    assert widths[0] == 1 and widths[-1] == 400 and MOST_WIDTHS // 2 < len(widths) <= MOST_WIDTHS + 1
    steps = np.diff(widths)
    assert steps[0] < steps[-1] <= 40  # closer where narrow, and nowhere far apart


def test_the_model_that_came_is_left_as_it_was() -> None:
    model, batches = network("mobilenet_like")
    before = copy.deepcopy(model.state_dict())
    prune(model, calibration=batches, ratio=0.5, samples=16)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_repair_makes_up_for_some_of_it() -> None:
    model, batches = network("mobilenet_like")
    pruned = [
        prune(model, calibration=batches, ratio=0.4, importance="magnitude_l1", repair=repair, samples=16).model for repair in (True, False)
    ]
    answers = [run_torch(each, batches[0]) for each in (model, *pruned)]
    errors = [sum(float(((other[key] - answers[0][key]) ** 2).sum()) for key in answers[0]) for other in answers[1:]]
    assert errors[0] < errors[1]


def test_losses_never_fall_with_the_width_and_the_full_width_is_free() -> None:
    model, batches = network("mobilenet_like")
    found = survey(model, batches, samples=16)
    for part in found.chosen:
        widths = sorted(found.losses[part.name], reverse=True)
        values = [found.losses[part.name][width] for width in widths]
        assert widths[0] == part.units and values[0] == 0 and values == sorted(values)


def test_widths_are_what_was_asked() -> None:
    model, batches = network("mobilenet_like")
    part = parts(model.to_graph()).parts[0]
    done = prune(model, calibration=batches, widths={part.name: 2}, samples=16)
    assert parts(done.model.to_graph()).part(part.name).units == 2
    assert done.touched == (f"{part.name}: {part.units} → 2",)


def test_only_one_kind() -> None:
    model, batches = network("vit_like")
    done = prune(model, calibration=batches, ratio=0.5, of="heads", samples=16)
    assert done.touched and all("it is a part of neurons" in done.skipped[n] for n in done.skipped if "neurons" in done.skipped[n])


def test_a_recipe_prunes() -> None:
    model, batches = network("mobilenet_like")
    done = recipe.apply(
        recipe.parse("prune(ratio=0.5, samples=16)"), model, calibration=lambda: batches, export=lambda net: fold(net.to_graph())
    )
    assert total(cost(done.model)).macs < total(cost(fold(model.to_graph()))).macs


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "prune has no goal"),
        ({"ratio": 0.5, "operations": 2}, "prune has operations, ratio"),
        ({"speedup": 2.0}, "needs a latency table"),
        ({"operations": 1e6}, "is out of reach: with every part at its narrowest it is"),
        ({"operations": 0.5}, "give a number from 1 upwards"),
        ({"ratio": 0.5, "importance": "luck"}, "give one of obs, taylor"),
        ({"ratio": 0.5, "of": "layers"}, "give one of all, channels"),
        ({"widths": {"nowhere": 1}}, "which is no part"),
        ({"ratio": 0.5, "of": "heads"}, "nothing of this model can be pruned"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], said: str) -> None:
    model, batches = network("mobilenet_like")
    with pytest.raises(InvalidInput, match=said):
        prune(model, calibration=batches, samples=16, **arguments)  # type: ignore[arg-type]


def test_no_calibration() -> None:
    model, _ = network("mobilenet_like")
    with pytest.raises(InvalidInput, match="no calibration samples; give inputs"):
        prune(model, calibration=[], ratio=0.5)
