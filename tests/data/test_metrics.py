"""Quality of a model and paired differences, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.data.metrics import matthews, paired, quality, top1
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.records import Interval, Quality
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


def population(accuracy: float) -> np.ndarray:
    """P(target, prediction) of four classes of 40, 30, 20 and 10 %: (4, 4), its sum 1."""
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    wrong = np.outer(shares, shares) * (1 - np.eye(4))
    return np.diag(shares * accuracy) + wrong * (1 - accuracy) / wrong.sum()


def macro(confusion: np.ndarray) -> dict[str, float]:
    """The three means, by their definitions; a class that doesn't occur is left out."""
    hits, actual, claimed = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    occurs = actual + claimed > 0
    with np.errstate(invalid="ignore"):
        parts = {"recall": hits / actual, "precision": hits / claimed, "f1": 2 * hits / (actual + claimed)}
    return {name: float(np.nan_to_num(values)[occurs].mean()) for name, values in parts.items()}


def drawn(confusion: np.ndarray, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    cells = generator.choice(confusion.size, n, p=confusion.ravel())
    return cells // len(confusion), cells % len(confusion)


def macro_intervals(targets: np.ndarray, predictions: np.ndarray) -> dict[str, Interval]:
    found = quality("accuracy", "test", np.eye(4)[predictions], targets, ())
    intervals = {"precision": found.macro_precision_interval, "recall": found.macro_recall_interval, "f1": found.macro_f1_interval}
    assert [at.value for at in intervals.values() if at] == [found.macro_precision, found.macro_recall, found.macro_f1]
    return {name: at for name, at in intervals.items() if at}


@pytest.mark.parametrize(("accuracy", "n"), [(0.6, 400), (0.9, 300), (0.99, 300), (0.99, 1000)])
def test_intervals_of_macro_means_cover(accuracy: float, n: int) -> None:
    whole, generator = population(accuracy), np.random.default_rng(0)
    truth = macro(whole)
    held = dict.fromkeys(truth, 0)
    for _ in range(400):
        for name, at in macro_intervals(*drawn(whole, n, generator)).items():
            held[name] += at.low <= truth[name] <= at.high
    # 95 % of 400 trials, less three times the deviation of that count.
    assert min(held.values()) >= 400 * 0.95 - 3 * np.sqrt(400 * 0.95 * 0.05), held


def test_intervals_of_macro_means_are_as_wide_as_the_bootstraps() -> None:
    generator = np.random.default_rng(1)
    targets, predictions = drawn(population(0.8), 600, generator)
    cells = 4 * targets + predictions
    again = [macro(np.bincount(generator.choice(cells, len(cells)), minlength=16).reshape(4, 4)) for _ in range(2000)]
    for name, at in macro_intervals(targets, predictions).items():
        low, high = np.percentile([each[name] for each in again], (2.5, 97.5))
        assert at.value == pytest.approx(macro(np.bincount(cells, minlength=16).reshape(4, 4))[name])
        assert at.high - at.low == pytest.approx(high - low, rel=0.15)


def test_a_model_without_any_error_is_not_known_to_make_none() -> None:
    targets = np.arange(80) % 4
    for at in macro_intervals(targets, targets).values():
        assert (at.value, at.high) == (1.0, 1.0)
        assert 0.9 < at.low < 0.99


def test_f1_and_matthews_by_the_counts() -> None:
    """Against the counts of a table: 30 and 50 right, 12 of class 0 called 1, 8 the other way round."""
    known = np.repeat([0, 0, 1, 1], [30, 12, 8, 50])
    outputs = np.eye(2)[np.repeat([0, 1, 0, 1], [30, 12, 8, 50])]
    found = {name: quality(name, "test", outputs, known, ("a", "b")) for name in ("f1", "macro-f1", "matthews")}
    assert found["f1"].value.value == pytest.approx(2 * 50 / (2 * 50 + 12 + 8))
    assert found["macro-f1"].value.value == pytest.approx((2 * 50 / (2 * 50 + 20) + 2 * 30 / (2 * 30 + 20)) / 2)
    wanted = (50 * 30 - 12 * 8) / np.sqrt((50 + 12) * (50 + 8) * (30 + 12) * (30 + 8))
    assert found["matthews"].value.value == pytest.approx(wanted)
    assert np.corrcoef(known, outputs.argmax(axis=1))[0, 1] == pytest.approx(wanted)  # for two classes it is Pearson's
    assert all(each.also["accuracy"].value == 0.8 for each in found.values())
    worse = np.where(np.arange(100)[:, None] % 5 == 0, outputs[:, ::-1], outputs)
    for name, each in found.items():
        drop = paired(each, quality(name, "test", worse, known, ("a", "b")))
        assert drop.difference.high < 0 and drop.p_value < 0.01, name


def test_matthews_of_several_classes() -> None:
    table = np.array([[20, 5, 1], [4, 30, 2], [0, 3, 35]])
    known, predicted = np.repeat(np.repeat(np.arange(3), 3), table.ravel()), np.repeat(np.tile(np.arange(3), 3), table.ravel())
    one, other = np.eye(3)[known], np.eye(3)[predicted]
    together = sum(np.cov(one[:, k], other[:, k])[0, 1] for k in range(3))
    apart = np.sqrt(sum(one[:, k].var(ddof=1) for k in range(3)) * sum(other[:, k].var(ddof=1) for k in range(3)))
    assert matthews(table) == pytest.approx(together / apart)  # Gorodkin's own form
    assert matthews(np.array([[5, 0], [3, 0]])) == 0.0
    with pytest.raises(InvalidInput, match="macro-f1"):
        quality("f1", "test", other, known, ())
