import math

import pytest

from edgewise.scheduling import (
    Call,
    Curve,
    Model,
    Pending,
    Point,
    Running,
    State,
    Traffic,
    Wait,
    begun,
    ended,
    expired,
    judged,
    next_call,
    queued,
    rested,
    seen,
    without,
)  # fmt: skip


def exact(*p50_ms):
    return Curve(tuple(Point(rows, p50, p50) for rows, p50 in p50_ms))


FLAT = exact((1, 5), (8, 6))
MODELS = {
    "a": Model(exact((1, 2))),
    "c": Model(exact((1, 10))),
    "s": Model(FLAT, shared=True),
    "private": Model(FLAT),
    "two": Model(exact((1, 4)), cores=2),
}


def waiting(*asked, cores=1, **more):
    now = State(MODELS, cores, caution=0.0, **more)
    for one in asked:
        now = queued(now, one)
    return now


def pending(id, model, due_ms=None, arrived_s=0.0, **more):
    return Pending(id, model, arrived_s, None if due_ms is None else due_ms / 1e3, **more)


def ids(call):
    assert isinstance(call, Call), call
    return [one.id for one in call.requests]


def test_priority_then_deadline_then_arrival_and_last_those_without():
    now = waiting(
        pending(0, "a"), pending(1, "a", 80), pending(2, "a", 50), pending(3, "a", 90, priority=1), pending(4, "a", priority=1),
        pending(5, "a", 50, arrived_s=-1.0),
    )  # fmt: skip
    order = []
    while now.waiting:
        order += ids(next_call(now, 0.0))
        now = without(now, order)
    assert order == [3, 4, 5, 2, 1, 0]


def test_nothing_to_do_and_nothing_to_do_it_on():
    assert next_call(waiting(), 0.0) == Wait()
    assert next_call(waiting(pending(0, "a"), running=(Running(9, "c", 1, 0.0),)), 0.001) == Wait()


def test_what_cannot_be_kept_any_more_is_not_run_and_is_answered_at_its_deadline():
    now = waiting(pending(0, "c", 9), pending(1, "a", 20))
    assert ids(next_call(now, 0.0)) == [1]
    assert expired(now, 0.0) == ((), 0.009)
    assert expired(now, 0.009) == ((0,), 0.020)
    assert expired(without(now, [0, 1]), 1.0) == ((), math.inf)
    assert next_call(waiting(pending(0, "c", 9)), 0.0) == Wait()


def test_only_models_that_may_share_a_call_do():
    assert ids(next_call(waiting(*[pending(id, "s") for id in range(10)]), 0.0)) == list(range(8))
    assert ids(next_call(waiting(*[pending(id, "private") for id in range(10)]), 0.0)) == [0]


def test_requests_of_several_rows_stay_whole():
    now = waiting(*[pending(id, "s", rows=rows) for id, rows in enumerate((3, 4, 3, 20))])
    call = next_call(now, 0.0)
    assert ids(call) == [0, 1] and call.rows == 7
    assert ids(next_call(waiting(pending(0, "s", rows=20), pending(1, "s")), 0.0)) == [0]


def test_a_call_is_smaller_where_the_first_deadline_wants_it():
    call = next_call(waiting(pending(0, "s", 5.4), *[pending(id, "s", 100) for id in range(1, 8)]), 0.0)
    assert 1 <= call.rows < 4 and 0 in ids(call)


def test_another_model_runs_while_the_runner_of_the_first_is_busy():
    now = waiting(pending(0, "c", 50), pending(1, "a", 90), cores=2, running=(Running(9, "c", 1, 0.0),))
    assert ids(next_call(now, 0.001)) == [1]


def test_a_call_of_two_cores_waits_for_both_and_others_do_not_take_one_from_under_it():
    now = waiting(pending(0, "two", 50), pending(1, "c", 90), cores=2, running=(Running(9, "a", 1, 0.0),))
    assert next_call(now, 0.001) == Wait()  # ten milliseconds of "c" would keep "two" waiting for eight
    free = ended(now, 9, 0.002)
    assert ids(next_call(free, 0.002)) == [0]


def crowd(rows, gap_ms=0.1, here=1, last_ms=0.0, deadline_ms=None):
    traffic = {"s": Traffic(rate=1000.0, gap_s=gap_ms / 1e3, crowd=rows, arrived_s=last_ms / 1e3, last_s=last_ms / 1e3)}
    return waiting(*[pending(id, "s", deadline_ms) for id in range(here)], traffic=traffic)


