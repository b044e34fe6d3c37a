from __future__ import annotations

import pytest

from edgewise.errors import InvalidInput
from edgewise.measure import scenarios
from edgewise.types import Signature, TensorSpec


def signature(axis: int | str) -> Signature:
    return Signature((TensorSpec("x", (axis, 4), "float32"),), (TensorSpec("y", (axis, 2), "float32"),))


@pytest.mark.parametrize(
    ("name", "axis", "asked", "batch"),
    [
        ("single-stream", "batch", None, 1),
        ("multi-stream", "batch", None, 8),
        ("multi-stream", 1, None, 1),
        ("offline", "n", None, 8),
        ("offline", "n", 32, 32),
        ("offline", "n", 1, 1),
        ("offline", 1, None, 1),
        ("offline", 1, 1, 1),
    ],
)
def test_samples_share_a_call_only_along_a_named_batch_axis(name: str, axis: int | str, asked: int | None, batch: int) -> None:
    assert scenarios.batch(name, signature(axis), asked) == batch


@pytest.mark.parametrize(
    ("name", "axis", "asked", "said"),
    [
        ("single-stream", "batch", 4, "asks for 1 samples at a time"),
        ("multi-stream", "batch", 4, "asks for 8 samples at a time"),
        ("offline", 1, 4, "no named batch axis"),
        ("server", "batch", None, "one of single-stream, multi-stream, offline"),
    ],
)
def test_batches_that_can_not_be(name: str, axis: int | str, asked: int | None, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        scenarios.batch(name, signature(axis), asked)


def test_a_run_says_what_it_lacks_of_a_compliant_one() -> None:
    always = "the same inputs in every query, and no run for accuracy"
    assert scenarios.caveat("single-stream", 600, 10_000) == f"not a compliant run: {always}"
    assert scenarios.caveat("single-stream", 10, 10_000) == f"not a compliant run: 10 s where MLPerf asks for 600; {always}"
    assert "300 queries where it asks for 662" in scenarios.caveat("multi-stream", 10, 300)
    assert "1,200 samples where it asks for 24,576" in scenarios.caveat("offline", 10, 1200)
