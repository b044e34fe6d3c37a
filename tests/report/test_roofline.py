from __future__ import annotations

from dataclasses import replace

import pytest

from edgewise.records import Study
from edgewise.report import roofline


def test_spots_are_operations_over_time_and_bytes(met: Study) -> None:
    reference, chosen = roofline.spots(met)
    found = met.verdict.reference_measurement
    assert reference.intensity == pytest.approx(2 * 31_250_000 / 1_092_000)
    assert reference.gops == pytest.approx(2 * 31_250_000 / (found.latency.p50_ms / 1000) / 1e9)
    assert (reference.name, chosen.name) == ("reference", "chosen")


def test_roofs_are_those_of_the_same_threads(met: Study) -> None:
    assert roofline.roofs(met).threads == 1
    four = replace(met, device=replace(met.device, peaks=tuple(replace(p, threads=4 * p.threads) for p in met.device.peaks)))
    assert roofline.roofs(four) is None
    assert "weren't measured at this number of threads" in roofline.missing(four)[0]


def test_the_reference_alone_is_drawn_once(make_study) -> None:
    study = make_study(chosen=0)
    assert [spot.name for spot in roofline.spots(study)] == ["reference"]


def test_nothing_measured_nothing_drawn(met: Study) -> None:
    empty = replace(met, trials=(), verdict=None)
    assert roofline.chart(empty, 500) is None
    assert "Neither the reference nor a chosen model has been timed." in roofline.missing(empty)
