"""An array in the fewest bytes for whoever has another one of its shape and kind: the weights of a model before it was trained on.

Each method says from the known array what is expected, in whole numbers; coded is how far off that is. Where the new values lie on a grid
or are few (weights that were made small), each known value is expected at the nearest point of the *new* grid: so a step that moved a
little costs nothing but itself, and the known array needs no grid at all. Quantized integers whose scale moved are expected in proportion,
by row or by column. All arithmetic that a decoder repeats is in integers, or in single IEEE 754 operations of float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgewise.coding import chooser, grid
from edgewise.coding.cursor import Cursor, framed
from edgewise.coding.numbers import patterns, unsigned
from edgewise.coding.palette import COLOURS
from edgewise.errors import InvalidInput

# What methods are compared by: the coder that does best on differences. The best method's are then coded by every coder.
_COMPARED_BY = ("constant", "rans", "adaptive")
# Mixing wins where data is scarce and says something; of more or larger numbers it costs time, also the device's that decodes them.
_SCARCE, _SMALL = 1 << 16, 1 << 15
_SCALE_BITS = 14
_LARGEST_SCALE = (1 << _SCALE_BITS) // 4
_FIRST, _LAST = 0, -1
_EXACT = float(1 << 53)


@dataclass(frozen=True)
class Method:
    """encode: (values, known) -> (its parameters, what is expected, what is), or None where it can't. decode: (cursor, known) -> (expected,
    a function from what is to values). What is and what is expected are whole numbers of one kind; their difference wraps around.
    """

    number: int
    encode: Callable[[np.ndarray, np.ndarray], tuple[bytes, np.ndarray, np.ndarray] | None]
    decode: Callable[[Cursor, np.ndarray], tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]]


def encode(values: np.ndarray, known: np.ndarray) -> bytes:
    """`values` for whoever has `known`, lossless. Both of one shape and dtype, elements of 1, 2, 4 or 8 bytes. Raises InvalidInput."""
    _check(values, known)
    if np.array_equal(patterns(values), patterns(known)):
        return bytes([_SAME])
    alone = bytes([_ALONE]) + chooser.encode(values, coders=_coders(values))
    best, chosen = len(alone), None
    for method in METHODS:
        told = method.encode(values, known)
        if told is None:
            continue
        parameters, expected, found = told
        off = _off(found, expected)
        size = len(parameters) + len(chooser.encode(off, coders=_COMPARED_BY))
        if size < best:
            best, chosen = size, (method.number, parameters, off)
    if chosen is None:
        return alone
    number, parameters, off = chosen
    return min(alone, bytes([number]) + parameters + chooser.encode(off, coders=_coders(off)), key=len)


def decode(data: bytes | memoryview, known: np.ndarray) -> np.ndarray:
    """What `encode` was given. Allocates in proportion to `known`. Raises InvalidInput for damage, where that shows."""
    unsigned(known.dtype)
    cursor = Cursor(data)
    number = cursor.byte()
    if number == _SAME:
        cursor.end()
        return known.copy()
    if number == _ALONE:
        return chooser.decode(cursor.rest(), known.shape, known.dtype)
    method = next((each for each in METHODS if each.number == number), None)
    if method is None:
        raise InvalidInput(f"coded data begins with {number}, which names no method; it is damaged, or written by a newer edgewise")
    expected, finish = method.decode(cursor, known)
    off = chooser.decode(cursor.rest(), known.shape, np.dtype(f"i{expected.itemsize}"))
    return finish((patterns(expected) + patterns(off)).view(expected.dtype)).reshape(known.shape)


_SAME, _ALONE = 0, 1


def _coders(values: np.ndarray) -> tuple[str, ...]:
    quick = (*chooser.FAST, "adaptive")
    if values.dtype.kind not in "iu" or values.size > _SCARCE:
        return quick
    return chooser.ALL if int(values.min(initial=0)) > -_SMALL and int(values.max(initial=0)) < _SMALL else quick


def _off(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return (patterns(found) - patterns(expected)).view(f"i{expected.itemsize}")


def _check(values: np.ndarray, known: np.ndarray) -> None:
    unsigned(values.dtype)
    if (values.shape, values.dtype) != (known.shape, known.dtype):
        raise InvalidInput(
            f"the array is {values.dtype} {list(values.shape)}, the known one {known.dtype} {list(known.shape)}; give two of a kind"
        )


def _in_order(values: np.ndarray) -> np.ndarray:
    """Whole numbers in the values' order: of floats, neighbours are one apart, across zero too."""
    if values.dtype.kind in "iu":
        return values
    bits = patterns(values).view(f"i{values.itemsize}")
    return np.where(bits < 0, bits ^ np.iinfo(bits.dtype).max, bits)


