from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgewise.compress.prune import solve as module
from edgewise.compress.prune.solve import knapsack, solve
from edgewise.errors import InvalidInput


def losses_of(random, parts, widths):
    """Falling with width, each part in its own way; the full width loses nothing."""
    found = {}
    for number in range(parts):
        ladder = sorted(random.choice(np.arange(1, 65), widths, replace=False).tolist(), reverse=True)
        steps = random.gamma(0.5, 1.0, widths) * random.gamma(1.0)
        steps[0] = 0
        found[f"p{number}"] = dict(zip(ladder, np.cumsum(steps).tolist(), strict=True))
    return found


def chain(random, losses):
    """The time of a chain of layers, each as wide as its part, reading the one before: where parts interact."""
    names = list(losses)
    full = {name: max(options) for name, options in losses.items()}
    weights = random.gamma(2.0, 1.0, len(names) + 1)

    def predict(widths):
        relative = [3 / 64, *(widths[name] / full[name] for name in names), 10 / 64]
        return float(sum(w * (a * b + 0.05) for w, a, b in zip(weights, relative, relative[1:], strict=False)))

    return predict


def additive(random, losses):
    weights = {name: float(random.gamma(1.0)) for name in losses}
    return lambda widths: 0.3 + sum(weights[name] * width for name, width in widths.items())


def brute(losses, predict, target):
    names = list(losses)
    choices = (dict(zip(names, widths, strict=True)) for widths in product(*losses.values()))
    return min(sum(losses[name][width] for name, width in widths.items()) for widths in choices if predict(widths) <= target)


def dense(losses):
    return {name: max(options) for name, options in losses.items()}


def narrowest(losses):
    return {name: min(options) for name, options in losses.items()}


@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 1.1))
@settings(max_examples=60, deadline=None)
def test_costs_that_add_up_are_solved_exactly(seed, share):
    random = np.random.default_rng(seed)
    losses = losses_of(random, 5, 4)
    predict = additive(random, losses)
    low, high = predict(narrowest(losses)), predict(dense(losses))
    target = low + share * (high - low)
    found = solve(losses, predict, target)
    assert found.reachable
    assert found.exact
    assert found.predicted == predict(found.widths) <= target
    assert found.loss == pytest.approx(brute(losses, predict, target), rel=1e-9, abs=1e-12)
    assert found.loss == pytest.approx(sum(losses[name][width] for name, width in found.widths.items()))


@given(seed=st.integers(0, 10**6), share=st.floats(0.02, 0.9))
@settings(max_examples=10, deadline=None)
def test_parts_that_interact_come_within_a_hair_of_brute_force(seed, share):
    random = np.random.default_rng(seed)
    losses = losses_of(random, 5, 4)
    predict = chain(random, losses)
    low, high = predict(narrowest(losses)), predict(dense(losses))
    target = low + share * (high - low)
    wanted = brute(losses, predict, target)
    found = solve(losses, predict, target)  # few combinations: all are looked at
    assert found.exact
    assert found.loss == pytest.approx(wanted, rel=1e-9)
    problem = module._Problem(losses, predict)
    choice = module._interacting(problem, target, problem.fastest(None), seed=0)
    assert problem.cost(choice) <= target
    assert problem.loss(choice) <= 1.02 * wanted + 1e-9


def test_larger_interacting_cases_come_close_to_exhaustive_search_over_the_chain():
    """A chain's best is found by another exact way: a dynamic program along it, with time in fine steps rounded up."""
    for seed in range(3):
        random = np.random.default_rng(seed)
        losses = losses_of(random, 12, 6)
        predict = chain(np.random.default_rng(seed + 100), losses)
        low, high = predict(narrowest(losses)), predict(dense(losses))
        target = low + 0.25 * (high - low)
        found = solve(losses, predict, target)
        assert found.reachable
        assert found.predicted <= target
        assert found.loss <= 1.01 * along_the_chain(losses, np.random.default_rng(seed + 100), target, 4000)


def along_the_chain(losses, random, target, steps):
    names = list(losses)
    weights = random.gamma(2.0, 1.0, len(names) + 1)
    best = {}  # (relative width of the last layer) -> least loss by time used so far, in steps
    start = np.full(steps + 1, np.inf)
    start[0] = 0.0
    best[3 / 64] = start
    for number, name in enumerate([*names, None]):
        after = {}
        options = {10 / 64: 0.0} if name is None else {width / max(losses[name]): loss for width, loss in losses[name].items()}
        for wide, loss in options.items():
            merged = np.full(steps + 1, np.inf)
            for before, table in best.items():
                used = int(np.ceil(weights[number] * (before * wide + 0.05) / target * steps))
                if used <= steps:
                    merged[used:] = np.minimum(merged[used:], table[: steps + 1 - used] + loss)
            after[wide] = merged
        best = after
    return float(best[10 / 64].min())


