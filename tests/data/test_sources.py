"""Every layout that data comes in, and the ways in which it can be wrong."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewise.data.picture import read_picture
from edgewise.data.source import Source
from edgewise.data.sources import find
from edgewise.errors import InvalidData, InvalidInput


def draw(path: Path, *shape: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape or (6, 6), dtype=np.uint8)).save(path)


def idx(path: Path, array: np.ndarray) -> None:
    body = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(body) if path.suffix == ".gz" else body)


def test_a_folder_per_class(tmp_path: Path) -> None:
    for name in ("dog/b.png", "dog/deep/c.png", "cat/a.PNG", "cat/.hidden.png"):
        draw(tmp_path / name)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    source = find(tmp_path)
    assert source.labels == ("cat", "dog") and source.targets is not None and source.targets.tolist() == [0, 1, 1]
    assert set(source.given) == {""}
    assert "1 files are no pictures" in source.findings[0] and ".txt" in source.findings[0]
    assert source.pictures.describe(2) == "dog/deep/c.png"
    assert find(tmp_path, labels=("dog", "cat")).targets.tolist() == [1, 0, 0]  # type: ignore[union-attr]


def test_splits_above_classes(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        for label in ("a", "b"):
            draw(tmp_path / part / label / "1.png")
    source = find(tmp_path)
    assert source.labels == ("a", "b") and sorted(source.given.tolist()) == ["test"] * 2 + ["train"] * 2 + ["validation"] * 2


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    for label in ("train", "bus"):
        draw(tmp_path / label / "1.png")
    assert find(tmp_path).labels == ("bus", "train")


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    draw(tmp_path / "1.jpg")
    draw(tmp_path / "2.jpg")
    source = find(tmp_path)
    assert source.targets is None and source.labels == ()
    with pytest.raises(InvalidData, match="labels were given"):
        find(tmp_path, labels=("a",))


def test_pictures_are_decoded_when_they_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(10):
        draw(tmp_path / "a" / f"{i}.png", 4 + i, 5, seed=i)
    reads: list[Path] = []

    def reading(path: Path) -> np.ndarray:
        reads.append(path)
        return read_picture(path)

    monkeypatch.setattr("edgewise.data.pictures.read_picture", reading)
    pictures = find(tmp_path).pictures
    assert not reads
    taken = pictures.take(np.array([7, 2, 9, 0, 1]))
    assert len(reads) == 5 and [p.shape[0] for p in taken] == [11, 6, 13, 4, 5]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "no pictures"),
        (["a/1.png", "2.png"], "beside folders"),
        (["train/a/1.png", "test/1.png"], "some splits have class folders"),
        (["train/a/1.png", "val/a/1.png", "valid/a/1.png"], "two folders"),
        (["a/1.png", "b/.keep"], "class folder b"),
    ],
)
def test_folders_that_say_two_things(tmp_path: Path, files: list[str], says: str) -> None:
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path) if path.suffix == ".png" else path.touch()
    with pytest.raises(InvalidData, match=says):
        find(tmp_path)


@pytest.mark.parametrize(("labels", "says"), [(("a",), "aren't among"), (("a", "b", "c"), "no class folder"), (("a", "b", "a"), "twice")])
def test_labels_that_are_not_the_folders(tmp_path: Path, labels: tuple[str, ...], says: str) -> None:
    draw(tmp_path / "a" / "1.png")
    draw(tmp_path / "b" / "1.png")
    with pytest.raises(InvalidData, match=says):
        find(tmp_path, labels)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx(tmp_path: Path, ending: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 5, 4))
    for split, part in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        idx(tmp_path / f"{split}-images-idx3-ubyte{ending}", images[part])
        idx(tmp_path / f"{split}-labels-idx1-ubyte{ending}", np.arange(12)[part] % 3)
    source = find(tmp_path, labels=("x", "y", "z"))
    assert source.given.tolist() == ["train"] * 8 + ["test"] * 4 and source.labels == ("x", "y", "z")
    np.testing.assert_array_equal(np.asarray(source.pictures.take(np.arange(12)))[..., 0], images)
    assert find(tmp_path).labels == ("0", "1", "2")
    with pytest.raises(InvalidData, match="0 to 1"):
        find(tmp_path, labels=("x", "y"))
    (tmp_path / f"train-images-idx3-ubyte{ending}").unlink()
    with pytest.raises(InvalidData, match="train-images"):
        find(tmp_path)


def test_idx_counts_must_match(tmp_path: Path) -> None:
    idx(tmp_path / "train-images-idx3-ubyte", np.zeros((8, 5, 4)))
    idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(7))
    with pytest.raises(InvalidData, match="8 train images and 7 labels"):
        find(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("images", "labels", None, None),
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
)
def test_npz(tmp_path: Path, names: tuple[str, ...]) -> None:
    images, labels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8), np.array([0, 1, 0, 1, 0, 1])
    members = {names[0]: images[:4], names[1]: labels[:4, None]} | ({names[2]: images[4:], names[3]: labels[4:]} if names[2] else {})
    np.savez(tmp_path / "d.npz", **members, made_by=np.array("me"))
    for where in (tmp_path / "d.npz", tmp_path):
        source = find(where)
        assert source.targets is not None and source.targets.tolist() == labels[: len(source.pictures)].tolist()
        assert source.given.tolist() == ((["train"] * 4 + ["test"] * 2) if names[2] else [""] * 4)
        assert "made_by" in source.findings[0]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"images": np.zeros((4, 4, 4)), "labels": np.zeros(4, int)}, "uint8"),
        ({"images": np.zeros((4, 3, 8, 8), np.uint8), "labels": np.zeros(4, int)}, "channels first"),
        ({"images": np.zeros((4, 8), np.uint8), "labels": np.zeros(4, int)}, "shape"),
        ({"images": np.zeros((4, 8, 8), np.uint8), "labels": np.zeros((4, 10), int)}, "integers of shape"),
        ({"images": np.zeros((4, 8, 8), np.uint8), "labels": np.zeros(3, int)}, "4  images and 3 labels|4 images and 3 labels"),
        ({"images": np.zeros((4, 8, 8), np.uint8), "labels": np.full(4, -1)}, "run from -1"),
        ({"images": np.zeros((4, 8, 8), np.uint8), "labels": np.full(4, 10**6)}, "without holes"),
        ({"x_train": np.zeros((4, 8, 8), np.uint8), "x_test": np.zeros((4, 9, 8), np.uint8)}, "different shapes"),
        (
            {"x_train": np.zeros((4, 8, 8), np.uint8), "y_train": np.zeros(4, int), "x_test": np.zeros((4, 8, 8), np.uint8)},
            "4 test images and 0",
        ),
        ({"x": np.zeros((4, 8, 8), np.uint8), "x_test": np.zeros((4, 8, 8), np.uint8)}, "with and without"),
        ({"weights": np.zeros(4)}, "expected images"),
        ({"images": np.zeros((0, 8, 8), np.uint8)}, "n at least 1"),
        ({"images": np.array([None], dtype=object)}, "allow_pickle|no .npz"),
    ],
)
def test_npz_that_does_not_fit(tmp_path: Path, members: dict[str, np.ndarray], says: str) -> None:
    np.savez(tmp_path / "d.npz", **members)  # type: ignore[arg-type]
    with pytest.raises(InvalidData, match=says):
        find(tmp_path / "d.npz")


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((4, 8, 8), np.uint8))
    whole = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[:100])
    with pytest.raises(InvalidData, match="npz"):
        find(tmp_path / "d.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(InvalidData, match="no zip archive"):
        find(tmp_path / "one.npz")
    with pytest.raises(InvalidData, match="no such"):
        find(tmp_path / "nowhere")
    (tmp_path / "d.txt").touch()
    with pytest.raises(InvalidData, match="give a folder"):
        find(tmp_path / "d.txt")


def test_your_own_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_test.py").write_text(
        "import numpy as np\n"
        "def pair(): return np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2\n"
        "def named(): return {'images': np.zeros((4, 8, 8), np.uint8), 'labels': np.arange(4) % 2, 'names': ['off', 'on']}\n"
        "def wrong(): return 3\n"
        "thing = 4\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find("mine_for_test:pair").labels == ("0", "1")
    assert find("mine_for_test:named").labels == ("off", "on")
    for spec, says in (("mine_for_test:wrong", "returned a int"), ("mine_for_test:thing", "give a function")):
        with pytest.raises(InvalidData, match=says):
            find(spec)
    with pytest.raises(InvalidInput, match="no_such_module"):
        find("no_such_module:f")


def test_a_source_is_checked() -> None:
    from edgewise.data.pictures import ArrayPictures

    three = ArrayPictures(np.zeros((3, 2, 2, 1), np.uint8))
    with pytest.raises(InvalidData, match="one each"):
        Source("s", three, np.zeros(2, int), ("a",), np.array([""] * 3))
    with pytest.raises(InvalidData, match="no pictures"):
        Source("s", ArrayPictures(np.zeros((0, 2, 2, 1), np.uint8)), None, (), np.array([]))
