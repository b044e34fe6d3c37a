from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgewise.report.scale import Scale, linear_range, log_range


@given(st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=20), st.booleans())
def test_all_values_lie_inside_in_order(values: list[float], log: bool) -> None:
    low, high = log_range(values) if log else linear_range(values, least=1e-3)
    scale = Scale(low, high, 50, 500, log)
    pixels = [scale(v) for v in sorted(values)]
    assert pixels == sorted(pixels)
    assert all(50 <= p <= 500 for p in pixels)


@given(st.floats(1e-3, 1e4), st.floats(1.5, 1e6), st.integers(2, 8))
def test_ticks_are_few_and_inside(low: float, factor: float, about: int) -> None:
    for scale in (Scale(low, low * factor, 0, 1, log=True), Scale(low, low * factor, 0, 1)):
        ticks = scale.ticks(about)
        assert 1 <= len(ticks) <= 2 * about + 6
        assert all(scale.low * 0.999 <= t <= scale.high * 1.001 for t in ticks)
        assert list(ticks) == sorted(set(ticks))


def test_round_ticks() -> None:
    assert Scale(0.0, 10.0, 0, 1).ticks(5) == (0, 2, 4, 6, 8, 10)
    assert Scale(0.9, 110, 0, 1, log=True).ticks(6) == (1, 2, 5, 10, 20, 50, 100)


def test_an_axis_that_points_up() -> None:
    scale = Scale(0, 1, 300, 100)
    assert (scale(0), scale(1), scale(2)) == (300, 100, 100)
