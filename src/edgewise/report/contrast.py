"""Two studies of one model on different devices: where their widths part, and what the latency tables say of it."""

from __future__ import annotations

from dataclasses import dataclass

from edgewise.records import Interval, LatencyTable, Study
from edgewise.report import numbers


@dataclass(frozen=True)
class Parting:
    """A part that has other widths in two studies.

    saved: of each device's time, the share that goes when the part is narrowed to (nearly) the smaller of both widths, all others whole;
    None where its table doesn't say. at: the widths that the tables have it of.
    """

    part: str
    kind: str
    units: int
    widths: tuple[int, int]
    saved: tuple[Interval | None, Interval | None]
    at: tuple[int, int]

    @property
    def differ(self) -> bool | None:
        """Whether the tables do, by their intervals; None where one of them doesn't say."""
        one, other = self.saved
        return None if one is None or other is None else one.low > other.high or other.low > one.high

    def reason(self, names: tuple[str, str]) -> str:
        one, other = self.saved
        if one is None or other is None:
            return f"{names[0] if one is None else names[1]} has no latency table of it"
        said = " and ".join(
            f"{numbers.percent(saved.value)} of the time on {name} (at {at})"
            for saved, name, at in zip((one, other), names, self.at, strict=True)
        )
        if self.differ:
            narrower = names[self.widths.index(min(self.widths))]
            more = names[0] if one.value > other.value else names[1]
            why = "where it saves more, it is narrower" if narrower == more else "though it saves less there: other parts gave less still"
            return f"narrowing it saves {said}; {why}"
        return f"narrowing it saves {said}, alike within the intervals: the rest of the plan decided"


def partings(one: Study, other: Study) -> tuple[Parting, ...]:
    """Those of the largest difference of what is left first."""
    tables = tuple(map(_table, (one, other)))
    left = [{part.part: part.width for part in study.widths} for study in (one, other)]
    found = []
    for part in {part.part: part for part in (*one.widths, *other.widths)}.values():
        widths = left[0].get(part.part, part.units), left[1].get(part.part, part.units)
        if widths[0] == widths[1]:
            continue
        said = [_saved(table, part.part, min(widths)) for table in tables]
        saved, at = (said[0][0], said[1][0]), (said[0][1], said[1][1])
        found.append(Parting(part.part, part.kind, part.units, widths, saved, at))
    return tuple(sorted(found, key=lambda each: -abs(each.widths[0] - each.widths[1]) / max(1, each.units)))


def _table(study: Study) -> LatencyTable | None:
    """The one that served the verdict's engine, else any."""
    chosen = study.trial(study.verdict.trial).execution if study.verdict else None
    return next((table for table in study.tables if table.execution == chosen), study.tables[0] if study.tables else None)


def _saved(table: LatencyTable | None, part: str, width: int) -> tuple[Interval | None, int]:
    """1 minus the time that is left at the measured width that is nearest."""
    entries = [entry for entry in table.entries if entry.part == part] if table else []
    if not entries:
        return None, 0
    nearest = min(entries, key=lambda entry: (abs(entry.width - width), entry.width))
    ratio = nearest.ratio
    return Interval(1 - ratio.value, 1 - ratio.high, 1 - ratio.low, ratio.n), nearest.width
