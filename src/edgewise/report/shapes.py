"""Time at each of several shapes, where a task names them (a text's lengths): the slowest gain is the one that counts."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from edgewise.records import ShapeSpeedup
from edgewise.report import figures, numbers, tables
from edgewise.report.cells import full, grid, text
from edgewise.report.markup import Markup, tag

CAPTION = "Time at each shape, on the test device"
HEAD = ("Inputs", "Speedup", "Reference", "Chosen", "Fastest dense engine")


def name(shape: ShapeSpeedup) -> str:
    """ "1×32" where all inputs are alike, else each with its name."""
    sizes = {key: "×".join(map(str, size)) or "scalar" for key, size in shape.inputs.items()}
    if len(set(sizes.values())) == 1:
        return next(iter(sizes.values()))
    return ", ".join(f"{key} {size}" for key, size in sizes.items())


def each(shapes: Sequence[ShapeSpeedup]) -> str:
    """ "9.4× at 1×32, 7.7× at 1×128"; nothing where one shape was timed."""
    return ", ".join(f"{numbers.times(shape.ratio.value)} at {name(shape)}" for shape in shapes)


def table(shapes: Sequence[ShapeSpeedup]) -> Markup | None:
    """For the page; nothing where one shape was timed."""
    if not shapes:
        return None
    rows = [
        (
            tag("th", name(shape), scope="row"),
            tables.cell(figures.ratio(shape.ratio), "Speedup"),
            tag("td", numbers.ms(shape.reference_ms), data_label="Reference"),
            tag("td", numbers.ms(shape.candidate_ms), data_label="Chosen"),
            tag("td", str(shape.reference), data_label="Fastest dense engine"),
        )
        for shape in shapes
    ]
    return tables.plain_table(CAPTION, HEAD, rows, "cards")


def grid_of(shapes: Sequence[ShapeSpeedup]) -> Table:
    """For the terminal."""
    shown = grid(*HEAD)
    for shape in shapes:
        times = (text(numbers.ms(shape.reference_ms)), text(numbers.ms(shape.candidate_ms)))
        shown.add_row(text(name(shape)), full(figures.ratio(shape.ratio)), *times, text(str(shape.reference)))
    return shown
