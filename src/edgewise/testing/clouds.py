"""A task that takes no data: Gaussian clouds, a class each, drawn anew for every batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.types import Inputs

CLASSES, DIMENSIONS = 4, 8


@dataclass(frozen=True)
class Samples:
    """A `Split` of points, (n, 8) float32."""

    name: str
    points: np.ndarray
    targets: np.ndarray | None

    def __len__(self) -> int:
        return len(self.points)

    def batches(self, size: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        for start in range(0, len(self), size):
            chunk = slice(start, start + size)
            yield {"x": self.points[chunk]}, None if self.targets is None else self.targets[chunk]


@dataclass(frozen=True)
class Clouds:
    """Four clouds in eight dimensions; x: (batch, 8) float32. spread: of their middles. stop: the epoch in which the power goes."""

    n: int = 256
    labelled: bool = True
    stop: int | None = None
    spread: float = 1.5
    metric: str = "accuracy"
    labels: tuple[str, ...] = ()

    def draw(self, n: int, key: Any) -> tuple[np.ndarray, np.ndarray]:
        """(n, 8) float32 and their classes (n,); the same for the same key."""
        middles = np.random.default_rng(5).normal(size=(CLASSES, DIMENSIONS)) * self.spread
        generator = np.random.default_rng(key)
        targets = generator.integers(0, CLASSES, n)
        return (generator.normal(size=(n, DIMENSIONS)) + middles[targets]).astype(np.float32), targets

    def split(self, name: str) -> Samples:
        points, targets = self.draw(self.n, list(name.encode()))
        return Samples(name, points, targets if self.labelled else None)

    def training_batches(self, *, batch_size: int, epoch: int, seed: int = 0) -> Iterator[tuple[Inputs, np.ndarray | None]]:
        if epoch == self.stop:
            raise KeyboardInterrupt
        for index in range(self.n // batch_size):
            x, targets = self.draw(batch_size, (seed, epoch, index))
            yield {"x": x}, targets if self.labelled else None

    def loss(self, outputs: Any, targets: Any) -> Any:
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, targets)
