"""Augmentation: what it moves, what it keeps, and that a seed fixes it."""

from __future__ import annotations

import numpy as np

from edgewise.tasks.augment import erase, flip, shift

IMAGES = np.random.default_rng(0).integers(1, 256, (64, 9, 7, 3), dtype=np.uint8)


def generator() -> np.random.Generator:
    return np.random.default_rng(1)


def test_shift_is_a_cut_from_the_padded_picture() -> None:
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)))
    moved = shift(IMAGES, 2, generator())
    places = set()
    for image, whole in zip(moved, padded, strict=True):
        found = [(r, c) for r in range(5) for c in range(5) if np.array_equal(image, whole[r : r + 9, c : c + 7])]
        assert len(found) == 1
        places.update(found)
    assert len(places) > 15  # of 25
    assert shift(IMAGES, 0, generator()) is IMAGES


def test_flip_mirrors_about_half_and_leaves_its_input() -> None:
    before = IMAGES.copy()
    flipped = flip(IMAGES, generator())
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, IMAGES, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(flipped, IMAGES, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True)) and 16 < sum(mirrored) < 48
    np.testing.assert_array_equal(IMAGES, before)


def test_erase_blanks_one_rectangle_in_about_half() -> None:
    erased = erase(IMAGES, 0.3, generator())
    assert erased.dtype == np.uint8
    blank = (erased == 0).all(axis=3)
    touched = 0
    for mask in blank:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == len(rows) * len(columns) and mask.sum() <= 0.3 * mask.size
        touched += bool(mask.any())
    np.testing.assert_array_equal(erased[~blank], IMAGES[~blank])
    assert 12 < touched < 48


def test_a_seed_fixes_it() -> None:
    for once in (lambda g: shift(IMAGES, 2, g), lambda g: flip(IMAGES, g), lambda g: erase(IMAGES, 0.2, g)):
        np.testing.assert_array_equal(once(generator()), once(generator()))
