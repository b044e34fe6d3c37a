"""The rung of pruning: which form a plan is made in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

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
