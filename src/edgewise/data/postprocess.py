"""From what a classifier gives to labels with scores: the one implementation, wherever the model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from edgewise.errors import InvalidInput, InvalidModel


class Prediction(NamedTuple):
    label: str
    score: float  # probability, 0..1
    class_index: int


@dataclass(frozen=True)
class Classify:
    """Labels and scores of the `top` likeliest classes.

    output: what the model gives. It is stated, never guessed: probabilities put through a second softmax still look plausible.
    """

    labels: tuple[str, ...]
    top: int = 5
    output: Literal["logits", "probabilities"] = "logits"
    kind: Literal["classify"] = "classify"

    def __post_init__(self) -> None:
        if not self.labels:
            raise InvalidInput("labels=(): give one label for each class")
        if self.top < 1:
            raise InvalidInput(f"top={self.top}: give a number from 1 to {len(self.labels)}")
        if self.output not in ("logits", "probabilities"):
            raise InvalidInput(f"output={self.output!r}: give 'logits' or 'probabilities'")

    def scores(self, outputs: np.ndarray) -> np.ndarray:
        """outputs: (batch, classes) -> float64 (batch, classes), rows summing to 1.

        Raises InvalidModel when the classes aren't ours, a value is NaN, or "probabilities" aren't any.
        """
        values = np.asarray(outputs, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.labels):
            raise InvalidModel(f"the model gave {values.shape} for {len(self.labels)} labels; expected (batch, {len(self.labels)})")
        if np.isnan(values).any():
            raise InvalidModel("the model gave NaN; it can't be trusted on this input (check with `edgewise compare`)")
        if self.output == "logits":
            return softmax(values)
        total = values.sum(axis=1, keepdims=True)
        # int8 outputs are steps of 1/256 a class, so a sum may be off by some percent; logits are off by far more.
        if (values < -0.01).any() or (values > 1.01).any() or (np.abs(total - 1) > 0.05).any():
            raise InvalidModel("the model's outputs are no probabilities (0..1, rows summing to 1); say output='logits'")
        return np.clip(values, 0, None) / np.clip(values, 0, None).sum(axis=1, keepdims=True)

    def apply(self, outputs: np.ndarray) -> list[tuple[Prediction, ...]]:
        """outputs: (batch, classes) -> for each sample its likeliest classes, best first; ties go to the lower index."""
        scores = self.scores(outputs)
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self.top]
        return [tuple(Prediction(self.labels[i], float(row[i]), int(i)) for i in best) for row, best in zip(scores, order, strict=True)]


def softmax(logits: np.ndarray) -> np.ndarray:
    """logits: (batch, classes) -> probabilities. The row's maximum is taken off first, so no exponential overflows; +inf takes all."""
    top = logits.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shifted = np.where(logits == top, 0.0, logits - top)  # inf − inf would be NaN
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)
