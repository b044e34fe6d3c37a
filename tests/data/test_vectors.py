"""Embeddings: cosines and nearest neighbours against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from edgewise.data import metrics, vectors
from edgewise.errors import InvalidData, InvalidModel

RANDOM = np.random.default_rng(0)


def test_the_cosine_to_a_teacher() -> None:
    teacher = RANDOM.normal(size=(50, 6))
    student = teacher + RANDOM.normal(0, 0.3, (50, 6))
    student[3] = 0
    found = metrics.quality("cosine", "validation", student, teacher, ())
    by_hand = [float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) if a.any() else 0.0 for a, b in zip(student, teacher, strict=True)]
    np.testing.assert_allclose(found.scores, by_hand)
    assert found.value.value == pytest.approx(np.mean(by_hand))
    itself = metrics.quality("cosine", "validation", teacher, teacher, ())
    assert itself.value.value == pytest.approx(1.0)
    assert metrics.paired(itself, found).difference.value == pytest.approx(found.value.value - 1)


def test_the_nearest_document_is_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_AT_ONCE", 7)
    documents = RANDOM.normal(size=(40, 5))
    pairs = np.stack([documents + RANDOM.normal(0, 0.6, (40, 5)), documents], axis=1)
    cosines = [[q @ d / (np.linalg.norm(q) * np.linalg.norm(d)) for d in pairs[:, 1]] for q in pairs[:, 0]]
    assert vectors.nearest(pairs).tolist() == np.argmax(cosines, axis=1).tolist()
    found = metrics.quality("recall@1", "test", pairs, np.arange(40), ())
    right = np.argmax(cosines, axis=1) == np.arange(40)
    assert found.scores == tuple(right.astype(float)) and found.value == metrics.wilson(int(right.sum()), 40) and 0 < right.sum() < 40
    # A copy of the right document is right too.
    copied = pairs.copy()
    copied[1, 1] = copied[0, 1]
    ids = np.arange(40)
    ids[1] = 0
    assert metrics.quality("recall@1", "test", copied, ids, ()).scores[0] == found.scores[0]
    same = metrics.agree("recall@1", pairs, copied, ids)
    assert same is not None and same.mean() > 0.9
    assert metrics.agree("cosine", documents, documents, documents) is None


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(InvalidModel, match=r"retrieval expects \(samples, 2, width\)"):
        vectors.quality("recall@1", "test", np.zeros((3, 4)), np.arange(3))
    with pytest.raises(InvalidModel, match="against targets"):
        vectors.quality("cosine", "test", np.zeros((3, 4)), np.zeros((3, 5)))
    with pytest.raises(InvalidData, match="no targets"):
        vectors.quality("cosine", "test", np.zeros((3, 4)), None)
    with pytest.raises(InvalidModel, match="NaN"):
        vectors.quality("cosine", "test", np.full((3, 4), np.nan), np.zeros((3, 4)))
