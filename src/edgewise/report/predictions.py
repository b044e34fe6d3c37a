"""What the latency table predicted of the widths that were planned, against what was measured of them before any training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.records import PruningPlan
from edgewise.report import charts, figures, numbers, tables
from edgewise.report.charts import Plot, line, text
from edgewise.report.document import Section
from edgewise.report.figures import Figure
from edgewise.report.markup import Markup, join, tag
from edgewise.report.scale import Scale, linear_range


@dataclass(frozen=True)
class Row:
    """A plan, and which one it is of those for the same speedup. `number` is that of its row in the table."""

    plan: PruningPlan
    number: int
    attempt: int
    of: int

    @property
    def name(self) -> str:
        asked = f"{self.plan.asked:g}×"
        return f"{asked}, plan {self.attempt}" if self.of > 1 else asked

    @property
    def apart(self) -> float:
        """Measured over predicted, minus 1: below zero, the model is slower than predicted."""
        return self.plan.measured.value / self.plan.predicted - 1


def rows(plans: Sequence[PruningPlan]) -> tuple[Row, ...]:
    """In order; plans for one speedup are counted."""
    of, seen = Counter(plan.asked for plan in plans), Counter[float]()
    found = []
    for number, plan in enumerate(plans, 1):
        seen[plan.asked] += 1
        found.append(Row(plan, number, seen[plan.asked], of[plan.asked]))
    return tuple(found)


def signed_percent(share: float, decimals: int = 1) -> str:
    """+3.2 %, −0.4 %, 0.0 %."""
    shown = f"{100 * abs(share):.{decimals}f}"
    return f"{'' if float(shown) == 0 else '−' if share < 0 else '+'}{shown} %"


def section(plans: Sequence[PruningPlan]) -> Section | None:
    """None without plans."""
    found = rows(plans)
    if not found:
        return None
    worst = max(abs(row.apart) for row in found)
    lead = (
        "Widths were solved for on the latency table, and the planned model was measured whole before any training: time doesn't depend on "
        "the weights. A plan that was slower than asked, or needlessly fast, was measured into the table, and the widths solved for again. "
        f"{numbers.capital(numbers.plural(len(found), 'plan'))}; prediction and measurement were at most {numbers.percent(worst)} apart."
    )
    drawing = tag("figure", charts.responsive(lambda width: chart(found, width), wide=760)) if len(found) > 1 else None
    return "plans", "Predicted against measured", join([tag("p", lead, class_="lead"), drawing, _table(found)])


def _table(found: Sequence[Row]) -> Markup:
    body = []
    for row in found:
        plan = row.plan
        name = tag("th", row.name, tag("small", f"{plan.form or 'as it came'} on {plan.execution}"), scope="row")
        narrowed = tag("td", numbers.plural(len(plan.widths), "part"), class_="figure", data_label="Narrowed")
        cells = (
            tables.cell(Figure(numbers.times(plan.predicted)), "Predicted"),
            tables.cell(figures.ratio(plan.measured), "Measured"),
            tables.cell(Figure(signed_percent(row.apart)), "Apart"),
            tables.cell(Figure(signed_percent(plan.measured.value / plan.asked - 1)), "To what was asked"),
        )
        body.append(tag("tr", name, *cells, narrowed, id=f"plan-{row.number}", tabindex="-1"))
    head = ("Asked", "Predicted", "Measured", "Apart", "To what was asked", "Narrowed")
    return tables.table("Every plan, in order: speedups over the reference", head, body, "cards")


def tip(row: Row) -> tuple[str, ...]:
    """What hover and focus show, a line each."""
    plan = row.plan
    return (
        f"asked {row.name}",
        f"predicted {numbers.times(plan.predicted)}",
        f"measured {figures.ratio(plan.measured)}",
        f"measurement {signed_percent(row.apart)} from the prediction",
    )


def _draw_row(plot: Plot, row: Row, y: float, name_width: float) -> Markup:
    plan, asked = row.plan, row.plan.asked
    predicted, measured = plot.x(plan.predicted / asked - 1), plot.x(plan.measured.value / asked - 1)
    low, high = plot.x(plan.measured.low / asked - 1), plot.x(plan.measured.high / asked - 1)
    return charts.point(
        f"#plan-{row.number}",
        tip(row),
        tag("rect", x=0.0, y=y - 14, width=plot.x.stop + 70, height=28.0, fill="transparent"),
        text(name_width - 10, y + 4, row.name, anchor="end", class_="strong"),
        line(predicted, y, measured, y, "leader"),
        tag("g", charts.marker(3, predicted, y, 4.5), class_="s5 hollow"),
        tag("g", line(low, y, high, y, "range"), charts.marker(0, measured, y, 5), class_="s0"),
        text(plot.x.stop + 12, y + 4, numbers.times(plan.measured.value), class_="name"),
        class_="row",
    )


def chart(found: Sequence[Row], width: int) -> Markup:
    """A row per plan, in percent of what was asked, so that plans for 2× and for 8× lie on one scale."""
    height_of_row, top = 30, 76
    name_width = max(64.0, 7.2 * max(len(row.name) for row in found) + 16)
    ends = [0.0]
    for row in found:
        plan = row.plan
        ends += [value / plan.asked - 1 for value in (plan.predicted, plan.measured.low, plan.measured.high)]
    low, high = linear_range(ends, pad=0.06, least=0.02)
    height = top + height_of_row * len(found) + 44
    plot = Plot(Scale(low, high, name_width, width - 84), Scale(0, 1, height - 46, top - 10))
    _, plot_top, right, bottom = plot.box
    about = 6 if width > 400 else 3
    keys = [
        (tag("g", charts.marker(3, 0, 0, 4.5), class_="s5 hollow"), "predicted"),
        (tag("g", charts.marker(0, 0, 0, 5), class_="s0"), "measured, with its 95 % interval"),
    ]
    steps = plot.x.ticks(about)
    decimals = 0 if all(abs(100 * v - round(100 * v)) < 1e-6 for v in steps) else 1
    return charts.drawing(
        width,
        height,
        f"Predicted and measured speedup of {numbers.plural(len(found), 'plan')}; the same figures are in the table below",
        text(16, 24, "Plans, against what was asked", class_="title"),
        charts.legend(keys, 16, 46, width)[0],
        *(line(plot.x(v), plot_top, plot.x(v), bottom, "grid") for v in steps),
        line(plot.x(0), plot_top, plot.x(0), bottom, "limit"),
        charts.axis_bottom(plot, lambda v: signed_percent(v, decimals) if v else "asked", about, room=40),
        text(right + 12, plot_top - 4, "measured"),
        text(right, bottom + 38, "slower ← asked → faster", anchor="end"),
        *(_draw_row(plot, row, top + height_of_row * (i + 0.5) - 6, name_width) for i, row in enumerate(found)),
    )
