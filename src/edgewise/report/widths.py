"""How wide every part of the network was, and what the chosen model has left of it."""

from __future__ import annotations

from collections.abc import Sequence

from edgewise.records import PartWidth, Study
from edgewise.report import charts, numbers, tables
from edgewise.report.charts import text
from edgewise.report.document import Section
from edgewise.report.markup import Markup, join, tag

MANY = 30  # rows; more than these are drawn closer together
LEAST_PIXELS = 6.0  # of a bar: what has a few units beside thousands can still be seen


def by_kind(parts: Sequence[PartWidth]) -> dict[str, list[PartWidth]]:
    """Heads and neurons can't be drawn on one scale: one is many of the other."""
    found: dict[str, list[PartWidth]] = {}
    for part in parts:
        found.setdefault(part.kind, []).append(part)
    return found


def summary(parts: Sequence[PartWidth]) -> str:
    """How many parts became narrower, and how many units of each kind are left."""
    gone = sum(part.width == 0 for part in parts)
    narrowed = sum(0 < part.width < part.units for part in parts)
    said = [f"{narrowed} of {numbers.plural(len(parts), 'part')} {'is' if narrowed == 1 else 'are'} narrower"]
    if gone:
        said.append(f"{gone} {'is' if gone == 1 else 'are'} gone, with {'its branch' if gone == 1 else 'their branches'}")
    counts = [(kind, sum(part.width for part in some), sum(part.units for part in some)) for kind, some in by_kind(parts).items()]
    left = ", ".join(
        f"{numbers.count(width)} of {numbers.count(units)} {kind} ({100 * width / max(1, units):.0f} %)" for kind, width, units in counts
    )
    return f"{', '.join(said)}. Left: {left}."


def section(study: Study) -> Section | None:
    """None where the chosen model wasn't pruned."""
    if not study.widths:
        return None
    lead = (
        f"What pruning took: {summary(study.widths)} A part is what can only become narrower as one: filters of one convolution, or of all "
        "that a residual connection adds up. Hover or focus a row for its figures; Enter goes to its row of the table."
    )
    drawing = charts.responsive(lambda width: chart(study.widths, width), wide=760)
    folded = tag("details", tag("summary", f"Table of all {numbers.plural(len(study.widths), 'part')}"), _table(study.widths))
    return "widths", "Widths", join([tag("p", lead, class_="lead"), tag("figure", drawing), folded])


def _left(part: PartWidth) -> str:
    return "gone" if not part.width else "whole" if part.width == part.units else f"{100 * part.width / part.units:.0f} % left"


def _table(parts: Sequence[PartWidth]) -> Markup:
    rows = []
    for number, part in enumerate(parts, 1):
        cells = (part.kind, numbers.count(part.units), numbers.count(part.width), _left(part))
        name = tag("th", tag("code", part.part), scope="row")
        rows.append(tag("tr", name, *(tag("td", value) for value in cells), id=f"part-{number}", tabindex="-1"))
    return tables.table("Units of every part, in the order of the network", ("Part", "Kind", "Before", "After", ""), rows)


def _name(part: PartWidth, most: int) -> str:
    """As much of the name's end as there is room for: layers differ at the end. Nearly all are called weight."""
    name = part.part.removesuffix(".weight")
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _counted(part: PartWidth) -> str:
    """What stands beside its bar."""
    if not part.width:
        return "gone"
    return f"{numbers.count(part.width)} of {numbers.count(part.units)}" if part.width < part.units else numbers.count(part.units)


def _row(part: PartWidth, number: int, y: float, left: float, scale: float, pitch: float) -> Markup:
    """The outline is what there was, the bar in it what is left."""
    whole = max(LEAST_PIXELS, scale * part.units)
    kept, high = whole * part.width / part.units, min(13.0, pitch - 4)
    counted = _counted(part)
    tip = (part.part, f"{part.width} of {part.units} {part.kind}", _left(part))
    outline = tag("rect", x=left, y=y - high / 2, width=whole, height=high, rx=2.0, class_="was" if kept else "mark gone")
    bar = tag("rect", x=left, y=y - high / 2, width=kept, height=high, rx=2.0, class_="mark") if kept else None
    return charts.point(
        f"#part-{number}",
        tip,
        tag("rect", x=0.0, y=y - pitch / 2, width=left + whole + 60, height=pitch, fill="transparent"),
        text(left - 8, y + 4, _name(part, int((left - 12) / 6.6)), anchor="end", class_="strong"),
        outline,
        bar,
        text(left + whole + 8, y + 4, counted, class_="name" if part.width < part.units else None),
        class_=f"{charts.colour(0)} row",
    )


def chart(parts: Sequence[PartWidth], width: int) -> Markup:
    """A row per part in the order of the network, a scale per kind."""
    numbered = {id(part): number for number, part in enumerate(parts, 1)}
    pitch = 22.0 if len(parts) <= MANY else 17.0
    longest = max(len(part.part.removesuffix(".weight")) for part in parts)
    left = min(width * 0.4, max(60.0, 6.6 * longest + 14))
    drawn: list[Markup] = []
    y = 62.0
    for kind, some in by_kind(parts).items():
        y += 12
        drawn.append(text(16, y, f"{numbers.capital(kind)}, {numbers.count(max(part.units for part in some))} at most"))
        y += 8 + pitch / 2
        room = 16 + max(charts.text_width(_counted(part), 13) for part in some)
        scale = (width - left - room) / max(part.units for part in some)
        for part in some:
            drawn.append(_row(part, numbered[id(part)], y, left, scale, pitch))
            y += pitch
    keys = [
        (tag("g", tag("rect", x=-6.0, y=-5.0, width=12.0, height=10.0, rx=2.0, class_="was"), class_="s0"), "before"),
        (tag("g", tag("rect", x=-6.0, y=-5.0, width=12.0, height=10.0, rx=2.0, class_="mark"), class_="s0"), "left"),
        (tag("g", tag("rect", x=-6.0, y=-5.0, width=12.0, height=10.0, rx=2.0, class_="mark gone"), class_="s0"), "gone, with its branch"),
    ]
    shown = keys if any(not part.width for part in parts) else keys[:2]
    return charts.drawing(
        width,
        y + 8,
        f"Units of every part before and after: {summary(parts)} The same figures are in the table below.",
        text(16, 24, "Units of every part, before and after", class_="title"),
        charts.legend(shown, 16, 46, width)[0],
        *drawn,
    )