def _encode_moved(values: np.ndarray, known: np.ndarray) -> tuple[bytes, np.ndarray, np.ndarray]:
    return b"", _in_order(known), _in_order(values)


def _decode_moved(cursor: Cursor, known: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    def finish(found: np.ndarray) -> np.ndarray:
        if known.dtype.kind in "iu":
            return found
        return np.where(found < 0, found ^ np.iinfo(found.dtype).max, found).view(known.dtype)

    return _in_order(known), finish


def _encode_scaled(values: np.ndarray, known: np.ndarray, *, axis: int) -> tuple[bytes, np.ndarray, np.ndarray] | None:
    """The factor of each place along `axis` is what fits best (least squares), in units of 2**-14."""
    if values.dtype not in (np.int8, np.uint8, np.int16) or values.ndim < 2:
        return None
    old, new = _by_place(known, axis).astype(np.float64), _by_place(values, axis).astype(np.float64)
    power = (old * old).sum(axis=1)
    factors = np.divide((old * new).sum(axis=1), power, out=np.ones(len(old)), where=power > 0)
    scales = np.rint((factors - 1) * (1 << _SCALE_BITS)).clip(-_LARGEST_SCALE, _LARGEST_SCALE).astype(np.int16)
    return framed(chooser.encode(scales)), _scaled(known, scales, axis), values


def _decode_scaled(cursor: Cursor, known: np.ndarray, *, axis: int) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    if known.dtype not in (np.int8, np.uint8, np.int16) or known.ndim < 2:
        raise _impossible(known)
    scales = chooser.decode(cursor.framed(), (known.shape[axis],), np.int16)
    return _scaled(known, scales, axis), lambda found: found


def _scaled(known: np.ndarray, scales: np.ndarray, axis: int) -> np.ndarray:
    factors = _along(scales.astype(np.int32) + (1 << _SCALE_BITS), known.ndim, axis)
    limits = np.iinfo(known.dtype)
    nearest = known.astype(np.int64) * factors + (1 << _SCALE_BITS - 1) >> _SCALE_BITS
    return nearest.clip(limits.min, limits.max).astype(known.dtype)


def _encode_grid(values: np.ndarray, known: np.ndarray) -> tuple[bytes, np.ndarray, np.ndarray] | None:
    """Steps as `grid` finds them: one, or one for each place along the first or the last axis."""
    if values.dtype != np.float32 or not values.size:
        return None
    blob = grid.encode(values, chooser.encode)
    if blob is None:
        return None
    steps, axis = _steps_of(blob, values)
    spread = _along(steps, values.ndim, axis) if axis is not None else steps
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        integers = np.where(spread > 0, np.rint(values / spread), 0).astype(np.int32)
    if not np.array_equal(patterns(integers.astype(np.float32) * spread), patterns(values)):
        return None
    which = bytes([0 if axis is None else 1 if axis == _FIRST else 2])
    return which + framed(chooser.encode(steps)), _nearest_integers(known, spread), integers


def _steps_of(blob: bytes, values: np.ndarray) -> tuple[np.ndarray, int | None]:
    """The steps that `grid` found, with 0 for places that hold nothing but zeros; and the axis they lie along."""
    seen: list[np.ndarray] = []

    def unnest(data: memoryview, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        seen.append(chooser.decode(data, shape, dtype))
        return seen[-1]

    grid.decode(Cursor(blob), values.shape, values.dtype, unnest)
    if len(seen) == 1:
        return np.frombuffer(blob[1:5], "<f4").astype(np.float32), None
    steps = next(each for each in seen if each.dtype == np.float32)
    for axis in (_FIRST, _LAST):
        used = _by_place(values, axis).any(axis=1)
        if int(np.count_nonzero(used)) == len(steps):
            spread = np.zeros(used.shape, np.float32)
            spread[used] = steps
            product = np.rint(np.divide(values, _along(spread, values.ndim, axis), out=np.zeros_like(values), where=values != 0))
            if np.array_equal(product * _along(spread, values.ndim, axis), values):
                return spread, axis
    return np.zeros(1, np.float32), None


def _decode_grid(cursor: Cursor, known: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    which = cursor.byte()
    if known.dtype != np.float32 or which > 2 or (which and known.ndim < 2):
        raise _impossible(known)
    axis = (None, _FIRST, _LAST)[which]
    steps = chooser.decode(cursor.framed(), (1 if axis is None else known.shape[axis],), np.float32)
    if not np.isfinite(steps).all() or (steps < 0).any():
        raise InvalidInput("coded data has steps that no grid has: it is damaged or forged; copy it again")
    spread = _along(steps, known.ndim, axis) if axis is not None else steps

    def finish(found: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return found.astype(np.float32) * spread

    return _nearest_integers(known, spread), finish


def _nearest_integers(known: np.ndarray, spread: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places = np.rint(known.astype(np.float64) / spread.astype(np.float64))
    places[~(np.abs(places) < 1 << 30)] = 0  # NaN too
    return places.astype(np.int32)


def _encode_palette(values: np.ndarray, known: np.ndarray) -> tuple[bytes, np.ndarray, np.ndarray] | None:
    """Few values: which one stands where is expected to be the one next to the known value."""
    if values.dtype not in (np.float32, np.float16) or not values.size or np.unique(patterns(values.ravel()[:4096])).size > COLOURS:
        return None
    colours, which = np.unique(values, return_inverse=True)
    if len(colours) > min(COLOURS, values.size // 2) or not np.isfinite(colours).all():
        return None
    which = which.reshape(values.shape).astype(np.int16)
    if not np.array_equal(patterns(colours[which]), patterns(values)):  # 0.0 and -0.0 are one to numpy
        return None
    return bytes([len(colours) - 1]) + framed(chooser.encode(colours)), _nearest_colours(known, colours), which


def _decode_palette(cursor: Cursor, known: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    if known.dtype not in (np.float32, np.float16):
        raise _impossible(known)
    many = cursor.byte() + 1
    colours = chooser.decode(cursor.framed(), (many,), known.dtype)
    if not np.isfinite(colours).all() or (np.diff(colours) <= 0).any():
        raise InvalidInput("coded data has a list of values that isn't in order: it is damaged or forged; copy it again")

    def finish(found: np.ndarray) -> np.ndarray:
        if int(found.min(initial=0)) < 0 or int(found.max(initial=0)) >= many:
            raise InvalidInput(f"coded data names a value that isn't among its {many}: it is damaged or forged; copy it again")
        return colours[found]

    return _nearest_colours(known, colours), finish


def _nearest_colours(known: np.ndarray, colours: np.ndarray) -> np.ndarray:
    wide = colours.astype(np.float64)
    middles = (wide[1:] + wide[:-1]) / 2
    return np.searchsorted(middles, known.astype(np.float64).ravel()).reshape(known.shape).astype(np.int16)


def _by_place(values: np.ndarray, axis: int) -> np.ndarray:
    """(places along `axis`, elements at each)."""
    return values.reshape(len(values), -1) if axis == _FIRST else values.reshape(-1, values.shape[-1]).T


def _along(places: np.ndarray, axes: int, axis: int) -> np.ndarray:
    """One number for each place along `axis`, laid so that it is multiplied there."""
    return places.reshape(-1, *[1] * (axes - 1)) if axis == _FIRST else places


def _impossible(known: np.ndarray) -> InvalidInput:
    return InvalidInput(f"coded data has a method that {known.dtype} {list(known.shape)} can't: it is damaged or forged; copy it again")


METHODS = (
    Method(2, _encode_moved, _decode_moved),
    Method(3, partial(_encode_scaled, axis=_FIRST), partial(_decode_scaled, axis=_FIRST)),
    Method(4, partial(_encode_scaled, axis=_LAST), partial(_decode_scaled, axis=_LAST)),
    Method(5, _encode_grid, _decode_grid),
    Method(6, _encode_palette, _decode_palette),
)
