import importlib.util
from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.scheduling import Curve, Model, Pending, Point, State
from edgewise.scheduling.reference import fifo, static_priority
from edgewise.scheduling.simulate import Policy, exact, noisy, poisson, simulate


def curve(*p50_ms, tail=1.0):
    return Curve(tuple(Point(rows, p50, tail * p50) for rows, p50 in p50_ms))


MODELS = {
    "a": Model(curve((1, 2), tail=1.4)),
    "b": Model(curve((1, 5)), cores=2),
    "c": Model(curve((1, 10), tail=1.2), instances=2),
    "s": Model(curve((1, 4), (2, 4.5), (8, 8), tail=1.3), shared=True),
}
LEVELS = {"a": 0, "b": 1, "c": 2, "s": 3}


@st.composite
def traces(draw):
    found, now = [], 0.0
    for id in range(draw(st.integers(1, 30))):
        now += draw(st.sampled_from([0.0, 0.0, 0.0005, 0.002, 0.01]))
        deadline = draw(st.one_of(st.none(), st.floats(0.003, 0.1)))
        due = None if deadline is None else now + deadline
        rows = draw(st.sampled_from([1, 1, 1, 3]))
        found.append(Pending(id, draw(st.sampled_from("abcs")), now, due, draw(st.integers(-1, 1)), rows, draw(st.sampled_from("xy"))))
    return found


@settings(deadline=None, max_examples=60)
@given(traces(), st.integers(1, 3), st.integers(0, 5), st.booleans())
def test_nothing_is_lost_run_twice_or_run_in_vain(trace, cores, seed, plain):
    cores = max(2, cores)
    policy = Policy("edgewise") if not plain else fifo(True)
    done = simulate(State(MODELS, cores), trace, policy, noisy(seed))
    assert [one.request.id for one in done.outcomes] == [one.id for one in trace]
    run = Counter(id for call in done.calls for id in call.requests)
    fates = Counter(one.fate for one in done.outcomes)
    assert all(count == 1 for count in run.values()) and len(run) == fates["done"]
    assert not done.state.waiting and not done.state.running
    of = {one.id: one for one in trace}
    for call in done.calls:
        model = MODELS[call.model]
        rows = [of[id].rows for id in call.requests]
        assert sum(rows) == call.rows and {of[id].model for id in call.requests} == {call.model}
        assert len(rows) == 1 or (model.shared and call.rows <= model.curve.largest)
        assert model.curve.median_s(call.rows) <= sum(model.curve.median_s(each) for each in rows) * (1 + 1e-9)
        over = [other for other in done.calls if other.began_s <= call.began_s < other.ended_s]
        assert sum(MODELS[other.model].cores for other in over) <= cores
        assert sum(other.model == call.model for other in over) <= model.instances
    for one in done.outcomes:
        if one.fate == "late":
            assert one.answered_s == pytest.approx(one.request.deadline_s)
        if one.fate == "refused":
            assert one.answered_s == one.request.arrived_s and one.retry_after_s > 0


@settings(deadline=None, max_examples=60)
@given(traces(), st.integers(0, 5))
def test_no_call_begins_that_cannot_be_in_time_and_no_core_is_idle_for_nothing(trace, seed):
    trace = [one for one in trace if one.model in "ac"]
    models = {name: Model(MODELS[name].curve) for name in "ac"}
    done = simulate(State(models), trace, None, noisy(seed))
    times = {id: call for call in done.calls for id in call.requests}
    waited = [(one, times[one.request.id].began_s) for one in done.outcomes if one.fate == "done"]
    for one, began in waited:
        # Pace moves what is expected by little in so short a trace.
        assert began + 0.5 * models[one.request.model].curve.median_s(1) <= one.request.due_s
    ends = sorted(call.ended_s for call in done.calls)
    for one, began in waited:
        assert began == pytest.approx(one.request.arrived_s) or any(abs(began - end) < 1e-12 for end in ends)


def test_nobody_without_deadline_starves_below_an_overload_of_those_with_one():
    rates = {"a": 1000.0, "c": 0.0}
    trace = poisson(rates, 3.0, {"a": 0.03}, 0)
    low = [Pending(len(trace) + place, "c", 0.5 + 0.01 * place, None, -5) for place in range(5)]
    whole = sorted([*trace, *low], key=lambda one: one.arrived_s)
    done = simulate(State(MODELS), whole, None, noisy(0))
    waits = [one.answered_s - one.request.arrived_s for one in done.outcomes if one.request.model == "c"]
    # Patience, then ten milliseconds in each hundred.
    assert len(waits) == 5 and max(waits) < 1.0 + 5 * 0.13
    assert done.kept >= 0.99


