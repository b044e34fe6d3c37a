"""Reading one picture, as whole, odd and damaged files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgewise.data.picture import read_picture
from edgewise.errors import InvalidData


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_grey_and_colour_come_back_as_they_are(tmp_path: Path) -> None:
    grey, colour = noise(5, 7), noise(5, 7, 3)
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(grey)))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), grey[:, :, None])
    np.testing.assert_array_equal(read_picture(encoded(Image.fromarray(colour))), colour)
    assert read_picture(encoded(Image.fromarray(noise(16, 16, 3)), "JPEG")).shape == (16, 16, 3)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 128, 257, 32896, 65535]], dtype=np.uint16)
    expected = np.round(values.astype(float) * 255 / 65535).astype(np.uint8)
    np.testing.assert_array_equal(read_picture(encoded(Image.fromarray(values)))[:, :, 0], expected)


def test_transparency_is_laid_on_white() -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = (0, 255, 128)
    read = read_picture(encoded(Image.fromarray(rgba, "RGBA")))[0]
    assert read[0].tolist() == [255, 255, 255]  # the colour hidden under full transparency doesn't show
    assert read[1].tolist() == [200, 0, 0]
    share = 128 / 255
    np.testing.assert_allclose(read[2], np.array([200, 0, 0]) * share + 255 * (1 - share), atol=1)
    assert read_picture(encoded(Image.new("LA", (2, 2), (10, 0)))).tolist() == [[[255], [255]], [[255], [255]]]
    assert read_picture(encoded(Image.new("L", (2, 2), 10), transparency=10)).tolist() == [[[255], [255]], [[255], [255]]]


def test_palette_bilevel_and_cmyk() -> None:
    colour = noise(4, 4, 3)
    palette = Image.fromarray(colour).quantize(16)
    np.testing.assert_array_equal(read_picture(encoded(palette)), np.asarray(palette.convert("RGB")))
    assert set(read_picture(encoded(Image.fromarray(noise(4, 4)).convert("1"))).ravel()) <= {0, 255}
    assert read_picture(encoded(Image.fromarray(colour).convert("CMYK"), "JPEG")).shape == (4, 4, 3)


def test_a_rotation_tag_is_applied() -> None:
    picture = Image.fromarray(np.zeros((8, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    assert read_picture(encoded(picture, "JPEG", exif=exif)).shape == (16, 8, 3)


def test_of_an_animation_the_first_frame() -> None:
    frames = [Image.new("L", (3, 3), value) for value in (10, 200)]
    assert read_picture(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))[0, 0, 0] == 10


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims `width` × `height`."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])  # over ours, over Pillow's warning, over Pillow's error
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(InvalidData, match="scale it down"):
        read_picture(bomb(side, side))


def test_what_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no such file"):
        read_picture(tmp_path / "missing.png")
    with pytest.raises(InvalidData, match="folder"):
        read_picture(tmp_path)
    with pytest.raises(InvalidData, match="no picture"):
        read_picture(b"hello")
    with pytest.raises(InvalidData, match="no picture"):
        read_picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")  # would start Ghostscript
    with pytest.raises(InvalidData, match="range"):
        read_picture(encoded(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_truncated_files_are_named(kind: str) -> None:
    whole = encoded(Image.fromarray(noise(40, 40, 3)), kind)
    with pytest.raises(InvalidData):
        read_picture(whole[: len(whole) // 2])


@pytest.mark.filterwarnings("ignore")  # Pillow warns about what it meets on the way
@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "PPM", "WEBP"]),
    place=st.floats(0, 1),
    value=st.integers(0, 255),
    cut=st.booleans(),
)
def test_damage_gives_a_picture_or_our_error(kind: str, place: float, value: int, cut: bool) -> None:
    whole = bytearray(encoded(Image.fromarray(noise(12, 12, 3)), kind))
    at = int(place * (len(whole) - 1))
    whole[at] = value
    try:
        read = read_picture(bytes(whole[:at] if cut else whole))
    except InvalidData:
        return
    assert read.dtype == np.uint8 and read.ndim == 3 and read.shape[2] in (1, 3)
