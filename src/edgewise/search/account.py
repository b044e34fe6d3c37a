"""What the chosen recipe did, step by step: looked at once, when it was chosen, on the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgewise import recipe as recipes
from edgewise import registry
from edgewise.data import metrics
from edgewise.graph import found_again, parts, summary
from edgewise.records import Interval, PartWidth, StepEffect, Trial
from edgewise.search.bench import Side, least
from edgewise.search.making import Made
from edgewise.search.store import key
from edgewise.types import Execution, from_json, to_json

if TYPE_CHECKING:
    from edgewise.search.climb import Climb


def effects(climb: Climb, chosen: Trial) -> tuple[StepEffect, ...]:
    """The model as it came and after every step of the chosen recipe; nothing for a recipe of fewer than two steps.

    All run as the chosen one does, in one race with the reference.
    """
    steps = recipes.parse(chosen.recipe).steps
    if len(steps) < 2:
        return ()
    memo = key(*climb.bench.origin, "steps", chosen.recipe, str(chosen.execution))
    kept = climb.bench.store.noted(memo)
    if kept is None:
        climb.pace.begin("what each step of the recipe did")
        made = [climb.made(str(recipes.Recipe(steps[:count]))) for count in range(len(steps) + 1)]
        times = _raced(climb, made, chosen.execution)
        said = ["", *(str(step) for step in steps)]
        found = [_effect(climb, text, one, chosen.execution, ratio) for text, one, ratio in zip(said, made, times, strict=True)]
        kept = [to_json(effect).decode() for effect in found]
        climb.bench.store.note(memo, kept)
    return tuple(from_json(effect.encode(), StepEffect) for effect in kept)


def _raced(climb: Climb, made: Sequence[Made], execution: Execution) -> list[Interval | None]:
    """Speedups over the reference; equal graphs run once, a few at a time."""
    graphs = {one.graph.sha256: one.graph for one in made}
    names, size = [*graphs], 5
    found: dict[str, Interval | None] = {}
    for start in range(0, len(names), size):
        group = names[start : start + size]
        sides: list[Side] = [climb.reference, *(climb.bench.subjects(graphs[name], execution) for name in group)]
        found |= {name: least(other) for name, other in zip(group, climb.bench.race(sides)[1:], strict=True)}
    return [found[one.graph.sha256] for one in made]


def _effect(climb: Climb, text: str, made: Made, execution: Execution, speedup: Interval | None) -> StepEffect:
    split = climb.bench.task.split("validation")
    outputs = climb.bench.answers(made.graph, execution, split)
    quality = metrics.quality(climb.bench.task.metric, split.name, outputs, split.targets, climb.bench.task.labels)
    counted = summary(made.graph, text)
    return StepEffect(text, made.seconds, quality.value, speedup, counted.operations, counted.parameters)


def widths(climb: Climb, chosen: Trial) -> tuple[PartWidth, ...]:
    """Every prunable part of the dense model, and what the chosen one has left of it; nothing where its recipe doesn't prune."""
    steps = recipes.parse(chosen.recipe).steps
    if all(step.name != "prune" or step.arguments.get("of") == "weights" for step in steps):
        return ()
    on_module = [step for step in steps if recipes.level(registry.load("pass", step.name)) == "module"]
    before, after = parts(climb.dense), parts(climb.made(str(recipes.Recipe(tuple(on_module)))).graph)
    names, left = found_again(before, after), {part.name: part.units for part in after.parts}
    return tuple(
        # A part of one unit is none: it can't become narrower. One that is gone went with its branch.
        PartWidth(part.name, part.kind, part.units, left.get(names.get(part.name, ""), 0 if part.removable else 1))
        for part in before.parts
    )
