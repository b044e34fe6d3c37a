"""Twice as many requests as a server can answer, at random moments, each with a deadline: how many of those that it took are in time.

    python benchmarks/serve/deadlines.py [--seconds 60] [--models lone,shared,quick]

`edgewise serve` on one core, an open loop of clients (Poisson) on the other. Two models of some milliseconds: one whose requests are run
one by one, and one bound by its weights, whose requests share calls; and one of a millisecond, whose refusals cost as much as a good part
of a call. Capacity is what the same server answers when many clients each ask
as soon as they are answered, before and after. A deadline is eight calls away, of the size that saturation runs.

Beside it, the same server with the simulator's reference policy in place of its own (`scheduling.reference`, switched in by this script
alone): first in, first out, nothing refused while a place is left; once with the queue as plain ones are, which never look at a deadline,
and once with what is late dropped.

Moments are the client's: a refusal's is when its request was sent, an expiry's is its deadline after that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import runpy
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from common import record, told
from served import Client, Reply, asking, chain, keep, on_others, percentiles_ms, request, saturated, served, stolen

from edgewise.graph import Graph
from edgewise.measure.statistics import median_interval

CALLS = 8  # of the model's best size, in a deadline
PROMPT_S = 5e-3
QUEUE = 256
POLICIES = ("edgewise", "FIFO", "FIFO that drops the late")
WIDTH = {"lone": 512, "shared": 4096, "quick": 512}


def models(names: list[str]) -> dict[str, Graph]:
    """lone, quick: their batch axis is 1, so that nothing can be shared. shared: 128 MB of weights, read once for all rows of a call."""
    made = {
        "lone": lambda: chain(64, WIDTH["lone"], batch=1),
        "shared": lambda: chain(2, WIDTH["shared"], seed=1),
        "quick": lambda: chain(16, WIDTH["quick"], batch=1),
    }
    return {name: made[name]() for name in names}


async def capacity(client: Client, data: bytes, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Answers a second, and the same of each half second."""
    await saturated(client, lambda: data, clients, min(2.0, seconds))
    began = time.monotonic()
    replies = await saturated(client, lambda: data, clients, seconds)
    wrong = [reply for reply in replies if reply.status != 200]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {len(replies)} failed when nothing had a deadline: {wrong[0].status} {wrong[0].error}")
    halves = Counter(int((reply.answered_s - began) / 0.5) for reply in replies)
    return len(replies) / seconds, [2.0 * halves[number] for number in range(int(seconds / 0.5))]


async def overloaded(client: Client, data: bytes, rate: float, seconds: float, seed: int) -> tuple[list[Reply], float]:
    """Requests at random moments, whatever becomes of those before. Also by how much the client was late with one, at most."""
    random = np.random.default_rng(seed)
    moments = np.cumsum(random.exponential(1 / rate, int(rate * seconds * 1.2) + 100))
    moments = moments[moments < seconds]
    began, late, asked = time.monotonic(), 0.0, []
    for moment in moments:
        wait = began + moment - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        else:
            late = max(late, -wait)
        asked.append(asyncio.ensure_future(client.ask(data)))
    return list(await asyncio.gather(*asked)), late


