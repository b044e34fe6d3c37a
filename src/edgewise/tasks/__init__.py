"""What a model is for: data, a metric, a loss, and training's view of the data. torch comes in only when a loss is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgewise.records import DataSummary
from edgewise.tasks.image_classification import ImageClassification, image_classification
from edgewise.tasks.question_answering import question_answering
from edgewise.tasks.sentence_embedding import sentence_embedding
from edgewise.tasks.text_classification import text_classification
from edgewise.tasks.text_regression import text_regression
from edgewise.tasks.text_task import TextTask
from edgewise.types import Inputs, Signature, Task

if TYPE_CHECKING:
    import torch

__all__ = [
    "ImageClassification", "TextTask", "TrainingTask", "bound", "image_classification", "question_answering", "sentence_embedding",
    "text_classification", "text_regression",
]  # fmt: skip


class TrainingTask(Task, Protocol):
    """What the workshop asks of a task, on top of `types.Task`: yours may come from any module, as "module:function"."""

    def unsealed(self) -> TrainingTask:
        """The same task, whose test split may be read: for the verdict alone."""
        ...

    def with_input(self, name: str) -> TrainingTask:
        """The same task under a model's own name for its input."""
        ...

    def calibration(self, n: int | None = None, *, batch_size: int = 32) -> list[Inputs]: ...

    def training_batches(self, *, batch_size: int, epoch: int, seed: int = 0) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        """One epoch, shuffled and augmented by (seed, epoch): (inputs by name, targets; None where there are none to learn from)."""
        ...

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """A scalar, lower is better. outputs: what the model's first output gives for the batch."""
        ...

    def summary(self) -> DataSummary: ...


def bound(task: Any, signature: Signature) -> Any:
    """The task as a model of this signature takes it: its input's name and layout; a task without `for_model` only gets the name."""
    return task.for_model(signature) if hasattr(task, "for_model") else task.with_input(signature.inputs[0].name)
