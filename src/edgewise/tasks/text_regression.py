"""Text regression: one text, or two, in; a number out, such as how alike two sentences are (STS-B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgewise.data.postprocess import Regress
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
class Number:
    """A `Goal`. targets: (samples,) float64. A long text has the mean of its windows' numbers, and in training each window its target."""

    name: str = "text-regression"
    teaches: bool = True
    metric_of_answers: str = ""

    def postprocess(self, labels: tuple[str, ...]) -> Regress:
        return Regress()

    def join(self, rows: Rows, outputs: Sequence[np.ndarray], samples: int) -> np.ndarray:
        return windows.mean(rows, outputs, samples)

    def targets(self, split: TextSplit) -> np.ndarray:
        return np.asarray(split.known, np.float64)

    def row_targets(self, split: TextSplit) -> np.ndarray:
        found: np.ndarray = self.targets(split)[split.rows.sample].astype(np.float32)
        return found

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean squared error. outputs: (batch, 1) or (batch,); targets: (batch,) float32."""
        from torch.nn.functional import mse_loss

        return mse_loss(outputs.reshape(targets.shape), targets)

    def check(self, signature: Signature, labels: tuple[str, ...]) -> None:
        """Raises InvalidModel when the model doesn't give one number for each sample."""
        output = signature.outputs[0]
        if len(output.shape) not in (1, 2) or (len(output.shape) == 2 and output.shape[1] != 1):
            raise InvalidModel(f"the model gives {output.name} {output.shape}; text regression expects (batch, 1)")

    def as_targets(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.reshape(len(outputs)).astype(np.float64)


def text_regression(
    path: str | Path | TextSource | None = None,
    /,
    *,
    tokenizer: str | Path | bytes | None = None,
    text_columns: Sequence[str] = (),
    label_column: str = "",
    train: str | Path | None = None,
    eval: str | Path | None = None,
    as_test: Sequence[str] = (),
    metric: Literal["spearman", "pearson", "r2", "mae-skill"] = "spearman",
    max_length: int | None = None,
    stride: int | None = None,
    tokens: Sequence[int] = (32,),
    validation: float = 0.1,
    test: float = 0.15,
    calibration: int = 512,
    seed: int = 0,
) -> TextTask:
    """A task from texts, or pairs of texts, with a number each: STS-B and its like (see `data.text.files`).

    tokenizer: the model's tokenizer.json, or the folder that holds it.
    text_columns: where the text stands, or the two texts; left out, the usual names are looked for.
    label_column: where its number stands; left out, the same.
    train: a file to train on, in place of one path to all. eval: beside it, the one that the verdict is read from.
    as_test: splits, as the data calls them, that are the test split, as dev,test; left out, what is called test.
    metric: spearman, pearson, r2 (1 − MSE / the targets' variance) or mae-skill (1 − MAE / their mean distance from their median).
    max_length: most tokens of a row; left out, what the tokenizer's files say, or 512. A longer text goes in windows.
    stride: tokens that a window shares with the one before; left out, a quarter of max_length.
    tokens: length of the inputs that are timed, or several, as 32,128.
    validation, test: the share split off where the data brings no such split.
    calibration: how many of train calibrate.
    seed: of the splits.
    """
    given = {name: value for name, value in locals().items() if name not in ("path", "metric")}
    return TextTask(read(path, "score", **given), Number(), metric)
