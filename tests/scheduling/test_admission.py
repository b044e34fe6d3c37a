from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.scheduling import Curve, Model, Pending, Point, Running, State, Traffic, admit, plan, queued
from edgewise.scheduling.planning import summed


def exact(*p50_ms):
    return Curve(tuple(Point(rows, p50, p50) for rows, p50 in p50_ms))


MODELS = {"a": Model(exact((1, 2))), "b": Model(exact((1, 5))), "c": Model(exact((1, 10)))}


def state(credit=0.0, **more):
    return State(MODELS, caution=0.0, credit=credit, **more)


def pending(id, model, due_ms, **more):
    return Pending(id, model, 0.0, None if due_ms is None else due_ms / 1e3, **more)


requests = st.lists(st.tuples(st.sampled_from("abc"), st.integers(2, 45)), min_size=1, max_size=6)


def possible(kept):
    """Brute force: whether some order on one core has them all in time."""
    for order in permutations(kept):
        now = 0.0
        for one in order:
            now += MODELS[one.model].curve.median_s(1)
            if now > one.deadline_s + 1e-9:
                break
        else:
            return True
    return not kept


@given(requests)
def test_admitted_is_who_can_be_in_time_with_all_others_in_some_order(asked):
    now = state()
    for id, (model, due) in enumerate(asked):
        # Half a millisecond more than a whole number: never just at the edge.
        one = pending(id, model, due + 0.5)
        verdict = admit(now, one, 0.0)
        assert verdict.admitted == possible([*now.waiting, one])
        if verdict.admitted:
            now = queued(now, one)
            assert verdict.ends_s <= one.deadline_s
        else:
            assert verdict.retry_after_s > 0
    assert not [call for call in plan(now, 0.0) if call.late]


def test_what_runs_is_waited_for():
    busy = state(running=(Running(0, "c", 1, -0.004),))
    assert admit(busy, pending(1, "a", 9), 0.0).admitted
    refused = admit(busy, pending(1, "a", 7), 0.0)
    assert refused.reason == "deadline" and refused.retry_after_s == pytest.approx(0.01) and refused.ends_s == pytest.approx(0.008)


def test_a_deadline_shorter_than_the_call_is_told_apart():
    assert admit(state(), pending(0, "c", 9), 0.0).reason == "never"


def test_a_slower_machine_admits_less():
    assert admit(state(), pending(0, "c", 12), 0.0).admitted
    assert not admit(state(pace={"c": 1.5}), pending(0, "c", 12), 0.0).admitted


def test_no_promise_to_an_equal_is_broken_but_one_to_a_lower_priority_may_be():
    now = queued(state(), pending(0, "c", 11))
    assert not admit(now, pending(1, "a", 5), 0.0).admitted
    assert admit(now, pending(1, "a", 5, priority=1), 0.0).admitted
    assert not admit(now, pending(1, "a", 5, priority=-1), 0.0).admitted


def test_without_deadline_only_places_count_and_a_client_has_its_share_of_them():
    models = {"a": Model(exact((1, 2)), places=8)}
    now = State(models, running=(Running(99, "a", 1, 0.0),))
    for id in range(4):
        one = pending(id, "a", None, client="greedy")
        assert admit(now, one, 0.0).admitted
        now = queued(now, one)
    now = queued(now, pending(4, "a", None, client="other"))
    now = queued(now, pending(5, "a", None, client="greedy"))
    assert admit(now, pending(6, "a", None, client="greedy"), 0.0).reason == "full"
    assert admit(now, pending(6, "a", None, client="third"), 0.0).admitted
    for id in range(6, 8):
        now = queued(now, pending(id, "a", None, client="third"))
    full = admit(now, pending(8, "a", None, client="fourth"), 0.0)
    assert full.reason == "full" and full.retry_after_s >= 0.01


def test_batches_are_counted_as_what_they_take():
    shared = State({"s": Model(exact((1, 5), (8, 6)), shared=True)}, running=(Running(99, "s", 8, 0.0),), caution=0.0)
    for id in range(8):
        one = Pending(id, "s", 0.0, 0.013)
        assert admit(shared, one, 0.0).admitted
        shared = queued(shared, one)
    assert not admit(shared, Pending(8, "s", 0.0, 0.013), 0.0).admitted


