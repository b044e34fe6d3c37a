"""Models of other makers that were measured beside: their rows, and their marks on a family's chart."""

from __future__ import annotations

from collections.abc import Sequence

from edgewise.records import Beside, Study
from edgewise.report import charts, figures, numbers, shapes, tables
from edgewise.report.charts import Plot, line
from edgewise.report.figures import Figure
from edgewise.report.markup import Markup, join, tag

SERIES = 1  # the shape of their marks


def of(studies: Sequence[Study]) -> tuple[Beside, ...]:
    """Each once, as the first study that has them says."""
    found = {one.name: one for study in reversed(studies) for one in study.beside}
    return tuple(found[name] for name in sorted(found))


def row(one: Beside, metric: str) -> Markup:
    """In the table of a family's members."""
    cells = (
        tables.cell(figures.speedup(one.speedup), "Reached", more=shapes.each(one.shapes)),
        tables.cell(figures.quality(one.quality), metric),
        tables.cell(figures.drop(one.drop), "Change, points"),
        tables.cell(figures.size(one.size_bytes), "Size"),
        tables.cell(Figure(), "Peak memory"),
        tag("td", tag("span", "another tool's", class_="badge"), tag("small", f"on {one.execution}"), data_label="Outcome"),
    )
    return tag("tr", tag("th", one.name, scope="row"), *cells)


def section(study: Study) -> Markup | None:
    """The table of one study's page; nothing where nothing was held beside."""
    if not study.beside:
        return None
    metric = numbers.capital(study.data.metric)
    rows = [
        (
            tag("th", one.name, tag("small", f"on {one.execution}"), scope="row"),
            tables.cell(figures.speedup(one.speedup), "Speedup", more=shapes.each(one.shapes)),
            tables.cell(figures.quality(one.quality), metric),
            tables.cell(figures.drop(one.drop), "Change, points"),
            tables.cell(figures.size(one.size_bytes), "Size"),
        )
        for one in of([study])
    ]
    return tables.plain_table(
        "Other tools' models, on the test split", ("Model", "Speedup", metric, "Change, points", "Size"), rows, "cards"
    )


def tip(one: Beside) -> tuple[str, ...]:
    """What hovering shows, a line each."""
    return (
        f"{one.name}, made by another tool",
        f"speedup {figures.speedup(one.speedup)}",
        f"change {figures.drop(one.drop)}, in points",
        f"size {figures.size(one.size_bytes)}, on {one.execution}",
    )


def marks(plot: Plot, found: Sequence[Beside]) -> Markup:
    """Squares with both intervals."""
    parts = []
    for one in found:
        speed, change = one.speedup.ratio, one.drop.difference
        x, y = plot.x(speed.value), plot.y(change.value)
        cross = (
            line(x, plot.y(change.low), x, plot.y(change.high), "range"),
            line(plot.x(speed.low), y, plot.x(speed.high), y, "range"),
        )
        said = tag("title", "\n".join(tip(one)))
        parts.append(tag("g", said, *cross, charts.marker(SERIES, x, y, 5.5), class_=charts.colour(2)))
    return join(parts)
