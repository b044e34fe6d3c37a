"""Floats that are whole numbers times a step (weights that were quantized for size, and stay float32): the steps, and the whole numbers.

A tensor has one step (of two bytes where it is a bfloat16), or one for each place along its first or its last axis. What is decoded is
float32(integer) * float32(step), one product rounded as IEEE 754 has it, of normal numbers alone: the same bits on every machine, whether
it flushes subnormals or not.
"""

from __future__ import annotations

import numpy as np

from edgewise.coding.cursor import Cursor, framed
from edgewise.coding.numbers import Shape, patterns
from edgewise.coding.sparse import Nest, Unnest
from edgewise.errors import InvalidInput

LARGEST_INTEGER = 1 << 20  # float32 has 24 bits: a grid that is nearly as fine says nothing
DIVISORS = 16  # the smallest magnitude of a row is this many steps at most
_WHOLE, _FIRST, _LAST, _SHORT_STEP = range(4)  # one step, one per place along the first or the last axis, or one that is a bfloat16
_INTEGERS = (np.dtype(np.int8), np.dtype(np.int16), np.dtype(np.int32))
_DISTINCT = 1 << 16
_BLOCK = 1 << 18
_LOOK = 1 << 10
_SHORT = 4  # elements that a step of its own has to serve; a step takes four bytes or two
_PROBES = 4
_NEGATIVE_ZERO, _MAGNITUDE, _INFINITE = 1 << 31, (1 << 31) - 1, 0x7F800000
_SMALLEST = float(np.finfo(np.float32).smallest_normal)


def encode(values: np.ndarray, nest: Nest) -> bytes | None:
    if values.dtype != np.float32 or not _ordinary(patterns(values)):
        return None
    found = []
    step = _one_step(values)
    if step is not None:
        found.append(_coded(values, _WHOLE, step, nest))
    # Where one step serves all with integers of a byte, steps of their own would not make them shorter.
    if values.ndim > 1 and (step is None or float(np.abs(values).max()) > 127 * float(step[0])):
        for axis in (_FIRST, _LAST):
            rows = _rows(values, axis)
            if rows.shape[0] > 1 and rows.shape[1] >= _SHORT and (steps := _steps(rows)) is not None:
                found.append(_coded(values, axis, steps, nest))
                break
    return min((blob for blob in found if blob is not None), key=len, default=None)


def decode(cursor: Cursor, shape: Shape, dtype: np.dtype, unnest: Unnest) -> np.ndarray:
    kind = cursor.byte()
    axis, width = kind // len(_INTEGERS), kind % len(_INTEGERS)
    if dtype != np.float32 or axis > _SHORT_STEP or (axis in (_FIRST, _LAST) and len(shape) < 2):
        raise InvalidInput(f"coded data has a grid ({kind}) that {dtype} {list(shape)} can't: it is damaged or forged; copy it again")
    if axis in (_WHOLE, _SHORT_STEP):
        stored = bytes(cursor.bytes(4)) if axis == _WHOLE else bytes(2) + bytes(cursor.bytes(2))
        steps = np.frombuffer(stored, "<f4").astype(np.float32)
        integers = unnest(cursor.rest(), shape, _INTEGERS[width]).reshape(shape)
        return _product(integers, _checked(steps)).ravel()
    framed_steps = cursor.framed()
    integers = unnest(cursor.rest(), shape, _INTEGERS[width]).reshape(shape)
    # Places that hold nothing but zeros have no step.
    used = _used(integers, axis)
    steps = _checked(unnest(framed_steps, (int(np.count_nonzero(used)),), np.dtype(np.float32)))
    return _product(integers, _spread(steps, used, axis, len(shape))).ravel()


def _ordinary(bits: np.ndarray) -> bool:
    """No -0.0, which no integer gives; no infinity, no NaN."""
    flat = bits.ravel()
    for start in range(0, flat.size, _BLOCK):
        some = flat[start : start + _BLOCK]
        if (some == _NEGATIVE_ZERO).any() or ((some & np.uint32(_MAGNITUDE)) >= _INFINITE).any():
            return False
    return True


def _one_step(values: np.ndarray) -> np.ndarray | None:
    """The step of all, (1,), or None."""
    flat = np.abs(values.ravel())
    blocks = [flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK)]
    least = min((float(some[some > 0].min()) for some in blocks if some.any()), default=0.0)
    if not least:
        return None
    found = np.array([least], np.float32)
    # The smallest and a few others refuse ordinary weights, of which no two are alike, before all are sorted.
    for some in (flat[:_LOOK], *blocks):
        found = np.asarray(np.unique(np.concatenate([found, some])))
        if len(found) > _DISTINCT or (len(some) <= _LOOK and not _fitted(found[None]).all()):
            return None
    return _steps(found[None])


def _rows(values: np.ndarray, axis: int) -> np.ndarray:
    """(places along `axis`, elements at each) magnitudes."""
    laid = values.reshape(len(values), -1) if axis == _FIRST else values.reshape(-1, values.shape[-1]).T
    return np.abs(np.ascontiguousarray(laid))


