"""`solve`: the widths that reach a target (time, operations, bytes) at the least predicted loss.

Each part takes one of its widths, each with a loss; what all of them cost together is asked of a predictor. Where costs merely add up, this
is the multiple-choice knapsack (Kellerer, Pferschy, Pisinger 2004, chapter 11), solved exactly. Where parts interact, the same is solved
for the costs as they change around one point after another, and what comes out is improved by exchanges until none helps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, prod

import numpy as np

from edgewise.errors import InvalidInput

Choice = tuple[int, ...]  # for each part the number of its option

ENUMERATED = 4096  # up to so many combinations, all are looked at
STATES = 20_000  # of the dynamic program; above, those of nearly equal cost are thinned out, and the result isn't called exact
QUICK_STATES = 1000  # of one of many dynamic programs around a point
STEPS = 8  # targets on the way from a start
EVALUATIONS = 10_000  # of the predictor, after which no more kicks are tried: half a second where one takes 50 µs
KICKS = 40  # in vain, one after the other
TRUST = 2  # options up or down within which costs that were taken at a point are believed to hold
CHECKED = 200  # pairs of exchanges that are put to the predictor in one round


@dataclass(frozen=True)
class Solution:
    """predicted: what the predictor says of `widths`, at most the target where it is `reachable`; else these are the nearest widths.

    exact: no other widths with a lower loss reach the target, as predicted.
    """

    widths: Mapping[str, int]
    predicted: float
    loss: float
    exact: bool
    reachable: bool


def solve(
    losses: Mapping[str, Mapping[int, float]], predict: Callable[[Mapping[str, int]], float], target: float, *, seed: int = 0
) -> Solution:
    """The widths of the least total loss among those with predict(widths) <= target.

    losses: part -> width -> loss; the widths that a part may take are those that it has a loss for. predict: any unit, that of target.
    Takes under two seconds for 30 parts of 12 widths and a predictor of 50 µs. Raises InvalidInput for a loss or target that is no number.
    """
    if isnan(target):
        raise InvalidInput(f"target={target}: give a number, in the predictor's unit")
    for part, options in losses.items():
        bad = [width for width, loss in options.items() if not isfinite(loss)]
        if not options or bad:
            what = f"loss {options[bad[0]]} at width {bad[0]}" if bad else "no width"
            raise InvalidInput(f"{part} has {what}; give every part at least one width, and each a finite loss")
    problem = _Problem(losses, predict)
    free = problem.best
    if problem.cost(free) <= target:
        return problem.solution(free, target, exact=True)
    extra = problem.additive()
    fastest = problem.fastest(extra)
    if problem.cost(fastest) > target and extra:
        other = problem.fastest(None)
        fastest = min(fastest, other, key=problem.cost)
    if problem.cost(fastest) > target:
        return problem.solution(fastest, target, exact=extra is not None)
    if extra is not None:
        for shave in (0.0, 1e-12, 1e-9):  # sums in another order differ in their last digits
            slack = target - problem.cost(problem.widest) - shave * abs(target)
            choice, exact = knapsack(problem.losses, extra, slack)
            if choice is not None and problem.cost(choice) <= target:
                return problem.solution(choice, target, exact=exact)
        # They add up where it was tried, and don't where it matters: of two costs at once, another one is the larger there.
        fastest = problem.fastest(None)
    if prod(map(len, problem.losses)) <= ENUMERATED:
        return problem.solution(_enumerated(problem, target), target, exact=True)
    return problem.solution(_interacting(problem, target, fastest, seed), target, exact=False)


class _Problem:
    """Options by number, widest first, and what the predictor said of them."""

    def __init__(self, losses: Mapping[str, Mapping[int, float]], predict: Callable[[Mapping[str, int]], float]) -> None:
        self.names = list(losses)
        self.widths = [sorted(options, reverse=True) for options in losses.values()]
        self.losses = [np.array([losses[name][width] for width in widths]) for name, widths in zip(self.names, self.widths, strict=True)]
        self.widest: Choice = (0,) * len(self.names)
        self.best: Choice = tuple(int(np.argmin(loss)) for loss in self.losses)
        self._predict = predict
        self._known: dict[Choice, float] = {}

    @property
    def evaluations(self) -> int:
        return len(self._known)

    def cost(self, choice: Choice) -> float:
        found = self._known.get(choice)
        if found is None:
            found = self._known[choice] = float(self._predict(self.named(choice)))
        return found

    def loss(self, choice: Choice) -> float:
        return float(sum(loss[option] for loss, option in zip(self.losses, choice, strict=True)))

    def named(self, choice: Choice) -> dict[str, int]:
        return {name: widths[option] for name, widths, option in zip(self.names, self.widths, choice, strict=True)}

    def solution(self, choice: Choice, target: float, *, exact: bool) -> Solution:
        cost = self.cost(choice)
        return Solution(self.named(choice), cost, self.loss(choice), exact, cost <= target)

    def changes(self, choice: Choice) -> list[np.ndarray]:
        """For each part what each of its options would add to the cost of `choice`."""
        here = self.cost(choice)
        return [
            np.array([self.cost((*choice[:part], option, *choice[part + 1 :])) - here for option in range(len(loss))])
            for part, loss in enumerate(self.losses)
        ]

    def additive(self) -> list[np.ndarray] | None:
        """What each option adds to the widest's cost, if that is all there is to it (as random combinations tell); else None."""
        extra = self.changes(self.widest)
        whole = self.cost(self.widest)
        random = np.random.default_rng(0)
        for _ in range(16):
            choice = tuple(int(random.integers(len(loss))) for loss in self.losses)
            cost = self.cost(choice)
            if abs(whole + sum(one[option] for one, option in zip(extra, choice, strict=True)) - cost) > 1e-9 * max(abs(whole), abs(cost)):
                return None
        return extra

    def fastest(self, extra: list[np.ndarray] | None) -> Choice:
        """The choice of the least cost: exact where costs add up, else the narrowest, improved one part at a time."""
        if extra is not None:
            return tuple(int(np.argmin(one)) for one in extra)
        choice: Choice = tuple(len(loss) - 1 for loss in self.losses)
        while True:
            changes = self.changes(choice)
            part = min(range(len(changes)), key=lambda i: float(changes[i].min()))
            if changes[part].min() >= 0:
                return choice
            choice = (*choice[:part], int(np.argmin(changes[part])), *choice[part + 1 :])


