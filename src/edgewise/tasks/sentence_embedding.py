"""Sentence embeddings: a text in; a vector out, near to those of texts that mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgewise.data.postprocess import Embed
from edgewise.data.text import windows
from edgewise.data.text.rows import Rows
from edgewise.data.text.source import TextSource
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.tasks.text_split import TextSplit
from edgewise.tasks.text_task import TextTask
from edgewise.tasks.texts import read
from edgewise.types import Signature

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Vectors:
    """A `Goal`. A long text has the mean of its windows' vectors, each by its number of tokens.

    targets of single texts: (samples, width), the teacher's vectors. Of pairs: (samples,) int64, equal for equal second texts.
    """

    pairs: bool = False
    name: str = "sentence-embedding"
    teaches: bool = False
    metric_of_answers: str = ""

    def postprocess(self, labels: tuple[str, ...]) -> Embed:
        return Embed()

    def join(self, rows: Rows, outputs: Sequence[np.ndarray], samples: int) -> np.ndarray:
        """(samples, width); of pairs (samples, 2, width)."""
        if not self.pairs:
            return windows.weighted(rows, outputs, samples)
        found = windows.weighted(rows, outputs, 2 * samples)
        return found.reshape(samples, 2, *found.shape[1:])

    def targets(self, split: TextSplit) -> np.ndarray:
        return np.asarray(split.known)

    def row_targets(self, split: TextSplit) -> np.ndarray:
        """A window's are those of its text; of pairs the sample's number, with which nothing is learned."""
        known = self.targets(split)
        found: np.ndarray = known[split.rows.sample // 2] if self.pairs else known[split.rows.sample].astype(np.float32)
        return found

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """1 − the mean cosine to the teacher's. outputs, targets: (batch, width). Raises InvalidData where there is no teacher."""
        from torch.nn.functional import cosine_similarity

        if outputs.shape != targets.shape:
            raise InvalidData("embeddings are trained to be a teacher's: distill with weight=1")
        return 1 - cosine_similarity(outputs, targets, dim=1).mean()

    def check(self, signature: Signature, labels: tuple[str, ...]) -> None:
        """Raises InvalidModel when the model doesn't give one vector for each row."""
        output = signature.outputs[0]
        if len(output.shape) != 2:
            raise InvalidModel(
                f"the model gives {output.name} {output.shape}; a sentence embedding is (batch, width): export it with its pooling"
            )

    def as_targets(self, outputs: np.ndarray) -> np.ndarray:
        return outputs


def sentence_embedding(
    path: str | Path | TextSource | None = None,
    /,
    *,
    tokenizer: str | Path | bytes | None = None,
    text_columns: Sequence[str] = (),
    train: str | Path | None = None,
    eval: str | Path | None = None,
    as_test: Sequence[str] = (),
    metric: Literal["cosine", "recall@1"] | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    tokens: Sequence[int] = (32,),
    validation: float = 0.1,
    test: float = 0.15,
    calibration: int = 512,
    seed: int = 0,
) -> TextTask:
    """A task from texts alone, whose vectors are to be near to those of the model as it came; or from pairs that belong together.

    tokenizer: the model's tokenizer.json, or the folder that holds it.
    text_columns: where the text stands, or the two of a pair; left out, the usual names are looked for.
    train: a file to train on, in place of one path to all. eval: beside it, the one that the verdict is read from.
    as_test: splits, as the data calls them, that are the test split, as dev,test; left out, what is called test.
    metric: cosine, to the vectors of the model as it came, or recall@1: how often a text's nearest second text is its own. Left out,
    recall@1 for pairs.
    max_length: most tokens of a row; left out, what the tokenizer's files say, or 512. A longer text goes in windows.
    stride: tokens that a window shares with the one before; left out, a quarter of max_length.
    tokens: length of the inputs that are timed, or several, as 32,128.
    validation, test: the share split off where the data brings no such split.
    calibration: how many of train calibrate.
    seed: of the splits.
    """
    given = {name: value for name, value in locals().items() if name not in ("path", "metric")}
    texts = read(path, "none", apart=True, **given)
    pairs = texts.dataset.second is not None
    chosen = metric or ("recall@1" if pairs else "cosine")
    if pairs != (chosen == "recall@1"):
        raise InvalidInput(f"metric={metric!r}: recall@1 is of pairs of texts, cosine of single ones; name the columns with text_columns=")
    if texts.dataset.second is not None:
        # What is right is the second text, wherever it stands: copies of it count as well.
        _, same = np.unique(np.array(texts.dataset.second, dtype=object), return_inverse=True)
        texts = replace(texts, dataset=replace(texts.dataset, targets=same.astype(np.int64)))
    return TextTask(texts, Vectors(pairs), chosen)
