"""Progress on a terminal and in a log."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from edgewise.cli.progress import remaining, telling


def test_lines_in_a_log_are_few_and_the_last_one_is_shown_in_time() -> None:
    out = io.StringIO()
    with telling(Console(file=out, width=80), every_s=1.0) as tell:
        for i in range(50):
            tell(f"step {i}", i / 50, 100.0 - i)
        assert out.getvalue() == "  0%  step 0  (about 2 min left)\n"
        until = time.monotonic() + 10
        while time.monotonic() < until and out.getvalue().count("\n") < 2:
            time.sleep(0.05)
        assert out.getvalue().splitlines()[1:] == [" 98%  step 49  (about 51 s left)"]


def test_a_line_that_waits_is_dropped_at_the_end() -> None:
    out = io.StringIO()
    with telling(Console(file=out, width=80), every_s=60) as tell:
        tell("first", 0, None)
        tell("second", 0.5, None)
    assert out.getvalue() == "  0%  first\n"


def test_on_a_terminal_the_line_is_gone_in_the_end() -> None:
    out = io.StringIO()
    with telling(Console(file=out, width=60, force_terminal=True)) as tell:
        tell("int8: " + "a very long recipe " * 10, 0.5, 65.0)
    shown = out.getvalue()
    assert "50%" in shown
    assert "about 65 s left" in shown
    assert "…" in shown
    assert "\x1b[2K" in shown  # erased


def test_an_estimate_stays_on_the_terminal() -> None:
    out = io.StringIO()
    with telling(Console(file=out, width=60, force_terminal=True), keep_first=True) as tell:
        tell("about 3 min: racing", 0.0, 180.0)
        tell("int8", 0.5, 90.0)
    assert "about 3 min: racing\n" in out.getvalue()


@pytest.mark.parametrize(("seconds", "words"), [(None, ""), (0.4, "a moment left"), (12.2, "about 12 s left"), (240.0, "about 4 min left")])
def test_time_left(seconds: float | None, words: str) -> None:
    assert remaining(seconds) == words
