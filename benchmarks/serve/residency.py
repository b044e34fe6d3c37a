"""Twenty models, and memory for five of them: whether the cap holds at every moment, and how often a model that is asked for is there.

    python benchmarks/serve/residency.py [--minutes 10] [--rate 6] [--models 20] [--room 5]

`edgewise serve --memory` on one core, clients at random moments (Poisson) on the other, who ask for models by a Zipf law. Models are of
three sizes. A first run, with a cap that
nothing comes near, loads each once, and says what each keeps; the cap is five times their mean. Resident memory above
the idle server is read from outside every 5 ms; nothing may fail, and every answer is held against the model's own.

The same trace is then played through LRU, through what the server does (GreedyDual-Size-Frequency) and through what could be done by who
knows the future, with the bytes and load peaks that the server measured; there, requests come one after the other, and a load takes no
time:

- Belady by bytes: what is needed last goes first, until there is room. Something that can be done, and so at most the optimum.
- A bound that no policy gets past: which stays between two requests for a model are worth their room, as a linear program (the relaxation
  of Berger, Beckmann and Harchol-Balter 2018, FOO), load peaks left out. For models of one size it is the optimum itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from common import record, told
from scipy.optimize import linprog
from scipy.sparse import coo_array
from served import Client, Reply, Sampled, asking, chain, keep, of, on_others, percentiles_ms, request, served, stolen

from edgewise.host import eviction
from edgewise.measure.statistics import median_interval

WIDTH = 512  # a product's weights are a megabyte
LENGTHS = (6, 9, 14)
EVERY_S = 5e-3
OVER = 1.10
ZIPF = 0.9


@dataclass(frozen=True)
class Size:
    """As the server measured it: bytes kept, and at most while it loads; seconds of a load."""

    kept: int
    peak: int
    seconds: float


def made(folder: Path, count: int) -> list[str]:
    names = [f"model-{number:02d}" for number in range(count)]
    for number, name in enumerate(names):
        keep(chain(LENGTHS[number % len(LENGTHS)], WIDTH, seed=number), folder, name)
    return names


def sizes(models: Path, names: Sequence[str]) -> dict[str, Size]:
    """From what the server keeps beside each model."""
    found = {}
    for name in names:
        (path,) = (models / name / "1").glob(".*.curves.json")
        ((_, one),) = json.loads(path.read_bytes()).items()
        found[name] = Size(one["kept"], one["peak"], one["seconds"])
    return found


def trace(names: Sequence[str], rate: float, seconds: float, seed: int) -> list[tuple[float, str]]:
    """(moment, model). Which model is how popular is drawn, so that size and rank have nothing to do with each other."""
    random = np.random.default_rng(seed)
    moments = np.cumsum(random.exponential(1 / rate, int(rate * seconds * 1.3) + 100))
    shares = 1 / np.arange(1, len(names) + 1) ** ZIPF
    order = random.permutation(list(names))
    picked = random.choice(order, len(moments), p=shares / shares.sum())
    return [(float(at), str(name)) for at, name in zip(moments, picked, strict=True) if at < seconds]


# --- the same trace, played ---


def played(
    asked: Sequence[tuple[float, str]], by: dict[str, Size], cap: int, going: Callable[[dict[str, Any], int, int, str], list[str]]
) -> int:
    """Requests that find their model. going(inside, wanted bytes, place in the trace, model): who leaves."""
    inside: dict[str, Any] = {}
    hits = 0
    for place, (at, name) in enumerate(asked):
        if name in inside:
            hits += 1
        else:
            over = sum(by[one].kept for one in inside) + by[name].peak - cap
            if over > 0:
                for other in going(inside, over, place, name):
                    del inside[other]
        inside[name] = at
    return hits


def lru(by: dict[str, Size]) -> Callable[[dict[str, Any], int, int, str], list[str]]:
    def going(inside: dict[str, Any], wanted: int, place: int, name: str) -> list[str]:
        residents = [eviction.Resident(one, by[one].kept, 0, at, 0) for one, at in inside.items()]
        return [str(one.key) for one in eviction.victims(residents, wanted, eviction.lru)]

    return going


def belady(asked: Sequence[tuple[float, str]], by: dict[str, Size]) -> Callable[[dict[str, Any], int, int, str], list[str]]:
    """By when it is needed again, the last first; whoever isn't needed any more before all."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, (_, name) in enumerate(asked):
        places[name].append(place)

    def going(inside: dict[str, Any], wanted: int, place: int, name: str) -> list[str]:
        def again(one: str) -> float:
            return next((later for later in places[one] if later > place), float("inf"))

        residents = [eviction.Resident(one, by[one].kept, 0, -again(one), 0) for one in inside]
        return [str(one.key) for one in eviction.victims(residents, wanted, eviction.lru)]

    return going


