"""Time against width, a small chart per part, all on one scale: what saves much stands first and falls far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.records import WidthTime
from edgewise.report import charts, figures, numbers
from edgewise.report.charts import Plot, line, text
from edgewise.report.markup import Markup, tag
from edgewise.report.scale import Scale, linear_range

MOST = 12  # parts in the chart; the table under it holds all
CELL = 150.0  # height of one chart, its name included


@dataclass(frozen=True)
class Curve:
    """What was measured of one part: entries, each with the id of its row. `alike` parts beside it have the same curve."""

    part: str
    units: int
    alike: int
    points: tuple[tuple[WidthTime, str], ...]


def responsive(curves: Sequence[Curve]) -> Markup:
    return charts.responsive(lambda width: chart(curves, width), wide=760)


def tip(curve: Curve, entry: WidthTime) -> tuple[str, ...]:
    """What hover and focus show, a line each."""
    lines = (
        curve.part,
        f"{entry.width} of {curve.units}: time of the whole model",
        str(figures.share(entry.ratio, "pair")),
        f"{entry.together} narrowed at once, a share of that each" if entry.together > 1 else "",
        f"{numbers.plural(curve.alike, 'part')} more like it" if curve.alike else "",
    )
    return tuple(said for said in lines if said)


def _draw_point(plot: Plot, curve: Curve, entry: WidthTime, row: str) -> Markup:
    x, y, at = plot.x(entry.width), plot.y(entry.ratio.value), entry.ratio
    hit = tag("circle", cx=x, cy=y, r=9.0, fill="transparent")
    bar = line(x, plot.y(at.low), x, plot.y(at.high), "range")
    return charts.point(f"#{row}", tip(curve, entry), bar, hit, charts.marker(0, x, y, 3.25), class_=charts.colour(0))


def _cell(curve: Curve, left: float, top: float, width: float, low: float, high: float, about: int) -> Markup:
    """One part: its name, the dense model at the right, narrower to the left."""
    plot = Plot(Scale(0, curve.units, left + 40, left + width - 16), Scale(low, high, top + CELL - 34, top + 30))
    _, _, right, bottom = plot.box
    most = int((width - 8 - (26 if curve.alike else 0)) / 7)
    name = curve.part.removesuffix(".weight")
    name = name if len(name) <= most else f"…{name[1 - most :]}"
    alike = tag("tspan", f"+{curve.alike}", class_="figures", dx=6.0) if curve.alike else None
    ordered = sorted(curve.points, key=lambda point: -point[0].width)
    way = [(float(curve.units), 1.0), *((float(entry.width), entry.ratio.value) for entry, _ in ordered)]
    path = "M" + "L".join(f"{plot.x(x):.1f} {plot.y(y):.1f}" for x, y in way)
    # The middle tick is a width that an engine computes as it is.
    ticks = sorted({0, curve.units // 2 if curve.units >= 8 else 0, curve.units})
    return tag(
        "g",
        tag("text", name, alike, x=left + 4, y=top + 16, class_="name small"),
        *(line(plot.x.start, plot.y(v), right, plot.y(v), "grid") for v in plot.y.ticks(about)),
        *(text(plot.x.start - 6, plot.y(v) + 4, f"{100 * v:g} %", anchor="end", class_="small") for v in plot.y.ticks(about)),
        line(plot.x.start, bottom, right, bottom, "frame"),
        *(text(plot.x(v), bottom + 15, numbers.count(v), anchor="middle", class_="small") for v in ticks),
        tag("path", d=path, class_="curve"),
        tag("circle", cx=plot.x(curve.units), cy=plot.y(1), r=3.0, class_="whole"),
        *(_draw_point(plot, curve, entry, row) for entry, row in ordered),
        class_=charts.colour(0),
    )


def chart(curves: Sequence[Curve], width: int) -> Markup:
    """The parts that save the most, in the order given."""
    shown = curves[:MOST]
    columns = 2 if width < 600 else 3 if len(shown) <= 6 else 4
    top = 54.0
    ends = [1.0, *(end for curve in shown for entry, _ in curve.points for end in (entry.ratio.low, entry.ratio.high))]
    low, high = linear_range(ends, pad=0.06, least=0.04)
    wide = (width - 16) / columns
    cells = [_cell(curve, 12 + wide * (i % columns), top + CELL * (i // columns), wide, low, high, 3) for i, curve in enumerate(shown)]
    left = f", the {len(shown)} of {len(curves)} that save the most" if len(shown) < len(curves) else ""
    return charts.drawing(
        width,
        top + CELL * -(-len(shown) // columns),
        f"Time of the whole model against the width of one part{left}; the same figures are in the table below",
        text(16, 24, "Time of the whole model, by width of one part", class_="title"),
        text(16, 43, charts.cut(f"of the dense model's, one scale for all{left}; +n: as many parts are alike", (width - 26) // 7)),
        *cells,
    )
