"""What is remembered of a refusal, against an admission that remembers nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgewise.scheduling import Curve, Model, Pending, Point, Running, State, Verdict, admission, admit, begun, ended, refused, without

FIRST = Pending(3, "m", 0.001, 0.036)  # behind a call that runs and two that wait, of 10 ms each: it would end at 40 ms


@pytest.fixture
def state() -> State:
    """After FIRST was refused."""
    waiting = tuple(Pending(number, "m", 0.0, 0.031 + number / 1e4) for number in (1, 2))
    curve = Curve((Point(1, 10.0, 10.0),))
    before = State({"m": Model(curve), "other": Model(curve)}, 1, waiting, (Running(9, "m", 1, 0.0),))
    verdict = admit(before, FIRST, 0.001)
    assert verdict.reason == "deadline"
    return refused(before, FIRST, verdict)


def asked(state: State, monkeypatch: pytest.MonkeyPatch, pending: Pending) -> tuple[str, bool]:
    """What is said of it, and whether that was planned anew."""
    plans = []
    plan = admission.plan
    with monkeypatch.context() as patch:
        patch.setattr(admission, "plan", lambda *given: (plans.append(1), plan(*given))[1])
        verdict = admit(state, pending, pending.arrived_s)
    assert (verdict.retry_after_s > 0) == bool(verdict.reason)
    assert verdict.reason == admit(replace(state, refused=None), pending, pending.arrived_s).reason
    return verdict.reason, bool(plans)


@pytest.mark.parametrize("pending", [Pending(4, "m", 0.002, 0.037), Pending(5, "m", 0.003, 0.0395, priority=-1, rows=2)])
def test_whoever_goes_behind_one_refused_is_refused_at_once(state: State, monkeypatch: pytest.MonkeyPatch, pending: Pending) -> None:
    assert asked(state, monkeypatch, pending) == ("deadline", False)


@pytest.mark.parametrize("pending, reason", [
    (Pending(4, "m", 0.002, 0.045), ""),  # its deadline is after that one's end
    (Pending(4, "m", 0.002, 0.030), "deadline"),  # it goes before that one
    (Pending(4, "m", 0.002, 0.037, priority=1), ""),  # so does this, whoever is late for it
    (Pending(4, "other", 0.002, 0.037), "deadline"),
])  # fmt: skip
def test_whoever_may_fare_better_is_looked_at(state: State, monkeypatch: pytest.MonkeyPatch, pending: Pending, reason: str) -> None:
    assert asked(state, monkeypatch, pending) == (reason, True)


def test_who_has_no_deadline_is_never_refused_for_one(state: State) -> None:
    assert admit(state, Pending(4, "m", 0.002, None), 0.002).admitted


def test_it_is_forgotten_when_room_may_have_come(state: State) -> None:
    assert state.refused is not None
    assert without(state, (2,)).refused is None
    assert begun(state, Running(8, "m", 1, 0.002), (1,)).refused is None
    assert ended(state, 9, 0.002).refused is None


def test_other_refusals_say_nothing_of_those_to_come(state: State) -> None:
    clean = replace(state, refused=None)
    for verdict in (Verdict("full", 1.0), Verdict("never", 1.0, 0.05), Verdict("deadline", 1.0)):
        assert refused(clean, FIRST, verdict).refused is None
