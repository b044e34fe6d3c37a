"""One split of texts, as the model is fed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgewise.data.text.rows import Rows
from edgewise.errors import InvalidInput
from edgewise.tasks.texts import Texts
from edgewise.types import Signature

if TYPE_CHECKING:
    import torch


class Goal(Protocol):
    """What is asked of texts: what tells a task from the others. Implementations are frozen and hold no data."""

    @property
    def name(self) -> str: ...

    @property
    def teaches(self) -> bool:
        """Whether targets can be learned from; else a teacher is all that training has."""
        ...

    @property
    def metric_of_answers(self) -> str:
        """The metric where a reference model's answers stand for targets; "": the task's own."""
        ...

    def postprocess(self, labels: tuple[str, ...]) -> Any:
        """What turns outputs into answers on the device; None where nothing does."""
        ...

    def join(self, rows: Rows, outputs: Sequence[np.ndarray], samples: int) -> np.ndarray:
        """Outputs of batches of rows -> (samples, …)."""
        ...

    def targets(self, split: TextSplit) -> np.ndarray:
        """(samples,) or (samples, …) of a split that has some: what `data.metrics` holds outputs against."""
        ...

    def row_targets(self, split: TextSplit) -> np.ndarray:
        """(rows, …), what `loss` holds a batch's outputs against."""
        ...

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor: ...

    def check(self, signature: Signature, labels: tuple[str, ...]) -> None:
        """Raises InvalidModel for a model that doesn't give what is asked."""
        ...

    def as_targets(self, outputs: np.ndarray) -> np.ndarray:
        """What a reference model gave, as targets for data that has none."""
        ...


@dataclass(frozen=True, eq=False)
class TextSplit:
    """Samples at `indices`, in that order; a long text is several rows of a batch, which `combined` makes one answer of again.

    known: (samples, …) what the data (or a reference model) says of each; None when unlabelled.
    """

    name: str
    texts: Texts
    indices: np.ndarray
    known: np.ndarray | None
    goal: Goal

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def rows(self) -> Rows:
        return self.texts.rows(self.indices)

    @cached_property
    def targets(self) -> np.ndarray | None:
        """(samples, …); None when unlabelled."""
        return None if self.known is None else self.goal.targets(self)

    @cached_property
    def row_targets(self) -> np.ndarray | None:
        """(rows, …): a sample's windows have its target each, or that of their part."""
        return None if self.known is None else self.goal.row_targets(self)

    def batches(self, size: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        """Yield (inputs, a target for each row); inputs are (≤ size, tokens), filled up to the batch's longest row."""
        for chosen in self.rows.calls(size, self.texts.preprocess):
            yield self._fed(chosen)

    def shuffled(
        self, size: int, epoch: int, seed: int, by_length: bool = False
    ) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        """One epoch of training: rows of like length in a batch (of one length where the model takes no mask); by (seed, epoch).

        A batch that isn't full is left out unless it is the only one; another epoch draws other rows to leave out.
        by_length: as many rows, but drawn with replacement, each as often on average as its share of all tokens says.
        """
        if size < 1:
            raise InvalidInput(f"batch_size={size}: give 1 or more")
        generator = np.random.default_rng((seed, epoch))
        count = len(self.rows)
        full = count - count % size or count
        lengths = self.rows.lengths
        drawn = generator.choice(count, full, p=lengths / lengths.sum()) if by_length else generator.permutation(count)[:full]
        # Equally long ones stay in the order of the draw, so that they have other neighbours each time.
        cut = self._cut(drawn[np.argsort(lengths[drawn], kind="stable")], size)
        for place in generator.permutation(np.arange(len(cut))):
            yield self._fed(cut[place])

    def batch_count(self, size: int) -> int:
        """Batches of an epoch, one more where the last isn't full. A long text is several rows; so is a pair whose texts are fed apart."""
        return len(self._cut(np.argsort(self.rows.lengths, kind="stable"), size))

    def _cut(self, order: np.ndarray, size: int) -> list[np.ndarray]:
        """Rows sorted by their length in batches."""
        preprocess, runs = self.texts.preprocess, [order]
        if not preprocess.mask and not preprocess.pad_to:
            runs = np.split(order, np.flatnonzero(np.diff(self.rows.lengths[order])) + 1)
        return [run[start : start + size] for run in runs for start in range(0, len(run), size)]

    def _fed(self, chosen: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        inputs = self.rows.inputs(chosen, self.texts.preprocess)
        return inputs, None if self.row_targets is None else self.row_targets[chosen]

    def combined(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Outputs of all `batches`, in order -> (samples, …)."""
        return self.goal.join(self.rows, parts, len(self))

    def every(self, n: int) -> TextSplit:
        """`n` samples of it, evenly spaced: it is sorted by length."""
        chosen = np.unique(np.linspace(0, len(self.indices) - 1, min(n, len(self.indices))).round().astype(np.int64))
        return replace(self, indices=self.indices[chosen], known=None if self.known is None else self.known[chosen])
