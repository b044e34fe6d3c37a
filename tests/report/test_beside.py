"""Other tools' models on the pages and in the terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from edgewise.records import Beside, Study
from edgewise.report import beside, family_html, family_table, html
from edgewise.report.family_chart import chart

from .conftest import OPENVINO, ORT, paired, quality, speedup
from .test_family import Family, read

NNCF = Beside(
    "nncf", OPENVINO, speedup(2.9, 1.0, OPENVINO), quality("accuracy", "test", 0.9301, 10_000, (), 3), paired(-0.002, 10_000), 400_000
)
SLOW = Beside("dynamic", ORT, speedup(1.4, 1.0, ORT), quality("accuracy", "test", 0.9311, 10_000, (), 5), paired(-0.001, 10_000), 420_000)


@pytest.fixture
def held(family: Family) -> Family:
    return tuple(replace(study, beside=(NNCF, SLOW)) for study in family)


def test_each_has_a_row_with_its_intervals_and_a_mark(held: Family) -> None:
    page = read(family_html(held))
    assert "nncf 2.90×" in page.said and "another tool's on openvino" in page.said
    assert "Squares are other tools' models" in page.said
    drawn = chart(held, 760)
    assert drawn.count("made by another tool") == 2 and ">dynamic<" in drawn
    assert "another tool" not in chart(tuple(replace(study, beside=()) for study in held), 760)


def test_the_chart_holds_what_lies_outside_the_members(held: Family) -> None:
    far = replace(NNCF, drop=paired(-0.2, 10_000), speedup=speedup(40.0, 1.0, OPENVINO))
    wide = tuple(replace(study, beside=(far,)) for study in held)
    assert chart(wide, 760).count("made by another tool") == 1
    assert "−20" in chart(wide, 760)


def test_what_several_studies_hold_counts_once(held: Family) -> None:
    assert [one.name for one in beside.of(held)] == ["dynamic", "nncf"]


def test_the_page_of_one_study(met: Study) -> None:
    assert "Other tools' models, on the test split" in read(html(replace(met, beside=(NNCF,)))).said
    assert "Other tools' models" not in read(html(met)).said


def test_in_the_terminal(held: Family) -> None:
    console = Console(width=80, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(family_table(held))
    lines = capture.get().splitlines()
    assert any(line.strip().startswith("nncf") or " nncf " in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_name_is_escaped(held: Family) -> None:
    hostile = tuple(replace(study, beside=(replace(NNCF, name="<script>x</script>"),)) for study in held)
    assert "<script>x" not in family_html(hostile)
