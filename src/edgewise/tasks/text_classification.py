"""Text classification: one text, or two, in; one of several labels out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgewise.data.dataset import SPLITS
from edgewise.data.postprocess import Classify
from edgewise.data.text import windows
from edgewise.data.text.preprocess import TextPreprocess
from edgewise.data.text.source import TextSource
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.records import DataSummary
from edgewise.tasks import texts as shared
from edgewise.tasks.texts import SplitName, Texts, TextSplit
from edgewise.types import Inputs, Signature

if TYPE_CHECKING:
    import torch

Metric = Literal["accuracy", "f1", "macro-f1", "matthews"]


@dataclass(frozen=True)
class TextClassification:
    """Satisfies `types.Task` and `tasks.TrainingTask`. The test split is sealed until `unsealed()`.

    The logits of a long text are the mean of its windows'. predicted: targets by split that stand in for the data's own (`with_targets`).
    """

    texts: Texts
    metric: str = "accuracy"
    sealed: bool = True
    predicted: Mapping[str, np.ndarray] = field(default_factory=dict)
    predicted_labels: tuple[str, ...] = ()
    name: str = "text-classification"

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the classes, in the model's order; () for data without labels."""
        return self.texts.dataset.labels or self.predicted_labels

    @property
    def preprocess(self) -> TextPreprocess:
        return self.texts.preprocess

    @property
    def postprocess(self) -> Classify | None:
        """What turns logits into labels on the device; None without labels."""
        return Classify(labels=self.labels, top=min(5, len(self.labels))) if self.labels else None

    @property
    def files(self) -> dict[str, bytes]:
        """What goes into a package beside the model."""
        return self.texts.files

    def split(self, name: SplitName) -> TextSplit:
        """Raises InvalidInput for an unknown split, and for the test split while it is sealed."""
        indices = self.texts.indices(name, sealed=self.sealed)
        targets = self.predicted.get(name)
        if targets is None and self.texts.dataset.targets is not None and self.metric != "agreement":
            targets = self.texts.dataset.targets[indices]
        return TextSplit(name, self.texts, indices, targets, windows.mean)

    def unsealed(self) -> TextClassification:
        """The same task, whose test split may be read. For the verdict, and for nothing else."""
        return replace(self, sealed=False)

    def example_inputs(self, n: int = 1, tokens: int | None = None) -> dict[str, np.ndarray]:
        """`n` rows of real text of exactly `tokens` tokens (the task's own number unless given): time depends on it."""
        return self.texts.examples(n, tokens)

    def calibration(self, n: int | None = None, *, batch_size: int = 32) -> list[Inputs]:
        """The calibration split's inputs in batches: `n` samples of it, or all."""
        return shared.calibration(self.split("calibration"), n, batch_size)

    def training_batches(self, *, batch_size: int, epoch: int, seed: int = 0) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """One epoch over train, rows of like length together (see `Texts.training`). Raises InvalidData without targets."""
        train = self.split("train")
        if train.targets is None:
            raise InvalidData(f"{self.texts.dataset.name} has no labels, and training needs them; name their column with label_column=")
        for inputs, targets in self.texts.training(train, batch_size, epoch, seed):
            if targets is not None:
                yield inputs, targets

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy. outputs: (batch, classes) logits; targets: (batch,) int64."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, targets)

    def fingerprint(self) -> str:
        """SHA-256 over texts, targets, splits, preprocessing, metric and the examples' length."""
        return self.texts.fingerprint(self.name, "accuracy" if self.metric == "agreement" else self.metric)

    def summary(self) -> DataSummary:
        return self.texts.summary(self.name, self.metric, self.fingerprint(), self.labels)

    def with_input(self, name: str) -> TextClassification:
        """The same task under the model's own name for its token ids."""
        return replace(self, texts=self.texts.with_input(name))

    def with_targets(self, targets: Mapping[str, np.ndarray], labels: Sequence[str] = ()) -> TextClassification:
        """The same task where a reference model's top-1 stand as targets, by split, in the split's order: the metric becomes "agreement".

        Raises InvalidData when a count is not that split's.
        """
        for split, values in targets.items():
            if split not in SPLITS:
                raise InvalidInput(f"targets for split {split!r}: give one of {', '.join(SPLITS)}")
            if np.shape(values) != (len(self.texts.dataset.parts[split]),):
                raise InvalidData(
                    f"targets of shape {np.shape(values)} for split {split!r}; expected ({len(self.texts.dataset.parts[split])},)"
                )
        added = {split: np.asarray(values, dtype=np.int64) for split, values in targets.items()}
        names = tuple(labels) or self.predicted_labels
        return replace(self, metric="agreement", predicted={**self.predicted, **added}, predicted_labels=names)

    def for_model(self, signature: Signature) -> TextClassification:
        """The same task as a model of this signature takes it: its names for ids, mask and types, and its length where it fixes one.

        Raises InvalidModel when the model takes no tokens, or doesn't give one score for each label.
        """
        found = replace(self, texts=self.texts.for_model(signature))
        output = signature.outputs[0]
        if len(output.shape) != 2:
            raise InvalidModel(f"the model gives {output.name} {output.shape}; text classification expects (batch, classes)")
        classes = output.shape[1]
        if self.labels and isinstance(classes, int) and classes != len(self.labels):
            named = f"{len(self.labels)} ({', '.join(self.labels[:3])} …)"
            raise InvalidModel(f"the model gives {classes} classes and the data has {named}; they must match, in order")
        return found


def text_classification(
    path: str | Path | TextSource | None = None,
    /,
    *,
    tokenizer: str | Path | bytes | None = None,
    labels: Sequence[str] = (),
    text_columns: Sequence[str] = (),
    label_column: str = "",
    train: str | Path | None = None,
    eval: str | Path | None = None,
    as_test: Sequence[str] = (),
    metric: Metric = "accuracy",
    max_length: int | None = None,
    stride: int | None = None,
    tokens: int = 32,
    validation: float = 0.1,
    test: float = 0.15,
    calibration: int = 512,
    seed: int = 0,
) -> TextClassification:
    """A task from texts with a class each: SST-2, MNLI, QNLI, QQP and their like (see `data.text.files`).

    tokenizer: the model's tokenizer.json, or the folder that holds it.
    labels: of the classes in the model's order; left out, the words in the data sorted, or "0", "1", ….
    text_columns: where the text stands, or the two texts; left out, the usual names are looked for.
    label_column: where its class stands; left out, the same.
    train: a file to train on, in place of one path to all. eval: one that the verdict is read from, beside train.
    as_test: splits, as the data calls them, that are the test split, as dev,test; left out, what is called test.
    metric: accuracy, f1 (of the last class of two), macro-f1 or matthews.
    max_length: most tokens of a row; left out, what the tokenizer's files say, or 512. A longer text goes in windows.
    stride: tokens that a window shares with the one before; left out, a quarter of max_length.
    tokens: length of the inputs that are timed.
    validation, test: the share split off where the data brings no such split.
    calibration: how many of train calibrate.
    seed: of the splits.
    """
    given = {name: value for name, value in locals().items() if name not in ("path", "metric")}
    return TextClassification(shared.read(path, "class", **given), metric)