@pytest.mark.parametrize(
    ("model", "deadline_s", "cores", "seconds"),
    [
        (Model(curve((1, 5), tail=1.4), instances=2), 0.05, 1, 6.0),
        (Model(curve((1, 5), tail=1.4), instances=2), 0.05, 2, 3.0),
        (Model(curve((1, 5), (2, 5.6), (8, 9), (16, 14), tail=1.3), shared=True), 0.1, 1, 5.0),
    ],
)
def test_at_twice_the_capacity_the_admitted_are_in_time_and_the_machine_is_used(model, deadline_s, cores, seconds):
    capacity = cores * model.most / model.curve.mean_s(model.most)
    trace = poisson({"m": 2 * capacity}, seconds, {"m": deadline_s}, 1)
    start = State({"m": model}, cores)
    ours = simulate(start, trace, None, noisy(1))
    assert ours.kept >= 0.99
    assert ours.rows_in_time / seconds >= 0.9 * capacity
    plain = simulate(start, trace, fifo(), noisy(1))
    assert plain.attainment < 0.5 * ours.attainment


def test_a_machine_that_is_slower_than_its_curve_is_found_out():
    model = Model(curve((1, 5), tail=1.4))
    trace = poisson({"m": 250.0}, 6.0, {"m": 0.05}, 2)
    done = simulate(State({"m": model}), trace, None, noisy(2, slower=1.6))
    assert done.kept >= 0.98 and done.rows_in_time / 6.0 >= 0.9 / (1.6 * model.curve.mean_s(1))


def test_a_run_is_repeated_to_the_bit():
    trace = poisson({"a": 200.0, "s": 200.0}, 1.0, {"a": 0.02}, 3, bursts=3.0)
    assert simulate(State(MODELS), trace, None, noisy(3)) == simulate(State(MODELS), trace, None, noisy(3))
    assert len(poisson({"a": 50.0}, 200.0, {}, 0, bursts=3.0)) == pytest.approx(10_000, rel=0.2)
    with pytest.raises(ValueError, match="bursts=5"):
        poisson({"a": 1.0}, 1.0, {}, 0, bursts=5.0)


SPEC = importlib.util.spec_from_file_location("optimum", Path(__file__).parents[2] / "benchmarks" / "serve" / "optimum.py")


@pytest.fixture(scope="module")
def optimum():
    module = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(module)
    return module.optimum


SMALL = {"a": Model(curve((1, 2))), "c": Model(curve((1, 5))), "s": Model(curve((1, 3), (2, 4)), shared=True)}


def most(trace):
    """Brute force on one core: over every order, those that are late left out, two neighbours of "s" sharing a call or not."""
    best = 0
    for order in permutations(trace):
        # after so many of the order: (when the core is free, how many were in time), by every choice
        states = [{(0.0, 0)}] + [set() for _ in order]
        for place, one in enumerate(order):
            for now, kept in states[place]:
                states[place + 1].add((now, kept))
                end = max(now, one.arrived_s) + SMALL[one.model].curve.median_s(1)
                if end <= one.deadline_s + 1e-9:
                    states[place + 1].add((end, kept + 1))
                if place + 1 < len(order) and one.model == order[place + 1].model == "s":
                    other = order[place + 1]
                    end = max(now, one.arrived_s, other.arrived_s) + SMALL["s"].curve.median_s(2)
                    if end <= min(one.deadline_s, other.deadline_s) + 1e-9:
                        states[place + 2].add((end, kept + 2))
        best = max(best, *(kept for _, kept in states[-1]))
    return best


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("acs"), st.integers(0, 12), st.integers(2, 12)), min_size=1, max_size=5))
def test_the_optimum_is_what_brute_force_finds_and_nobody_is_above_it(optimum, asked):
    asked = sorted(asked, key=lambda each: each[1])
    trace = [Pending(id, name, at / 1e3, (at + left) / 1e3) for id, (name, at, left) in enumerate(asked)]
    found = optimum(State(SMALL), trace)
    assert found == most(trace)
    for policy in (None, fifo(), static_priority({"a": 0, "c": 1, "s": 2})):
        done = simulate(State(SMALL, caution=0.0), trace, policy, exact)
        assert sum(one.answered_s <= one.request.due_s + 1e-9 for one in done.outcomes if one.fate == "done") <= found
