"""A task on texts, whatever is asked of them: what it is asked, a `Goal` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgewise.data.dataset import SPLITS, check_split
from edgewise.data.text.preprocess import TextPreprocess
from edgewise.errors import InvalidData
from edgewise.records import DataSummary
from edgewise.tasks.text_split import Goal, TextSplit
from edgewise.tasks.texts import Texts
from edgewise.types import Inputs, Signature

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TextTask:
    """Satisfies `types.Task` and `tasks.TrainingTask`. The test split is sealed until `unsealed()`.

    predicted: by split, what a reference model gave, which stands in for targets that the data hasn't got (`with_answers`).
    lengthy: training draws each text as often as its tokens say (`by_length`).
    """

    texts: Texts
    goal: Goal
    metric: str
    sealed: bool = True
    predicted: Mapping[str, np.ndarray] = field(default_factory=dict)
    predicted_labels: tuple[str, ...] = ()
    lengthy: bool = False

    @property
    def name(self) -> str:
        return self.goal.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the classes, in the model's order; () where there are none."""
        return self.texts.dataset.labels or self.predicted_labels

    @property
    def preprocess(self) -> TextPreprocess:
        return self.texts.preprocess

    @property
    def postprocess(self) -> Any:
        """What turns outputs into answers on the device; None where nothing does."""
        return self.goal.postprocess(self.labels)

    @property
    def files(self) -> dict[str, bytes]:
        """What goes into a package beside the model: the tokenizer."""
        return self.texts.files

    def split(self, name: Literal["train", "calibration", "validation", "test"]) -> TextSplit:
        """Raises InvalidInput for an unknown split, and for the test split while it is sealed."""
        check_split(name, sealed=self.sealed)
        indices, targets = self.texts.dataset.parts[name], self.texts.dataset.targets
        known = self.predicted.get(name)
        if known is None and targets is not None and (self.goal.teaches or name not in ("train", "calibration")):
            known = targets[indices]
        return TextSplit(name, self.texts, indices, known, self.goal)

    def unsealed(self) -> TextTask:
        """The same task, whose test split may be read. For the verdict, and for nothing else."""
        return replace(self, sealed=False)

    def example_inputs(self, n: int = 1, tokens: int | None = None) -> dict[str, np.ndarray]:
        """`n` rows of real text of exactly `tokens` tokens (the task's own number unless given): time depends on it."""
        return self.texts.examples(n, tokens)

    def timed_inputs(self) -> list[dict[str, np.ndarray]]:
        """One row of each length that is to be timed; of the model's own where it fixes one."""
        return [self.texts.examples(1, length) for length in self.timed_lengths or (self.preprocess.pad_to,)]

    @property
    def timed_lengths(self) -> tuple[int, ...]:
        """Tokens of the rows that are timed; () where the model fixes one length."""
        if self.preprocess.pad_to:
            return ()
        return tuple(sorted({min(length, self.preprocess.max_length) for length in self.texts.tokens}))

    def calibration(self, n: int | None = None, *, batch_size: int = 32) -> list[Inputs]:
        """The calibration split's inputs in batches: `n` samples of it, of all lengths, or all."""
        split = self.split("calibration")
        return [inputs for inputs, _ in (split if n is None else split.every(n)).batches(batch_size)]

    @property
    def training_rows(self) -> int:
        """What an epoch goes over: a long text is several rows, and so are two that are fed apart."""
        return len(self.split("train").rows)

    def training_batches(self, *, batch_size: int, epoch: int, seed: int = 0) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        """One epoch over train (see `TextSplit.shuffled`): ({input: (batch, tokens)}, targets, None where there are none)."""
        return self.split("train").shuffled(batch_size, epoch, seed, self.lengthy)

    def by_length(self) -> TextTask:
        """The same task, whose training draws long texts more often: each by its share of all tokens (see `TextSplit.shuffled`)."""
        return replace(self, lengthy=True)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """A scalar, lower is better: the goal's."""
        return self.goal.loss(outputs, targets)

    def fingerprint(self) -> str:
        """SHA-256 over texts, targets, splits, preprocessing, goal, metric and the examples' length; what a model predicted isn't in it."""
        return self.texts.fingerprint(repr(self.goal), "accuracy" if self.metric == "agreement" else self.metric)

    def summary(self) -> DataSummary:
        """Counts and findings; no text is encoded for it."""
        samples = {name: len(part) for name, part in self.texts.dataset.parts.items()}
        source, findings = self.texts.dataset.name, self.texts.dataset.findings
        return DataSummary(self.name, self.metric, source, self.fingerprint(), samples, self.labels, findings)

    def with_input(self, name: str) -> TextTask:
        """The same task under the model's own name for its token ids."""
        return replace(self, texts=self.texts.with_input(name))

    def with_answers(self, outputs: Mapping[str, np.ndarray]) -> TextTask:
        """The same task where what a reference model gave stands for targets, by split, in the split's order.

        Of classes the metric becomes "agreement". Outputs may come one split after the other (that of test only at the verdict).
        Raises InvalidData when a count is not that split's.
        """
        for split, values in outputs.items():
            if split not in SPLITS or len(values) != len(self.texts.dataset.parts[split]):
                raise InvalidData(f"{len(values)} outputs for split {split!r}; expected {len(self.texts.dataset.parts.get(split, ()))}")
        added = {split: self.goal.as_targets(values) for split, values in outputs.items()}
        metric = self.goal.metric_of_answers or self.metric
        classes = next(iter(outputs.values())).shape[1] if metric == "agreement" else 0
        labels = self.labels or tuple(map(str, range(classes)))
        return replace(self, metric=metric, predicted={**self.predicted, **added}, predicted_labels=labels)

    def for_model(self, signature: Signature) -> TextTask:
        """The same task as a model of this signature takes it: its names for ids, mask and types, and its length where it fixes one.

        Raises InvalidModel when the model takes no tokens, or doesn't give what is asked.
        """
        self.goal.check(signature, self.labels)
        return replace(self, texts=self.texts.for_model(signature))
