"""The adaptive coder (native/adaptive.c): no table, and a matrix's structure (dead rows and columns, large neighbours) for next to nothing.

Two strengths: `plain` takes one estimate per bit; `mixing` weighs up to six, which is some percent smaller where data is scarce or
structured, and five times slower.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from edgewise.coding import core
from edgewise.coding.cursor import Cursor, signed
from edgewise.coding.limits import LARGEST
from edgewise.coding.numbers import Shape, above, matrix, raised, whole
from edgewise.errors import InvalidInput

# With fewer elements, every way to lay the matrix out is tried.
_SMALL = 1 << 16


def _encode(values: np.ndarray, *, mixing: bool) -> bytes | None:
    numbers = whole(values)
    centre = _centre(numbers)
    if max(int(numbers.max()) - centre, centre - int(numbers.min())) > LARGEST:
        return None
    distances = _distances(numbers, centre)
    layouts = [(1, False)]
    if values.ndim > 1 and values.size < _SMALL:
        layouts = [(split, turned) for split in range(1, min(values.ndim, 8)) for turned in (False, True)]
    tried = [_coded(distances, split, turned, mixing) for split, turned in layouts]
    found = [blob for blob in tried if blob is not None]
    return signed(centre) + min(found, key=len) if found else None


def _decode(cursor: Cursor, shape: Shape, dtype: np.dtype, *, mixing: bool) -> np.ndarray:
    centre, layout = cursor.signed(), cursor.byte()
    split, turned = layout >> 1, bool(layout & 1)
    if not 1 <= split < max(len(shape), 2):
        raise InvalidInput(
            f"coded data has a layout ({layout}) that the shape {list(shape)} doesn't: it is damaged or forged; copy it again"
        )
    rows, columns = matrix(shape, split)
    if turned:
        rows, columns = columns, rows
    distances = np.empty((rows, columns), np.int32)
    core.call("adaptive_decode", cursor.rest(), rows, columns, mixing, distances)
    return raised(distances.T.ravel() if turned else distances.ravel(), centre, dtype)


encode, decode = partial(_encode, mixing=False), partial(_decode, mixing=False)
encode_mixing, decode_mixing = partial(_encode, mixing=True), partial(_decode, mixing=True)


def _coded(distances: np.ndarray, split: int, turned: bool, mixing: bool) -> bytes | None:
    """None where it would take more bytes than the numbers as they are: the models expect small ones."""
    laid = distances.reshape(matrix(distances.shape, split))
    laid = np.ascontiguousarray(laid.T if turned else laid)
    out = np.empty(laid.nbytes + 64, np.uint8)
    try:
        size = core.call("adaptive_encode", laid, *laid.shape, mixing, out)
    except InvalidInput:
        return None
    return bytes([split << 1 | turned]) + out[:size].tobytes()


def _centre(numbers: np.ndarray) -> int:
    """What counts as zero: 0 where it is about as frequent as the most frequent number, else that one (a zero point, an exponent)."""
    low, high = int(numbers.min()), int(numbers.max())
    if high - low > 1 << 16:
        return 0 if low <= 0 <= high else low
    counts = np.bincount(above(numbers, low).ravel().astype(np.int64))
    most = int(counts.argmax())
    near_zero = low <= 0 <= high and counts[-low] >= 0.8 * counts[most]
    return 0 if near_zero else low + most


def _distances(numbers: np.ndarray, centre: int) -> np.ndarray:
    wide = above(numbers, centre)
    return (
        wide.view(np.dtype(f"i{wide.itemsize}")).astype(np.int32) if wide.itemsize >= 4 else (numbers.astype(np.int32) - np.int32(centre))
    )
