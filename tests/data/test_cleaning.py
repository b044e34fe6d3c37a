"""What cleaning finds, what it does about it, and that it says so."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewise.data.cleaning import NEAR, clean, near_pairs
from edgewise.data.dataset import load
from edgewise.data.pictures import ArrayPictures
from edgewise.data.source import Source
from edgewise.data.sources import find
from edgewise.errors import InvalidData


def photo(seed: int, side: int = 64) -> Image.Image:
    """A smooth picture, as photos are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def photos(root: Path, *, n: int = 40, top: str = "") -> None:
    for i in range(n):
        path = root / top / "ab"[i % 2] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(1000 * len(top) + i).save(path)


def test_clean_data_says_nothing(tmp_path: Path) -> None:
    photos(tmp_path)
    source = find(tmp_path)
    cleaned = clean(source, source.pictures.survey())
    assert cleaned.findings == () and cleaned.keep.all() and len(set(cleaned.groups)) == 40


def test_unreadable_files_are_left_out_and_named(tmp_path: Path) -> None:
    photos(tmp_path)
    whole = (tmp_path / "a" / "000.png").read_bytes()
    (tmp_path / "a" / "000.png").write_bytes(whole[:60])
    (tmp_path / "b" / "001.png").write_text("not a picture")
    found = load(tmp_path)
    assert any("2 pictures can't be read" in line and "000.png" in line and "001.png" in line for line in found.findings)
    inside = {found.pictures.describe(i) for part in found.parts.values() for i in part}
    assert not inside & {"a/000.png", "b/001.png"} and len(inside) == 38


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{i}.png").write_text("no")
    with pytest.raises(InvalidData, match="nothing is left"):
        load(tmp_path)


def test_a_train_picture_that_is_in_test_leaves_train(tmp_path: Path) -> None:
    photos(tmp_path, top="train")
    photos(tmp_path, top="test")
    (tmp_path / "train" / "a" / "copy.png").write_bytes((tmp_path / "test" / "a" / "002.png").read_bytes())
    photo(4004).save(tmp_path / "train" / "a" / "again.jpg", quality=90)  # test/a/004.png, saved as JPEG
    photo(4006).resize((96, 96), Image.Resampling.BICUBIC).save(tmp_path / "train" / "a" / "larger.png")
    found = load(tmp_path)
    said = "\n".join(found.findings)
    assert "3 pictures equal, or nearly equal, one of a split that is kept for judging" in said and "nearly equal: kept" in said
    train = {found.pictures.describe(i) for split in ("train", "validation") for i in found.parts[split]}
    assert not train & {"train/a/copy.png", "train/a/again.jpg", "train/a/larger.png"} and len(train) == 40
    assert len(found.parts["test"]) == 40  # the publisher's test stays whole


def test_copies_fall_on_one_side(tmp_path: Path) -> None:
    photos(tmp_path, n=60)
    for i in range(0, 60, 2):
        photo(i).save(tmp_path / "a" / f"{i:03}-again.jpg", quality=92)
        photo(i).save(tmp_path / "a" / f"{i:03}-copy.png")
    found = load(tmp_path, validation=0.3, test=0.3)
    side = {found.pictures.describe(i): split for split in ("train", "validation", "test") for i in found.parts[split]}
    for i in range(0, 60, 2):
        assert len({side[f"a/{i:03}{end}"] for end in (".png", "-again.jpg", "-copy.png")}) == 1
    said = "\n".join(found.findings)
    assert "30 pictures are copies" in said and "pairs of pictures are nearly equal" in said


def test_odd_shapes_modes_and_labels_are_said(tmp_path: Path) -> None:
    photos(tmp_path)
    photo(999, side=20).save(tmp_path / "a" / "small.png")
    photo(998).convert("L").save(tmp_path / "b" / "grey.png")
    (tmp_path / "a" / "torn.png").write_bytes((tmp_path / "b" / "001.png").read_bytes())
    said = "\n".join(load(tmp_path).findings)
    assert "1 of 43 pictures aren't 64×64 like the others" in said and "a/small.png is 20×20" in said
    assert "1 of 43 pictures are grey" in said
    assert "1 pictures occur with more than one label" in said and "a/torn.png is a and b" in said


def test_near_pairs_are_those_of_a_brute_force() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (12, 16, 16)).astype(int)
    thumbnails = np.clip(
        np.concatenate([base, base + rng.integers(-3, 4, base.shape), base + rng.integers(-9, 10, base.shape)]), 0, 255
    ).astype(np.uint8)
    thumbnails = np.concatenate([thumbnails, np.full((3, 16, 16), 40, np.uint8)])  # flat ones are near nothing
    among = np.ones(len(thumbnails), dtype=bool)
    among[1] = False
    flat = thumbnails.reshape(len(thumbnails), -1).astype(float)
    expected = [
        (a, b)
        for a, b in itertools.combinations(np.flatnonzero(among & (flat.std(axis=1) >= 1)).tolist(), 2)
        if np.abs(flat[a] - flat[b]).mean() <= NEAR * min(flat[a].std(), flat[b].std())
    ]
    assert near_pairs(thumbnails, among) == expected and len(expected) >= 11


def test_arrays_are_cleaned_by_their_content() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
    pixels[3] = pixels[57]  # a training picture that is in test
    given = np.array(["train"] * 40 + ["validation"] * 10 + ["test"] * 10)
    found = load(Source("mine", ArrayPictures(pixels), np.arange(60) % 2, ("a", "b"), given))
    assert 3 not in found.parts["train"] and len(found.parts["train"]) == 39
    assert "picture 3" in found.findings[-1] and "occur with more" not in found.findings[-1]