def calls(port: int, name: str) -> tuple[int, float]:
    """How many the engine has made of a model, and the seconds that they took."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/{name}/stats", timeout=10) as reply:
        (found,) = json.load(reply)["model_stats"]
    return found["execution_count"], sum(each["compute_infer"]["ns"] for each in found["batch_stats"]) / 1e9


def row(replies: list[Reply], deadline_s: float, capacity: float, seconds: float) -> dict[str, Any]:
    """Of one run. Each second that a request was sent in is a value of its own, for the intervals."""
    began = min(reply.sent_s for reply in replies)
    by_second: dict[int, Counter[str]] = {}
    for reply in replies:
        counts = by_second.setdefault(int(reply.sent_s - began), Counter())
        counts["in_time" if in_time(reply, deadline_s) else "rest"] += 1
        counts["admitted"] += reply.status not in (429, 503)
    whole = [by_second.get(number, Counter()) for number in range(int(seconds))]
    admitted = [reply for reply in replies if reply.status not in (429, 503)]
    refusals = [reply.seconds for reply in replies if reply.status in (429, 503)]
    expiries = [reply.seconds - deadline_s for reply in replies if reply.status == 504]
    kept = sum(in_time(reply, deadline_s) for reply in replies)
    return {
        "requests": len(replies),
        "statuses": dict(sorted(Counter(str(reply.status) for reply in replies).items())),
        "admitted_in_time_percent": round(100 * kept / max(1, len(admitted)), 3),
        "admitted_in_time_by_second": told(
            median_interval([counts["in_time"] / counts["admitted"] for counts in whole if counts["admitted"]]), 100
        ),
        "answered_200_percent": round(100 * sum(reply.status == 200 for reply in admitted) / max(1, len(admitted)), 3),
        "goodput_percent_of_capacity": round(100 * kept / seconds / capacity, 2),
        "goodput_by_second": told(median_interval([counts["in_time"] / capacity for counts in whole]), 100),
        "refusals_after_ms": percentiles_ms(refusals),
        "expiries_after_deadline_ms": percentiles_ms(expiries),
        "latency_ms": percentiles_ms([reply.seconds for reply in replies if reply.status == 200]),
    }


def in_time(reply: Reply, deadline_s: float) -> bool:
    return reply.status == 200 and reply.seconds <= deadline_s


def met(found: dict[str, Any]) -> bool:
    moments = (found["refusals_after_ms"], found["expiries_after_deadline_ms"])
    return (
        found["admitted_in_time_percent"] >= 99
        and found["goodput_percent_of_capacity"] >= 90
        and all(not one["n"] or one["p99.9"] <= PROMPT_S * 1e3 for one in moments)
        and set(found["statuses"]) <= {"200", "503", "504"}
    )


def measured(name: str, graph: Graph, policy: str, given: argparse.Namespace, known: dict[str, Any]) -> dict[str, Any]:
    """known: capacity and deadline, as the server with its own policy gave them; found, where it is that one's turn."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        keep(graph, folder / "models", name)
        data = {"x": np.ones((1, WIDTH[name]), np.float32)}
        program = (sys.executable, "-m", "edgewise") if policy == "edgewise" else (sys.executable, __file__, "--fifo")
        with served(folder / "models", folder, toml=f"grpc = false\n[models.{name}]\nqueue = {QUEUE}\n", program=program) as server:

            async def work() -> dict[str, Any]:
                client = Client(server.port)
                await client.warm(8)
                plain = request(name, data)
                first = await client.ask(plain)
                if first.status != 200:
                    raise RuntimeError(f"{name}: {first.status} {first.error}")
                if policy == "edgewise":
                    before = calls(server.port, name)
                    rate, halves = await capacity(client, plain, given.clients, given.capacity_seconds)
                    after = calls(server.port, name)
                    call = (after[1] - before[1]) / (after[0] - before[0])
                    known.update(capacity=rate, call_s=call, deadline_s=max(0.01, CALLS * call))
                    print(f"{name}: {rate:.0f} requests a second, deadline {1e3 * known['deadline_s']:.1f} ms", flush=True)
                    known["halves"] = told(median_interval(halves), 1, 1)
                deadline = None if policy == "FIFO" else known["deadline_s"]
                await client.warm(2 * given.clients)
                stolen_before = stolen()
                replies, late = await overloaded(client, request(name, data, deadline), 2 * known["capacity"], given.seconds, given.seed)
                stolen_after = stolen()
                found = row(replies, known["deadline_s"], known["capacity"], given.seconds)
                found["steal_s"] = None if stolen_before is None or stolen_after is None else round(stolen_after - stolen_before, 3)
                found["client_late_at_most_ms"] = round(late * 1e3, 3)
                if policy == "edgewise":
                    again, _ = await capacity(client, plain, given.clients, given.capacity_seconds)
                    found["capacity_afterwards"] = round(again, 1)
                client.close()
                return found

            return asking(work)


def as_fifo() -> None:
    """`edgewise` with the reference policy: what the executor asks of the room is asked of another. For this comparison alone."""
    from edgewise import scheduling
    from edgewise.scheduling import reference

    policy = reference.fifo()
    scheduling.admit, scheduling.next_call = policy.admit, policy.next_call
    sys.argv = ["edgewise", *sys.argv[2:]]
    runpy.run_module("edgewise", run_name="__main__")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
    parser.add_argument("--capacity-seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=64, help="that saturate it, to find its capacity")
    parser.add_argument("--models", default="lone,shared,quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="record nothing")
    given = parser.parse_args()
    rows: dict[str, Any] = {}
    made = models(given.models.split(","))
    on_others()
    for name, graph in made.items():
        known: dict[str, Any] = {}
        by_policy = {}
        for policy in POLICIES:
            by_policy[policy] = found = measured(name, graph, policy, given, known)
            print(
                f"  {policy:26s} of those admitted {found['admitted_in_time_percent']:6.2f} % in time, goodput "
                f"{found['goodput_percent_of_capacity']:6.2f} % of capacity; refusals {found['refusals_after_ms']}, expiries "
                f"{found['expiries_after_deadline_ms']}; {found['statuses']}; steal {found['steal_s']} s; "
                f"client late by {found['client_late_at_most_ms']} ms at most",
                flush=True,
            )
        rows[name] = {
            "capacity_per_s": round(known["capacity"], 1),
            "capacity_by_half_second": known["halves"],
            "call_ms": round(1e3 * known["call_s"], 2),
            "deadline_ms": round(1e3 * known["deadline_s"], 2),
            "policies": by_policy,
            "met": met(by_policy["edgewise"]),
        }
    if given.dry:
        return
    record(
        "serve-deadlines",
        {
            "bar": "2x capacity, open loop: 99 % of admitted in time; rejections and expiries within 5 ms of their moment at p99.9; "
            "goodput 90 % of capacity",
            "seconds": given.seconds,
            "models": rows,
            "met": all(each["met"] for each in rows.values()),
        },
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fifo"]:
        as_fifo()
    else:
        main()
