"""Labels and scores, against scipy's softmax."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy.special import softmax as reference

from edgewise.data.postprocess import Classify, softmax
from edgewise.errors import InvalidInput, InvalidModel

THREE = Classify(labels=("ant", "bee", "cow"), top=2)


def test_softmax_is_scipys_and_stable() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 7)) * 50
    np.testing.assert_allclose(softmax(logits), reference(logits, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(softmax(np.array([[1e4, 0.0]])), [[1.0, 0.0]])
    np.testing.assert_array_equal(softmax(np.array([[np.inf, 0.0, np.inf]])), [[0.5, 0.0, 0.5]])
    np.testing.assert_array_equal(softmax(np.array([[-np.inf, 3.0]])), [[0.0, 1.0]])


def test_labels_best_first_and_ties_in_order() -> None:
    best = THREE.apply(np.array([[0.0, 2.0, 1.0], [1.0, 1.0, 1.0]], dtype=np.float32))
    assert [[p.label for p in row] for row in best] == [["bee", "cow"], ["ant", "bee"]]
    assert best[1][0].score == pytest.approx(1 / 3)
    assert best[0][0].class_index == 1


def test_probabilities_are_stated_and_checked() -> None:
    stated = Classify(labels=THREE.labels, output="probabilities")
    assert stated.apply(np.array([[0.2, 0.5, 0.3]]))[0][0].score == pytest.approx(0.5)
    assert stated.apply(np.array([[0.2, 0.5, 0.29]]))[0][0].label == "bee"  # an int8 output's steps
    with pytest.raises(InvalidModel, match="output='logits'"):
        stated.apply(np.array([[3.0, -1.0, 2.0]]))


def test_what_does_not_fit() -> None:
    with pytest.raises(InvalidModel, match="3 labels"):
        THREE.apply(np.zeros((1, 4)))
    with pytest.raises(InvalidModel, match="NaN"):
        THREE.apply(np.array([[0.0, np.nan, 1.0]]))
    with pytest.raises(InvalidInput, match="labels"):
        Classify(labels=())
    with pytest.raises(InvalidInput, match="top"):
        Classify(labels=("a",), top=0)


def test_it_survives_the_manifest() -> None:
    assert msgspec.json.decode(msgspec.json.encode(THREE), type=Classify) == THREE
