"""What widths cost on the device: how the time of the whole model falls as one part becomes narrower, and how well that adds up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewise.records import LatencyTable, Study, WidthTime
from edgewise.report import figures, numbers, tables, times_chart, words
from edgewise.report.document import Section
from edgewise.report.markup import Markup, join, tag
from edgewise.report.times_chart import Curve

MOST_KINDS = 12  # of layers in the table; the rest is summed


@dataclass(frozen=True)
class Group:
    """The parts that one curve stands for: the one that was measured, and those that are alike."""

    curve: Curve
    alike: tuple[str, ...]


def groups(table: LatencyTable, prefix: str) -> tuple[Group, ...]:
    """Those that save the most of the time first. `prefix` is what the ids of the table's rows begin with."""
    alike: dict[str, dict[str, None]] = {}
    points: dict[str, list[tuple[WidthTime, str]]] = {}
    for number, entry in enumerate(table.entries, 1):
        lead = entry.measured_as or entry.part
        others = alike.setdefault(lead, {})
        if entry.measured_as:
            others[entry.part] = None
        else:
            points.setdefault(lead, []).append((entry, f"{prefix}-{number}"))
    found = [
        Group(Curve(lead, table.units.get(lead, max(entry.width for entry, _ in some)), len(alike[lead]), tuple(some)), tuple(alike[lead]))
        for lead, some in points.items()
    ]
    return tuple(sorted(found, key=lambda group: min(entry.ratio.value for entry, _ in group.curve.points)))


def section(study: Study) -> Section | None:
    """None without tables."""
    if not study.tables:
        return None
    lead = (
        "How long the whole model takes with one part narrower and all others whole, measured on this device in the form that serves: what "
        "widths for a speedup are solved by. Engines compute whole vectors of channels, so that time falls in stairs. Parts that do the "
        "same work were measured once. Hover or focus a point for its figures; Enter goes to its row."
    )
    shown = [_one(table, number, len(study.tables)) for number, table in enumerate(study.tables, 1)]
    title = "Latency table" if len(study.tables) == 1 else "Latency tables"
    return "table", title, join([tag("p", lead, class_="lead"), *shown])


def _one(table: LatencyTable, number: int, of: int) -> Markup:
    found = groups(table, f"entry-{number}")
    curves = [group.curve for group in found]
    drawing = tag("figure", times_chart.responsive(curves)) if curves else tag("p", "No width was timed yet.")
    entries = tag("details", tag("summary", f"All {numbers.plural(len(table.entries), 'entry', 'entries')}"), _entries(table, number))
    heading = tag("h3", tag("code", figures.shortened(table.form)), f" on {table.execution}") if of > 1 else None
    facts = tables.pairs(f"Latency table {number}", _facts(table))
    notes = [tag("p", note, class_="note") for note in table.notes]
    return join([heading, facts, drawing, *notes, entries if curves else None, _kinds(table)])


def _facts(table: LatencyTable) -> list[tuple[str, Markup | str]]:
    alone = sum(not entry.measured_as for entry in table.entries)
    taken = len(table.entries) - alone
    alike = f", {numbers.plural(taken, 'more', 'more')} of parts that are alike" if taken else ""
    together = [numbers.plural(len(table.joint), "configuration")] if table.joint else []
    together += [f"{numbers.plural(len(table.corrections), 'plan')} measured later"] if table.corrections else []
    engine = table.conditions.engine if table.conditions else ""
    shapes = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in table.inputs.items())
    return [
        ("Form", tag("code", figures.shortened(table.form))),
        ("Run by", f"{table.execution}{f' ({engine})' if engine else ''}, {shapes}"),
        ("Dense model", f"{numbers.ms(table.dense_ms)} a call" if table.dense_ms else ""),
        ("Against itself", str(figures.ratio(table.scatter)) if table.scatter else ""),
        ("Measured", f"{numbers.plural(alone, 'width')} of single parts{alike}"),
        ("Measured together", ", ".join(together)),
        ("Disturbed", words.disturbed(table.conditions) if table.conditions else ""),
        ("Error of predictions", _error(table)),
        ("Took", numbers.duration(table.seconds) if table.seconds else ""),
    ]


def _error(table: LatencyTable) -> str:
    """Of joint configurations that the model hadn't seen."""
    if table.model is None:
        return "nothing was fitted to it yet"
    if table.model.error is None or table.model.worst is None:
        return "not known: too few configurations to leave some out"
    error, worst, n = numbers.percent(table.model.error), numbers.percent(table.model.worst), len(table.joint)
    seen = f"on {numbers.plural(n, 'configuration')} of many parts at once, each left out of the fit that predicted it"
    return f"{error} median, {worst} at worst, {seen}"


def _entries(table: LatencyTable, number: int) -> Markup:
    rows = []
    for place, entry in enumerate(table.entries, 1):
        units = table.units.get(entry.part)
        of = f" of {numbers.count(units)}" if units else ""
        how = f"as {entry.measured_as}" if entry.measured_as else f"{entry.together} at once" if entry.together > 1 else "alone"
        name = tag("th", tag("code", entry.part), scope="row")
        time = tables.cell(figures.share(entry.ratio, "pair"), "Time")
        cells = (tag("td", f"{numbers.count(entry.width)}{of}"), time, tag("td", how))
        rows.append(tag("tr", name, *cells, id=f"entry-{number}-{place}", tabindex="-1"))
    caption = "Time of the whole model with one part narrower, of the dense model's"
    return tables.table(caption, ("Part", "Width", "Time", "Measured"), rows)


def _kinds(table: LatencyTable) -> Markup | None:
    """Where the dense model's time goes, as fitted."""
    if table.model is None or not table.model.shares:
        return None
    shares = sorted(((sum(parts), kind) for kind, parts in table.model.shares.items()), reverse=True)
    rows: list[Sequence[Markup]] = [
        (tag("th", kind, scope="row"), tag("td", numbers.percent(share), class_="figure")) for share, kind in shares[:MOST_KINDS]
    ]
    if rest := shares[MOST_KINDS:]:
        total = numbers.percent(sum(share for share, _ in rest))
        rows.append((tag("th", f"{len(rest)} other kinds", scope="row"), tag("td", total, class_="figure")))
    shown = tables.plain_table("Share of the dense model's time, as fitted to all that was measured", ("Kind of layer", "Share"), rows)
    return tag("details", tag("summary", "Where the dense model's time goes, by kind of layer"), shown)
