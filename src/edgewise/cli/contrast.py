"""`edgewise compare STUDY STUDY`: one model, fitted on two devices, and why its widths came out otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgewise.errors import InvalidInput

if TYPE_CHECKING:
    from edgewise.records import Study

_KEPT = ("study.json", "study/study.json")


def study_at(path: Path) -> Path | None:
    """The file of a study that `path` names: itself, or what `fit` or `compress` left in that folder."""
    if path.suffix == ".json" and path.is_file():
        return path
    return next((path / name for name in _KEPT if (path / name).is_file()), None) if path.is_dir() else None


def run(a: Path, b: Path, *, as_json: bool) -> None:
    """a, b: files that `study_at` found. Raises InvalidInput where they are no studies, or of different networks."""
    import msgspec

    from edgewise.cli.terminal import clean, console, listing
    from edgewise.report import numbers
    from edgewise.report.contrast import partings

    one, other = _read(a), _read(b)
    if {part.part for part in one.widths} != {part.part for part in other.widths} and one.widths and other.widths:
        raise InvalidInput(f"{a} and {b} are studies of different networks: their parts have other names")
    found = partings(one, other)
    names = (one.device.name, other.device.name)
    names = names if names[0] != names[1] else (f"{names[0]} (a)", f"{names[1]} (b)")
    if as_json:
        records = [{"parting": each, "differ": each.differ, "reason": each.reason(names)} for each in found]
        told = {"devices": names, "verdicts": [study.verdict and study.verdict.summary for study in (one, other)], "widths": records}
        typer.echo(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
        return
    out = console()
    for name, study in zip(names, (one, other), strict=True):
        out.print(clean(f"{name}: {study.verdict.summary if study.verdict else 'no verdict yet'}"))
    out.print()
    if not found:
        out.print("No widths differ." if one.widths or other.widths else "Neither model was pruned.")
        return
    table = listing("part", "of", *names, "why", right=("of", *names))
    for each in found:
        table.add_row(each.part, numbers.count(each.units), *map(numbers.count, each.widths), each.reason(names))
    out.print(table)
    same = len({part.part for part in (*one.widths, *other.widths)}) - len(found)
    if same:
        out.print(f"{numbers.plural(same, 'part')} as wide on both.", style="dim")


def _read(path: Path) -> Study:
    from edgewise.records import Study
    from edgewise.types import from_json

    try:
        return from_json(path.read_bytes(), Study)
    except (OSError, InvalidInput) as error:
        raise InvalidInput(f"{path} is no study of this release: {error}") from error
