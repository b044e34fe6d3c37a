"""Sliding-window figures, on a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.errors import InvalidInput
from edgewise.host import Answer, Late, NoModel, Refused
from edgewise.serve import vitals
from edgewise.serve.problems import TooMany, Unauthorized
from edgewise.serve.vitals import Vitals


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@given(st.lists(st.floats(2e-5, 1000.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_percentiles_are_nearest_ranks_to_within_half_a_bucket(seconds: list[float], share: float) -> None:
    histogram = Counter(vitals.bucket(each) for each in seconds)
    found = vitals.percentile_s(histogram, share)
    exact = float(np.quantile(seconds, share, method="inverted_cdf"))
    assert found is not None and abs(found / exact - 1) < 2 ** (0.5 / vitals.STEPS) - 1 + 1e-9


def test_what_is_out_of_the_histograms_range_is_in_its_last_bucket() -> None:
    assert vitals.bucket(0.0) == vitals.bucket(1e-9) == 0
    assert vitals.bucket(1e9) == vitals.LONGEST
    assert vitals.percentile_s(Counter(), 0.5) is None


def test_nothing_came(clock: Clock) -> None:
    kept = Vitals(clock)
    found = kept.recent()
    assert (found.requests, found.rate, found.p50_ms, found.waiting, found.mean_rows) == (0, 0.0, None, 0.0, None)
    assert kept.rates() == [0] * 60 and kept.p99s_ms() == [None] * 60


def test_each_outcome_is_counted_and_only_answers_have_a_time(clock: Clock) -> None:
    kept = Vitals(clock)
    clock.now += 10
    for _ in range(8):
        kept.finished("net", "1", "success", 0.010, queued_s=0.5, rows=4)
    kept.finished("net", "2", "success", 0.001, cached=True)
    kept.finished("net", "", "refused", 0.0001)
    kept.finished("net", "1", "late", 0.050, queued_s=1.0)
    kept.finished("net", "1", "fail", 3.0)
    kept.finished("other", "1", "success", 1.0)
    found = kept.recent("net")
    assert (found.requests, found.success, found.refused, found.late, found.fail, found.cached) == (12, 9, 1, 1, 1, 1)
    assert found.seconds == 10 and found.rate == 1.2
    assert found.p50_ms == pytest.approx(10, rel=0.045) and found.p99_ms == pytest.approx(10, rel=0.045)
    assert found.waiting == pytest.approx(0.5)  # eight waited half a second, one a whole one, in ten seconds
    assert found.rows == {4: 8} and found.mean_rows == 4
    assert kept.recent("net", "2").p50_ms == pytest.approx(1, rel=0.045)
    assert kept.versions("net") == ("", "1", "2") and kept.versions("nothing") == ()
    assert kept.recent().requests == 13


def test_a_second_leaves_when_it_is_a_window_old(clock: Clock) -> None:
    kept = Vitals(clock, window_s=5)
    for number in range(8):
        for _ in range(number):
            kept.finished("net", "1", "success", 0.001)
        clock.now += 1
    assert kept.rates("net") == kept.rates() == [4, 5, 6, 7, 0] and kept.rates("other") == [0] * 5
    assert [p99 is None for p99 in kept.p99s_ms()] == [False] * 4 + [True]
    clock.now += 60
    assert kept.recent("net").requests == 0 and kept.versions("net") == ()


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["success", "fail", "refused", "late"])), max_size=60))
def test_counts_are_those_of_the_window(events: list[tuple[int, vitals.Outcome]]) -> None:
    clock = Clock()
    kept, told = Vitals(clock, window_s=7), []
    for wait, outcome in events:
        clock.now += wait
        kept.finished("net", "1", outcome, 0.01)
        told.append((int(clock.now), outcome))
    inside = [outcome for at, outcome in told if int(clock.now) - at < 7]
    found = kept.recent("net")
    assert found.requests == len(inside) == sum(kept.rates())
    assert found.late == inside.count("late")


def test_made_up_names_take_no_more_than_their_room(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitals, "MOST", 3)
    kept = Vitals(clock)
    for number in range(5):
        kept.finished(f"net{number}", "1", "success", 0.001)
    assert kept.recent().requests == 3
    clock.now += 100
    kept.finished("net9", "1", "success", 0.001)
    assert kept.recent("net9").requests == 1


def test_errors_are_counted_as_what_they_are(clock: Clock) -> None:
    kept = Vitals(clock)
    kept.answered(Answer("net", "1", {}, queued_s=0.25, rows=8), 0.01)
    for error in (Refused("full"), TooMany("too much", 1.0), Late("late"), InvalidInput("wrong"), RuntimeError("ours")):
        kept.failed("net", "1", error, 0.01)
    for error in (NoModel("none"), Unauthorized("key"), asyncio.CancelledError()):
        kept.failed("made up", "", error, 0.01)
    found = kept.recent()
    assert (found.success, found.refused, found.late, found.fail) == (1, 2, 1, 2)
    assert found.rows == {8: 1} and found.waiting == 0.25
    assert kept.versions("made up") == ()


def test_each_seconds_p99_is_of_all_models_and_the_one_that_runs_is_looked_at_anew(clock: Clock) -> None:
    kept = Vitals(clock, window_s=3)
    kept.finished("one", "1", "success", 0.001)
    kept.finished("two", "1", "success", 0.1)
    assert kept.p99s_ms()[-1] == pytest.approx(100, rel=0.045)
    kept.finished("one", "1", "success", 1.0)
    assert kept.p99s_ms()[-1] == pytest.approx(1000, rel=0.045)
    clock.now += 1
    kept.finished("two", "1", "success", 0.01)
    for _ in range(2):
        assert kept.p99s_ms() == [None, pytest.approx(1000, rel=0.045), pytest.approx(10, rel=0.045)]
