"""Preprocessing against the plain formula, Pillow's own resize-then-crop, and its own single-picture form."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgewise.data.preprocess import ImagePreprocess, statistics
from edgewise.errors import InvalidData, InvalidInput

GREY = ImagePreprocess(size=(28, 28), channels=1, mean=(0.1307,), std=(0.3081,))
COLOUR = ImagePreprocess(size=(24, 20), channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize="crop", crop=0.875)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_the_formula() -> None:
    images = noise(5, 28, 28, 1)
    expected = ((images / 255 - 0.1307) / 0.3081).transpose(0, 3, 1, 2)
    got = GREY.apply_batch(images)
    assert got.dtype == np.float32 and got.shape == (5, 1, 28, 28)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_efficientnet_lite_scaling() -> None:
    lite = ImagePreprocess(size=(2, 2), channels=3, mean=(127.0,) * 3, std=(128.0,) * 3, scale=1.0, layout="NHWC")
    images = noise(1, 2, 2, 3)
    np.testing.assert_array_equal(lite.apply_batch(images), ((images.astype(np.float32) - 127) / 128))


def test_one_by_one_gives_the_same_bits_as_a_batch() -> None:
    images = noise(9, 28, 28, 1)
    np.testing.assert_array_equal(GREY.apply_batch(images), np.stack([GREY.apply(image) for image in images]))
    many = [noise(30, 50, 3), noise(60, 21, 3), noise(24, 20, 1)]
    np.testing.assert_array_equal(COLOUR.apply_batch(many), np.stack([COLOUR.apply(image) for image in many]))


def test_crop_is_resize_then_centre_crop() -> None:
    image = noise(90, 64, 3)
    square = ImagePreprocess(size=(28, 28), channels=3, mean=(0.0,) * 3, std=(1.0,) * 3, resize="crop", crop=0.875)
    whole = Image.fromarray(image).resize((32, 45), Image.Resampling.BILINEAR)  # the shorter side, 64, to 28 / 0.875
    expected = np.asarray(whole.crop((2, 8, 30, 36)))
    assert np.abs(square.fit([image])[0].astype(int) - expected).max() <= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.sampled_from([1, 3]), st.sampled_from(["stretch", "crop"]), st.sampled_from([1, 3]))
def test_every_shape_is_brought_to_the_same(height: int, width: int, have: int, resize: str, channels: int) -> None:
    chosen = ImagePreprocess(size=(9, 13), channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels, resize=resize, crop=0.8)
    image = np.full((height, width, have), 77, dtype=np.uint8)
    got = chosen.apply(image)
    assert got.shape == (channels, 9, 13)
    np.testing.assert_allclose(got, (77 / 255 - 0.5) / 0.5, rtol=1e-5)  # a constant stays one, also through luma


def test_an_extreme_aspect_makes_no_giant() -> None:
    assert COLOUR.fit([np.zeros((1, 5000, 3), dtype=np.uint8)]).shape == (1, 24, 20, 3)


def test_luma_is_pillows() -> None:
    image = noise(6, 6, 3)
    grey = ImagePreprocess(size=(6, 6), channels=1, mean=(0.0,), std=(1.0,))
    np.testing.assert_array_equal(grey.fit([image])[0, :, :, 0], np.asarray(Image.fromarray(image).convert("L")))


def test_it_survives_the_manifest() -> None:
    for each in (GREY, COLOUR):
        assert msgspec.json.decode(msgspec.json.encode(each), type=ImagePreprocess) == each
    record = msgspec.to_builtins(GREY) | {"size": [10**6, 10**6]}
    with pytest.raises(msgspec.ValidationError, match="size="):
        msgspec.convert(record, ImagePreprocess)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"size": (0, 4)}, "size="),
        ({"channels": 2}, "channels="),
        ({"mean": (0.1, 0.2)}, "mean="),
        ({"std": (0.0,)}, "std="),
        ({"std": (float("nan"),)}, "std="),
        ({"scale": 0.0}, "scale="),
        ({"crop": 0.0}, "crop="),
        ({"layout": "CHWN"}, "layout="),
        ({"resize": "pad"}, "resize="),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        ImagePreprocess(**({"size": (4, 4), "channels": 1, "mean": (0.0,), "std": (1.0,)} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 1)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 1), np.uint8)]
)
def test_wrong_pictures_are_refused(image: np.ndarray) -> None:
    with pytest.raises(InvalidData, match="uint8"):
        GREY.apply(image)


def test_statistics_are_numpys() -> None:
    images = noise(50, 6, 7, 3)
    images[..., 2] = 9
    mean, std = statistics([images[:20], images[20:]], 3, 1 / 255)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], (images[..., :2] / 255).std(axis=(0, 1, 2)), rtol=1e-9)
    assert std[2] == 1.0  # a constant channel isn't divided by zero
