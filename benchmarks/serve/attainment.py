"""Several models on one small box, in simulated time: who keeps more deadlines, and how far that is from the best there could be.

    python benchmarks/serve/attainment.py [--seeds 6] [--seconds 5]

Four models of different cost and deadlines, one of them batched, requests in bursts. The policies are the very functions that serve. Three
questions, each over several seeds (the interval is of the median over seeds):

- SLO attainment (the share of all requests answered in time) at several loads, beside FIFO and static priority, each also in a form that
  drops what is late already, which plain queues don't.
- At twice what one model can do: how many of those admitted are in time, and how much of the capacity ends up in answers in time.
- On traces small enough to solve: the share of what a mixed integer program gets that knows the trace beforehand (`optimum.py`).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from common import record, told
from optimum import optimum

from edgewise.measure.statistics import median_interval
from edgewise.scheduling import Curve, Model, Pending, Point, State
from edgewise.scheduling.reference import fifo, static_priority
from edgewise.scheduling.simulate import Policy, exact, noisy, poisson, simulate


def curve(*times_ms: tuple[int, float], tail: float = 1.2) -> Curve:
    """(rows, p50 in ms) …; p99 is `tail` times that."""
    return Curve(tuple(Point(rows, p50, tail * p50) for rows, p50 in times_ms))


# All times in whole steps, so that the optimum's grid loses nothing. The third is bound by its weights, as a small transformer is.
MODELS = {
    "keyword": Model(curve((1, 2.0))),
    "detector": Model(curve((1, 8.0))),
    "sentence": Model(curve((1, 12.0), (8, 26.0)), shared=True),
    "segmenter": Model(curve((1, 30.0))),
}
# Every deadline is above the longest call of any model: on one core, what comes while that runs has to wait for it.
DEADLINES_S = {"keyword": 0.060, "detector": 0.100, "sentence": 0.150, "segmenter": 0.300}
# And a set where that isn't so, for show: no policy can keep all of these.
TIGHT_S = {"keyword": 0.020, "detector": 0.050, "sentence": 0.100, "segmenter": 0.200}
# Of the box's time at load 1, a call a row.
SHARES = {"keyword": 0.25, "detector": 0.25, "sentence": 0.25, "segmenter": 0.25}
BURSTS = 3.0
STEP_S = 0.002
LOADS = (0.5, 1.0, 1.5, 2.0)
POLICIES = (Policy("edgewise"), fifo(), fifo(True), static_priority(DEADLINES_S), static_priority(DEADLINES_S, True))


def trace(load: float, seconds: float, seed: int, bursts: float = BURSTS, deadlines_s: dict[str, float] = DEADLINES_S) -> list[Pending]:
    rates = {name: load * SHARES[name] / model.curve.median_s(1) for name, model in MODELS.items()}
    return poisson(rates, seconds, deadlines_s, seed, bursts)


def attainments(load: float, seconds: float, seeds: int, deadlines_s: dict[str, float] = DEADLINES_S) -> dict[str, dict[str, Any]]:
    """By policy: attainment and its parts by model, in percent."""
    found: dict[str, dict[str, Any]] = {}
    for policy in POLICIES:
        traces = [trace(load, seconds, seed, deadlines_s=deadlines_s) for seed in range(seeds)]
        runs = [simulate(State(MODELS), requests, policy, noisy(seed)) for seed, requests in enumerate(traces)]
        of_model = {
            name: round(100 * mean([one.in_time for run in runs for one in run.outcomes if one.request.model == name]), 2)
            for name in MODELS
        }
        found[policy.name] = {
            "attainment_percent": told(median_interval([run.attainment for run in runs]), 100),
            "admitted_in_time_percent": told(median_interval([run.kept for run in runs]), 100),
            "by_model_percent": of_model,
        }
    return found


def overload(name: str, seconds: float, seeds: int) -> dict[str, Any]:
    """One model at twice its capacity, deadline eight calls of its best size."""
    model = MODELS[name]
    most = model.most
    capacity = most / model.curve.mean_s(most)
    deadline_s = 8 * model.curve.median_s(most)
    runs = [
        simulate(State({name: model}), poisson({name: 2 * capacity}, seconds, {name: deadline_s}, seed), None, noisy(seed))
        for seed in range(seeds)
    ]
    return {
        "model": name,
        "deadline_ms": 1e3 * deadline_s,
        "admitted_in_time_percent": told(median_interval([run.kept for run in runs]), 100),
        "goodput_percent_of_capacity": told(median_interval([run.rows_in_time / seconds / capacity for run in runs]), 100),
    }


def solvable(load: float, seed: int, seconds: float = 0.15) -> list[Pending]:
    """A trace whose instants are whole steps; a microsecond more for each deadline, against rounding."""
    found = trace(load, seconds, seed, bursts=1.0)
    instants = [round(one.arrived_s / STEP_S) * STEP_S for one in found]
    return [Pending(one.id, one.model, at, at + DEADLINES_S[one.model] + 1e-6) for one, at in zip(found, instants, strict=True)]


def against_optimum(loads: tuple[float, ...], seeds: int) -> dict[str, Any]:
    """Of what the optimum keeps, the share that each policy does, with exact times: of all traces together, and over traces."""
    state = State({name: replace(model, curve=steady(model.curve)) for name, model in MODELS.items()}, caution=0.0)
    rows: dict[str, Any] = {}
    for load in loads:
        traces = [requests for seed in range(seeds) if (requests := solvable(load, seed))]
        best = [optimum(state, requests, STEP_S) for requests in traces]
        row: dict[str, Any] = {"traces": len(traces), "requests": sum(map(len, traces)), "optimum": sum(best)}
        for policy in POLICIES:
            kept = [sum(one.in_time for one in simulate(state, requests, policy, exact).outcomes) for requests in traces]
            shares = [one / most for one, most in zip(kept, best, strict=True) if most]
            row[policy.name] = {
                "kept": sum(kept),
                "percent_of_optimum": round(100 * sum(kept) / max(1, sum(best)), 2),
                "by_trace": told(median_interval(shares), 100),
            }
        rows[f"{load:g}"] = row
        shown = ", ".join(f"{policy.name} {row[policy.name]['percent_of_optimum']:g} %" for policy in POLICIES)
        print(f"load {load:g}: of {row['requests']} requests the optimum keeps {row['optimum']}; of these {shown}", flush=True)
    return rows


def steady(curve: Curve) -> Curve:
    """With p99 at p50: times are exact where the optimum is asked."""
    return Curve(tuple(Point(point.rows, point.p50_ms, point.p50_ms) for point in curve.points))


def above(loads: dict[str, Any], others: tuple[str, ...]) -> dict[str, bool]:
    """By load: whether no other's attainment is higher."""
    return {
        load: all(rows["edgewise"]["attainment_percent"]["value"] >= rows[name]["attainment_percent"]["value"] for name in others)
        for load, rows in loads.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    loads = {}
    for load in LOADS:
        loads[f"{load:g}"] = found = attainments(load, given.seconds, given.seeds)
        print(f"load {load:g}")
        for name, row in found.items():
            at, kept = row["attainment_percent"], row["admitted_in_time_percent"]
            print(
                f"  {name:38s} {at['value']:6.2f} % in time ({at['low']:.2f}-{at['high']:.2f}), of those admitted {kept['value']:.2f} %; "
                + ", ".join(f"{model} {share:g}" for model, share in row["by_model_percent"].items()),
                flush=True,
            )
    tight = {f"{load:g}": attainments(load, given.seconds, given.seeds, TIGHT_S) for load in (1.0,)}
    overloads = [overload(name, given.seconds, given.seeds) for name in ("detector", "sentence")]
    for row in overloads:
        print(row, flush=True)
    small = against_optimum((1.0, 2.0, 3.0), given.seeds)
    ours = "edgewise"
    record(
        "serve-attainment",
        {
            "bar": "in simulated time: attainment above FIFO's and static priority's, within 5 % of an offline optimum; at 2x, 99 % of "
            "those admitted in time and goodput 90 % of capacity",
            "models": {
                name: {"p50_ms": model.curve.points[0].p50_ms, "deadline_ms": 1e3 * DEADLINES_S[name]} for name, model in MODELS.items()
            },
            "bursts": BURSTS,
            "seconds": given.seconds,
            "seeds": given.seeds,
            "loads": loads,
            "tight": {"deadlines_ms": {name: 1e3 * each for name, each in TIGHT_S.items()}, "loads": tight},
            "overload": overloads,
            "optimum": small,
            "met_above": above(loads, (POLICIES[1].name, POLICIES[3].name)),
            "above_those_that_drop_the_late": above(loads, (POLICIES[2].name, POLICIES[4].name)),
            "met_optimum": {load: row[ours]["percent_of_optimum"] >= 95 for load, row in small.items()},
            "met_overload": all(
                row["admitted_in_time_percent"]["value"] >= 99 and row["goodput_percent_of_capacity"]["value"] >= 90 for row in overloads
            ),
        },
    )


if __name__ == "__main__":
    main()
