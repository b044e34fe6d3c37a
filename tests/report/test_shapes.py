"""Rows of the shapes that were timed."""

from dataclasses import replace
from io import StringIO

from rich.console import Console

from edgewise.records import Interval, ShapeSpeedup
from edgewise.report import html, shapes, terminal
from edgewise.types import Execution

SHORT = ShapeSpeedup({"ids": (1, 32), "mask": (1, 32)}, Execution("openvino"), Interval(3.1, 3.0, 3.2, 40), 6.2, 2.0)
LONG = ShapeSpeedup({"ids": (1, 128), "mask": (1, 4)}, Execution("onnxruntime"), Interval(2.9, 2.8, 3.0, 40), 29.0, 10.0)


def test_a_shape_is_called_by_its_sizes_and_by_names_where_they_differ():
    assert shapes.name(SHORT) == "1×32"
    assert shapes.name(LONG) == "ids 1×128, mask 1×4"


def test_page_and_terminal_show_every_shape_of_the_verdict(met):
    several = replace(met, verdict=replace(met.verdict, shapes=(SHORT, LONG)))
    page = html(several)
    assert shapes.CAPTION in page and "1×32" in page and "2.90×" in page
    assert shapes.CAPTION not in html(met)
    out = StringIO()
    Console(file=out, width=100).print(terminal.table(several))
    assert "1×32" in out.getvalue() and "3.10×" in out.getvalue()
