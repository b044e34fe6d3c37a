"""What each step of the chosen recipe did: what it took, what it cost, what it gained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.records import Interval, StepEffect, Study
from edgewise.report import figures, numbers, tables
from edgewise.report.document import Section
from edgewise.report.figures import Figure
from edgewise.report.markup import Markup, join, tag

SAME = "as before"


@dataclass(frozen=True)
class Line:
    """A step as a row shows it: each figure of the model after it, and how that differs from the model before; "" in the first row."""

    step: str
    took: str
    quality: Figure
    quality_change: str
    speedup: Figure
    speedup_change: str
    operations: str
    operations_change: str
    parameters: str
    parameters_change: str


def lines(steps: Sequence[StepEffect]) -> tuple[Line, ...]:
    """In order, each against the one before."""
    found = []
    for before, after in zip([None, *steps[:-1]], steps, strict=True):
        speed = figures.ratio(after.speedup) if after.speedup else Figure(numbers.NONE, "can't be run", "by this engine")
        changes = ("", "", "", "")
        if before is not None:
            changes = (
                f"{numbers.points(after.quality.value - before.quality.value, after.quality.half_width)} points",
                _faster(before.speedup, after.speedup),
                _more(before.operations, after.operations),
                _more(before.parameters, after.parameters),
            )
        took = numbers.duration(after.seconds) if after.step else ""
        counted = (numbers.large(after.operations), changes[2], numbers.large(after.parameters), changes[3])
        found.append(Line(after.step, took, figures.share(after.quality), changes[0], speed, changes[1], *counted))
    return tuple(found)


def _faster(before: Interval | None, after: Interval | None) -> str:
    """The factor between two speedups, where their intervals tell them apart."""
    if before is None or after is None or before.value <= 0:
        return ""
    return SAME if after.low <= before.high and before.low <= after.high else f"{numbers.times(after.value / before.value)} the row above"


def _more(before: int, after: int) -> str:
    if before == after or not before:
        return SAME if before == after else ""
    return f"{'−' if after < before else '+'}{numbers.significant(100 * abs(after / before - 1), 2)} %"


def section(study: Study) -> Section | None:
    """None for a recipe of one step, of which the table of trials says all."""
    if not study.steps:
        return None
    lead = (
        "The chosen recipe, step by step: the model after each step, and below every figure how it differs from the row above. Its "
        f"{study.data.metric} is on the validation split, the same samples in every row. Speedups are over the reference, from one race, "
        f'which is quicker and less sharp than the verdict. "{numbers.capital(SAME)}" means that two intervals overlap.'
    )
    return "steps", "What each step did", join([tag("p", lead, class_="lead"), _table(study)])


def _table(study: Study) -> Markup:
    metric = numbers.capital(study.data.metric)
    rows = []
    for line in lines(study.steps):
        cells = (
            tables.cell(Figure(line.took or numbers.NONE), "Took"),
            tables.cell(line.quality, metric, more=line.quality_change),
            tables.cell(line.speedup, "Speedup", more=line.speedup_change),
            tables.cell(Figure(line.operations), "Operations", more=line.operations_change),
            tables.cell(Figure(line.parameters), "Parameters", more=line.parameters_change),
        )
        rows.append(tag("tr", tag("th", tables.recipe(line.step), scope="row"), *cells))
    head = ("Step", "Took", metric, "Speedup", "Operations", "Parameters")
    return tables.table("The model after each step of the chosen recipe", head, rows, "cards steps")
