"""What is remembered between two admissions, against an admission of each."""

from __future__ import annotations

import pytest

from edgewise import scheduling
from edgewise.host.lines import Line
from edgewise.host.requests import Request
from edgewise.host.schedule import Schedule
from edgewise.host.tickets import Begun, Ticket, Version
from edgewise.scheduling import Curve, Model, Pending, Point, Running, State

FIRST = Pending(3, "m", 0.001, 0.036)  # behind a call that runs and two that wait, of 10 ms each: it would end at 40 ms


@pytest.fixture
def schedule() -> Schedule:
    made = Schedule(1, 0.0)
    waiting = tuple(Pending(number, "m", 0.0, 0.031 + number / 1e4) for number in (1, 2))
    curve = Curve((Point(1, 10.0, 10.0),))
    made.state = State({"m": Model(curve), "other": Model(curve)}, 1, waiting, (Running(9, "m", 1, 0.0),))
    return made


def asked(schedule: Schedule, monkeypatch: pytest.MonkeyPatch, pending: Pending, now: float) -> tuple[str, bool]:
    """What is said of it, and whether that was worked out anew."""
    calls = []
    admit = scheduling.admit
    with monkeypatch.context() as patch:
        patch.setattr(scheduling, "admit", lambda *given: (calls.append(1), admit(*given))[1])
        verdict = schedule.admit(pending, now)
    assert (verdict.retry_after_s > 0) == bool(verdict.reason)
    assert verdict.reason == admit(schedule.state, pending, now).reason, "what is remembered isn't what is so"
    return verdict.reason, bool(calls)


def test_whoever_goes_behind_one_that_was_refused_is_refused_at_once(schedule: Schedule, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(schedule, monkeypatch, FIRST, 0.001) == ("deadline", True)
    assert asked(schedule, monkeypatch, Pending(4, "m", 0.002, 0.037), 0.002) == ("deadline", False)
    assert asked(schedule, monkeypatch, Pending(5, "m", 0.003, 0.0395, priority=-1, rows=2), 0.003) == ("deadline", False)


@pytest.mark.parametrize("pending, reason", [
    (Pending(4, "m", 0.002, 0.045), ""),  # its deadline is after that one's end
    (Pending(4, "m", 0.002, 0.037, priority=1), ""),  # it goes before that one
    (Pending(4, "m", 0.002, 0.030), "deadline"),  # so does this
    (Pending(4, "other", 0.002, 0.037), "deadline"),
    (Pending(4, "m", 0.002, None), ""),
])  # fmt: skip
def test_whoever_may_fare_better_is_looked_at(schedule: Schedule, monkeypatch: pytest.MonkeyPatch, pending: Pending, reason: str) -> None:
    asked(schedule, monkeypatch, FIRST, 0.001)
    assert asked(schedule, monkeypatch, pending, 0.002) == (reason, True)


@pytest.mark.parametrize("event", ["left", "began", "ended"])
def test_it_is_forgotten_when_room_may_have_come(schedule: Schedule, monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    asked(schedule, monkeypatch, FIRST, 0.001)
    later = Pending(4, "m", 0.002, 0.037)
    if event == "left":
        schedule.left(2)
    else:
        line = Line(Version.__new__(Version), False, True)
        schedule.lines["m"] = line
        ticket = Ticket(9, Request("m", {}), line.version, 1, 0.0, None, 0, None, lambda _: None)  # type: ignore[arg-type]
        begun = Begun(9, "m", line.version, None, [ticket], 1, 0.0)  # type: ignore[arg-type]
        if event == "began":
            schedule.began(begun, lone=False)
        else:
            schedule.ended(begun, 0.002, 0.002, counts=False)
    assert asked(schedule, monkeypatch, later, 0.002)[1]
