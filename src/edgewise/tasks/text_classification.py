"""Text classification: one text, or two, in; one of several labels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgewise.data.postprocess import Classify
from edgewise.data.text import windows
from edgewise.data.text.rows import Rows
from edgewise.data.text.source import TextSource
from edgewise.errors import InvalidModel
from edgewise.tasks.text_split import TextSplit
from edgewise.tasks.text_task import TextTask
from edgewise.tasks.texts import read
from edgewise.types import Signature

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Classes:
    """A `Goal`. targets: (samples,) int64. A long text has the mean of its windows' logits, and in training each window its label."""

    name: str = "text-classification"
    teaches: bool = True
    metric_of_answers: str = "agreement"

    def postprocess(self, labels: tuple[str, ...]) -> Classify | None:
        """Logits to labels; None without labels."""
        return Classify(labels=labels, top=min(5, len(labels))) if labels else None

    def join(self, rows: Rows, outputs: Sequence[np.ndarray], samples: int) -> np.ndarray:
        return windows.mean(rows, outputs, samples)

    def targets(self, split: TextSplit) -> np.ndarray:
        return np.asarray(split.known, np.int64)

    def row_targets(self, split: TextSplit) -> np.ndarray:
        found: np.ndarray = self.targets(split)[split.rows.sample]
        return found

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross entropy. outputs: (batch, classes) logits; targets: (batch,) int64."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, targets)

    def check(self, signature: Signature, labels: tuple[str, ...]) -> None:
        """Raises InvalidModel when the model doesn't give one score for each label."""
        output = signature.outputs[0]
        if len(output.shape) != 2:
            raise InvalidModel(f"the model gives {output.name} {output.shape}; text classification expects (batch, classes)")
        classes = output.shape[1]
        if labels and isinstance(classes, int) and classes != len(labels):
            named = f"{len(labels)} ({', '.join(labels[:3])} …)"
            raise InvalidModel(f"the model gives {classes} classes and the data has {named}; they must match, in order")

    def as_targets(self, outputs: np.ndarray) -> np.ndarray:
        found: np.ndarray = outputs.argmax(axis=1).astype(np.int64)
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
    metric: Literal["accuracy", "f1", "macro-f1", "matthews"] = "accuracy",
    max_length: int | None = None,
    stride: int | None = None,
    tokens: Sequence[int] = (32,),
    validation: float = 0.1,
    test: float = 0.15,
    calibration: int = 512,
    seed: int = 0,
) -> TextTask:
    """A task from texts with a class each: SST-2, MNLI, QNLI, QQP and their like (see `data.text.files`).

    tokenizer: the model's tokenizer.json, or the folder that holds it.
    labels: of the classes in the model's order; left out, the words in the data sorted, or "0", "1", ….
    text_columns: where the text stands, or the two texts; left out, the usual names are looked for.
    label_column: where its class stands; left out, the same.
    train: a file to train on, in place of one path to all. eval: beside it, the one that the verdict is read from.
    as_test: splits, as the data calls them, that are the test split, as dev,test; left out, what is called test.
    metric: accuracy, f1 (of the second of two classes), macro-f1 or matthews.
    max_length: most tokens of a row; left out, what the tokenizer's files say, or 512. A longer text goes in windows.
    stride: tokens that a window shares with the one before; left out, a quarter of max_length.
    tokens: length of the inputs that are timed, or several, as 32,128.
    validation, test: the share split off where the data brings no such split.
    calibration: how many of train calibrate.
    seed: of the splits.
    """
    given = {name: value for name, value in locals().items() if name not in ("path", "metric")}
    return TextTask(read(path, "class", **given), Classes(), metric)
