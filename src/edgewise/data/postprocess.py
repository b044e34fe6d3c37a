"""From what a model gives to answers: labels with scores, numbers, vectors, spans. The one implementation, wherever the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from edgewise.data.text.rows import Rows
from edgewise.data.text.squad import LONGEST, best
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


@dataclass(frozen=True)
class Regress:
    """A number."""

    kind: Literal["regress"] = "regress"

    def apply(self, outputs: np.ndarray) -> list[float]:
        """outputs: (batch, 1) or (batch,) -> a number for each sample. Raises InvalidModel for another shape, and for NaN."""
        if outputs.ndim not in (1, 2) or outputs.size != len(outputs):
            raise InvalidModel(f"the model gave {outputs.shape}; expected (batch, 1)")
        return _finite(outputs).reshape(-1).tolist()


@dataclass(frozen=True)
class Embed:
    """A vector. normalize: of length 1, so that a dot product is the cosine."""

    normalize: bool = True
    kind: Literal["embed"] = "embed"

    def apply(self, outputs: np.ndarray) -> np.ndarray:
        """outputs: (batch, width) -> float32 (batch, width). Raises InvalidModel for another shape, and for NaN."""
        if outputs.ndim != 2:
            raise InvalidModel(f"the model gave {outputs.shape}; expected (batch, width)")
        vectors = _finite(outputs)
        if self.normalize:
            length = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.where(length > 0, length, 1)
        return vectors.astype(np.float32)


class Found(NamedTuple):
    text: str  # "" for no answer
    start: int  # character of the context
    score: float  # see `squad.Span`


@dataclass(frozen=True)
class Extract:
    """The span of a context that answers a question.

    nothing: "no answer" may be said. longest: tokens of an answer.
    """

    nothing: bool = False
    longest: int = LONGEST
    kind: Literal["extract"] = "extract"

    def __post_init__(self) -> None:
        if not 1 <= self.longest <= 1024:
            raise InvalidInput(f"longest={self.longest}: give the most tokens of an answer, from 1 to 1024")

    def apply(self, outputs: np.ndarray, rows: Rows, contexts: Sequence[str]) -> list[Found]:
        """outputs: (samples, tokens, 2), the windows of each side by side -> its answer. Raises InvalidModel for another shape, or NaN."""
        if outputs.ndim != 3 or outputs.shape[2] != 2 or len(outputs) != len(contexts):
            raise InvalidModel(f"the model gave {outputs.shape} for {len(contexts)} texts; expected (samples, tokens, 2)")
        found = []
        for place, (logits, context) in enumerate(zip(_finite(outputs), contexts, strict=True)):
            span = best(logits, *rows.of(place), nothing=self.nothing, longest=self.longest)
            found.append(Found(context[span.first : span.last], span.first, span.score))
        return found


def _finite(outputs: np.ndarray) -> np.ndarray:
    values = np.asarray(outputs, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InvalidModel("the model gave NaN or infinity; it can't be trusted on this input (check with `edgewise compare`)")
    return values


def softmax(logits: np.ndarray) -> np.ndarray:
    """logits: (batch, classes) -> probabilities. The row's maximum is taken off first, so no exponential overflows; +inf takes all."""
    top = logits.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shifted = np.where(logits == top, 0.0, logits - top)  # inf − inf would be NaN
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)
