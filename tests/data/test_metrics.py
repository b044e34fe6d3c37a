"""Quality of a model and paired differences, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.data.metrics import paired, quality, top1
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.records import Quality
from edgewise.types import from_json, to_json


def one_hot(predictions: list[int], classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[predictions]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_quality_is_what_counting_gives(pairs: list[tuple[int, int]]) -> None:
    targets, predictions = [t for t, _ in pairs], [p for _, p in pairs]
    got = quality("accuracy", "validation", one_hot(predictions, 5), np.array(targets), ("a", "b", "c", "d", "never"))
    assert got.value.value == pytest.approx(sum(t == p for t, p in pairs) / len(pairs))
    assert got.scores == tuple(float(t == p) for t, p in pairs)
    occurring = sorted(set(targets) | set(predictions))
    assert [row.label for row in got.per_class] == ["abcd"[i] for i in occurring]
    f1s = []
    for index, row in zip(occurring, got.per_class, strict=True):
        hit = sum(t == p == index for t, p in pairs)
        precision = hit / max(1, predictions.count(index))
        recall = hit / max(1, targets.count(index))
        f1s.append(2 * precision * recall / (precision + recall) if hit else 0.0)
        assert (row.precision.value, row.recall.value, row.f1) == pytest.approx((precision, recall, f1s[-1]))
        assert row.n == targets.count(index) and row.f1_interval is not None
    assert got.macro_f1 == pytest.approx(np.mean(f1s))
    assert from_json(to_json(got), Quality) == got


def test_agreement_without_labels_names_classes_by_number() -> None:
    got = quality("agreement", "test", one_hot([7, 9], 1000), np.array([7, 8]), ())
    assert got.metric == "agreement" and got.value.value == 0.5 and [c.label for c in got.per_class] == ["7", "8", "9"]


@pytest.mark.parametrize(
    ("outputs", "targets", "labels", "error", "says"),
    [
        (np.zeros((2, 3)), None, ("a", "b", "c"), InvalidData, "no targets"),
        (np.zeros((2, 3)), np.array([0]), ("a", "b", "c"), InvalidData, "shape"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), ("a", "b", "c"), InvalidData, "integers"),
        (np.zeros((2, 3)), np.array([0, 3]), ("a", "b", "c"), InvalidData, "classes, 0 to 2"),
        (np.zeros((2, 3)), np.array([0, 1]), ("a", "b"), InvalidModel, "2 labels"),
        (np.zeros((2, 3, 1)), np.array([0, 1]), ("a", "b", "c"), InvalidModel, "shape"),
        (np.array([[0, np.nan]]), np.array([0]), ("a", "b"), InvalidModel, "NaN"),
        (np.zeros((0, 2)), np.zeros(0, int), ("a", "b"), InvalidData, "no sample"),
    ],
)
def test_what_does_not_fit(outputs: np.ndarray, targets: np.ndarray | None, labels: tuple[str, ...], error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        quality("accuracy", "validation", outputs, targets, labels)


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(InvalidInput, match="accuracy"):
        quality("bleu", "validation", np.zeros((1, 2)), np.array([0]), ("a", "b"))


def test_ties_go_to_the_lower_class() -> None:
    assert top1(np.array([[1.0, 1.0], [0.0, np.inf]])).tolist() == [0, 1]


def test_paired_counts_who_alone_is_right() -> None:
    targets = np.zeros(10, dtype=int)
    reference = quality("accuracy", "test", one_hot([0] * 8 + [1, 1], 2), targets, ("a", "b"))
    candidate = quality("accuracy", "test", one_hot([1] * 3 + [0] * 5 + [0, 1], 2), targets, ("a", "b"))
    got = paired(reference, candidate)
    assert (got.candidate_only_right, got.reference_only_right) == (1, 3)
    assert got.difference.value == pytest.approx(-0.2) and got.difference.n == 10
    assert got.p_value == pytest.approx(2 * (1 + 4) / 16)
    same = paired(reference, reference)
    assert same.difference.value == 0 and same.difference.low < 0 < same.difference.high and same.p_value == 1.0


def test_only_the_same_samples_can_be_paired() -> None:
    one = quality("accuracy", "test", one_hot([0, 1], 2), np.array([0, 1]), ())
    for other in (
        quality("agreement", "test", one_hot([0, 1], 2), np.array([0, 1]), ()),
        quality("accuracy", "validation", one_hot([0, 1], 2), np.array([0, 1]), ()),
        quality("accuracy", "test", one_hot([0], 2), np.array([0]), ()),
    ):
        with pytest.raises(InvalidInput, match="pair"):
            paired(one, other)