def _steps(rows: np.ndarray) -> np.ndarray | None:
    """A step for each row of magnitudes that isn't all zeros: (those rows,) float32. None where one has none."""
    used = np.flatnonzero(rows.any(axis=1))
    probes = used[:: max(1, len(used) // _PROBES)][:_PROBES]
    if not len(used) or not _fitted(rows[probes]).any():
        return None
    steps = np.zeros(len(used), np.float32)
    each = max(1, _BLOCK // max(1, rows.shape[1]))
    for start in range(0, len(used), each):
        steps[start : start + each] = _fitted(rows[used[start : start + each]])
    if not steps.all():
        # A row without small integers may still share the step of most others.
        kinds, counts = np.unique(steps[steps > 0], return_counts=True)
        usual = kinds[counts.argmax()]
        for row in np.flatnonzero(steps == 0):
            integers = np.rint(rows[used[row]] / usual)
            if integers.max() > LARGEST_INTEGER or (integers * usual != rows[used[row]]).any():
                return None
            steps[row] = usual
    return steps


def _fitted(rows: np.ndarray) -> np.ndarray:
    """(rows,) float32: the largest step that gives all of a row, which has something over 0, exactly; 0 where none was found.

    The smallest magnitude is taken for 1, 2, 3 … steps. Rounding leaves a step open by a few parts in 2**24: each v = integer * step
    narrows it to (v - ulp / 2) / integer … (v + ulp / 2) / integer, and what is left is tried exactly.
    """
    found = np.zeros(len(rows), np.float32)
    least = np.where(rows > 0, rows, np.float32(np.inf)).min(axis=1).astype(np.float64)
    most = rows.max(axis=1).astype(np.float64)
    left = np.arange(len(rows))
    for divisor in range(1, DIVISORS + 1):
        guess = least / divisor
        left = left[(most[left] <= LARGEST_INTEGER * guess[left]) & (guess[left] >= _SMALLEST)]
        if not len(left):
            break
        some = rows[left].astype(np.float64)
        integers = np.rint(some / guess[left, None])
        half = _spacing(rows[left]) / 2
        counted = np.where(integers > 0, integers, 1)
        low = np.where(integers > 0, (some - half) / counted, 0).max(axis=1)
        high = np.where(integers > 0, (some + half) / counted, np.inf).min(axis=1)
        near = (low <= high * (1 + 2**-22)) & (high < np.inf)
        places, middle = left[near], ((low[near] + high[near]) / 2).astype(np.float32)
        whole, wanted = integers[near].astype(np.float32), rows[places]
        with np.errstate(over="ignore"):
            candidates = _short(middle), middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(np.inf))
        for step in candidates:
            with np.errstate(over="ignore", invalid="ignore"):
                exact = (whole * step[:, None] == wanted).all(axis=1) & (step >= _SMALLEST) & (found[places] == 0)
            found[places[exact]] = step[exact]
        left = left[found[left] == 0]
    return found


def _spacing(values: np.ndarray) -> np.ndarray:
    """float64: to the next float32. Of the largest it is what it is of those before: numpy's overflows."""
    with np.errstate(over="ignore"):
        found = np.spacing(values).astype(np.float64)
    return np.where(np.isfinite(found), found, 2.0**104)


def _short(steps: np.ndarray) -> np.ndarray:
    """The nearest bfloat16, as float32: a step that takes two bytes, where it does as well."""
    bits = steps.astype(np.float32).view(np.uint32)
    return np.asarray(((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32))


def _coded(values: np.ndarray, axis: int, steps: np.ndarray, nest: Nest) -> bytes | None:
    spread = steps if axis == _WHOLE else _spread(steps, _used(values, axis), axis, values.ndim)
    integers = np.rint(values / spread).astype(np.int32)
    if not np.array_equal(patterns(_product(integers, spread)), patterns(values)):
        return None
    most = int(np.abs(integers).max())
    width = 0 if most <= 127 else 1 if most < 1 << 15 else 2
    stored = steps.astype("<f4").tobytes() if axis == _WHOLE else framed(nest(steps))
    if axis == _WHOLE and stored[:2] == bytes(2):
        axis, stored = _SHORT_STEP, stored[2:]
    head = bytes([axis * len(_INTEGERS) + width])
    return head + stored + nest(integers.astype(_INTEGERS[width]))


def _product(integers: np.ndarray, steps: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # of damaged data
        return np.asarray(np.multiply(integers, steps, dtype=np.float32, casting="unsafe"))


def _checked(steps: np.ndarray) -> np.ndarray:
    if not ((steps >= _SMALLEST) & (steps < np.inf)).all():
        raise InvalidInput("coded data has a step that is no positive number: it is damaged or forged; copy it again")
    return steps


def _used(values: np.ndarray, axis: int) -> np.ndarray:
    """Which places along the axis hold something else than zeros."""
    others = tuple(range(1, values.ndim)) if axis == _FIRST else tuple(range(values.ndim - 1))
    return np.asarray(values.any(axis=others))


def _spread(steps: np.ndarray, used: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A step for every place, laid so that it multiplies the tensor."""
    every = np.ones(len(used), np.float32)
    every[used] = steps
    return every.reshape(-1, *[1] * (rank - 1)) if axis == _FIRST else every
