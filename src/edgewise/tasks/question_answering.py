"""Extractive question answering: a question and a context in; the span of the context that answers it out (SQuAD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgewise.data.postprocess import Extract
from edgewise.data.text import windows
from edgewise.data.text.columns import Answer
from edgewise.data.text.rows import Rows
from edgewise.data.text.source import TextSource
from edgewise.data.text.squad import Question
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.tasks.text_split import TextSplit
from edgewise.tasks.text_task import TextTask
from edgewise.tasks.texts import read
from edgewise.types import Signature

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Spans:
    """A `Goal`. targets: (samples,) of `squad.Question`. The logits of a long context's windows stand side by side; the best span counts.

    nothing: "no answer" may be said, as in SQuAD 2.0.
    """

    nothing: bool = False
    name: str = "question-answering"
    teaches: bool = True
    metric_of_answers: str = ""

    def postprocess(self, labels: tuple[str, ...]) -> Extract:
        return Extract(nothing=self.nothing)

    def join(self, rows: Rows, outputs: Sequence[np.ndarray], samples: int) -> np.ndarray:
        return windows.side_by_side(rows, outputs, samples)

    def targets(self, split: TextSplit) -> np.ndarray:
        """The rows are read when an answer is: whether a split has targets costs no encoding."""
        found = np.empty(len(split), dtype=object)
        contexts = [split.texts.dataset.texts(split.indices[place : place + 1])[0][1] for place in range(len(split))]
        for place, (answers, context) in enumerate(zip(split.known if split.known is not None else (), contexts, strict=True)):
            found[place] = Question(context, partial(_rows_of, split, place), tuple(each.text for each in answers), self.nothing)
        return found

    def row_targets(self, split: TextSplit) -> np.ndarray:
        """(rows, 2) int64: the tokens where the first answer begins and ends; the row's first token where it isn't whole in this window."""
        found = np.zeros((len(split.rows), 2), np.int64)
        for row, sample in enumerate(split.rows.sample):
            answers: tuple[Answer, ...] = split.known[sample] if split.known is not None else ()
            if answers and answers[0].start >= 0:
                found[row] = _tokens(split.rows.span(row), answers[0])
        return found

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross entropy over tokens, mean of start and end (Devlin et al. 2019, 4.2). outputs: (batch, tokens, 2); targets: (batch, 2)."""
        from torch.nn.functional import cross_entropy

        return (cross_entropy(outputs[..., 0], targets[:, 0]) + cross_entropy(outputs[..., 1], targets[:, 1])) / 2

    def check(self, signature: Signature, labels: tuple[str, ...]) -> None:
        """Raises InvalidModel when the model doesn't give two numbers for each token in one output."""
        output = signature.outputs[0]
        if len(output.shape) != 3 or output.shape[2] != 2:
            given = ", ".join(f"{spec.name} {spec.shape}" for spec in signature.outputs)
            raise InvalidModel(
                f"the model gives {given}; question answering expects one output (batch, tokens, 2), start and end logits side by side"
            )

    def as_targets(self, outputs: np.ndarray) -> np.ndarray:
        raise InvalidData("the questions have no answers, and a model's own can't stand for them; name the column with label_column=")


def _rows_of(split: TextSplit, place: int) -> tuple[np.ndarray, tuple[int, ...]]:
    return split.rows.of(place)


def _tokens(span: np.ndarray, answer: Answer) -> tuple[int, int]:
    """The tokens of a row that hold the answer's first and last character; (0, 0) where the row doesn't have both. No token is a space."""
    start = answer.start + len(answer.text) - len(answer.text.lstrip())
    end = answer.start + len(answer.text.rstrip())
    first = np.flatnonzero((span[:, 0] <= start) & (start < span[:, 1]))
    last = np.flatnonzero((span[:, 0] < end) & (end <= span[:, 1]))
    return (int(first[0]), int(last[-1])) if len(first) and len(last) else (0, 0)


def question_answering(
    path: str | Path | TextSource | None = None,
    /,
    *,
    tokenizer: str | Path | bytes | None = None,
    text_columns: Sequence[str] = (),
    label_column: str = "",
    train: str | Path | None = None,
    eval: str | Path | None = None,
    as_test: Sequence[str] = (),
    metric: Literal["answer-f1", "exact"] = "answer-f1",
    nothing: bool | None = None,
    max_length: int | None = 384,
    stride: int | None = 128,
    tokens: Sequence[int] = (128,),
    validation: float = 0.1,
    test: float = 0.15,
    calibration: int = 512,
    seed: int = 0,
) -> TextTask:
    """A task from questions, contexts and answers that are spans of them: SQuAD's json, or columns (see `data.text.files`).

    tokenizer: the model's tokenizer.json, or the folder that holds it.
    text_columns: where question and context stand, in this order; left out, the usual names are looked for.
    label_column: where the answers stand; left out, the same.
    train: a file to train on, in place of one path to all. eval: beside it, the one that the verdict is read from.
    as_test: splits, as the data calls them, that are the test split, as dev,test; left out, what is called test.
    metric: answer-f1 or exact, by SQuAD's official rules.
    nothing: whether "no answer" may be said; left out, whether a question of train has none.
    max_length: most tokens of a row. A longer context goes in windows.
    stride: tokens that a window shares with the one before.
    tokens: length of the inputs that are timed, or several, as 32,128.
    validation, test: the share split off where the data brings no such split.
    calibration: how many of train calibrate.
    seed: of the splits.
    """
    given = {name: value for name, value in locals().items() if name not in ("path", "metric", "nothing")}
    texts = read(path, "answer", **given)
    if texts.dataset.second is None:
        raise InvalidInput(f"{texts.dataset.name} has one text a sample; question answering takes two: name them with text_columns=")
    answers = texts.dataset.targets
    if nothing is None:
        nothing = answers is not None and any(not answers[i] for i in texts.dataset.parts["train"])
    return TextTask(texts, Spans(nothing), metric)
