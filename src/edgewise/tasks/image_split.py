"""One split of pictures, as the model is fed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgewise.data.pictures import Pictures
from edgewise.data.preprocess import ImagePreprocess
from edgewise.errors import InvalidInput


@dataclass(frozen=True)
class ImageSplit:
    """Pictures at `indices`, in that order, under the model's input name. `targets` lie in the same order; None when unlabelled."""

    name: str
    targets: np.ndarray | None
    pictures: Pictures
    indices: np.ndarray
    preprocess: ImagePreprocess
    input: str

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, size: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        """Yield ({input: float32 (≤ size, *sample_shape)}, targets); the last batch may be smaller. Only one batch is held at a time."""
        if size < 1:
            raise InvalidInput(f"batch size {size}: give 1 or more")
        for start in range(0, len(self.indices), size):
            chunk = slice(start, start + size)
            pixels = self.preprocess.apply_batch(self.pictures.take(self.indices[chunk]))
            yield {self.input: pixels}, None if self.targets is None else self.targets[chunk]
