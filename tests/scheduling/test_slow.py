"""`next_call` chooses what it would if it took its time: whatever is worked out once, or not at all, changes nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from edgewise.scheduling import Call, Curve, Model, Pending, Point, Running, State, next_call, plan, queued, rested, seen, without

from . import slow


def curve(*points: tuple[int, float], tail: float = 1.3) -> Curve:
    return Curve(tuple(Point(rows, p50, tail * p50) for rows, p50 in points))


MODELS = {
    "quick": Model(curve((1, 1.0)), places=1000),
    "dear": Model(curve((1, 9.0)), places=1000),
    "two": Model(curve((1, 4.0)), cores=2, places=1000),
    "many": Model(curve((1, 3.0)), instances=2, places=1000),
    "sharing": Model(curve((1, 4.0), (8, 9.0)), shared=True, places=1000),
    "bound": Model(curve((1, 2.0), (4, 2.2), (16, 9.0)), shared=True, largest=6, places=1000),
}


def made(random: np.random.Generator) -> State:
    """A queue at second 1, of some kind: short or long, one model or all, roomy or in overload, with and without what is rare."""
    every = list(MODELS)
    names = [["quick", "dear"], ["quick", "dear", "sharing"], every, [str(random.choice(every))]][int(random.integers(4))]
    cores, count = int(random.choice([1, 1, 1, 2, 3])), int(random.choice([1, 5, 12, 30]))
    state = State(MODELS, cores, caution=float(random.choice([0.0, 1.0, 1.7])), credit=float(random.choice([0.0, 1.0, 3.0, 3.0])))
    state = replace(state, pace={name: float(random.choice([0.7, 1.0, 1.4])) for name in names})
    chosen = [str(name) for name in random.choice(names, count)]
    whole = sum(state.cost_s(name) for name in chosen)
    odd, spread = random.random() < 0.5, float(random.choice([0.7, 1.0, 2.0]))
    ones = []
    for id, name in enumerate(chosen):
        due = None if odd and random.random() < 0.2 else 1.0 + float(random.uniform(0.0, spread)) * whole
        rows = int(random.integers(1, 4)) if odd and MODELS[name].shared and random.random() < 0.3 else 1
        arrived = float(random.uniform(-1.0, 1.0))
        ones.append(Pending(id, name, arrived, due, int(odd and random.random() < 0.2), rows))
    for one in sorted(ones, key=lambda one: one.arrived_s):
        state = queued(seen(state, one, one.arrived_s), one)
    if random.random() < 0.4:
        name = str(random.choice(list(MODELS)))
        state = replace(state, running=(Running(-1, name, 1, float(random.choice([0.9, 0.999]))),))
    given_up = frozenset(one.id for one in ones if random.random() < 0.2) if random.random() < 0.2 else frozenset()
    return replace(state, given_up=given_up, rested_s=float(random.choice([-np.inf, 1.001, 1.05])))


def test_the_choice_is_the_one_that_is_worked_out_slowly() -> None:
    random = np.random.default_rng(0)
    kinds: Counter[str] = Counter()
    for _ in range(250):
        state = made(random)
        assert list(plan(state, 1.0)) == slow.plan(state, 1.0)
        for _ in range(3):
            found, wanted = next_call(state, 1.0), slow.next_call(state, 1.0)
            assert found == wanted
            kinds[type(found).__name__] += 1
            if not isinstance(found, Call):
                break
            kinds["given up"] += bool(found.given_up)
            kinds["shared"] += len(found.requests) > 1
            state = without(rested(state, found, 1.0), [one.id for one in found.requests])
    assert min(kinds[kind] for kind in ("Call", "Wait", "given up", "shared")) >= 4, kinds
