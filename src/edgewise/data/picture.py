"""Read one picture file, or its bytes, to uint8 (height, width, channels): channels is 1 for grey and 3 for colour.

What a camera or an editor may have done to a file is undone here and nowhere else: rotation tags are applied, transparency is laid
on white, palettes are looked up, 16-bit greys are scaled to 8 bits (not clipped, as a plain conversion would), and of an animation the
first frame is read.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from edgewise.errors import InvalidData

# Formats whose decoders only decode: EPS would start Ghostscript, and others fetch or nest.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"})

# 8,192 × 8,192. The header states the size, so a bomb is refused before anything of that size is allocated.
MAX_PIXELS = 2**26

_TOO_BIG = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError)


def read_picture(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The picture in `source` (a path, or the file's bytes) as uint8 (height, width, 1 or 3).

    Raises InvalidData when it is missing, not a picture, truncated, of a format or pixel type we don't read, or over `max_pixels`.
    """
    what = f"the {len(source)} bytes given" if isinstance(source, bytes) else str(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise InvalidData(_bomb(what, f"{width}×{height} pixels", max_pixels))
            picture.load()
            return _pixels(picture, what)
    except InvalidData:
        raise
    except FileNotFoundError as error:
        raise InvalidData(f"{what}: there is no such file; check the path") from error
    except IsADirectoryError as error:
        raise InvalidData(f"{what} is a folder; give one picture file") from error
    except UnidentifiedImageError as error:
        raise InvalidData(f"{what}: no picture that we read; give one of {', '.join(FORMATS)}") from error
    except _TOO_BIG as error:
        raise InvalidData(_bomb(what, str(error), max_pixels)) from error
    except _DAMAGED as error:
        # Pillow's decoders raise all of these on damaged files, depending on the byte that is wrong.
        raise InvalidData(f"{what}: damaged or truncated ({error}); replace it or remove it") from error


def _bomb(what: str, size: str, max_pixels: int) -> str:
    return f"{what}: {size}; at most {max_pixels} pixels are decoded, so scale it down first"


def _pixels(picture: Image.Image, what: str) -> np.ndarray:
    turned = ImageOps.exif_transpose(picture)
    mode = turned.mode
    if mode == "F":
        raise InvalidData(f"{what}: floating-point pixels have no fixed range; save it with 8 or 16 bits a channel")
    if mode.startswith("I"):
        return _sixteen_bit(np.asarray(turned), what)
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in turned.info:
        return _on_white(turned.convert("RGBA"), grey=mode in ("L", "LA", "La"))
    if mode in ("1", "L"):
        return np.array(turned.convert("L"), dtype=np.uint8)[:, :, None]
    return np.array(turned.convert("RGB"), dtype=np.uint8)


def _sixteen_bit(values: np.ndarray, what: str) -> np.ndarray:
    """Grey with more than 8 bits, to 8: round(value · 255 / 65535). (height, width) -> uint8 (height, width, 1)."""
    if values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
        raise InvalidData(f"{what}: 32-bit greys have no fixed range; save it with 8 or 16 bits a channel")
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)[:, :, None]


def _on_white(picture: Image.Image, *, grey: bool) -> np.ndarray:
    """Transparent pixels hide colours that nobody sees; what is seen on a page is the picture over white."""
    page = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    page.alpha_composite(picture)
    return np.array(page.convert("L"), dtype=np.uint8)[:, :, None] if grey else np.array(page.convert("RGB"), dtype=np.uint8)
