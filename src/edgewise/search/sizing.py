"""The rung of size: what is too large is coded harder, then rounded by rate and distortion, then trained at the price of its bits.

Each is dearer than the one before and finds a more accurate model of a size; the first whose loss can't be told from none ends the rung.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

from edgewise import coding, registry
from edgewise import recipe as recipes
from edgewise.records import Trial
from edgewise.search.choose import outcomes_of
from edgewise.search.pruning import VERDICT_BYTES
from edgewise.types import Execution

if TYPE_CHECKING:
    from edgewise.search.climb import Climb

MINIMAL_BELOW = 64_000  # bytes: of a larger package, what the full profile tells besides weights is a small share
ROOM = 0.98  # of what weights may take: training ends near a size, not at it
LONGER = 4  # times the epochs of pruning: a network of a hundredth of its size takes that long to settle
TRIES = 2  # of a training that came out too large


def sized(climb: Climb) -> Iterator[tuple[str, str, list[Execution]]]:
    """Recipes that reach the bytes of the budget. Nothing where it has no such limit, or where something else than size is missing."""
    limit = climb.budget.size_bytes
    if limit is None:
        return
    packing = "code(profile='minimal')" if limit < MINIMAL_BELOW else "code()"
    large = _too_large(climb)
    known = {trial.recipe for trial in climb.trials}
    for trial in large:
        if (recipe := _joined(trial.recipe, packing)) not in known:
            yield "size", recipe, [trial.execution]
    floats = [trial for trial in large if all(_on_module(step) for step in recipes.parse(trial.recipe).steps)]
    if climb.satisfied() or not floats:
        return
    if climb.maker.structure is None:
        climb.notes.append("rounding and training for size weren't tried: an exported program can't be trained, and both need torch")
        return
    base = max(floats, key=_speed)
    weights = _room(climb, limit, packing)
    if weights < 1:
        climb.notes.append(f"size: {limit:,} bytes are out of reach: without any weight, the package takes {limit - weights:,.0f}")
        return
    yield "size", _joined(base.recipe, f"rdoq(size_bytes={round(weights)})", packing), [base.execution]
    if climb.satisfied() or not climb.epochs:
        return
    seeded = f", seed={climb.seed}" if climb.seed else ""
    for _ in range(TRIES):
        training = f"penalize(size_bytes={round(weights * ROOM)}, epochs={LONGER * climb.epochs}{seeded})"
        recipe = _joined(base.recipe, training, packing)
        yield "size", recipe, [base.execution]
        found = next((trial.size_bytes for trial in climb.trials if trial.recipe == recipe and trial.size_bytes), None)
        if found is None or found <= limit:
            return
        weights *= 0.97 * limit / found


def _too_large(climb: Climb) -> list[Trial]:
    """Of each recipe that fails by its size alone, the fastest trial."""
    found: dict[str, Trial] = {}
    for trial in climb.timed():
        missed = [outcome.limit for outcome in outcomes_of(trial, climb.budget, climb.metric) if not outcome.met]
        if missed == ["size_bytes"]:
            known = found.get(trial.recipe)
            if known is None or _speed(trial) > _speed(known):
                found[trial.recipe] = trial
    return list(found.values())


def _speed(trial: Trial) -> float:
    return trial.speedup.ratio.value if trial.speedup else 0.0


def _on_module(step: recipes.Step) -> bool:
    return recipes.level(registry.load("pass", step.name)) == "module"


def _room(climb: Climb, limit: int, packing: str) -> float:
    """Bytes that are left for coded weights: the limit less what the package takes for all else (as the dense one does)."""
    done = recipes.apply(recipes.parse(packing), climb.bench.package(climb.dense, {})).model
    arrays = [numpy_helper.to_array(tensor) for tensor in climb.dense.proto.graph.initializer]
    weights = sum(len(coding.encode(np.ascontiguousarray(each))) for each in arrays if each.dtype == np.float32)
    return float(limit - (done.size_bytes - weights) - (VERDICT_BYTES if done.profile == "full" else 0))


def _joined(*steps: str) -> str:
    return " > ".join(step for step in steps if step)
