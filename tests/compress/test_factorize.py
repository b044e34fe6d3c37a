"""Tables as products, against numpy's singular values, and what is said of rows that calibration didn't see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from edgewise import backends, recipe
from edgewise.compress.factorize import expected, factorize
from edgewise.compress.prune.calibration import Data
from edgewise.compress.prune.losses import answers
from edgewise.errors import InvalidInput
from edgewise.graph import fold, parts
from edgewise.models.network import Network
from edgewise.testing.encoder_graphs import encoder, texts
from edgewise.types import Execution

WORDS, WIDTH = 120, 16


def network(rank: int | None = None) -> Network:
    """An encoder; with a rank, its table is of that rank but for a hundredth of noise."""
    found = Network(encoder(vocabulary=WORDS, width=WIDTH, layers=1))
    if rank is not None:
        random = np.random.default_rng(5)
        table = random.normal(size=(WORDS, rank)) @ random.normal(size=(rank, WIDTH)) + 0.01 * random.normal(size=(WORDS, WIDTH))
        with torch.no_grad():
            found.weight("embeddings.weight").copy_(torch.from_numpy(table))
    return found


def batches() -> list[dict[str, np.ndarray]]:
    return [texts(60, 12, vocabulary=WORDS, seed=i) for i in range(3)]


def test_the_product_is_the_best_of_its_rank_for_rows_as_often_as_they_are_read() -> None:
    model, data = network(), batches()
    done = factorize(model, calibration=data, rank=5, repair=False)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in done.model.to_graph().proto.graph.initializer}
    narrow, basis = stored["embeddings.weight"], stored["embeddings.weight.basis"]
    assert narrow.shape == (WORDS, 5) and basis.shape == (5, WIDTH)
    table = model.weight("embeddings.weight").detach().double().numpy()
    counts = np.bincount(np.concatenate([batch["input_ids"][batch["attention_mask"] == 1] for batch in data]), minlength=WORDS)
    weights = expected(counts)
    lost = (weights[:, None] * (table - narrow @ basis) ** 2).sum()
    singular = np.linalg.svd(np.sqrt(weights)[:, None] * table, compute_uv=False)
    assert lost == pytest.approx((singular[5:] ** 2).sum(), rel=1e-4)
    share = (singular[5:] ** 2).sum() / (singular**2).sum()
    assert done.touched == (f"embeddings.weight: {WORDS}×{WIDTH} → {WORDS}×5 · 5×{WIDTH}, {share:.2%} lost",)


def test_as_many_texts_are_looked_at_as_least_squares_need() -> None:
    """Asked for the first batch alone, it goes on till there are positions enough: here, to the end."""
    model, data = network(), batches()
    few, many = (factorize(model, calibration=data, rank=5, samples=samples) for samples in (60, 180))
    for name, weight in many.model.weights().items():
        torch.testing.assert_close(few.model.weights()[name], weight)


def test_the_engine_gives_what_torch_gives_and_nothing_is_lost_that_was_not_there() -> None:
    model, data = network(rank=4), batches()
    done = factorize(model, calibration=data, lost=0.01)
    assert done.model.weight("embeddings.weight").shape[1] <= 4
    sizes = [sum(weight.numel() for weight in each.weights().values()) for each in (model, done.model)]
    assert sizes[1] < sizes[0]
    graph = fold(done.model.to_graph())
    runner = backends.load(graph.to_bytes(), Execution("onnxruntime"))
    got = next(iter(runner.run(data[0]).values()))
    narrow, dense = (answers(each, Data([data[0]]))[0].numpy() for each in (done.model, model))
    np.testing.assert_allclose(got, narrow, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(narrow, dense, atol=0.1 * np.abs(dense).max())


def test_the_rank_is_a_part_that_can_be_pruned_on() -> None:
    done = factorize(network(), calibration=batches(), rank=8)
    found = {part.name: part for part in parts(done.model.to_graph()).parts}
    assert found["embeddings.weight"].units == 8 and found["embeddings.weight"].kind == "neurons"
    assert found["embeddings.weight.basis"].units == WIDTH and found["embeddings.weight.basis"].kind == "hidden"


def test_repair_brings_the_answers_back_nearer() -> None:
    model, data = network(), batches()
    held = Data([texts(200, 12, vocabulary=WORDS, seed=50)])
    dense = answers(model, held)[0]
    errors = [
        float((answers(factorize(model, calibration=data, rank=8, repair=repair).model, held)[0] - dense).square().mean())
        for repair in (False, True)
    ]
    assert errors[1] < errors[0]


def test_rows_that_were_not_seen_get_what_was_seen_once() -> None:
    shares = expected(np.array([6, 2, 1, 1, 0, 0, 0, 0]))
    np.testing.assert_allclose(shares, [0.48, 0.16, 0.08, 0.08, 0.05, 0.05, 0.05, 0.05])
    np.testing.assert_allclose(expected(np.array([3, 1])), [0.75, 0.25])
    np.testing.assert_allclose(expected(np.zeros(4, int)), 0.25)
    assert (expected(np.array([5, 5, 0])) > 0).all()
    assert expected(np.random.default_rng(0).poisson(0.5, 1000)).sum() == pytest.approx(1)


def test_a_recipe_factorizes() -> None:
    data = batches()
    done = recipe.apply(recipe.parse("factorize(rank=6)"), network(), calibration=lambda: data, export=lambda net: fold(net.to_graph()))
    assert any(list(tensor.dims) == [WORDS, 6] for tensor in done.model.proto.graph.initializer)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "give one of rank, lost"),
        ({"rank": 4, "lost": 0.1}, "give one of rank, lost"),
        ({"rank": 0}, "give the number of columns that stay"),
        ({"lost": 1.5}, "give a share from 0 to below 1"),
        ({"rank": 16}, "would be no smaller than the table of 16"),
        ({"rank": 4, "skip": ["embeddings.weight"]}, "no table to factorize .*asked to be left whole"),
        ({"rank": 4, "skip": ["nowhere"]}, "skip names 'nowhere'"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        factorize(network(), calibration=batches(), **arguments)  # type: ignore[arg-type]
