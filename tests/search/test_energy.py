"""A budget in millijoules: the outcome and the sentence say whether it was measured or modelled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgewise.records import Conditions, Device, Interval, Latency, Measurement, Outcome, PairedDifference, Speedup
from edgewise.search.asked import Asked
from edgewise.search.choose import outcomes
from edgewise.search.verdict import _missed
from edgewise.types import Budget, Execution, Watts, to_json

SOURCE = str(Watts(busy=4.2, idle=1.9))
CONDITIONS = Conditions("here", "engine 1", 1, (0,), None, None, None, None, "2026-01-01")
SAME = PairedDifference(Interval(0, -0.01, 0.01, 100), 0, 0, 1.0, 0.01)
AS_FAST = Speedup(Interval(1, 0.99, 1.01, 100), (1.0,), (1.0,), (1.0,), True, 1.0, CONDITIONS, CONDITIONS)


def found(asked_mj: float, spent_mj: float, source: str) -> Outcome:
    measured = Measurement(Execution("e"), CONDITIONS, Latency((1.0,) * 10), 1, 1, 10, 1, energy_mj=spent_mj, energy_source=source)
    return next(one for one in outcomes(Budget(energy_mj=asked_mj), AS_FAST, measured, 1, SAME, 0.9) if one.limit == "energy_mj")


@pytest.mark.parametrize("source", [SOURCE, "RAPL (1 package)"])
def test_met_or_missed_it_says_how_it_is_known(source: str) -> None:
    met, missed = found(12, 10, source), found(12, 15, source)
    assert (met.met, met.source) == (True, source)
    assert (missed.met, missed.source) == (False, source)
    assert _missed(missed) == f"12 mJ were allowed and 15 mJ ({source}) spent"


def test_other_outcomes_are_written_as_before() -> None:
    assert b"source" not in to_json(Outcome("speedup", 2.0, Interval(2, 2, 2, 9), True, "x"))


def test_without_either_it_is_refused_and_names_the_way_out(tmp_path) -> None:
    device = Device("board", "aarch64", "CPU", 4, (), 2**32, "Linux", {}, "none: no meter")
    given = (None, ("onnxruntime",), tmp_path, None, 0, 0, 1.0, 1.0, "")
    with pytest.raises(ValueError, match=r"energy is none: no meter\. Leave this limit out, or state .* --watts idle=1\.9,busy=4\.2"):
        Asked(Budget(energy_mj=12), device, *given)
    Asked(Budget(energy_mj=12), replace(device, energy=SOURCE, watts=Watts(4.2, 1.9)), *given)
