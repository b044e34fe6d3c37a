"""edgewise beside MLServer, LitServe and Triton, and beside the raw runner.

    python benchmarks/serve/peers.py [--rounds 12] [--seconds 1.5] [--only raw|peers] [--small]

Server on one core, client on the other; all servers live, and take turns in rounds (A B C, then C B A). An identity model of 16 and of
37,632 floats: CPU time of the server's whole process tree a request (what it does between requests is in it), and the median time of one
client that asks one after the other. Every server's answers are held against what was sent before they are timed.

Each peer has an environment of its own, out/serve-peers/NAME, which is made when it isn't there; or MLSERVER_PYTHON, LITSERVE_PYTHON and
PYTRITON_PYTHON name interpreters that have them. Plain `pip install` of mlserver==1.7.1 (325 MB), litserve==0.2.19 and
nvidia-pytriton==0.7.0 works with Python 3.11; none brings torch or CUDA. A peer that isn't there is shown with the reason.

Then (`beside_runner.py`) what the server adds to a model of a millisecond, and how much of the throughput of one of five it keeps.
--small: a glance that nothing is kept of.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import beside_runner
from asking import BINARY, FORMS, Client, asked, check, median_us, sample
from common import record, told
from contending import CONTENDERS, OURS, Running
from servers import Unavailable

from edgewise.measure.statistics import median_interval

SIZES = (16, 37_632)


def started(stack: contextlib.ExitStack, core: int, limit_s: int) -> tuple[dict[str, Running], dict[str, str]]:
    """The servers that are there, and of the others why not."""
    servers, missing = {}, {}
    for name, contender in CONTENDERS.items():
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            servers[name] = stack.enter_context(contender(folder, core, limit_s))
            print(f"{name}: {servers[name].version}", flush=True)
        except Unavailable as error:
            missing[name] = str(error)
            print(f"{name}: {error}", flush=True)
    return servers, missing


def idle(servers: dict[str, Running], seconds: float) -> dict[str, float]:
    """Percent of a core that each takes when nobody asks."""
    before = {name: each.server.cpu_s() for name, each in servers.items()}
    time.sleep(seconds)
    return {name: round(100 * (each.server.cpu_s() - before[name]) / seconds, 2) for name, each in servers.items()}


def cell(servers: dict[str, Running], form: str, floats: int, rounds: int, seconds: float) -> dict[str, Any]:
    """By contender: CPU and median time a request, and edgewise's CPU as a share of its; or the reason why there is none."""
    found: dict[str, Any] = {}
    array = sample(floats)
    with contextlib.ExitStack() as stack:
        clients: dict[str, Client] = {}
        for name, each in servers.items():
            try:
                clients[name] = stack.enter_context(contextlib.closing(each.client(form, array)))
                check(clients[name], array)
                asked(clients[name], seconds / 2)
            except (Unavailable, RuntimeError, OSError) as error:
                found[name] = {"reason": str(error)[:300]}
                clients.pop(name, None)
        cpu: dict[str, list[float]] = {name: [] for name in clients}
        times: dict[str, list[float]] = {name: [] for name in clients}
        requests = dict.fromkeys(clients, 0)
        for turn in range(rounds):
            for name in list(clients)[:: -1 if turn % 2 else 1]:
                before = servers[name].server.cpu_s()
                took = asked(clients[name], seconds)
                cpu[name].append((servers[name].server.cpu_s() - before) / len(took) * 1e6)
                times[name].append(median_us(took))
                requests[name] += len(took)
    for name in clients:
        row = {"cpu_us": told(median_interval(cpu[name]), digits=1), "p50_us": told(median_interval(times[name]), digits=1)}
        if name != OURS and OURS in clients:
            shares = [own / other for own, other in zip(cpu[OURS], cpu[name], strict=True) if other > 0]
            row["edgewise_cpu_share"] = told(median_interval(shares)) if shares else None
        found[name] = row | {"requests": requests[name]}
    return {name: found[name] for name in servers}