def test_room_is_kept_for_many_cheap_ones_that_are_expected():
    here = queued(state(), pending(0, "b", 60))
    assert admit(here, pending(1, "c", 60), 0.0).admitted
    many = State(MODELS, caution=0.0, waiting=here.waiting, traffic={"a": Traffic(rate=400.0, pressing=400.0, arrived_s=0.0)})
    assert admit(many, pending(1, "c", 60), 0.0).reason == "deadline"
    assert admit(many, pending(1, "a", 60), 0.0).admitted
    relaxed = State(MODELS, caution=0.0, waiting=here.waiting, traffic={"a": Traffic(rate=400.0, arrived_s=0.0)})
    assert admit(relaxed, pending(1, "c", 60), 0.0).admitted  # those have no deadlines
    assert admit(many, pending(1, "c", 60, priority=1), 0.0).admitted
    behind = {"a": Traffic(rate=400.0, pressing=400.0, arrived_s=0.0, allowed_s=0.1)}  # those to come have later deadlines
    assert admit(State(MODELS, caution=0.0, waiting=here.waiting, traffic=behind), pending(1, "c", 60), 0.0).admitted


def test_a_promise_to_a_far_costlier_one_may_be_broken_where_there_is_credit():
    now = queued(state(), pending(0, "c", 11))
    assert not admit(now, pending(1, "a", 5), 0.0).admitted
    now = queued(state(credit=1.0), pending(0, "c", 11))
    assert admit(now, pending(1, "a", 5), 0.0).admitted
    assert not admit(now, pending(1, "a", 5, priority=-1), 0.0).admitted
    assert not admit(now, pending(1, "b", 9), 0.0).admitted  # not costly enough beside it
    patient = state(credit=1.0, waiting=(pending(0, "c", None),), rested_s=-1.0)
    assert not admit(patient, Pending(1, "a", 2.0, 2.005), 2.0).admitted  # whose turn it is promised nothing, and isn't given up
    two = queued(queued(state(credit=1.0), pending(0, "c", 21)), pending(2, "c", 22.5))
    for id in range(3, 9):  # one promise makes room for them all, and there is no second
        one = pending(id, "a", 12.5)
        assert admit(two, one, 0.0).admitted
        two = queued(two, one)
    assert not admit(two, pending(9, "a", 14.5), 0.0).admitted


def test_whose_rows_share_a_call_is_as_costly_as_its_part_of_it():
    models = {**MODELS, "s": Model(exact((1, 5), (8, 6)), shared=True)}
    traffic = {"a": Traffic(rate=400.0, pressing=400.0, arrived_s=0.0)}
    now = queued(State(models, caution=0.0, credit=0.0, traffic=traffic), pending(0, "b", 30))
    assert not admit(now, pending(1, "b", 31), 0.0).admitted
    assert admit(now, pending(1, "s", 31), 0.0).admitted


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 60), st.integers(0, 1)), min_size=1, max_size=12),
    st.booleans(),
    st.floats(0.5, 2.0),
)
def test_a_sum_says_what_the_plan_says(asked, busy, pace):
    tails = {name: Model(Curve((Point(1, p50, 1.5 * p50),))) for name, p50 in (("a", 2), ("b", 5), ("c", 10))}
    now = State(tails, running=(Running(99, "c", 1, -0.004),) if busy else (), pace={"b": pace}, caution=1.2)
    for id, (model, due, priority) in enumerate(asked):
        now = queued(now, pending(id, model, due, priority=priority))
    planned = {call.requests[0].id: call for call in plan(now, 0.0)}
    for one in now.waiting:
        if one.id in planned:
            found, expected = summed(now, one, now.waiting, 0.0), planned[one.id]
            assert found is not None and found.requests == expected.requests
            assert (found.starts_s, found.ends_s, found.safe_s, found.variance) == pytest.approx(
                (expected.starts_s, expected.ends_s, expected.safe_s, expected.variance), rel=1e-9, abs=1e-12
            )


def test_where_it_is_no_sum_none_is_made():
    first = pending(0, "a", 50)
    for other in (pending(1, "a", None), pending(1, "a", 10, rows=2)):
        now = queued(queued(state(), first), other)
        assert summed(now, first, now.waiting, 0.0) is None
    now = queued(state(cores=2), first)
    assert summed(now, first, now.waiting, 0.0) is None
