"""The rung of pruning: which form a plan is made in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from edgewise.graph import Graph
from edgewise.search import pruning
from edgewise.types import Budget, Execution


def trial(recipe: str, factor: float, size_bytes: int | None) -> Any:
    lost = SimpleNamespace(difference=SimpleNamespace(value=-0.001))
    ratio = SimpleNamespace(ratio=SimpleNamespace(value=factor))
    return SimpleNamespace(recipe=recipe, execution=Execution("onnxruntime"), rung="int8", drop=lost, speedup=ratio, size_bytes=size_bytes)


@pytest.mark.parametrize(
    ("size_bytes", "chosen"),
    [(None, "quantize()"), (9_000_000, "quantize(embeddings=4)"), (24_000_000, "quantize()")],
)
def test_the_clearly_smaller_form_is_planned_in_where_size_is_bound(
    monkeypatch: pytest.MonkeyPatch, size_bytes: int | None, chosen: str
) -> None:
    trials = [
        trial("quantize()", 3.1, 21_000_000),
        trial("quantize(embeddings=4)", 3.0, 15_000_000),
        trial("quantize(estimator='minmax')", 2.9, 14_900_000),
    ]
    monkeypatch.setattr(pruning, "_form", lambda climb, one, factor: (one.recipe, factor))
    climb: Any = SimpleNamespace(budget=Budget(speedup=12, size_bytes=size_bytes), family=(), metric=0.9, timed=lambda: trials)
    assert [recipe for recipe, _ in pruning.forms(climb)] == [chosen]


@pytest.mark.parametrize(
    ("limit", "served"),
    [
        (None, "quantize(embeddings=3)"),
        (120_000, "quantize(embeddings=3)"),
        (150_000, "quantize(embeddings=4)"),
        (210_000, "quantize(embeddings=6)"),
        (900_000, "quantize()"),
    ],
)
def test_small_tables_get_the_bits_that_there_is_room_for(limit: int | None, served: str) -> None:
    """A table of 200 × 1000 takes 25,000 bytes for each of its bits, and all else 30,000."""
    table = onnx.numpy_helper.from_array(np.zeros((200, 1000), np.float32), "words")
    nodes = [onnx.helper.make_node("Gather", ["words", "ids"], ["x"], "gather"), onnx.helper.make_node("Relu", ["x"], ["y"])]
    graph = Graph.from_proto(
        onnx.helper.make_model(
            onnx.helper.make_graph(
                nodes, "g", [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n"])],
                [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1000])], [table],
            )
        )
    )  # fmt: skip
    bits = {"quantize()": 8, "prune()": 32, **{f"quantize(embeddings={n})": n for n in range(3, 8)}}
    climb: Any = SimpleNamespace(
        budget=Budget(size_bytes=limit), metric=0.9, family=(), baseline=SimpleNamespace(measurement=None),
        made=lambda recipe: SimpleNamespace(graph=graph if recipe == "prune()" else bits[recipe.removeprefix("prune() > ")]),
        bench=SimpleNamespace(package_bytes=lambda graph: 30_000 + 25_000 * graph),
    )  # fmt: skip
    assert pruning.finest(climb, ["prune()"], "quantize(embeddings=3)") == served
    assert pruning.finest(climb, ["prune()"], "quantize()") == "quantize()"
