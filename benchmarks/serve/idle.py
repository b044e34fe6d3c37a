"""What a server costs that nobody asks anything: its share of a core, and which of its threads wake up how often.

    python benchmarks/serve/idle.py [--seconds 60] [--models 3]

Time is /proc/PID/stat's (user and system, in steps of 10 ms); a wake-up is a voluntary context switch of a thread
(/proc/PID/task/TID/status). Each model is asked once before, so that it stands in memory. Two servers: REST alone, and with gRPC and a
cap on memory.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from common import record
from served import Client, chain, keep, on_others, request, served

WIDTH = 64
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def wakes(pid: int) -> Counter[tuple[str, str]]:
    """(thread, its name) -> voluntary switches so far."""
    found: Counter[tuple[str, str]] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        switches = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(), re.MULTILINE)
        found[task.name, (task / "comm").read_text().strip()] = int(switches[1]) if switches else 0
    return found


def idle(folder: Path, names: list[str], grpc: bool, cap: bool, seconds: float) -> dict[str, object]:
    options = ("--memory", "1GB") if cap else ()
    with served(folder / "models", folder, "--grpc-port", "0", *options, toml=f"grpc = {str(grpc).lower()}\n") as server:

        async def once() -> None:
            client = Client(server.port)
            for name in names:
                reply = await client.ask(request(name, {"x": np.ones((1, WIDTH), np.float32)}))
                if reply.status != 200:
                    raise RuntimeError(f"{name}: {reply.status} {reply.error}")
            client.close()

        asyncio.run(once())
        time.sleep(3)  # what the first requests set going ends
        cpu, switches, began = cpu_s(server.pid), wakes(server.pid), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        after = wakes(server.pid)
        after.subtract(switches)
        threads = {f"{name} {thread}": round(count / took, 2) for (thread, name), count in after.most_common(6) if count}
        percent = round(100 * (cpu_s(server.pid) - cpu) / took, 3)
    return {"core_percent": percent, "seconds": round(took, 1), "wakes_per_s": round(sum(after.values()) / took, 2), "threads": threads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="record nothing")
    given = parser.parse_args()
    names = [f"m{i}" for i in range(given.models)]
    rows: dict[str, dict[str, object]] = {}
    on_others()
    with tempfile.TemporaryDirectory() as temporary:
        for seed, name in enumerate(names):
            keep(chain(2, WIDTH, seed=seed), Path(temporary) / "models", name)
        for grpc, cap in ((False, False), (True, True)):
            kind = f"{'REST and gRPC' if grpc else 'REST'}, {'a cap' if cap else 'no cap'}"
            rows[kind] = idle(Path(temporary), names, grpc, cap, given.seconds)
            print(f"{kind}: {rows[kind]}", flush=True)
    if not given.dry:
        record("serve-idle", {"models": given.models, "servers": rows})


if __name__ == "__main__":
    main()
