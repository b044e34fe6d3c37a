"""Two studies of one network on two devices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgewise.records import Interval, LatencyTable, PartWidth, Study, WidthTime
from edgewise.report.contrast import partings
from edgewise.types import Execution

ORT = Execution("onnxruntime")


@pytest.fixture
def study(make_study: Any) -> Study:
    return make_study()


def of(study: Study, widths: dict[str, int], left: dict[str, float]) -> Study:
    """A study that kept `widths` of 32 each, on a device where narrowing a part to 16 leaves that share of the time."""
    entries = tuple(WidthTime(part, 16, Interval(share, share - 0.01, share + 0.01, 20)) for part, share in left.items())
    table = LatencyTable(ORT, "", "", {}, "", "", 1.0, dict.fromkeys(widths, 32), entries)
    return replace(study, tables=(table,), widths=tuple(PartWidth(part, "channels", 32, width) for part, width in widths.items()))


def test_what_the_tables_say_of_it(study: Study) -> None:
    one = of(study, {"a": 16, "b": 20, "c": 32, "d": 8}, {"a": 0.7, "b": 0.8, "d": 0.9})
    other = of(study, {"a": 28, "b": 12, "c": 32, "d": 9}, {"a": 0.9, "b": 0.79, "d": 0.7})
    found = {each.part: each for each in partings(one, other)}
    assert list(found) == ["a", "b", "d"] and found["a"].widths == (16, 28)
    assert [found[part].differ for part in "abd"] == [True, False, True]
    reasons = {part: each.reason(("pi", "laptop")) for part, each in found.items()}
    assert reasons["a"] == (
        "narrowing it saves 30.0 % of the time on pi (at 16) and 10.0 % of the time on laptop (at 16); where it saves more, it is narrower"
    )
    assert "alike within the intervals" in reasons["b"] and "though it saves less there" in reasons["d"]


def test_a_table_that_is_silent(study: Study) -> None:
    (found,) = partings(of(study, {"a": 16}, {}), of(study, {"a": 32}, {"a": 0.5}))
    assert found.differ is None and found.reason(("pi", "laptop")) == "pi has no latency table of it"
    bare = replace(study, widths=(), tables=())
    (narrower,) = partings(bare, of(study, {"a": 16, "b": 32}, {"a": 0.5}))
    assert narrower.widths == (32, 16)
    assert partings(bare, bare) == ()
