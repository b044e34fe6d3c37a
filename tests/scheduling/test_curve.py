import math
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.errors import InvalidInput
from edgewise.scheduling import Curve, Point, paced

times = st.floats(0.05, 50)


@st.composite
def curves(draw):
    rows = sorted(draw(st.sets(st.integers(1, 24), min_size=1, max_size=6)))
    return Curve(tuple(Point(each, p50 := draw(times), p50 * draw(st.floats(1, 3))) for each in rows))


def curve(*p50_ms, tail=1.0):
    return Curve(tuple(Point(rows, p50, p50 * tail) for rows, p50 in p50_ms))


@given(curves(), st.integers(1, 200))
def test_time_never_falls_as_rows_grow_and_the_order_of_figures_holds(found, rows):
    for read in (found.median_s, found.p99_s):
        assert 0 < read(rows) <= read(rows + 1) * (1 + 1e-12)
    assert found.median_s(rows) <= found.mean_s(rows) <= 1.1 * found.median_s(rows) * (1 + 1e-12)
    assert found.median_s(rows) <= found.p99_s(rows) * (1 + 1e-12)


def test_measured_points_are_met_and_what_lies_between_is_on_the_line():
    found = curve((1, 2.0), (4, 5.0), (8, 7.0))
    assert [found.median_s(rows) * 1e3 for rows in (1, 2, 4, 6, 8, 16)] == pytest.approx([2, 3, 5, 6, 7, 14])
    assert found.median_s(200) == pytest.approx(200 / 8 * 7e-3)


def test_the_mean_is_that_of_a_log_normal_time():
    found = curve((1, 10.0), tail=2.0)
    width = math.log(2) / 2.326
    assert found.mean_s(1) == pytest.approx(10e-3 * math.exp(width**2 / 2))


def soonest(found, waiting):
    """Brute force: the least time for so many rows over all ways to cut them."""

    @cache
    def clear(rows):
        return min((found.median_s(part) + clear(rows - part) for part in range(1, rows + 1)), default=0.0)

    return clear(waiting)


@given(curves())
def test_rows_are_cut_so_that_they_are_done_soonest(found):
    for waiting in range(1, found.largest + 1):
        left, spent = waiting, 0.0
        while left:
            part = found.next_rows(left)
            spent += found.median_s(part)
            left -= part
        assert spent <= soonest(found, waiting) * 1.02**waiting + 1e-12
        assert spent <= waiting * found.median_s(1) * (1 + 1e-9)


@given(curves(), st.integers(1, 40))
def test_no_call_is_slower_by_row_than_calls_of_one(found, waiting):
    for rows in (found.next_rows(waiting), found.best_rows(waiting)):
        assert 1 <= rows <= waiting
        assert found.throughput(rows) >= found.throughput(1) * (1 - 1e-9)


def test_where_batches_gain_nothing_calls_have_one_row():
    straight = curve((1, 5.0), (2, 10.0), (4, 20.0))
    assert not straight.pays() and straight.next_rows(4) == 1
    worse = curve((1, 5.0), (2, 12.0), (4, 30.0))
    assert not worse.pays() and worse.best_rows(4) == 1
    weights = curve((1, 5.0), (8, 6.0))
    assert weights.pays() and weights.next_rows(8) == 8 and weights.best_rows(100) == 8


def test_a_step_in_the_curve_is_stepped_over():
    found = curve((1, 4.0), (4, 5.0), (5, 12.0), (8, 13.0))
    assert found.next_rows(5) == 4 and found.next_rows(8) == 4


@pytest.mark.parametrize(
    "points",
    [
        (),
        (Point(0, 1, 1),),
        (Point(1, 0, 1),),
        (Point(1, 2, 1),),
        (Point(1, 1, math.inf),),
        (Point(1, math.nan, 1),),
        (Point(2, 1, 1), Point(1, 2, 2)),
    ],
)
def test_no_clock_gives_that(points):
    with pytest.raises(InvalidInput):
        Curve(points)


def test_a_slower_machine_is_learned_and_one_stall_is_not():
    pace = 1.0
    assert paced(pace, 5.0, 500.0) < 1.2
    for _ in range(100):
        pace = paced(pace, 5.0, 7.5)
    assert pace == pytest.approx(1.5, rel=0.01)
    for _ in range(200):
        pace = paced(pace, 5.0, 500.0)
    assert pace == pytest.approx(100, rel=0.01)
