"""A model's batch curve: measured when it is warmed up, kept beside it on disk, and what is kept with it of how it was loaded."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np

from edgewise import devices
from edgewise.data import drawn
from edgewise.devices import cpu
from edgewise.errors import EdgewiseError, InvalidData, InvalidInput
from edgewise.package import atomic
from edgewise.scheduling import Curve, Point
from edgewise.types import Execution, Outputs, Runner, Signature

LARGEST = 64
BUDGET_S = 0.6  # for all sizes together, but for the first calls of one row
EACH = (
    0.25  # of the budget, for one size at most: or a model of 40 ms a call would have no time left for a second one, and never share calls
)
SAMPLES = 15
BETTER = 1.03  # a size that brings less than 3 % more rows a second than the best before it doesn't count as better
# What is assumed of a model that could not be called with inputs drawn at random; its pace corrects it.
UNKNOWN = Curve((Point(1, 5.0, 20.0),))
_KEPT_MOST = 32


@dataclass(frozen=True)
class Measured:
    """points: by rows of a call. exact: rows up to which every row came out bit by bit as it does alone; 1 where nobody looked.

    kept, peak: bytes that loading took, 0 where it wasn't measured. seconds: that it took. ran: whether drawn inputs could be run at all.
    """

    points: tuple[Point, ...]
    exact: int = 1
    kept: int = 0
    peak: int = 0
    seconds: float = 0.0
    ran: bool = True

    @property
    def curve(self) -> Curve:
        return Curve(self.points) if self.points else UNKNOWN


def measure(
    runner: Runner,
    signature: Signature,
    *,
    shared: bool,
    exact: bool = False,
    largest: int = 0,
    tokens: int = 32,
    budget_s: float = BUDGET_S,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Call the model with drawn inputs at 1, 2, 4, … rows, while more rows pay and the time lasts.

    shared: whether calls of more than one row are of use; else one row is all that is measured. exact: find out how many rows come out as
    they do alone, which takes a call of each. The first call of each size, which sets
    memory up for it, doesn't count. A size that the engine refuses ends the curve: a form of its own is made for shapes up to some size.
    """
    try:
        inputs = drawn.inputs(signature, batch=1, tokens=tokens)
        runner.run(inputs)
    except (InvalidInput, InvalidData):  # values that this model doesn't take: it may still take everybody else's
        return Measured((), ran=False)
    until = clock() + budget_s
    points = [_point(runner, inputs, 1, clock() + EACH * budget_s, clock)]
    alike, best = 1, 1 / points[0].p50_ms
    rows, worse = 2, 0
    while shared and rows <= min(largest or LARGEST, LARGEST) and worse < 2 and clock() < until:
        many = drawn.inputs(signature, batch=rows, tokens=tokens, seed=rows)
        try:
            together = runner.run(many)
        except EdgewiseError:
            break
        if exact and alike == rows // 2 and _same(runner, signature, many, together, rows):
            alike = rows
        points.append(_point(runner, many, rows, min(until, clock() + EACH * budget_s), clock))
        rate = rows / points[-1].p50_ms
        worse = 0 if rate > best * BETTER else worse + 1
        best = max(best, rate)
        rows *= 2
    return Measured(tuple(points), alike)


def _point(runner: Runner, inputs: dict[str, np.ndarray], rows: int, until: float, clock: Callable[[], float]) -> Point:
    taken: list[float] = []
    while len(taken) < SAMPLES and (len(taken) < 2 or clock() < until):
        began = clock()
        runner.run(inputs)
        taken.append((clock() - began) * 1e3)
    p50, p99 = np.percentile(taken, (50, 99))
    p50 = max(float(p50), 1e-3)
    return Point(rows, p50, max(p50, float(p99)))


def _same(runner: Runner, signature: Signature, many: dict[str, np.ndarray], together: Outputs, rows: int) -> bool:
    """Whether every row has the bits that it has alone."""
    batched = {spec.name for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], str)}
    for row in range(rows):
        alone = runner.run({name: array[row : row + 1] if name in batched else array for name, array in many.items()})
        if any(array.tobytes() != together[name][row : row + 1].tobytes() for name, array in alone.items()):
            return False
    return True


@cache
def device() -> str:
    """What a curve is kept for: another CPU, or another share of it, is another device."""
    told = (platform.machine(), cpu.name(), devices.isa(), devices.cores())
    return hashlib.sha256(repr(told).encode()).hexdigest()[:12]


class Shelf:
    """Curves by content id, execution and device, beside the model's file in `.<name>.curves.json`; in memory where it can't be written."""

    def __init__(self, keep: bool = True) -> None:
        self._keep = keep
        self._known: dict[str, Measured] = {}

    def find(self, file: Path, content_id: str, execution: Execution) -> Measured | None:
        key = _key(content_id, execution)
        if key not in self._known and self._keep:
            self._known |= {name: record for name, record in _read(_beside(file)).items() if name not in self._known}
        return self._known.get(key)

    def put(self, file: Path, content_id: str, execution: Execution, measured: Measured) -> None:
        key = _key(content_id, execution)
        self._known[key] = measured
        if not self._keep:
            return
        kept = {name: record for name, record in _read(_beside(file)).items() if name != key}
        kept = {**dict(list(kept.items())[1 - _KEPT_MOST :]), key: measured}
        with contextlib.suppress(OSError, EdgewiseError):  # a folder that can't be written to, or a full disk: it is measured again
            atomic.write_bytes(_beside(file), msgspec.json.encode(kept))


def paced(measured: Measured, pace: float) -> Measured:
    """What was measured, corrected by what calls took since."""
    if not 0.2 < pace < 5 or not measured.points:
        return measured
    return replace(measured, points=tuple(Point(point.rows, point.p50_ms * pace, point.p99_ms * pace) for point in measured.points))


def _key(content_id: str, execution: Execution) -> str:
    return f"{content_id} {execution} {device()}"


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name}.curves.json")


def _read(path: Path) -> dict[str, Measured]:
    """{} where there is nothing, or nothing that this release wrote."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Measured])
    except (OSError, msgspec.MsgspecError, EdgewiseError, ValueError):
        return {}
