"""From a picture to what a model is fed: the one implementation, in training, in measuring and on the device.

It is written as data: the package's manifest carries it, and `run` on a device computes the very same floats from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image

from edgewise.errors import InvalidData, InvalidInput

MAX_SIDE = 8192

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class ImagePreprocess:
    """uint8 (height, width, channels) of any size -> float32 of `size`: geometry, channels, then (x · scale − mean) / std.

    size: (height, width) that the model takes.
    resize: "stretch" to exactly `size`, or "crop": the shorter side to size / crop, the aspect kept, and the centre cut out.
    crop: with "crop", the share that the cut keeps (ImageNet's habit is 0.875).
    interpolation: Pillow's filters, which average over the whole area when they shrink.
    mean, std: one for each of `channels`, in units of x · scale. (x − 127) / 128 is scale=1, mean=(127,), std=(128,).
    layout: "NCHW" or "NHWC", what the model takes.
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 1 / 255
    resize: Literal["stretch", "crop"] = "stretch"
    crop: float = 1.0
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    kind: Literal["image"] = "image"

    def __post_init__(self) -> None:
        # A manifest from elsewhere comes through here too, so everything that allocates or divides is bounded.
        if len(self.size) != 2 or not all(1 <= side <= MAX_SIDE for side in self.size):
            raise InvalidInput(f"size={self.size}: give (height, width), each from 1 to {MAX_SIDE}")
        if self.channels not in (1, 3):
            raise InvalidInput(f"channels={self.channels}: give 1 (grey) or 3 (colour)")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels or not all(math.isfinite(value) for value in values):
                raise InvalidInput(f"{name}={values}: give {self.channels} finite number(s), one for each channel")
        if not all(value > 0 for value in self.std):
            raise InvalidInput(f"std={self.std}: give numbers above zero (a constant channel: 1.0)")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise InvalidInput(f"scale={self.scale}: give a number above zero, 1/255 for 0..1")
        if not 0.1 <= self.crop <= 1:
            raise InvalidInput(f"crop={self.crop}: give the share that the centre cut keeps, from 0.1 to 1")
        for name, value, known in (
            ("resize", self.resize, ("stretch", "crop")),
            ("interpolation", self.interpolation, tuple(_FILTERS)),
            ("layout", self.layout, ("NCHW", "NHWC")),
        ):
            if value not in known:
                raise InvalidInput(f"{name}={value!r}: give one of {', '.join(known)}")

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """Shape of one sample as the model takes it, without the batch axis."""
        height, width = self.size
        return (self.channels, height, width) if self.layout == "NCHW" else (height, width, self.channels)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """One picture, uint8 (height, width, 1 or 3) -> float32 `sample_shape`."""
        return self.apply_batch([image])[0]

    def apply_batch(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """uint8 (n, height, width, 1 or 3), or n pictures of any sizes -> float32 (n, *sample_shape)."""
        return self.normalise(self.fit(images))

    def fit(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Geometry and channels only: -> uint8 (n, height, width, channels). Augmentation for training works on this."""
        if isinstance(images, np.ndarray) and images.ndim == 4:
            _check(images.dtype, images.shape[1:])
            if images.shape[1:3] == self.size:
                return _to_channels(images, self.channels)
        if len(images) == 0:
            return np.zeros((0, *self.size, self.channels), dtype=np.uint8)
        return np.stack([self._fit_one(image) for image in images])

    def normalise(self, batch: np.ndarray) -> np.ndarray:
        """uint8 (n, height, width, channels) as `fit` gives it -> float32 (n, *sample_shape).

        A byte has 256 values, so it is a table of floats: computed once in float64, and the same bits on every device
        (arithmetic on whole arrays differs in the last bit where a CPU fuses multiply and add).
        """
        table = _table(self.scale, self.mean, self.std)
        if self.layout == "NHWC":
            return np.stack([table[c][batch[..., c]] for c in range(self.channels)], axis=-1)
        return np.stack([table[c][batch[..., c]] for c in range(self.channels)], axis=1)

    def _fit_one(self, image: np.ndarray) -> np.ndarray:
        _check(image.dtype, image.shape)
        image = _to_channels(image, self.channels)
        height, width = self.size
        if self.resize == "stretch":
            return _resized(image, height, width, self.interpolation)
        # The factor that makes both sides cover size / crop: the shorter one meets it, and neither falls below the cut.
        factor = max(height / image.shape[0], width / image.shape[1]) / self.crop
        tall, wide = max(height, round(image.shape[0] * factor)), max(width, round(image.shape[1] * factor))
        top, left = (tall - height) // 2, (wide - width) // 2
        # `box` cuts before it scales, so an extreme aspect never makes a huge picture in between.
        down, across = image.shape[0] / tall, image.shape[1] / wide
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        return _resized(image, height, width, self.interpolation, box)


def statistics(batches: Iterable[np.ndarray], channels: int, scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in units of x · scale, over batches of uint8 (n, height, width, channels).

    From the counts of the 256 values: exact, and without a float copy of the data. A constant channel gets 1 as its deviation.
    """
    counts = np.zeros((channels, 256))
    for batch in batches:
        for channel in range(channels):
            counts[channel] += np.bincount(batch[..., channel].ravel(), minlength=256)
    values = np.arange(256) * scale
    shares = counts / counts.sum(axis=1, keepdims=True)
    means = shares @ values
    deviations = np.sqrt((shares * (values - means[:, None]) ** 2).sum(axis=1))
    return tuple(means.tolist()), tuple(np.where(deviations > 1e-6 * scale, deviations, 1.0).tolist())


@lru_cache(maxsize=16)
def _table(scale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """(channels, 256) float32: what each byte becomes."""
    values = np.arange(256, dtype=np.float64) * scale
    table = ((values[None, :] - np.array(mean)[:, None]) / np.array(std)[:, None]).astype(np.float32)
    table.setflags(write=False)
    return table


def _check(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3) or 0 in shape:
        raise InvalidData(f"a picture of {dtype} {shape}: give uint8 (height, width, 1 or 3)")


def _to_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Grey repeated, or colour to luma: ITU-R BT.601, in Pillow's integer arithmetic, which maps (v, v, v) to v exactly."""
    have = images.shape[-1]
    if have == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=-1)
    weighted = images @ np.array([19595, 38470, 7471], dtype=np.uint32)
    return ((weighted + 0x8000) >> 16).astype(np.uint8)[..., None]


def _resized(
    image: np.ndarray, height: int, width: int, interpolation: str, box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    if image.shape[:2] == (height, width) and box in (None, (0.0, 0.0, float(width), float(height))):
        return image
    grey = image.shape[2] == 1
    picture = Image.fromarray(image[:, :, 0] if grey else image)
    resized = np.asarray(picture.resize((width, height), _FILTERS[interpolation], box=box))
    return resized[:, :, None] if grey else resized
