"""Augmentation of a batch of uint8 images, in numpy, drawn from one generator so that a seed fixes it."""

from __future__ import annotations

import numpy as np


def shift(images: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    """Move every image by up to `most` pixels in both directions, zeros at the border (pad and crop, He et al. 2016, 4.2).

    images: (batch, height, width, channels) uint8; a new array of the same shape is returned.
    """
    if most == 0:
        return images
    batch, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    top = generator.integers(0, 2 * most + 1, (batch,))
    left = generator.integers(0, 2 * most + 1, (batch,))
    rows = top[:, None] + np.arange(height)
    columns = left[:, None] + np.arange(width)
    return padded[np.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]


def flip(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Mirror half of the images left to right. images: (batch, height, width, channels)."""
    mirrored = images.copy()
    chosen = generator.random(len(images)) < 0.5
    mirrored[chosen] = mirrored[chosen, :, ::-1]
    return mirrored


def erase(images: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Blank a random rectangle of up to `share` of the area in half of the images (random erasing, Zhong et al. 2020)."""
    if share == 0:
        return images
    batch, height, width, _ = images.shape
    area = generator.uniform(0.02, share, (batch,)) * height * width
    aspect = np.exp(generator.uniform(np.log(0.3), np.log(1 / 0.3), (batch,)))
    tall = np.minimum(np.sqrt(area * aspect), height - 1).astype(int)[:, None]
    wide = np.minimum(np.sqrt(area / aspect), width - 1).astype(int)[:, None]
    top = (generator.random((batch, 1)) * (height - tall)).astype(int)
    left = (generator.random((batch, 1)) * (width - wide)).astype(int)
    row, column = np.arange(height)[None], np.arange(width)[None]
    inside = ((row >= top) & (row < top + tall))[:, :, None] & ((column >= left) & (column < left + wide))[:, None, :]
    inside &= (generator.random((batch,)) < 0.5)[:, None, None]
    return np.where(inside[..., None], 0, images).astype(images.dtype)
