"""From a file to a Runner: where an engine compiles for shapes, what was timed is what answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgewise import backends, package
from edgewise.data.text import TextPreprocess
from edgewise.graph import Graph
from edgewise.host.loading import Model, Runners, fixed_shapes, shapes_under
from edgewise.testing import graphs
from edgewise.testing.encoder_graphs import encoder
from edgewise.types import Execution, Runner

ORT = Execution("onnxruntime")
TOKENIZER = b"{}"
DIGEST = hashlib.sha256(TOKENIZER).hexdigest()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Execution]:
    """What engines were asked to load; ONNX Runtime stands for one that compiles for shapes."""
    asked: list[Execution] = []
    real: Callable[..., Runner] = backends.load

    def load(model: bytes, execution: Execution) -> Runner:
        asked.append(execution)
        return real(model, execution)

    monkeypatch.setattr(backends, "load", load)
    monkeypatch.setattr(backends, "compiles", lambda name: name == "onnxruntime")
    return asked


def texts(lengths: tuple[int, ...] = (4, 8), **more: Any) -> Model:
    graph = encoder()
    preprocess = TextPreprocess(DIGEST, max_length=16, stride=0, lengths=lengths)
    packed = package.build(graph, created="", preprocess=preprocess, execution=ORT, files={"tokenizer.json": TOKENIZER})
    return Model((graph.to_bytes(),), Execution("onnxruntime", **more), preprocess, package=packed)


def fed(rows: int, tokens: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(rows + tokens)
    return {"input_ids": random.integers(0, 30, (rows, tokens)), "attention_mask": np.ones((rows, tokens), np.int64)}


def test_a_row_of_a_timed_length_goes_to_a_graph_of_its_shape(loads: list[Execution]) -> None:
    runner = Runners(texts())
    assert not loads
    plain = backends.get("onnxruntime").load(encoder().to_bytes(), ORT)
    for rows, tokens in ((1, 4), (1, 8), (1, 4), (2, 4), (1, 5), (3, 9)):
        inputs = fed(rows, tokens)
        np.testing.assert_allclose(runner.run(inputs)["scores"], plain.run(inputs)["scores"], rtol=1e-5, atol=1e-6)
    asked = [dict(one.options) for one in loads]
    assert asked == [
        {"batch": "1", "axes": "tokens=4"},
        {"batch": "1", "axes": "tokens=8"},
        {},
    ]  # each once, and the open one for whatever else comes
    runner.close()


def test_all_of_them_at_once_where_no_call_may_wait_for_one(loads: list[Execution]) -> None:
    runner = Runners(texts(), eager=True)
    assert [one.options.get("axes") for one in loads] == ["tokens=4", "tokens=8", None]
    runner.run(fed(1, 4))
    runner.run(fed(5, 2))
    assert len(loads) == 3
    runner.close()


def test_of_pictures_and_vectors_the_batch_alone_is_open(loads: list[Execution]) -> None:
    proto, inputs = graphs.mlp()
    graph = Graph.from_proto(proto)
    runner = Runners(Model((graph.to_bytes(),), ORT))
    one = {"x": inputs["x"][:1]}
    np.testing.assert_allclose(runner.run(one)["y"], runner.run(inputs)["y"][:1], rtol=1e-5, atol=1e-6)
    assert [dict(each.options) for each in loads] == [{}, {"batch": "1"}]
    runner.close()


def test_what_fixes_no_shape() -> None:
    signature = encoder().signature
    assert fixed_shapes(signature, texts()) == []  # ONNX Runtime takes any shape as it comes


def test_nothing_is_fixed_where_nobody_says_the_lengths(loads: list[Execution]) -> None:
    signature = encoder().signature
    assert fixed_shapes(signature, texts(lengths=())) == []
    assert fixed_shapes(signature, texts(options={"axes": "batch=1,tokens=4"})) == []
    assert fixed_shapes(signature, texts(options={"batch": "1"})) == []
    (axes, _) = fixed_shapes(signature, texts())
    assert axes == {"batch": 1, "tokens": 4} and shapes_under(signature, axes) == ((1, 4), (1, 4))


def test_inputs_that_do_not_fit_are_told_as_ever(loads: list[Execution]) -> None:
    runner = Runners(texts())
    for wrong in ({}, {"input_ids": [[1]]}, {"input_ids": np.ones((1, 4)), "attention_mask": np.ones((1, 4))}):
        with pytest.raises(backends.InvalidInput, match="input"):
            runner.run(wrong)  # type: ignore[arg-type]
    runner.close()


def test_graphs_of_fixed_shapes_are_loaded_with_the_open_one_where_the_engine_shares_weights(
    loads: list[Execution], monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []

    def load_all(self: Any, model: bytes, executions: list[Execution]) -> list[Runner]:
        together.append(len(executions))
        return [backends.load(model, execution) for execution in executions]

    monkeypatch.setattr(type(backends.get("onnxruntime")), "load_all", load_all, raising=False)
    runner = Runners(texts(), eager=True)
    assert together == [3] and [one.options.get("axes") for one in loads] == ["tokens=4", "tokens=8", None]
    alone = Runners(texts())
    for rows, tokens in ((1, 4), (1, 8), (2, 5)):
        np.testing.assert_array_equal(runner.run(fed(rows, tokens))["scores"], alone.run(fed(rows, tokens))["scores"])
    assert len(loads) == 6  # three of each: none of the first ones was loaded again
    runner.close()