def show(floats: int, form: str, row: dict[str, Any]) -> None:
    print(f"{floats:,} floats, {form}")
    for name, each in row.items():
        if "reason" in each:
            print(f"  {name:9s} {each['reason']}")
            continue
        cpu, p50, share = each["cpu_us"], each["p50_us"], each.get("edgewise_cpu_share")
        beside = f"   edgewise's CPU {share['value']:.2f}x [{share['low']:.2f}, {share['high']:.2f}] of it" if share else ""
        print(
            f"  {name:9s} CPU {cpu['value']:8.0f} µs [{cpu['low']:.0f}, {cpu['high']:.0f}]   p50 {p50['value']:8.0f} µs "
            f"[{p50['low']:.0f}, {p50['high']:.0f}]   n={each['requests']} in {cpu['n']} rounds{beside}",
            flush=True,
        )


def lost(rows: list[dict[str, Any]]) -> list[str]:
    """Where the bar isn't met: a share whose interval reaches 1 (MLServer, LitServe), or a median above it (Triton, binary REST)."""
    found = []
    for row in rows:
        for name, each in row["contenders"].items():
            share = each.get("edgewise_cpu_share")
            if share is None or (name == "triton" and row["form"] != BINARY):
                continue
            if share["value"] > 1 if name == "triton" else share["high"] >= 1:
                found.append(f"{name}, {row['floats']} floats, {row['form']}: {share['value']}x")
        if "reason" in row["contenders"].get(OURS, {"reason": ""}):
            found.append(f"{OURS} itself, {row['floats']} floats, {row['form']}")
    return found


def against_peers(given: argparse.Namespace, server_core: int) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        servers, missing = started(stack, server_core, given.limit)
        if OURS not in servers:
            raise SystemExit(f"{OURS} itself didn't start: {missing[OURS]}")
        rows = []
        for floats in SIZES:
            for form in FORMS:
                row = cell(servers, form, floats, given.rounds, given.seconds)
                show(floats, form, row)
                rows.append({"floats": floats, "form": form, "contenders": row})
        resting = idle(servers, max(1.0, 2 * given.seconds))
        versions = {name: each.version for name, each in servers.items()}
    print("idle, % of a core: " + ", ".join(f"{name} {value:g}" for name, value in resting.items()))
    return {"versions": versions, "missing": missing, "rows": rows, "idle_percent": resting, "lost": lost(rows), "met": not lost(rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.5, help="of asking, a contender, a round")
    parser.add_argument("--only", choices=("peers", "raw"), help="one of the two comparisons")
    parser.add_argument("--limit", type=int, default=3600, help="seconds that a server may live")
    parser.add_argument("--small", action="store_true", help="two short rounds; nothing is kept")
    given = parser.parse_args()
    if given.small:
        given.rounds, given.seconds, given.limit = 2, 0.5, 280
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("needs two cores: one for the servers, one for the client")
    os.sched_setaffinity(0, {cores[1]})
    # So that the servers end when this is told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    kept = {"rounds": given.rounds, "seconds_a_round": given.seconds, "server_core": cores[0], "client_core": cores[1]}
    if given.only != "raw":
        result = against_peers(given, cores[0])
        print(f"met: {result['met']}; lost: {'; '.join(result['lost']) or 'nothing'}")
        if not given.small:
            bar = "less server CPU a request than MLServer and LitServe in every row they have; binary REST <= 1.0x Triton's"
            record("serve-peers", {"bar": bar, **kept, **result})
    if given.only != "peers":
        result = beside_runner.compared(given.rounds, given.seconds, cores[0], given.limit)
        if not given.small:
            bar = "<= 120 µs p50 added to a 1 ms model at one client; >= 90 % of a 5 ms model's throughput under saturation"
            record("serve-raw-runner", {"bar": bar, **kept, **result})


if __name__ == "__main__":
    main()
