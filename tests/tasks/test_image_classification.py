"""The task: one preprocessing everywhere, a sealed test split, training batches that a seed fixes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewise.data.dataset import SPLITS
from edgewise.data.pictures import ArrayPictures, Survey
from edgewise.data.source import Source
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.records import DataSummary
from edgewise.tasks import ImageClassification, bound, image_classification
from edgewise.types import Signature, TensorSpec, from_json, to_json

PIXELS = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 1), dtype=np.uint8)


@dataclasses.dataclass(frozen=True)
class Recording:
    """Pictures that remember which of them were taken."""

    inner: ArrayPictures
    taken: set[int] = dataclasses.field(default_factory=set)
    decoded: bool = True

    def __len__(self) -> int:
        return len(self.inner)

    def take(self, indices: np.ndarray) -> np.ndarray:
        self.taken.update(int(i) for i in indices)
        return self.inner.take(indices)

    def survey(self) -> Survey:
        return self.inner.survey()

    def describe(self, index: int) -> str:
        return self.inner.describe(index)


def source(*, labelled: bool = True, pixels: np.ndarray = PIXELS) -> Source:
    n = len(pixels)
    return Source(
        "made",
        Recording(ArrayPictures(pixels)),
        np.arange(n) % 4 if labelled else None,
        tuple("abcd") if labelled else (),
        np.array([""] * n),
    )


def test_nothing_but_the_unsealed_split_reads_a_test_picture() -> None:
    made = source()
    task = image_classification(made, shift=1, flip=True, erase=0.2)
    assert isinstance(made.pictures, Recording)
    for name in ("train", "calibration", "validation"):
        assert sum(len(targets) for _, targets in task.split(name).batches(32) if targets is not None) == len(task.split(name))  # type: ignore[arg-type]
    for epoch in range(2):
        for _ in task.training_batches(batch_size=16, epoch=epoch):
            pass
    task.example_inputs(9)
    task.calibration()
    task.summary()
    task.fingerprint()
    task.with_input("x").with_targets({"validation": np.zeros(len(task.dataset.parts["validation"]), int)}).for_model(signature())
    test = set(task.dataset.parts["test"].tolist())
    assert test and not made.pictures.taken & test
    assert made.pictures.taken == set(range(400)) - test  # so the record does work

    for sealed in (task, task.with_input("x"), task.for_model(signature()), task.with_targets({})):
        with pytest.raises(InvalidInput, match="sealed"):
            sealed.split("test")
    assert not made.pictures.taken & test
    opened = task.unsealed()
    assert sum(len(inputs["image"]) for inputs, _ in opened.split("test").batches(64)) == len(test)
    assert made.pictures.taken >= test
    with pytest.raises(InvalidInput, match="sealed"):
        task.split("test")


def test_splits_feed_what_preprocessing_gives() -> None:
    task = image_classification(source())
    split = task.split("validation")
    inputs, targets = zip(*split.batches(7), strict=True)
    joined = np.concatenate([batch["image"] for batch in inputs])
    expected = np.stack([task.preprocess.apply(PIXELS[i]) for i in split.indices])
    np.testing.assert_array_equal(joined, expected)
    np.testing.assert_array_equal(np.concatenate(targets), split.targets)
    assert joined.dtype == np.float32 and len(split) == len(joined)
    with pytest.raises(InvalidInput, match="train, calibration"):
        task.split("holdout")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="batch size"):
        next(split.batches(0))


def test_statistics_are_those_of_train() -> None:
    task = image_classification(source())
    train = PIXELS[task.dataset.parts["train"]] / 255
    assert task.preprocess.mean == pytest.approx((train.mean(),)) and task.preprocess.std == pytest.approx((train.std(),))
    given = image_classification(source(), mean=(127,), std=(128,), scale=1.0)
    assert (given.preprocess.mean, given.preprocess.std) == ((127.0,), (128.0,))
    assert "computed on train" in task.summary().cleaning[-1] and given.summary().cleaning == ()
    with pytest.raises(InvalidInput, match="both or none"):
        image_classification(source(), mean=(0.5,))


def test_training_batches_follow_seed_and_epoch() -> None:
    task = image_classification(source(), shift=2, flip=True)

    def epoch(number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        batches = list(task.training_batches(batch_size=32, epoch=number, seed=seed))
        assert all(len(targets) == 32 for _, targets in batches)
        return np.concatenate([b["image"] for b, _ in batches]), np.concatenate([t for _, t in batches])

    first, again, second, other = epoch(0), epoch(0), epoch(1), epoch(0, seed=1)
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], second[0]) and not np.array_equal(first[0], other[0])
    assert len(first[1]) == len(task.split("train")) // 32 * 32 and first[1].dtype == np.int64


def test_without_augmentation_training_sees_the_same_floats() -> None:
    task = image_classification(source(), shift=0)
    size = len(task.split("train"))
    ((inputs, targets),) = task.training_batches(batch_size=10 * size, epoch=0)  # one batch that isn't full
    whole, labels = next(task.split("train").batches(size))
    assert labels is not None
    rows = sorted(map(tuple, np.concatenate([inputs["image"].reshape(size, -1), targets[:, None]], axis=1).tolist()))
    assert rows == sorted(map(tuple, np.concatenate([whole["image"].reshape(size, -1), labels[:, None]], axis=1).tolist()))


def test_unlabelled_data_borrow_a_models_predictions() -> None:
    task = image_classification(source(labelled=False))
    assert task.labels == () and task.postprocess is None and task.split("validation").targets is None
    with pytest.raises(InvalidData, match="no labels"):
        next(task.training_batches(batch_size=4, epoch=0))
    with pytest.raises(InvalidInput, match="sealed"):
        task.split("test")
    predicted = np.arange(len(task.split("validation")))
    borrowed = task.with_targets({"validation": predicted}, labels=("x", "y"))
    assert borrowed.metric == "agreement" and borrowed.labels == ("x", "y")
    np.testing.assert_array_equal(borrowed.split("validation").targets, predicted)
    assert borrowed.split("train").targets is None
    later = borrowed.unsealed()
    later = later.with_targets({"test": np.zeros(len(later.split("test")), int)})
    assert later.split("test").targets is not None and later.split("validation").targets is not None
    assert later.fingerprint() == task.fingerprint()
    with pytest.raises(InvalidData, match="expected"):
        task.with_targets({"validation": np.zeros(1, int)})


def test_fingerprint_covers_preprocessing_and_not_the_inputs_name() -> None:
    task = image_classification(source())
    assert task.fingerprint() == image_classification(source()).fingerprint() == task.with_input("x").fingerprint()
    assert task.fingerprint() != image_classification(source(), mean=(0.5,), std=(0.5,)).fingerprint()
    assert task.fingerprint() != image_classification(source(), seed=1).fingerprint()


def test_examples_calibration_and_summary() -> None:
    task = image_classification(source(), calibration=20).with_input("x")
    assert task.example_inputs(3)["x"].shape == (3, 1, 8, 8) and task.example_inputs(50)["x"].shape == (50, 1, 8, 8)
    assert [len(batch["x"]) for batch in task.calibration(batch_size=8)] == [8, 8, 4]
    assert [len(batch["x"]) for batch in task.calibration(5, batch_size=8)] == [5]
    summary = task.summary()
    assert set(summary.samples) == set(SPLITS) and summary.samples["calibration"] == 20 and summary.labels == tuple("abcd")
    assert from_json(to_json(summary), DataSummary) == summary
    assert task.postprocess is not None and task.postprocess.labels == tuple("abcd")


def signature(*shape: int | str, classes: int | str = 4, dtype: str = "float32") -> Signature:
    return Signature(
        (TensorSpec("pixels", shape or ("batch", 1, "height", "width"), dtype),), (TensorSpec("logits", ("batch", classes), "float32"),)
    )


def test_a_task_takes_on_what_the_model_fixes() -> None:
    task = image_classification(source())
    same = task.for_model(signature())
    assert same.input == "pixels" and same.preprocess == task.preprocess
    last = task.for_model(signature("n", 16, 12, 3))
    assert last.example_inputs(2)["pixels"].shape == (2, 16, 12, 3) and last.preprocess.mean == task.preprocess.mean * 3
    for wrong, says in (
        (signature("n", 16), "feeds one float32"),
        (signature("n", 1, 8, 8, dtype="uint8"), "feeds one float32"),
        (signature("n", 4, 8, 8), "4 channels"),
        (signature("n", 1, 8, 8, classes=10), "10 classes"),
    ):
        with pytest.raises(InvalidModel, match=says):
            task.for_model(wrong)


def test_a_folder_of_several_sizes_is_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewise.data import pictures

    rng = np.random.default_rng(0)
    for i in range(60):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8 + i % 3, 9, 3), dtype=np.uint8)).save(path)
    task = image_classification(tmp_path, validation=0.2, test=0.2)
    assert task.preprocess.size == (224, 224) and any("several sizes" in line for line in task.summary().cleaning)
    small = image_classification(tmp_path, size=(8, 8), validation=0.2, test=0.2)
    reads: list[Path] = []
    read = pictures.read_picture
    monkeypatch.setattr(pictures, "read_picture", lambda path: (reads.append(path), read(path))[1])
    batches = small.split("train").batches(4)
    inputs, _ = next(batches)
    assert inputs["image"].shape == (4, 3, 8, 8) and len(reads) == 4  # a batch is decoded when it is asked for, not before
    next(iter(small.training_batches(batch_size=4, epoch=0)))
    assert len(reads) == 8


def test_loss_is_cross_entropy() -> None:
    torch = pytest.importorskip("torch")
    logits, targets = np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 2, 3, 0, 1])
    expected = np.mean([np.log(np.exp(row).sum()) - row[t] for row, t in zip(logits, targets, strict=True)])
    task = image_classification(source())
    assert float(task.loss(torch.from_numpy(logits), torch.from_numpy(targets))) == pytest.approx(expected)


def test_the_example_of_an_own_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    try:
        task = image_classification("own_task:squares")
    finally:
        sys.modules.pop("own_task", None)
    assert task.labels == ("empty", "square") and isinstance(task, ImageClassification)
    assert task.example_inputs()["image"].shape == (1, 1, 16, 16)


def test_a_task_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import edgewise.tasks, edgewise.data"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_task_is_bound_to_a_model_as_far_as_it_can_be() -> None:
    class Plain:
        """A task of somebody's own, which only takes a name."""

        def with_input(self, name: str) -> str:
            return name

    assert bound(Plain(), signature()) == "pixels"
    assert bound(image_classification(source()), signature("n", 16, 12, 3)).preprocess.size == (16, 12)
