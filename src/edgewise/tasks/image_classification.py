"""Image classification: one picture in, one of several labels out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from edgewise.data.dataset import SPLITS, Dataset, check_split, load
from edgewise.data.postprocess import Classify
from edgewise.data.preprocess import ImagePreprocess, statistics
from edgewise.data.source import Source
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.records import DataSummary
from edgewise.tasks.augment import erase, flip, shift
from edgewise.tasks.image_split import ImageSplit
from edgewise.types import Inputs, Signature

if TYPE_CHECKING:
    import torch

# Pictures of several sizes are brought to this one, unless a size is given: what most published classifiers were trained at.
USUAL_SIZE = (224, 224)

# Of files, this many of train are decoded for the mean and deviation: enough for three digits, and a minute less than all of them.
STATISTICS_FILES = 2048


@dataclass(frozen=True)
class ImageClassification:
    """Satisfies `types.Task` and `tasks.TrainingTask`. The test split is sealed until `unsealed()`.

    input: the model's name for its input. shift, flip, erase: augmentation of training batches (see `tasks.augment`).
    predicted: targets by split that stand in for the data's own (see `with_targets`).
    """

    dataset: Dataset
    preprocess: ImagePreprocess
    input: str = "image"
    metric: str = "accuracy"
    shift: int = 0
    flip: bool = False
    erase: float = 0.0
    sealed: bool = True
    notes: tuple[str, ...] = ()
    predicted: Mapping[str, np.ndarray] = field(default_factory=dict)
    predicted_labels: tuple[str, ...] = ()
    name: str = "image-classification"

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the classes, in the model's order; () for data without labels."""
        return self.dataset.labels or self.predicted_labels

    @property
    def postprocess(self) -> Classify | None:
        """What turns logits into labels on the device; None without labels."""
        return Classify(labels=self.labels, top=min(5, len(self.labels))) if self.labels else None

    def split(self, name: Literal["train", "calibration", "validation", "test"]) -> ImageSplit:
        """Raises InvalidInput for an unknown split, and for the test split while it is sealed."""
        check_split(name, sealed=self.sealed)
        indices = self.dataset.parts[name]
        targets = self.predicted.get(name)
        if targets is None and self.dataset.targets is not None and self.metric == "accuracy":
            targets = self.dataset.targets[indices]
        return ImageSplit(name, targets, self.dataset.pictures, indices, self.preprocess, self.input)

    def unsealed(self) -> ImageClassification:
        """The same task, whose test split may be read. For the verdict, and for nothing else."""
        return replace(self, sealed=False)

    def example_inputs(self, n: int = 1) -> dict[str, np.ndarray]:
        """`n` training samples as the model takes them, the same ones every time; repeated when there are fewer."""
        indices = np.resize(self.dataset.parts["calibration"], n)
        return {self.input: self.preprocess.apply_batch(self.dataset.pictures.take(indices))}

    def calibration(self, n: int | None = None, *, batch_size: int = 32) -> list[Inputs]:
        """The calibration split's inputs in batches: `n` samples of it, or all."""
        whole = self.split("calibration")
        chosen = replace(whole, indices=whole.indices[:n], targets=None)
        return [inputs for inputs, _ in chosen.batches(batch_size)]

    def training_batches(self, *, batch_size: int, epoch: int, seed: int = 0) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """One epoch over train, augmented: ({input: float32}, int64 targets). Order and augmentation follow from (seed, epoch).

        A last batch that isn't full is left out unless it is the only one: batch normalisation over one or two samples does harm, and the
        next epoch draws them elsewhere. Raises InvalidData without targets.
        """
        train = self.split("train")
        if train.targets is None:
            raise InvalidData(f"{self.dataset.name} has no labels, and training needs them; give pictures in a folder per class")
        if batch_size < 1:
            raise InvalidInput(f"batch_size={batch_size}: give 1 or more")
        generator = np.random.default_rng((seed, epoch))
        order = generator.permutation(len(train))
        full = len(order) - len(order) % batch_size or len(order)
        for start in range(0, full, batch_size):
            places = order[start : start + batch_size]
            pixels = self.preprocess.fit(self.dataset.pictures.take(train.indices[places]))
            pixels = shift(pixels, self.shift, generator)
            if self.flip:
                pixels = flip(pixels, generator)
            pixels = erase(pixels, self.erase, generator)
            yield {self.input: self.preprocess.normalise(pixels)}, train.targets[places]

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy. outputs: (batch, classes) logits; targets: (batch,) int64."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, targets)

    def fingerprint(self) -> str:
        """SHA-256 over pictures, targets, splits and preprocessing; the input's name and predicted targets follow from the model."""
        return hashlib.sha256(self.dataset.fingerprint.encode() + msgspec.json.encode(self.preprocess, order="deterministic")).hexdigest()

    def summary(self) -> DataSummary:
        """Counts and findings; no picture is read for it."""
        return DataSummary(
            task=self.name,
            metric=self.metric,
            source=self.dataset.name,
            fingerprint=self.fingerprint(),
            samples={name: len(part) for name, part in self.dataset.parts.items()},
            labels=self.labels,
            cleaning=(*self.dataset.findings, *self.notes),
        )

    def with_input(self, name: str) -> ImageClassification:
        """The same task under the model's own name for its input."""
        return replace(self, input=name)

    def with_targets(self, targets: Mapping[str, np.ndarray], labels: Sequence[str] = ()) -> ImageClassification:
        """The same task where a reference model's top-1 stand as targets, by split, in the split's order: the metric becomes "agreement".

        Targets may come one split after the other (that of test only at the verdict); a split without any has targets None.
        Raises InvalidData when a count is not that split's.
        """
        for split, values in targets.items():
            if split not in SPLITS:
                raise InvalidInput(f"targets for split {split!r}: give one of {', '.join(SPLITS)}")
            if np.shape(values) != (len(self.dataset.parts[split]),):
                raise InvalidData(f"targets of shape {np.shape(values)} for split {split!r}; expected ({len(self.dataset.parts[split])},)")
        added = {split: np.asarray(values, dtype=np.int64) for split, values in targets.items()}
        names = tuple(labels) or self.predicted_labels
        return replace(self, metric="agreement", predicted={**self.predicted, **added}, predicted_labels=names)

    def for_model(self, signature: Signature) -> ImageClassification:
        """The same task as a model of this signature takes it: its input's name, layout, and the size and channels where it fixes them.

        Raises InvalidModel when the model doesn't take one float32 picture, or doesn't give one score for each label.
        """
        if len(signature.inputs) != 1 or len(signature.inputs[0].shape) != 4 or signature.inputs[0].dtype != "float32":
            given = ", ".join(f"{spec.name}: {spec.dtype} {spec.shape}" for spec in signature.inputs)
            raise InvalidModel(f"the model takes {given}; image classification feeds one float32 (batch, channels, height, width)")
        spec = signature.inputs[0]
        layout: Literal["NCHW", "NHWC"] = "NHWC" if spec.shape[3] in (1, 3) and spec.shape[1] not in (1, 3) else "NCHW"
        channels, height, width = (spec.shape[i] for i in ((1, 2, 3) if layout == "NCHW" else (3, 1, 2)))
        size = tuple(side if isinstance(side, int) else ours for side, ours in zip((height, width), self.preprocess.size, strict=True))
        wanted = channels if isinstance(channels, int) else self.preprocess.channels
        if wanted not in (1, 3):
            raise InvalidModel(f"the model's input {spec.name} has {wanted} channels {spec.shape}; pictures have 1 (grey) or 3 (colour)")
        if self.labels and len(signature.outputs) == 1 and len(signature.outputs[0].shape) == 2:
            classes = signature.outputs[0].shape[1]
            if isinstance(classes, int) and classes != len(self.labels):
                named = f"{len(self.labels)} ({', '.join(self.labels[:3])} …)"
                raise InvalidModel(f"the model gives {classes} classes and the data has {named}; they must match, in order")
        changed = replace(
            self.preprocess,
            size=(int(size[0]), int(size[1])),
            layout=layout,
            channels=wanted,
            mean=_spread(self.preprocess.mean, wanted),
            std=_spread(self.preprocess.std, wanted),
        )
        return replace(self, input=spec.name, preprocess=changed)


