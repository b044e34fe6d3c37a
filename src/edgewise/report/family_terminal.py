"""The members of a family in the terminal: one table, within 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from edgewise.errors import InvalidInput
from edgewise.records import Study
from edgewise.report import beside, charts, figures, numbers, words
from edgewise.report.cells import STATES, grid, short, text
from edgewise.report.figures import Figure
from edgewise.report.markup import clean


def family_table(studies: Sequence[Study]) -> RenderableType:
    """What was asked of every member, what it reached, and what that cost. Raises InvalidInput where there is no study."""
    if not studies:
        raise InvalidInput("studies is empty; give the study of every member of a family")
    said = words.family(studies)
    sign, colour = STATES[said.state]
    head = Panel(text(said.sentence), title=text(f"{sign} {said.badge}", "bold"), title_align="left", border_style=colour, padding=(0, 1))
    metric = numbers.capital(studies[0].data.metric)
    shown = grid("Asked", "Reached", metric, "Change, points", "Size, memory", "Outcome", title="The members, on the test split")
    for column, width in zip(shown.columns, (8, 13, 14, 14, 10, 16), strict=True):
        column.max_width = width
    dense = next((study.verdict for study in studies if study.verdict), None)
    if dense is not None:
        before = dense.reference_measurement
        shown.add_row(
            text("dense", "bold"),
            short(Figure("1.00×", "by definition")),
            short(figures.quality(dense.reference_quality)),
            short(Figure("0", "by definition")),
            _sizes(before.size_bytes, before.peak_memory_bytes),
            Text(),
        )
    for study in studies:
        shown.add_row(*_row(study))
    for one in beside.of(studies):
        shown.add_row(
            text(charts.cut(one.name, 20), "dim"),
            short(figures.speedup(one.speedup)),
            short(figures.quality(one.quality)),
            short(figures.drop(one.drop)),
            text(numbers.size(one.size_bytes)),
            text(f"another tool's, on {one.execution}", "dim"),
        )
    note = words.detectable(*studies)
    return Group(head, shown, *([text(note, "dim")] if note else []), text(words.speed_means(studies[0]), "dim"))


def _sizes(size: float, memory: float) -> Text:
    return text(numbers.size(size), "bold").append(f"\n{numbers.size(memory)}", style="not bold dim")


def _row(study: Study) -> tuple[Text, ...]:
    verdict, name = study.verdict, text(words.member(study), "bold")
    if verdict is None:
        return name, *(text(numbers.NONE) for _ in range(4)), text("no verdict yet")
    sign, colour = STATES["met" if verdict.met else "missed"]
    outcome = text(f"{sign} {'met' if verdict.met else 'missed'}", colour)
    for said in words.shortfalls(study):
        outcome.append(clean(f"\n{said}"), style="dim")
    return (
        name,
        short(figures.speedup(verdict.speedup)),
        short(figures.quality(verdict.quality)),
        short(figures.drop(verdict.drop)),
        _sizes(verdict.measurement.size_bytes, verdict.measurement.peak_memory_bytes),
        outcome,
    )