def knapsack(
    losses: Sequence[np.ndarray], costs: Sequence[np.ndarray], budget: float, *, states: int = STATES
) -> tuple[Choice | None, bool]:
    """One option per part, the least sum of losses with a sum of costs <= budget; None where there is none. And whether it is exact.

    A dynamic program over the pairs (cost, loss) that no other one betters in both. Those that can't lead to the best are dropped: by the
    Lagrangian bound, which for this problem is close. Beyond `states` pairs, the ones of nearly equal cost are thinned out; each
    keeps its true cost, so the budget holds in any case, to 12 digits.
    """
    least = [float(cost.min()) for cost in costs]
    slack = budget - sum(least)
    rounding = 1e-12 * (abs(budget) + sum(map(abs, least)))
    if slack < -rounding:
        return None, True
    slack = max(slack, 0.0) + rounding
    options = []
    for loss, cost, low in zip(losses, costs, least, strict=True):
        order = np.lexsort((loss, cost))
        kept = order[_undominated(loss[order])]
        options.append((kept, cost[kept] - low, loss[kept]))
    price, upper = _priced(options, slack)
    # What the parts still to come add at least, if cost is charged at `price`.
    rest = np.cumsum([0.0, *(float((loss + price * cost).min()) for _, cost, loss in reversed(options))])[::-1]
    spent, lost = np.zeros(1), np.zeros(1)
    trail: list[tuple[np.ndarray, np.ndarray]] = []
    exact = True
    tolerance = 1e-9 * (abs(upper) + 1)
    for part, (kept, cost, loss) in enumerate(options):
        new_spent, new_lost = (spent[:, None] + cost).reshape(-1), (lost[:, None] + loss).reshape(-1)
        bound = new_lost + rest[part + 1] - price * (slack - new_spent)
        alive = np.flatnonzero((new_spent <= slack) & (bound <= upper + tolerance))
        alive = alive[np.lexsort((new_lost[alive], new_spent[alive]))]
        alive = alive[_undominated(new_lost[alive])]
        if len(alive) > states:
            exact = False
            bucket = (new_spent[alive] * (states / max(slack, 1e-300))).astype(np.int64)
            alive = alive[np.append(bucket[1:] != bucket[:-1], True)]  # the last of a bucket has the least loss
        spent, lost = new_spent[alive], new_lost[alive]
        trail.append((alive // len(cost), kept[alive % len(cost)]))
    state = int(np.argmin(lost))
    choice = []
    for before, option in reversed(trail):
        choice.append(int(option[state]))
        state = int(before[state])
    return tuple(choice[::-1]), exact


def _undominated(loss: np.ndarray) -> np.ndarray:
    """Of losses in the order of their costs, which are below all before."""
    return loss < np.concatenate([[np.inf], np.minimum.accumulate(loss)[:-1]])


def _priced(options: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], slack: float) -> tuple[float, float]:
    """The price of cost at which the options that are best by loss + price × cost just fit, and the loss of those that fit."""
    most = max((len(kept) for kept, _, _ in options), default=1)
    # The last option again, where there are fewer: all in one array.
    costs = np.array([np.pad(cost, (0, most - len(cost)), mode="edge") for _, cost, _ in options]).reshape(-1, most)
    losses = np.array([np.pad(loss, (0, most - len(loss)), mode="edge") for _, _, loss in options]).reshape(-1, most)
    rows = np.arange(len(options))

    def taken(price: float) -> tuple[float, float]:
        picks = np.argmin(losses + price * costs, axis=1)
        return float(costs[rows, picks].sum()), float(losses[rows, picks].sum())

    cost, upper = taken(0.0)
    if cost <= slack:
        return 0.0, upper
    upper = float(losses[:, 0].sum())  # of the cheapest of each
    low, high = 0.0, 1.0
    for _ in range(200):
        cost, loss = taken(high)
        if cost <= slack:
            upper = min(upper, loss)
            break
        low, high = high, 4 * high
    for _ in range(60):
        middle = (low * high) ** 0.5 if low else high / 16
        cost, loss = taken(middle)
        if cost <= slack:
            high, upper = middle, min(upper, loss)
        else:
            low = middle
        if high - low <= 1e-6 * high:
            break
    return high, upper


def _enumerated(problem: _Problem, target: float) -> Choice:
    counts = [len(loss) for loss in problem.losses]
    total = np.zeros(())
    for loss in problem.losses:
        total = np.add.outer(total, loss)
    for number in np.argsort(total.reshape(-1), kind="stable"):
        choice = tuple(int(option) for option in np.unravel_index(int(number), counts))
        if problem.cost(choice) <= target:
            return choice
    raise InvalidInput("no choice reaches the target")  # the caller has seen one that does


def _interacting(problem: _Problem, target: float, fastest: Choice, seed: int) -> Choice:
    """Towards the target in small steps, from the least loss down and from the fastest up; then the best is kicked, three parts a time."""
    best = _polished(problem, target, fastest)
    for start in (problem.best, fastest):
        found = _led(problem, target, start)
        if problem.cost(found) <= target:
            best = min(best, _polished(problem, target, found), key=problem.loss)
    random = np.random.default_rng(seed)
    vain = 0
    while vain < KICKS and problem.evaluations < EVALUATIONS:
        vain += 1
        kicked = list(best)
        for part in random.choice(len(kicked), min(3, len(kicked)), replace=False):
            kicked[part] = int(random.integers(len(problem.losses[part])))
        settled = _around(problem, target, tuple(kicked), TRUST)
        if problem.cost(settled) <= target:
            found = _polished(problem, target, settled)
            if problem.loss(found) < problem.loss(best):
                best, vain = found, 0
    return best


def _led(problem: _Problem, target: float, start: Choice) -> Choice:
    """From `start` to the target by targets between: costs that are taken at a point say little of one far from it."""
    here, cost = start, problem.cost(start)
    steps = STEPS if cost > 0 < target else 1
    for step in range(1, steps + 1):
        here = _around(problem, cost * (target / cost) ** (step / steps) if steps > 1 else target, here, None)
    return here


def _around(problem: _Problem, target: float, here: Choice, trust: int | None) -> Choice:
    """The best choice by the costs around `here`, asked again for a little less (or more) where its real cost is more (or less).

    It reaches the target unless none that was tried does; then it is the one that comes nearest.
    """
    changes = problem.changes(here)
    ranges = [
        range(len(loss)) if trust is None else range(max(0, at - trust), min(len(loss), at + trust + 1))
        for loss, at in zip(problem.losses, here, strict=True)
    ]
    losses = [loss[near.start : near.stop] for loss, near in zip(problem.losses, ranges, strict=True)]
    costs = [change[near.start : near.stop] for change, near in zip(changes, ranges, strict=True)]
    slack = target - problem.cost(here)
    best, nearest = None, None
    for _ in range(4):
        picks, _ = knapsack(losses, costs, slack, states=QUICK_STATES)
        reached = picks is not None
        if picks is None:
            picks = tuple(int(np.argmin(cost)) for cost in costs)
        there = tuple(near.start + pick for near, pick in zip(ranges, picks, strict=True))
        real = problem.cost(there)
        if real <= target and (best is None or problem.loss(there) < problem.loss(best)):
            best = there
        if nearest is None or real < problem.cost(nearest):
            nearest = there
        believed = problem.cost(here) + sum(cost[pick] for cost, pick in zip(costs, picks, strict=True))
        adjusted = target - problem.cost(here) - (real - believed)
        if not reached or abs(adjusted - slack) <= 1e-3 * abs(target):
            break
        slack = adjusted
    found = best or nearest
    assert found is not None  # for the type checker: the loop ran
    return found


def _polished(problem: _Problem, target: float, choice: Choice) -> Choice:
    """`choice`, which reaches the target, improved until neither a change of one part, nor of two, nor of many by a little helps."""
    while True:
        better = _exchanged(problem, target, choice) or _around(problem, target, choice, TRUST)
        if problem.cost(better) > target or problem.loss(better) >= problem.loss(choice):
            return choice
        choice = better


def _exchanged(problem: _Problem, target: float, choice: Choice) -> Choice | None:
    """The best change of one or two parts that lowers the loss and reaches the target; None when there is none.

    Pairs are ranked by what they gain, and left out where the sum of their changes is far beyond what is left.
    """
    changes = problem.changes(choice)
    moves = [(part, option) for part, loss in enumerate(problem.losses) for option in range(len(loss)) if option != choice[part]]
    if not moves:
        return None
    parts = np.array([part for part, _ in moves])
    gain = np.array([problem.losses[part][option] - problem.losses[part][choice[part]] for part, option in moves])
    cost = np.array([changes[part][option] for part, option in moves])
    left = target - problem.cost(choice)
    alone = [(float(gain[i]), (int(i),)) for i in np.flatnonzero((gain < 0) & (cost <= left))]
    together = gain[:, None] + gain
    likely = (together < 0) & (parts[:, None] < parts) & (cost[:, None] + cost <= left + 0.02 * abs(target))
    pairs = np.argwhere(likely)
    pairs = pairs[np.argsort(together[likely], kind="stable")[:CHECKED]]
    tried = [*alone, *((float(together[i, j]), (int(i), int(j))) for i, j in pairs)]
    for gained, numbers in sorted(tried):
        if gained >= -1e-12 * abs(problem.loss(choice)):
            break
        changed = list(choice)
        for number in numbers:
            changed[moves[number][0]] = moves[number][1]
        if problem.cost(tuple(changed)) <= target:
            return tuple(changed)
    return None