def greedy_dual(asked: Sequence[tuple[float, str]], by: dict[str, Size], cap: int) -> int:
    """The server's own rule, with its bookkeeping (`Residency.touch`, `_free`)."""
    uses, last, floors = dict.fromkeys(by, 0.0), dict.fromkeys(by, 0.0), dict.fromkeys(by, 0.0)
    inside: set[str] = set()
    inflation, hits = 0.0, 0
    for at, name in asked:
        uses[name], last[name], floors[name] = eviction.decayed(uses[name], at - last[name]) + 1, at, inflation
        if name in inside:
            hits += 1
            continue
        over = sum(by[one].kept for one in inside) + by[name].peak - cap
        if over > 0:
            residents = [
                eviction.Resident(one, by[one].kept, eviction.decayed(uses[one], at - last[one]), last[one], by[one].seconds, floors[one])
                for one in sorted(inside)
            ]
            for resident in eviction.victims(residents, over):
                inflation = max(inflation, eviction.gdsf(resident))
                inside.discard(str(resident.key))
        inside.add(name)
    return hits


def bound(asked: Sequence[tuple[float, str]], by: dict[str, Size], cap: int) -> float:
    """Hits that nobody gets past. A variable in 0..1 for each stay between two requests for the same model; at each request in between,
    what stays and the model that is asked fit under the cap.
    """
    last: dict[str, int] = {}
    stays: list[tuple[int, int, str]] = []
    for place, (_, name) in enumerate(asked):
        if name in last:
            stays.append((last[name], place, name))
        last[name] = place
    rows, columns, values = [], [], []
    for number, (begin, end, name) in enumerate(stays):
        for place in range(begin + 1, end):
            rows.append(place)
            columns.append(number)
            values.append(by[name].kept / cap)
    left = np.array([1 - by[name].kept / cap for _, name in asked])
    matrix = coo_array((values, (rows, columns)), shape=(len(asked), len(stays))).tocsr()
    found = linprog(-np.ones(len(stays)), A_ub=matrix, b_ub=left, bounds=(0, 1), method="highs")
    if found.status != 0:
        raise RuntimeError(f"no bound: {found.message}")
    return float(-found.fun)


# --- the server ---


