"""The most requests of a small trace that anybody could have answered in time, who knew it all beforehand: a mixed integer program.

Calls start on a grid of `step_s`. Where arrivals, deadlines and times are whole numbers of steps, nothing is lost by that: a schedule can
be moved to the left until every start is an arrival or an end.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from edgewise.scheduling import Pending, State


def optimum(state: State, trace: Sequence[Pending], step_s: float = 1e-3, seconds: float = 20.0) -> int:
    """How many of `trace`, each of one row and with a deadline, on the state's cores with the curves' medians as exact times.

    A variable for each call that could be (model, rows, start): whether it is made; one for each request in it: whether that is one of its
    rows, which may be a fraction, since for given calls it is a flow. Where `seconds` don't suffice to prove it, no schedule has more than
    what is given.
    """
    calls: dict[tuple[str, int, int], int] = {}
    shares: list[tuple[int, tuple[str, int, int]]] = []
    for place, one in enumerate(trace):
        model = state.models[one.model]
        sizes = range(1, (model.most if model.shared else 1) + 1)
        arrived, due = (round(at / step_s) for at in (one.arrived_s, one.due_s))
        for rows in sizes:
            for start in range(arrived, due - _steps(state, one.model, rows, step_s) + 1):
                calls.setdefault((one.model, rows, start), len(calls))
                shares.append((place, (one.model, rows, start)))
    if not shares:
        return 0
    count = len(calls) + len(shares)
    entries: list[tuple[int, int, float]] = []
    upper: list[float] = []

    def at_most(terms: Sequence[tuple[int, float]], most: float) -> None:
        entries.extend((len(upper), variable, factor) for variable, factor in terms)
        upper.append(most)

    of_request: dict[int, list[int]] = defaultdict(list)
    of_call: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for number, (place, call) in enumerate(shares, len(calls)):
        of_request[place].append(number)
        of_call[call].append(number)
    for numbers in of_request.values():
        at_most([(number, 1.0) for number in numbers], 1.0)
    for call, numbers in of_call.items():
        at_most([*((number, 1.0) for number in numbers), (calls[call], -float(call[1]))], 0.0)
    busy: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for (name, rows, start), number in calls.items():
        for slot in range(start, start + _steps(state, name, rows, step_s)):
            busy[slot].append((number, float(state.models[name].cores)))
    for terms in busy.values():
        at_most(terms, float(state.cores))
    rows_, columns, factors = (np.array(part) for part in zip(*entries, strict=True))
    matrix = coo_array((factors, (rows_, columns)), shape=(len(upper), count))
    worth = np.concatenate([np.zeros(len(calls)), -np.ones(len(shares))])
    whole = np.concatenate([np.ones(len(calls)), np.zeros(len(shares))])
    found = milp(
        worth, constraints=LinearConstraint(matrix.tocsr(), ub=np.array(upper)), integrality=whole, bounds=Bounds(0, 1),
        options={"time_limit": seconds},
    )  # fmt: skip
    if found.status not in (0, 1):
        raise RuntimeError(f"the optimum can't be found: {found.message}")
    return math.floor(-found.mip_dual_bound + 1e-6)


def _steps(state: State, name: str, rows: int, step_s: float) -> int:
    return round(state.models[name].curve.median_s(rows) / step_s)
