from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from xml.dom import minidom

import numpy as np
import pytest

from edgewise.records import Study
from edgewise.report import pareto_svg
from edgewise.report.pareto import front, limits, pareto, points, tip
from edgewise.types import Budget, Execution


def test_time_is_the_reference_divided_by_the_interleaved_ratio(met: Study) -> None:
    base = met.trials[0].measurement.latency.p50_ms
    found = {p.trial.key: p for p in points(met, "latency")}
    trial = met.trials[8]
    assert found[trial.key].x == pytest.approx(base / trial.speedup.ratio.value)
    assert found[trial.key].x_low == pytest.approx(base / trial.speedup.ratio.high)
    assert found["key00"].x == pytest.approx(base)


def test_a_trial_without_a_pair_stands_at_its_own_time(met: Study) -> None:
    alone = replace(met.trials[8], speedup=None)
    study = replace(met, trials=(met.trials[0], alone))
    found = points(study, "latency")[1]
    assert found.x == pytest.approx(alone.measurement.latency.p50_ms)
    assert "timed alone, not against the reference" in tip(study, found)


@pytest.mark.parametrize("against", ["latency", "size"])
def test_front_against_brute_force(make_study: Callable[..., Study], against: str) -> None:
    random = np.random.default_rng(5)
    from_rows = tuple(
        (
            "int8",
            f"quantize(bits={i})" if i else "",
            Execution("openvino"),
            "measured",
            "",
            float(round(0.9 + 0.05 * random.random(), 3)),
            1 + float(random.random()),
            int(random.integers(1e5, 1e6)),
        )
        for i in range(40)
    )
    found = points(make_study(rows=from_rows, chosen=None), against)
    best = {id(p) for p in front(found)}
    for p in found:
        beaten = any((q.x <= p.x and q.y >= p.y) and (q.x < p.x or q.y > p.y) for q in found)
        if id(p) in best:
            assert not beaten
        else:
            assert beaten or any((q.x, q.y) == (p.x, p.y) for q in found if q is not p)


def test_screened_and_failed_trials_are_not_on_the_front(met: Study) -> None:
    found = points(met, "size")
    assert {p.trial.state for p in found} == {"measured", "screened"}
    assert {p.trial.state for p in front(found)} == {"measured"}


def test_limits_are_those_of_the_budget(met: Study) -> None:
    base, quality = met.trials[0].measurement.latency.p50_ms, met.trials[0].quality.value.value
    x, y = limits(met, "latency")
    assert x == pytest.approx(base / 2.5)
    assert y == pytest.approx(quality - 0.003)
    assert limits(met, "size")[0] == 1_000_000
    both = replace(met, budget=Budget(speedup=2.0, latency_ms=0.5, max_drop=0.01, relative_drop=True))
    assert limits(both, "latency") == (0.5, pytest.approx(quality * 0.99))
    tail = replace(met, budget=Budget(latency_ms=0.5, percentile="p95"))
    assert limits(tail, "latency")[0] is None


def test_one_collapsed_model_does_not_flatten_the_rest(met: Study) -> None:
    bad = replace(
        met.trials[7], quality=replace(met.trials[7].quality, value=replace(met.trials[7].quality.value, value=0.1, low=0.09, high=0.11))
    )
    drawn = pareto(replace(met, trials=(*met.trials[:7], bad, *met.trials[8:])), "latency", 540)
    assert "▾ 1 below the scale" in drawn
    assert "93.0 %" in drawn


@pytest.mark.parametrize("against", ["latency", "size"])
@pytest.mark.parametrize("dark", [None, True, False])
def test_a_file_of_its_own(extreme: Study, against: str, dark: bool | None) -> None:
    written = pareto_svg(extreme, width=700, height=420, dark=dark, against=against)
    root = minidom.parseString(written.encode()).documentElement
    assert (root.getAttribute("width"), root.getAttribute("height")) == ("700", "420")
    assert not root.getElementsByTagName("script")
    assert not root.getElementsByTagName("a")
    assert "var(--" not in written
    assert ("prefers-color-scheme" in written) == (dark is None)
    assert "NaN" not in written
    assert "inf" not in written.replace("information", "")


def test_the_same_study_gives_the_same_file(met: Study) -> None:
    assert pareto_svg(met) == pareto_svg(met)
    assert "chosen" in pareto_svg(met)
    assert "2.61×, 93.2 %" in pareto_svg(met)