def test_a_single_client_never_waits():
    step = next_call(crowd(1), 0.0)
    assert ids(step) == [0]


def test_the_rest_of_a_crowd_is_waited_for_but_not_for_long():
    step = next_call(crowd(8), 0.0)
    assert isinstance(step, Wait) and 0 < step.until_s <= 0.2 * 5e-3
    assert ids(next_call(crowd(8), step.until_s)) == [0]
    assert ids(next_call(crowd(8, here=8), 0.0)) == list(range(8))
    assert ids(next_call(crowd(8, gap_ms=10), 0.0)) == [0]  # too seldom
    assert ids(next_call(crowd(8, deadline_ms=5.05), 0.0)) == [0]  # no time to wait


def test_nobody_waits_for_a_crowd_while_another_model_could_run():
    now = queued(crowd(8), pending(7, "a"))
    assert isinstance(next_call(now, 0.0), Call)


def test_those_without_deadline_get_a_turn_and_no_more():
    asked = [pending(id, "a", 1e3 * 5 + 50) for id in range(1, 5)]
    now = waiting(pending(0, "c", priority=-3), *asked)
    assert ids(next_call(now, 0.5)) == [1]
    call = next_call(now, 5.0)
    assert ids(call) == [0]
    after = rested(begun(now, Running(0, "c", 1, 5.0), [0]), call, 5.0)
    assert after.rested_s == pytest.approx(5.1)
    again = queued(ended(after, 0, 5.01), pending(9, "c", arrived_s=0.0))
    assert ids(next_call(again, 5.01)) == [1]
    assert rested(now, Call("a", (asked[0],), 1), 5.0) is now


def test_caution_rests_where_one_in_four_hundred_is_late():
    now = waiting()
    for _ in range(5):
        now = judged(now, True)
    high = now.caution
    for _ in range(200):
        now = judged(now, False)
    assert 0 < now.caution < high
    even = State(MODELS)
    for each in range(2000):
        even = judged(even, each % 400 == 0)
    assert even.caution == pytest.approx(1.0, abs=0.051)


def test_traffic_is_told_by_arrivals_alone():
    now = waiting()
    for each in range(400):
        now = seen(now, pending(each, "s"), each * 0.01)
    found = now.traffic["s"]
    assert seen(now, pending(400, "s", 4060), 4.0).traffic["s"].allowed_s == pytest.approx(0.06) and found.allowed_s == 0
    assert found.rate == pytest.approx(100, rel=0.05) and found.crowd == 1
    assert found.gap_s == pytest.approx(0.01, rel=0.25)
    late = seen(now, pending(1, "s"), 100.0).traffic["s"]
    assert late.rate < 10


def test_a_call_that_failed_says_nothing_of_time():
    now = begun(waiting(pending(0, "a")), Running(1, "a", 1, 0.0), [0])
    assert ended(now, 1, 0.5, counts=False).pace == {}
    assert ended(now, 1, 0.5).pace["a"] > 1 and not ended(now, 1, 0.5).running


def test_a_costly_one_is_given_up_at_its_turn_where_cheap_ones_would_be_late_for_it_and_runs_where_nothing_else_could():
    asked = [pending(0, "c", 12), pending(1, "a", 13), pending(2, "a", 13.5)]
    call = next_call(waiting(*asked, credit=1.0), 0.0)
    assert ids(call) == [1] and call.given_up == (0,)
    assert ids(next_call(waiting(*asked, credit=0.9), 0.0)) == [0]
    assert ids(next_call(waiting(pending(0, "c", 12), pending(1, "a", 15), credit=1.0), 0.0)) == [0]  # nobody is late for it
    assert ids(next_call(waiting(pending(0, "c", 12, priority=1), *asked[1:], credit=1.0), 0.0)) == [0]
    now = rested(waiting(*asked, credit=1.0), call, 0.0)
    assert now.given_up == {0} and now.credit == 0.0
    now = begun(now, Running(9, "a", 1, 0.0), [1])
    now = ended(now, 9, 0.001)
    assert ids(next_call(now, 0.001)) == [2]
    assert ids(next_call(without(now, [2]), 0.001)) == [0]
    assert not without(now, [0]).given_up


def test_who_is_given_up_says_nothing_of_chance_and_credit_is_earned():
    now = waiting(pending(0, "c", 12), credit=0.0, given_up=frozenset({0}))
    assert judged(now, True) is now
    for _ in range(200):
        now = judged(now, False)
    assert now.credit == pytest.approx(1.0)
    for _ in range(2000):
        now = judged(now, False)
    assert now.credit == 3.0