async def learned(port: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Every model asked once, and what it says to a row of ones."""
    client = Client(port)
    found = {}
    for name in names:
        reply = await client.ask(request(name, {"x": np.ones((1, WIDTH), np.float32)}))
        if reply.status != 200:
            raise RuntimeError(f"{name}: {reply.status} {reply.error}")
        found[name] = np.array(reply.array())
        await client.post(f"/v2/repository/models/{name}/unload")  # what it leaves behind is not the next one's
    client.close()
    return found


async def driven(port: int, asked: Sequence[tuple[float, str]]) -> tuple[list[Reply], str]:
    client = Client(port)
    data = {name: request(name, {"x": np.ones((1, WIDTH), np.float32)}) for name in {name for _, name in asked}}
    began, tasks = time.monotonic(), []
    for at, name in asked:
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        tasks.append(asyncio.ensure_future(client.ask(data[name], 120)))
    replies = list(await asyncio.gather(*tasks))
    text = (await client.get("/metrics")).body.decode()
    client.close()
    return replies, text


def close(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Requests that waited for one load share a call, in which floats need not have the bits that they have alone."""
    return bool(np.allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(np.abs(wanted).max())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=6.0, help="requests a second")
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--room", type=int, default=5, help="models that the cap has room for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="record nothing")
    given = parser.parse_args()
    on_others()
    with tempfile.TemporaryDirectory() as temporary:
        folder, models = Path(temporary), Path(temporary) / "models"
        names = made(models, given.models)
        with served(models, folder, "--memory", "8GB", toml="grpc = false\n") as server:
            expected = asking(lambda: learned(server.port, names))
        by = sizes(models, names)
        cap = given.room * round(float(np.mean([size.kept for size in by.values()])))
        asked = trace(names, given.rate, 60 * given.minutes, given.seed)
        print(
            f"{len(names)} models of {sorted({round(size.kept / 2**20) for size in by.values()})} MB, cap {cap / 2**20:.1f} MB", flush=True
        )
        with served(models, folder, "--memory", str(cap), toml="grpc = false\n") as server:
            time.sleep(2)
            idle = sorted(server.rss() for _ in range(11))[5]
            before = stolen()
            with Sampled(server.rss, EVERY_S) as rss:
                replies, metrics = asking(lambda: driven(server.port, asked))
            after = stolen()
    above = [value - idle for value in rss.values]
    failed = Counter(f"{reply.status} {reply.error}"[:160] for reply in replies if reply.status != 200)
    wrong = sum(not close(reply.array(), expected[name]) for reply, (_, name) in zip(replies, asked, strict=True) if reply.status == 200)
    n = len(asked)
    hits, misses, loads = (of(metrics, f"edgewise_residency_{name}_total") for name in ("hits", "misses", "loads"))
    by_minute = defaultdict(list)
    for reply, (at, _) in zip(replies, asked, strict=True):
        by_minute[int(at // 60)].append(reply.seconds)
    policies = {
        "LRU": 100 * played(asked, by, cap, lru(by)) / n,
        "GreedyDual-Size-Frequency, in simulation": 100 * greedy_dual(asked, by, cap) / n,
        "Belady by bytes (feasible)": 100 * played(asked, by, cap, belady(asked, by)) / n,
        "bound (LP relaxation)": 100 * bound(asked, by, cap) / n,
    }
    result = {
        "bar": "20 models, cap for 5, Zipf, 10 minutes: never above the cap + 10 %, no failed request",
        "minutes": given.minutes,
        "requests": n,
        "zipf": ZIPF,
        "kept_mb": [round(size.kept / 2**20, 1) for size in by.values()],
        "peak_mb": [round(size.peak / 2**20, 1) for size in by.values()],
        "cap_mb": round(cap / 2**20, 1),
        "idle_mb": round(idle / 2**20, 1),
        "above_idle_percent_of_cap": {
            "highest": round(100 * max(above) / cap, 2),
            "p99": round(100 * float(np.percentile(above, 99)) / cap, 2),
            "p50": round(100 * float(np.percentile(above, 50)) / cap, 2),
            "samples": len(above),
            "over_the_cap_percent_of_samples": round(100 * float(np.mean(np.array(above) > cap)), 4),
        },
        "failed": dict(failed),
        "wrong": wrong,
        "loads": int(loads),
        "found_in_memory_percent": round(100 * hits / max(1.0, hits + misses), 2),
        "without_a_load_percent": round(100 * (1 - loads / n), 2),
        "hit_percent_in_simulation": {name: round(value, 2) for name, value in policies.items()},
        "latency_ms": percentiles_ms([reply.seconds for reply in replies]),
        "median_latency_by_minute_ms": told(median_interval([float(np.median(times)) for times in by_minute.values()]), 1e3),
        "steal_s": None if before is None or after is None else round(after - before, 3),
        "met": max(above) <= OVER * cap and not failed and not wrong,
    }
    print(json.dumps(result, indent=1))
    if not given.dry:
        record("serve-residency", result)


if __name__ == "__main__":
    main()