def image_classification(
    path: str | Path | Source,
    *,
    labels: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    scale: float = 1 / 255,
    resize: Literal["stretch", "crop"] = "stretch",
    crop: float = 1.0,
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear",
    layout: Literal["NCHW", "NHWC"] = "NCHW",
    validation: float = 0.1,
    test: float = 0.15,
    calibration: int = 512,
    shift: int | None = None,
    flip: bool = False,
    erase: float = 0.0,
    seed: int = 0,
) -> ImageClassification:
    """A task from pictures: a folder per class, IDX files, an .npz file, or "module:function" (see `data.sources`).

    labels: of the classes in the model's order; left out, the folders' names sorted, or "0", "1", ….
    size: (height, width); left out, the pictures' own, or 224×224 where they have several.
    channels: 1 (grey) or 3 (colour); left out, what nearly all pictures have.
    mean, std: of x · scale, for each channel, as the model was trained with; left out, computed on train.
    scale: what a byte is multiplied with before that.
    resize: "stretch" to the size, or "crop": the aspect kept, and the centre cut out.
    crop: with resize "crop", the share that the cut keeps (ImageNet's habit is 0.875).
    interpolation: Pillow's filter for resizing. layout: the order of axes; a model that fixes it overrules this.
    validation, test: the share split off where the data brings no such split.
    calibration: how many of train calibrate.
    shift: pixels that training pictures move by at most; left out, a sixteenth of the shorter side.
    flip: mirror half of the training pictures (not for digits or text).
    erase: blank a rectangle of up to this share of the area in half of the training pictures.
    seed: of the splits.
    """
    if (mean is None) != (std is None):
        raise InvalidInput(f"mean={mean}, std={std}: give both or none")
    dataset = load(path, labels=tuple(labels), validation=validation, test=test, calibration=calibration, seed=seed)
    notes = []
    if size is None and dataset.size is None:
        notes.append(f"the pictures have several sizes: all are brought to {USUAL_SIZE[0]}×{USUAL_SIZE[1]} (size= chooses)")
    chosen = channels or dataset.channels
    preprocess = ImagePreprocess(
        size=size or dataset.size or USUAL_SIZE,
        channels=chosen,
        mean=_spread(tuple(mean), chosen) if mean is not None else (0.0,) * chosen,
        std=_spread(tuple(std), chosen) if std is not None else (1.0,) * chosen,
        scale=scale,
        resize=resize,
        crop=crop,
        interpolation=interpolation,
        layout=layout,
    )
    if mean is None:
        preprocess = _normalised(dataset, preprocess, seed)
        told = ", ".join(f"{m:.4g} ± {s:.4g}" for m, s in zip(preprocess.mean, preprocess.std, strict=True))
        notes.append(f"mean and deviation computed on train ({told}); give mean= and std= where the model was trained with others")
    return ImageClassification(
        dataset=dataset,
        preprocess=preprocess,
        shift=round(min(preprocess.size) / 16) if shift is None else shift,
        flip=flip,
        erase=erase,
        notes=tuple(notes),
    )


def _normalised(dataset: Dataset, preprocess: ImagePreprocess, seed: int) -> ImagePreprocess:
    """`preprocess` with the mean and deviation of train, a chunk of pictures in memory at a time."""
    indices = dataset.parts["train"]
    if not dataset.pictures.decoded and len(indices) > STATISTICS_FILES:
        indices = np.random.default_rng(seed).choice(indices, STATISTICS_FILES, replace=False)
    chunks = (preprocess.fit(dataset.pictures.take(indices[i : i + 256])) for i in range(0, len(indices), 256))
    mean, std = statistics(chunks, preprocess.channels, preprocess.scale)
    return replace(preprocess, mean=mean, std=std)


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value for each channel: one stands for all; of three, their mean stands for grey."""
    if len(values) == channels:
        return tuple(float(value) for value in values)
    if len(values) == 1:
        return (float(values[0]),) * channels
    if channels == 1 and len(values) == 3:
        return (float(np.mean(values)),)
    raise InvalidInput(f"{len(values)} numbers {values} for {channels} channel(s): give one, or one for each channel")
