"""Splits of a data set: disjoint, fixed by content, never empty in silence."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgewise.data.dataset import load
from edgewise.data.pictures import ArrayPictures
from edgewise.data.source import Source
from edgewise.errors import InvalidData, InvalidInput


def source(n: int = 600, classes: int = 3, given: np.ndarray | None = None) -> Source:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)
    return Source(
        "made", ArrayPictures(pixels), np.arange(n) % classes, tuple("abc"[:classes]), np.array([""] * n) if given is None else given
    )


def test_every_picture_is_in_one_split() -> None:
    found = load(source(), calibration=50)
    parts = found.parts
    assert sorted(np.concatenate([parts[s] for s in ("train", "validation", "test")])) == list(range(600))
    assert len(parts["calibration"]) == 50 and set(parts["calibration"]) <= set(parts["train"])
    assert abs(len(parts["test"]) - 90) < 35 and abs(len(parts["validation"]) - 60) < 30
    assert found.size == (4, 4) and found.channels == 1


def test_a_given_test_stays_and_validation_comes_from_train() -> None:
    given = np.array(["train"] * 500 + ["test"] * 100)
    parts = load(source(given=given)).parts
    assert parts["test"].tolist() == list(range(500, 600))
    assert len(parts["train"]) + len(parts["validation"]) == 500 and len(parts["validation"]) > 20


def test_the_seed_and_the_content_decide_and_nothing_else() -> None:
    whole = source()
    one, again, other = load(whole), load(whole), load(whole, seed=1)
    assert one.fingerprint == again.fingerprint != other.fingerprint
    order = np.random.default_rng(1).permutation(600)
    assert isinstance(whole.pictures, ArrayPictures) and whole.targets is not None
    mixed = load(dataclasses.replace(whole, pictures=ArrayPictures(whole.pictures.pixels[order]), targets=whole.targets[order]))
    for split in ("train", "calibration", "validation", "test"):
        assert {int(order[i]) for i in mixed.parts[split]} == set(one.parts[split].tolist())


def test_the_fingerprint_covers_pixels_and_targets() -> None:
    whole = source()
    assert isinstance(whole.pictures, ArrayPictures) and whole.targets is not None
    pixels, targets = whole.pictures.pixels.copy(), whole.targets.copy()
    pixels[5, 0, 0, 0] ^= 1
    targets[5] = (targets[5] + 1) % 3
    prints = {
        load(s).fingerprint
        for s in (whole, dataclasses.replace(whole, pictures=ArrayPictures(pixels)), dataclasses.replace(whole, targets=targets))
    }
    assert len(prints) == 3


def test_empty_splits_and_classes_are_errors() -> None:
    with pytest.raises(InvalidData, match="nothing is left for"):
        load(source(n=3))
    given = np.array(["train", "train", "test"] * 200)  # class c only in test
    with pytest.raises(InvalidData, match="no training picture of class c"):
        load(source(given=given))
    named = dataclasses.replace(source(), labels=("a", "b", "c", "never"))
    with pytest.raises(InvalidData, match="no training picture of class never"):
        load(named)


def test_a_class_absent_from_a_judging_split_is_said() -> None:
    given = np.array(["train"] * 597 + ["test"] * 3)
    targets = np.arange(600) % 3
    targets[597:] = 0
    found = load(dataclasses.replace(source(given=given), targets=targets))
    assert any("test has no picture of class b, c" in line for line in found.findings)


@pytest.mark.parametrize("wrong", [{"validation": 0.0}, {"test": 1.0}, {"validation": 0.5, "test": 0.5}, {"calibration": 0}])
def test_impossible_shares(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        load(source(), **wrong)  # type: ignore[arg-type]