@given(seed=st.integers(0, 10**6), shares=st.tuples(st.floats(-0.1, 1.1), st.floats(-0.1, 1.1)))
@settings(max_examples=30, deadline=None)
def test_more_time_never_loses_more(seed, shares):
    random = np.random.default_rng(seed)
    losses = losses_of(random, 6, 5)
    predict = additive(random, losses)
    low, high = predict(narrowest(losses)), predict(dense(losses))
    tight, loose = (solve(losses, predict, low + share * (high - low)) for share in sorted(shares))
    assert loose.loss <= tight.loss + 1e-12 or not tight.reachable


def test_what_reaches_no_target_is_the_nearest_and_says_so():
    random = np.random.default_rng(0)
    losses = losses_of(random, 20, 5)
    for predict in (additive(random, losses), chain(random, losses)):
        low = predict(narrowest(losses))
        found = solve(losses, predict, 0.9 * low)
        assert not found.reachable
        assert found.widths == narrowest(losses)
        assert found.predicted == low
        assert solve(losses, predict, low).reachable  # the narrowest itself is found where nothing else will do


def test_a_target_that_asks_for_nothing_costs_nothing():
    losses = {"a": {8: 0.0, 4: 1.0}, "b": {8: 0.0, 4: 0.0}}
    found = solve(losses, lambda widths: sum(widths.values()), 100)
    assert (found.loss, found.exact, found.reachable) == (0.0, True, True)
    assert found.widths["a"] == 8
    nothing = solve({}, lambda widths: 3.0, 2.0)
    assert (dict(nothing.widths), nothing.reachable) == ({}, False)


def test_time_need_not_fall_with_width():
    """Engines take odd widths worse than the next multiple: the fastest is not the narrowest."""
    times = {64: 5.0, 48: 4.0, 40: 4.5, 32: 2.0, 8: 2.5}
    losses = {name: {64: 0.0, 48: 1.0, 40: 2.0, 32: 3.0, 8: 9.0} for name in "abc"}
    found = solve(losses, lambda widths: sum(times[width] for width in widths.values()), 6.0)
    assert found.reachable
    assert found.widths == dict.fromkeys("abc", 32)


def test_thinned_states_still_keep_the_budget():
    random = np.random.default_rng(1)
    losses = [np.sort(random.random(8)) for _ in range(12)]
    costs = [np.sort(random.random(8))[::-1].copy() for _ in range(12)]
    budget = 4.0
    exact, certain = knapsack(losses, costs, budget)
    rough, uncertain = knapsack(losses, costs, budget, states=12)
    total = [sum(loss[option] for loss, option in zip(losses, choice, strict=True)) for choice in (exact, rough)]
    assert certain
    assert sum(cost[option] for cost, option in zip(costs, rough, strict=True)) <= budget * (1 + 1e-9)
    assert total[0] <= total[1] <= 1.2 * total[0]
    assert not uncertain


@pytest.mark.parametrize(
    ("losses", "target", "words"),
    [
        ({"a": {}}, 1.0, "a has no width"),
        ({"a": {8: 0.0, 4: float("nan")}}, 1.0, "a has loss nan at width 4"),
        ({"a": {8: 0.0}}, float("nan"), "target=nan"),
    ],
)
def test_what_is_no_number_is_refused(losses, target, words):
    with pytest.raises(InvalidInput, match=words):
        solve(losses, lambda widths: 1.0, target)


@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.9))
@settings(max_examples=10, deadline=None)
@example(seed=131072, share=0.0546875)  # one of the two is the larger nearly everywhere, and adds up
def test_two_targets_at_once_are_one_predictor(seed, share):
    """A speedup at two lengths of a sequence: the worse of two ratios has to come to 1."""
    random = np.random.default_rng(seed)
    losses = losses_of(random, 5, 6)
    both = [chain(random, losses), additive(random, losses)]
    targets = [predict(narrowest(losses)) + share * (predict(dense(losses)) - predict(narrowest(losses))) for predict in both]

    def worse(widths):
        return max(predict(widths) / target for predict, target in zip(both, targets, strict=True))

    found = solve(losses, worse, 1.0)
    assert found.reachable
    assert all(predict(found.widths) <= target for predict, target in zip(both, targets, strict=True))
    wanted = brute(losses, worse, 1.0)
    assert wanted - 1e-9 <= found.loss <= 1.05 * wanted + 1e-9
