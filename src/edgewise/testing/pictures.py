"""Pictures that a tiny net learns in an epoch or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np

QUARTERS = 4


def quarters(count: int, side: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise with one bright quarter, which is the class: (count, side, side) uint8 and (count,) int64. side: even."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, QUARTERS, count)
    images = generator.integers(0, 120, (count, side, side), dtype=np.uint8)
    half = side // 2
    for image, label in zip(images, labels, strict=True):
        top, left = half * (label // 2), half * (label % 2)
        image[top : top + half, left : left + half] += 100
    return images, labels


def kept(path: Path, count: int, side: int = 12, **more: object) -> Path:
    """`quarters` as an .npz that `tasks.image_classification` reads; more: further arrays in it."""
    images, labels = quarters(count, side)
    np.savez(path, images=images, labels=labels, **more)  # type: ignore[arg-type]  # its stub knows no names of arrays
    return path
