"""How long the scheduler thinks: `next_call` and `admit` on queues of mixed requests, and a digest of all that they chose.

    python benchmarks/serve/choosing.py [--states 60] [--profile]

Requests of six models, some of which share calls, with deadlines around what all of them take, some of several rows, some without deadline,
some of a higher priority; on one core and on two. Two commits with one digest choose alike.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import hashlib
import pstats
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from attainment import MODELS, curve
from common import record

from edgewise.scheduling import Call, Model, Pending, Running, State, admit, next_call, queued, seen, without

MIXED = {
    **MODELS,
    "small": Model(curve((1, 1.0), (16, 6.0)), shared=True),
    "wide": Model(curve((1, 5.0)), cores=2),
}
SIZES = (10, 30, 100)
REPEATS = 3


def states(waiting: int, count: int, seed: int) -> Iterator[tuple[State, Pending]]:
    """So many requests that wait, and one that comes, at second 1."""
    random = np.random.default_rng((seed, waiting))
    names = list(MIXED)
    for number in range(count):
        cores = 1 + number % 2
        state = State({name: replace(model, places=1000) for name, model in MIXED.items()}, cores, caution=float(random.uniform(0.8, 2.0)))
        chosen = [str(name) for name in random.choice(names, waiting + 1, p=random.dirichlet(np.ones(len(names))))]
        whole = sum(state.cost_s(name) for name in chosen)
        made = []
        for id, name in enumerate(chosen):
            arrived = float(random.uniform(0.0, 1.0))
            due = None if random.random() < 0.05 else 1.0 + float(random.uniform(0.1, 1.6)) * whole
            rows = int(random.integers(1, 5)) if MIXED[name].shared and random.random() < 0.2 * (number % 3) else 1
            made.append(Pending(id, name, arrived, due, int(random.random() < 0.1), rows, f"client {id % 5}"))
        made.sort(key=lambda one: one.arrived_s)
        for one in made[:-1]:
            state = queued(seen(state, one, one.arrived_s), one)
        if number % 5 == 4:
            state = replace(state, running=(Running(-1, "detector", 1, 0.995),))
        yield state, replace(made[-1], arrived_s=1.0)


def chosen(state: State, now: float, most: int = 3) -> list[Any]:
    """The next calls, each taken to be over at once."""
    found: list[Any] = []
    for _ in range(most):
        step = next_call(state, now)
        if not isinstance(step, Call):
            found.append(step)
            break
        found.append((step.model, [one.id for one in step.requests], step.rows, step.given_up))
        state = without(state, [one.id for one in step.requests])
    return found


def timed(work: Any, *given: Any) -> float:
    """Seconds of CPU, the least of some."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.thread_time()
        work(*given)
        best = min(best, time.thread_time() - began)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=60, help="of each size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", action="store_true", help="where the time goes at 100, instead")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    given = parser.parse_args()
    if given.profile:
        profiled = cProfile.Profile(time.thread_time)
        for state, _ in list(states(100, given.states, given.seed)):
            profiled.runcall(next_call, state, 1.0)
        pstats.Stats(profiled).sort_stats("tottime").print_stats(16)
        return
    digest, rows = hashlib.sha256(), {}
    for waiting in SIZES:
        made = list(states(waiting, given.states, given.seed))
        for state, pending in made:
            digest.update(repr((chosen(state, 1.0), admit(seen(state, pending, 1.0), pending, 1.0))).encode())
        gc.disable()
        row = {}
        for name, times in (
            ("next_call", [timed(next_call, state, 1.0) for state, _ in made]),
            ("admit", [timed(admit, state, pending, 1.0) for state, pending in made]),
        ):
            p50, p90, most = (round(1e6 * float(value)) for value in (*np.percentile(times, (50, 90)), max(times)))
            row[name] = {"p50_us": p50, "p90_us": p90, "max_us": most}
        gc.enable()
        rows[str(waiting)] = row
        print(f"{waiting:4d} wait: {row}", flush=True)
    print(f"choices {digest.hexdigest()[:16]}")
    if not given.dry:
        record("serve-choosing", {"states": given.states, "waiting": rows, "choices": digest.hexdigest()[:16]})


if __name__ == "__main__":
    main()
