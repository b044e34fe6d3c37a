"""Before and after, row by row: recall per class as dumbbells, and the latency of every call as strips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.records import ClassQuality, Interval, Latency, Quality, Verdict
from edgewise.report import charts, numbers
from edgewise.report.charts import Plot, line, text
from edgewise.report.markup import Markup, tag
from edgewise.report.scale import Scale, linear_range, log_range

MOST_ROWS = 12  # of classes in the chart; the table under it holds all


@dataclass(frozen=True)
class ClassChange:
    before: ClassQuality
    after: ClassQuality

    @property
    def change(self) -> float:
        return self.after.recall.value - self.before.recall.value

    @property
    def apart(self) -> bool:
        """Whether the two intervals don't touch: a change that this n shows even unpaired."""
        return self.after.recall.high < self.before.recall.low or self.after.recall.low > self.before.recall.high


def class_changes(before: Quality, after: Quality) -> tuple[ClassChange, ...]:
    """Classes that both records hold, the largest loss first."""
    found = {c.label: c for c in after.per_class}
    both = [ClassChange(c, found[c.label]) for c in before.per_class if c.label in found]
    return tuple(sorted(both, key=lambda c: c.change))


def most_changed(changes: Sequence[ClassChange], most: int = MOST_ROWS) -> tuple[ClassChange, ...]:
    """All, or the `most` that changed the most, still the largest loss first."""
    kept = sorted(changes, key=lambda c: -abs(c.change))[:most]
    return tuple(sorted(kept, key=lambda c: c.change))


def _whisker(plot: Plot, at: Interval, y: float) -> Markup:
    return line(plot.x(at.low), y, plot.x(at.high), y, "range")


def _class_row(plot: Plot, change: ClassChange, y: float, name_width: float) -> Markup:
    before, after = change.before.recall, change.after.recall
    words = (
        f"{change.before.label}: recall {numbers.percent(before.value)} before, {numbers.percent(after.value)} after, "
        f"{numbers.points(change.change, 0.01)} points, n = {numbers.count(change.after.n)}"
    )
    return tag(
        "g",
        tag("title", words),
        text(name_width - 10, y + 4, charts.cut(change.before.label, int((name_width - 12) / 7)), anchor="end", class_="strong"),
        line(plot.x(before.value), y, plot.x(after.value), y, "leader"),
        tag("g", _whisker(plot, before, y - 4), charts.marker(3, plot.x(before.value), y - 4, 4), class_="s5 hollow"),
        tag("g", _whisker(plot, after, y + 4), charts.marker(0, plot.x(after.value), y + 4, 4.5), class_="s0"),
        text(plot.x.stop + 12, y + 4, numbers.points(change.change, 0.01), class_="name" if change.apart else None),
    )


def classes(verdict: Verdict, width: int) -> Markup | None:
    """Recall per class on the test split, reference and chosen; None without classes."""
    shown = most_changed(class_changes(verdict.reference_quality, verdict.quality))
    if not shown:
        return None
    row, top = 30, 66
    longest = max(len(c.before.label) for c in shown)
    name_width = float(min(width * 0.34, max(64, 7.2 * longest + 16)))
    height = top + row * len(shown) + 40
    ends = [end for c in shown for recall in (c.before.recall, c.after.recall) for end in (recall.low, recall.high)]
    low, high = linear_range(ends, pad=0.04, least=0.02)
    plot = Plot(Scale(max(0.0, low), min(1.0, high), name_width, width - 56), Scale(0, 1, height - 34, top - 10))
    _, plot_top, right, bottom = plot.box
    about = 6 if width > 400 else 3
    grid = [line(plot.x(v), plot_top, plot.x(v), bottom, "grid") for v in plot.x.ticks(about)]
    keys = [
        (tag("g", charts.marker(3, 0, 0, 4), class_="s5 hollow"), "reference"),
        (tag("g", charts.marker(0, 0, 0, 4.5), class_="s0"), "chosen"),
    ]
    return charts.drawing(
        width,
        height,
        "Recall per class, reference and chosen; the same figures are in the table below",
        text(16, 24, "Recall per class", class_="title"),
        charts.legend(keys, 16, 44, width)[0],
        text(right + 12, plot_top - 4, "points"),
        *grid,
        charts.axis_bottom(plot, lambda v: f"{100 * v:g} %", about, room=30),
        *(_class_row(plot, change, top + row * (i + 0.5) - 6, name_width) for i, change in enumerate(shown)),
        role="img",
    )


def _strip(plot: Plot, name: str, latency: Latency, y: float, series: int) -> Markup:
    """One row: a tick for every call (at most 400 drawn), the middle half as a bar, p50, p90 and p99 as lines, and in words."""
    samples = sorted(latency.samples_ms)
    drawn = samples[:: max(1, len(samples) // 400)]
    ticks = "".join(f"M{plot.x(v):.1f} {y - 7:.1f}v14" for v in drawn)
    quarter, three = latency.percentile(25), latency.percentile(75)
    at = {q: latency.percentile(q) for q in (50, 90, 99)}
    marks = [line(plot.x(v), y - 11, plot.x(v), y + 11, "ring") for v in at.values()]
    said = ", ".join(f"p{q} {numbers.ms(v)}" for q, v in at.items())
    return tag(
        "g",
        tag("path", d=ticks, class_="sample"),
        tag("rect", x=plot.x(quarter), y=y - 4, width=max(1.0, plot.x(three) - plot.x(quarter)), height=8.0, class_="mark"),
        *marks,
        tag("text", name, tag("tspan", said, class_="figures", dx=10.0), x=16.0, y=y - 19, class_="name halo"),
        class_=charts.colour(series),
    )


def latencies(rows: Sequence[tuple[str, Latency]], width: int) -> Markup | None:
    """Every call of the reference and of the chosen one, on one scale."""
    rows = [(name, latency) for name, latency in rows if latency.samples_ms]
    if not rows:
        return None
    top, row = 72, 62
    height = top + row * len(rows) + 20
    low, high = log_range([v for _, latency in rows for v in (min(latency.samples_ms), max(latency.samples_ms))], pad=0.06)
    plot = Plot(Scale(low, high, 16, width - 14, log=True), Scale(0, 1, height - 40, 44))
    _, plot_top, right, bottom = plot.box
    about = 5 if width > 400 else 3
    return charts.drawing(
        width,
        height,
        "Latency of every call: "
        + "; ".join(f"{name} p50 {numbers.ms(latency.p50_ms)}, p99 {numbers.ms(latency.p99_ms)}" for name, latency in rows),
        text(16, 24, "Time of every call", class_="title"),
        *(line(plot.x(v), plot_top, plot.x(v), bottom, "grid") for v in plot.x.ticks(about)),
        charts.axis_bottom(plot, lambda v: numbers.ms(v, round_number=True), about),
        text(right, bottom + 36, "log scale", anchor="end"),
        *(_strip(plot, name, latency, top + row * i + 10, 5 if name == "reference" else 0) for i, (name, latency) in enumerate(rows)),
        role="img",
    )
