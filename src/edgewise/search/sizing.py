"""The rung of size: what is too large is coded harder, then rounded by rate and distortion, then trained at the price of its bits.

Each is dearer than the one before and finds a more accurate model of a size; the first whose loss can't be told from none ends the rung.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgewise import package
from edgewise import recipe as recipes
from edgewise import registry
from edgewise.errors import EdgewiseError
from edgewise.records import Trial
from edgewise.search.limits import asked_limits
from edgewise.types import Execution

MINIMAL_BELOW = 64_000  # bytes: of a larger package, what the full profile tells besides weights is a small share
ROOM = 0.98  # of what weights may take: training ends near a size, not at it
LONGER = 4  # times the epochs of pruning: a network of a hundredth of its size takes that long to settle
TRIES = 2  # of a training that came out too large


def sized(climb: Climb) -> Iterator[tuple[str, str, list[Execution]]]:
    """Recipes that reach the bytes of the budget. Nothing where it has no such limit."""
    limit = climb.budget.size_bytes
    if limit is None:
        return
    packing = "code(profile='minimal')" if limit < MINIMAL_BELOW else "code()"
    for trial in _too_large(climb):
        yield "size", _joined(trial.recipe, packing), [trial.execution]
    if climb.satisfied():
        return
    if climb.maker.structure is None:
        climb.notes.append("rounding and training for size weren't tried: an exported program can't be trained, and both need torch")
        return
    before, executions = _base(climb)
    weights = _room(climb, limit, packing)
    if weights < 1:
        climb.notes.append(f"size: {limit:,} bytes are out of reach: without any weight, the package takes {limit - weights:,}")
        return
    rounding = f"rdoq(size_bytes={round(weights)})"
    yield "size", _joined(before, rounding, packing), executions
    if climb.satisfied() or not climb.epochs:
        return
    seeded = f", seed={climb.seed}" if climb.seed else ""
    for _ in range(TRIES):
        training = f"penalize(size_bytes={round(weights * ROOM)}, epochs={LONGER * climb.epochs}{seeded})"
        recipe = _joined(before, training, packing)
        yield "size", recipe, executions
        found = next((trial.size_bytes for trial in climb.trials if trial.recipe == recipe and trial.size_bytes), None)
        if found is None or found <= limit:
            return
        weights *= 0.97 * limit / found


def _too_large(climb: Climb) -> list[Trial]:
    """Of each recipe that fails by its size alone, the fastest trial."""
    found: dict[str, Trial] = {}
    for trial in climb.timed():
        missed = [outcome.limit for outcome in climb.outcomes(trial) if not outcome.met]
        if missed == ["size_bytes"]:
            known = found.get(trial.recipe)
            if known is None or _speed(trial) > _speed(known):
                found[trial.recipe] = trial
    return list(found.values())


def _speed(trial: Trial) -> float:
    return trial.speedup.ratio.value if trial.speedup else 0.0


def _base(climb: Climb) -> tuple[str, list[Execution]]:
    """The steps on the module that what is rounded starts from, and the executions to judge it under: all engines' fp32 and shorter floats.

    Where the budget binds time, too, that of the fastest trial whose steps are all on the module.
    """
    limits = asked_limits(climb)
    floats = [trial for trial in climb.timed() if all(_on_module(step) for step in recipes.parse(trial.recipe).steps)]
    if limits.speedup is not None and floats:
        fastest = max(floats, key=_speed)
        return fastest.recipe, [fastest.execution]
    return "", [Execution(name, "fp32", climb.baseline.execution.threads) for name in climb.engines]


def _on_module(step: recipes.Step) -> bool:
    return recipes.level(registry.load("pass", step.name)) == "module"


def _room(climb: Climb, limit: int, packing: str) -> float:
    """Bytes that are left for weights: the limit less what the dense package takes with all its weights zero."""
    try:
        empty = package.build(climb.dense.with_zeros(), created="")
        done: package.Package = recipes.apply(recipes.parse(packing), _like(climb, empty)).model
    except EdgewiseError:
        return float(limit)
    return float(limit - done.size_bytes)


def _joined(*steps: str) -> str:
    return " > ".join(step for step in steps if step)
