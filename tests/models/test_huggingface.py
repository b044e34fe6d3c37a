"""Folders of transformers: the same numbers as transformers gives, in torch and in the engines, in a graph that trains and can be pruned."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgewise import backends
from edgewise.errors import InvalidInput, InvalidModel, MissingExtra
from edgewise.export import export, parity
from edgewise.graph import Graph, parts
from edgewise.models import hub, intake
from edgewise.models.encoder import Encoder, Head
from edgewise.models.huggingface import layout, load_folder, save_folder
from edgewise.models.network import Network
from edgewise.testing import encoders
from edgewise.types import Execution, Inputs

SHAPES = encoders.SHAPES
LAYERS, HEADS, UNITS = 2, 4, 48
CALLS = ((1, 2), (1, 7), (3, 12), (5, 40))
KINDS: dict[Head, str] = {
    "classification": "AutoModelForSequenceClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "embedding": "AutoModel",
}


@cache
def encoder(shape: str, head: Head = "classification") -> Encoder:
    more = {"num_labels": 3} if head == "classification" else {}
    return Encoder(encoders.model(shape, KINDS[head], **more), head).eval()


@cache
def exported(shape: str, head: Head = "classification", *, pairs: bool = False, norms: bool = False) -> Graph:
    module = encoder(shape, head)
    return export(module, encoders.tokens(2, 6, pairs=pairs), axes=module.axes, output_names=module.outputs, norms=norms)


def tensors(inputs: Inputs) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in inputs.items()}


def transformed(shape: str, inputs: Inputs, head: Head = "classification") -> Any:
    """What transformers itself gives: masks and positions as it makes them."""
    with torch.no_grad():
        return encoder(shape, head).model(**tensors(inputs))


def run(graph: Graph, inputs: Inputs, engine: str) -> np.ndarray:
    runner = backends.load(graph.to_bytes(), Execution(engine))
    try:
        return next(iter(runner.run(inputs).values()))
    finally:
        runner.close()


@pytest.mark.parametrize("shape", SHAPES)
def test_it_answers_as_transformers_does(shape: str) -> None:
    for batch, length in CALLS:
        inputs = encoders.tokens(batch, length)
        with torch.no_grad():
            got = encoder(shape)(**tensors(inputs))
        torch.testing.assert_close(got, transformed(shape, inputs).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("engine", backends.installed())
def test_the_engines_give_the_same_at_every_length(shape: str, engine: str) -> None:
    graph = exported(shape)
    assert [spec.name for spec in graph.signature.inputs] == ["input_ids", "attention_mask"]
    assert all((spec.shape, spec.dtype) == (("batch", "tokens"), "int64") for spec in graph.signature.inputs)
    assert [(spec.name, spec.shape) for spec in graph.signature.outputs] == [("logits", ("batch", 3))]
    runner = backends.load(graph.to_bytes(), Execution(engine))
    for batch, length in CALLS:
        inputs = encoders.tokens(batch, length)
        expected = transformed(shape, inputs).logits.numpy()
        np.testing.assert_allclose(runner.run(inputs)["logits"], expected, rtol=1e-4, atol=2e-5)
        for row, count in enumerate(inputs["attention_mask"].sum(1)):
            alone = {name: array[row : row + 1, :count] for name, array in inputs.items()}
            np.testing.assert_allclose(runner.run(alone)["logits"], expected[row : row + 1], rtol=1e-4, atol=2e-5)
    runner.close()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_graph_is_tidy(shape: str) -> None:
    """Masks and positions are made once, and a layer is its products, norms and sums: 36 nodes, GELU's five included."""
    for norms in (False, True):
        counts = Counter(node.op_type for node in exported(shape, norms=norms).proto.graph.node)
        assert sum(counts.values()) <= 36 * LAYERS + 24
        assert counts["Shape"] <= 1
        assert counts["Concat"] <= 1
        assert not {"Where", "GatherND", "GatherElements", "ConstantOfShape", "Range", "If"} & set(counts)
    fixed = export(encoder(shape), encoders.tokens(2, 6), batch_axis=None, output_names=["logits"])
    assert not {"Shape", "Concat", "CumSum", "Expand"} & {node.op_type for node in fixed.proto.graph.node} - (
        {"CumSum"} if shape == "roberta" else set()
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_heads_units_and_branches_are_found(shape: str) -> None:
    for norms in (False, True):
        found = parts(exported(shape, norms=norms)).parts
        assert [part.units for part in found if part.kind == "heads" and part.removable] == [HEADS] * LAYERS
        assert [part.units for part in found if part.kind == "neurons" and part.removable] == [UNITS] * LAYERS


@pytest.mark.parametrize("shape", SHAPES)
def test_it_trains_as_a_network(shape: str) -> None:
    """The same loss and the same gradients as the module's, dropout off."""
    module, network, inputs = encoder(shape), Network(exported(shape, norms=True)).train(), tensors(encoders.tokens(4, 9))
    targets = torch.tensor([0, 1, 2, 1])
    module.zero_grad()
    torch.nn.functional.cross_entropy(module(**inputs), targets).backward()
    torch.nn.functional.cross_entropy(network(**inputs), targets).backward()
    theirs = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}
    ours = {name: weight.grad for name, weight in network.weights().items()}
    # Rows of the table of sentences that a single sentence doesn't read aren't part of the graph; the one it reads stands alone.
    types = next((name for name in theirs if "token_type" in name), None)
    row = next((name for name in ours if name not in theirs), None)
    assert (types is None) == (row is None)
    for name in theirs.keys() - {types}:
        grad = ours[name] if ours[name].shape == theirs[name].shape and "embedd" in name or ours[name].ndim == 1 else ours[name].T
        torch.testing.assert_close(grad, theirs[name], rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    if types is not None and row is not None:
        torch.testing.assert_close(ours[row].reshape(-1), theirs[types][0], rtol=1e-3, atol=1e-6)
    module.zero_grad()
