"""A server that meets what servers meet, and has to answer right, or say why not, and go on.

    python benchmarks/serve/faults.py [--only kills,disk,corrupt,clock,loris,fuzz,schema,leak] [--kills 20] [--inputs 50000] [--requests
    200000]

kills    SIGKILL at random moments under load, started again at once on the same port: every answer that comes is right, the next server
         answers, and nothing half written lies among the models
disk     models, curves and its log on a disk that is full from the start: it serves; `--index` says why it can't; a version that was cut
         off by the full disk doesn't take over; once there is room, a new version does. Needs root (Linux)
corrupt  versions dropped in under load: empty, cut off, of random bytes, with a flipped bit, of another kind; then a good one
clock    the wall clock jumps a day ahead and two back under load, with deadlines (libfaketime, which pip and Debian have; the monotonic
         clock goes on as it does when an administrator sets the time). Without it, and beside it: which clocks the server's modules read
loris    1,000 clients that send a byte a second, half of them in headers, half in a body, beside one that asks as usual
fuzz     hypothesis: damaged requests with binary tensors, their headers, their JSON; each is answered, with 200 or 4xx
schema   schemathesis, by the server's own OpenAPI (pip install schemathesis), but for unload: of what is out of memory, `ready` says 503,
         as it should, which schemathesis takes for a fault
leak     many requests of all kinds, good ones, bad ones and ones that are given up: resident memory and open files stay

After each, the server must answer rightly, and end on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from common import record, small_disk, told
from served import EDGEWISE, Client, Reply, Server, asking, chain, keep, matrices, of, on_others, percentiles_ms, posted, request, start

from edgewise.measure.statistics import median_interval

WIDTH = 64
CLIENTS = 8
ROWS = np.random.default_rng(0).standard_normal((16, WIDTH)).astype(np.float32)
DISK = "2m"
FLAT = 2 << 20  # bytes that memory may grow by, over all requests after the first tenth
FAKETIME = ("/usr/lib/*/faketime/libfaketimeMT.so.1",)
BARS = {
    "kills": "kill -9 under load: no wrong answer, the next one serves, nothing half written",
    "disk": "disk full: it serves, and says what it can't do",
    "corrupt": "a corrupt version dropped in: the old one goes on",
    "clock": "the wall clock jumps: nobody's deadline moves",
    "loris": "1,000 slow clients: the others are answered, the slow ones are let go",
    "fuzz": "50,000 damaged requests: each answered, none by a fault of the server's",
    "schema": "schemathesis on the OpenAPI: no server error, nothing that isn't documented",
    "leak": "memory flat over 200,000 requests",
}


def answers(version: int = 1) -> list[np.ndarray]:
    """By row, as the model's version gives them, to within what floats may differ by between sizes of calls."""
    rows = ROWS.astype(np.float64)
    for matrix in matrices(2, WIDTH, version):
        rows = rows @ matrix.astype(np.float64)
    return list(rows)


class Load:
    """Clients that ask as usual, whatever happens, until it is over; what they were told, by kind."""

    def __init__(self, port: int, versions: tuple[int, ...] = (1,), timeout_s: float | None = None, clients: int = CLIENTS) -> None:
        self.port, self.clients = port, clients
        self.found: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.first: dict[str, str] = {}
        self._right = {version: answers(version) for version in versions}
        self._data = [request("net", {"x": row[None]}, timeout_s) for row in ROWS]
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._one(number)) for number in range(self.clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _one(self, number: int) -> None:
        client, place = Client(self.port), number
        while not self._over:
            place = (place + 5) % len(ROWS)
            try:
                reply = await client.ask(self._data[place], 20)
            except OSError as error:
                kind, told = ("hung", "no answer in 20 s") if isinstance(error, TimeoutError) else ("unreachable", str(error))
                await asyncio.sleep(0.02)
            else:
                kind, told = self._judged(reply, place)
                if kind.startswith("right"):
                    self.seconds.append(reply.seconds)
            self.found[kind] += 1
            self.first.setdefault(kind, told)
        client.close()

    def _judged(self, reply: Reply, place: int) -> tuple[str, str]:
        if reply.status == 0:
            return "cut off", ""
        if reply.status != 200:
            return f"status {reply.status}", reply.error
        found = reply.array()[0]
        for version, right in self._right.items():
            if np.allclose(found, right[place], rtol=1e-3, atol=1e-3):
                return f"right, version {version}", ""
        return "wrong", f"row {place}"

    def odd(self, *allowed: str) -> list[str]:
        """What was neither right nor among these kinds."""
        return [f"{count} x {kind}: {self.first[kind]}" for kind, count in self.found.items() if not kind.startswith(("right", *allowed))]

    @property
    def right(self) -> int:
        return sum(count for kind, count in self.found.items() if kind.startswith("right"))


def models(folder: Path) -> Path:
    keep(chain(2, WIDTH, seed=1), folder / "models", "net")
    return folder / "models"


def well(server: Server, version: int = 1) -> list[str]:
    """What is wrong with a server that should be as it was; it is asked, and ended."""
    wrong = []
    if server.process.poll() is not None:
        return [f"the server has ended: {server.process.returncode}; {server.said()[-500:]}"]

    async def ask() -> Load:
        async with Load(server.port, (version,), clients=2) as load:
            await asyncio.sleep(0.5)
        return load

    load = asking(ask)
    if load.odd() or not load.right:
        wrong.append(f"afterwards: {load.odd() or 'no answer'}")
    try:
        status = server.stop()
        wrong += [f"it ended with {status}"] * (status != 0)
    except subprocess.TimeoutExpired:
        wrong.append("it didn't end on SIGTERM")
    wrong += [f"a traceback in its log: {server.said()[-800:]}"] * ("Traceback" in server.said())
    return wrong


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def kills(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    random, port = np.random.default_rng(given.seed), free_port()
    place = models(folder)
    server = start(place, folder, toml="grpc = false\n", port=port)
    back: list[float] = []
    wrong: list[str] = []

    async def work() -> Load:
        nonlocal server
        async with Load(port) as load:
            for _ in range(given.kills):
                await asyncio.sleep(float(random.uniform(0.02, 1.5)))
                server.stop(signal.SIGKILL)
                began, before = time.monotonic(), load.right
                server = await asyncio.to_thread(start, place, folder, toml="grpc = false\n", port=port)
                while load.right == before and time.monotonic() < began + 30:
                    await asyncio.sleep(0.005)
                back.append(time.monotonic() - began)
                if load.right == before:
                    wrong.append("no answer 30 s after a start")
        return load

    load = asking(work)
    left = [str(path.relative_to(place)) for path in place.rglob("*") if path.is_file() and path.name != "model.edgew"]
    wrong += load.odd("cut off", "unreachable") + [f"left behind: {name}" for name in left if not name.endswith(".curves.json")]
    return {"kills": len(back), "answers": dict(load.found), "first_answer_s": told(median_interval(back)), "wrong": wrong + well(server)}


def disk(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    with small_disk(folder / "small", DISK) as small:
        place, wrong = models(small), list[str]()
        newer = keep(chain(2, WIDTH, seed=2), folder / "other", "net", 2)
        others = small / "others"
        (small / "serve.toml").write_text("")  # what `start` writes once more, into the block that it has
        with others.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        (small / "serve.log").unlink(missing_ok=True)
        server = start(place, folder, toml="grpc = false\nlog_requests = true\n[execution]\npoll_s = 0.2\n", log=Path("/dev/full"))

        async def work() -> Load:
            async with Load(server.port, (1, 2)) as load:
                await asyncio.sleep(2)
                index = subprocess.run([*EDGEWISE, "serve", place, "--index"], capture_output=True, text=True, timeout=60)
                said = (index.stderr or index.stdout).strip().splitlines()
                if index.returncode == 0 or "Traceback" in index.stderr or not said:
                    wrong.append(f"--index on a full disk: status {index.returncode}, {said[-1:]}")
                indexed.extend(said[-1:])
                target = place / "net" / "2" / "model.edgew"
                with contextlib.suppress(OSError):
                    target.parent.mkdir()
                    shutil.copyfile(newer, target)  # as far as there is room
                await asyncio.sleep(1.5)
                cut_off.append(target.stat().st_size if target.exists() else -1)
                wrong.extend(["a version that was cut off took over"] * ("right, version 2" in load.found))
                others.unlink()
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(newer, target)
                until = time.monotonic() + 20
                while "right, version 2" not in load.found and time.monotonic() < until:
                    await asyncio.sleep(0.1)
                wrong.extend(["the new version didn't take over once there was room"] * ("right, version 2" not in load.found))
            return load

        indexed: list[str] = []
        cut_off: list[int] = []
        load = asking(work)
        return {
            "answers": dict(load.found),
            "index_said": [line.replace(str(folder), "…") for line in indexed],
            "bytes_of_the_version_that_was_cut_off": cut_off,
            "wrong": wrong + load.odd() + well(server, 2),
        }


def corrupt(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    place, random = models(folder), np.random.default_rng(given.seed)
    good = keep(chain(2, WIDTH, seed=2), folder / "other", "net", 2).read_bytes()
    flipped = bytearray(good)
    flipped[int(random.integers(len(good) // 2, len(good)))] ^= 0x10
    bad = {
        "empty": b"",
        "cut off": good[: len(good) // 2],
        "random": random.bytes(len(good)),
        "a flipped bit": bytes(flipped),
        "text": b"<html>404</html>",
        "another's archive": b"PK\x03\x04" + random.bytes(2000),
    }
    server = start(place, folder, toml="grpc = false\n[execution]\npoll_s = 0.2\n")
    reasons: dict[str, str] = {}
    wrong: list[str] = []

    async def work() -> Load:
        async with Load(server.port, (1, 2)) as load:
            await asyncio.sleep(0.5)
            client = Client(server.port)
            for number, (kind, data) in enumerate(bad.items(), 2):
                path = place / "net" / str(number) / "model.edgew"
                path.parent.mkdir()
                path.write_bytes(data)
                until = time.monotonic() + 10
                while time.monotonic() < until:
                    rows = json.loads((await client.post("/v2/repository/index")).body)
                    reason = next((row["reason"] for row in rows if row["name"] == "net" and row["version"] == str(number)), "")
                    if reason:
                        break
                    await asyncio.sleep(0.1)
                reasons[kind] = reason.replace(str(folder), "…")
                wrong.extend([f"{kind}: the index doesn't say why it isn't served"] * (not reason))
            wrong.extend(["a bad version answered"] * ("right, version 2" in load.found))
            path = place / "net" / str(len(bad) + 2) / "model.edgew"
            path.parent.mkdir()
            path.write_bytes(good)
            until = time.monotonic() + 20
            while "right, version 2" not in load.found and time.monotonic() < until:
                await asyncio.sleep(0.1)
            wrong.extend(["the good version didn't take over"] * ("right, version 2" not in load.found))
            client.close()
        return load

    load = asking(work)
    return {"answers": dict(load.found), "reasons": reasons, "wrong": wrong + load.odd() + well(server, 2)}


def faketime() -> Path | None:
    spec = importlib.util.find_spec("libfaketime")
    beside = Path(spec.origin).parent if spec and spec.origin else None
    found = [*(beside.rglob("libfaketime*.so.1") if beside else ()), *Path("/").glob(FAKETIME[0].lstrip("/"))]
    return next(iter(sorted(found, key=lambda path: "MT" not in path.name)), None)


def wall_clocks() -> list[str]:
    """Where the server's modules read the wall clock."""
    import edgewise

    root = Path(edgewise.__file__).parent
    found = []
    for room in ("host", "serve", "scheduling"):
        for path in sorted((root / room).rglob("*.py")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if re.search(r"\btime\.time\(|datetime\.now\(|time\.time\b(?!\(\) of)", line):
                    found.append(f"{path.relative_to(root)}:{number}: {line.strip()}")
    return found


def clock(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    place, library, told_of = models(folder), faketime(), wall_clocks()
    if library is None:
        print("no libfaketime: pip install libfaketime, or apt install faketime", file=sys.stderr)
        return {"jumps": [], "reads_of_the_wall_clock": told_of, "wrong": ["not tried: libfaketime isn't installed"]}
    offset = folder / "offset"
    offset.write_text("+0\n")
    env = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }
    toml = "grpc = false\n[execution]\npoll_s = 0.2\n[limits]\nrequests_per_s = 1000000\nconcurrent = 1000\n"
    server = start(place, folder, toml=toml, env=env)
    seen: list[float] = []

    async def work() -> Load:
        client = Client(server.port)
        await client.ask(request("net", {"x": ROWS[:1]}))  # its load is nobody's deadline
        async with Load(server.port, timeout_s=1.0) as load:
            for jump in ("+0", "+1d", "-1d", "+400d", "+0"):
                offset.write_text(f"{jump}\n")
                await asyncio.sleep(given.jump_seconds)
                stats = json.loads((await client.get("/v2/models/net/stats")).body)["model_stats"][0]
                seen.append(round((stats["last_inference"] / 1e3 - time.time()) / 86_400, 1))
        client.close()
        return load

    load = asking(work)
    wrong = load.odd() + well(server)
    wrong += ["the jumps did not reach the server, so nothing was tried"] * (max(seen) < 0.9 or min(seen) > -0.9)
    return {
        "days_that_the_server_was_off": seen,
        "answers": dict(load.found),
        "latency_ms": percentiles_ms(load.seconds),
        "reads_of_the_wall_clock": told_of,
        "wrong": wrong,
    }


def loris(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * given.slow + 500)), hard))
    place = models(folder)
    toml = f"grpc = false\n[patience]\nhead_s = {given.patience}\nbody_s = {given.patience}\nbody_bytes_per_s = 1000000.0\n"
    server = start(place, folder, toml=toml)
    ended: list[tuple[float, bytes]] = []
    head = request("net", {"x": ROWS[:1]})
    at = head.index(b"\r\n\r\n") + 4

    async def slow(number: int) -> None:
        """A byte a second until it is let go."""
        data, began = (head[:at] if number % 2 else head), time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        sent = 1 if number % 2 else at
        writer.write(data[:sent])
        said = asyncio.ensure_future(reader.read(65_536))
        while not said.done() and time.monotonic() < began + 6 * given.patience:
            with contextlib.suppress(OSError):
                writer.write(data[sent : sent + 1])
            sent += 1
            await asyncio.wait([said], timeout=1.0)
        if said.done():
            with contextlib.suppress(OSError):
                ended.append((time.monotonic() - began, said.result() if not said.exception() else b""))
        said.cancel()
        writer.transport.abort()

    async def work() -> tuple[Load, Load, int]:
        async with Load(server.port, clients=1) as quiet:
            await asyncio.sleep(3)
        async with Load(server.port, clients=1) as load:
            most = 0
            tasks = [asyncio.create_task(slow(number)) for number in range(given.slow)]
            while not all(task.done() for task in tasks):
                most = max(most, server.connections())
                await asyncio.sleep(0.5)
            await asyncio.gather(*tasks)
        return quiet, load, most

    before, memory = server.connections(), server.rss()
    quiet, load, most = asking(work)
    time.sleep(2)
    wrong = load.odd() + [f"{given.slow - len(ended)} slow clients were never let go"] * (len(ended) < given.slow)
    late = [seconds for seconds, _ in ended if seconds > given.patience + 4]
    wrong += [f"{len(late)} slow clients were let go late, the last after {max(late, default=0):.1f} s"] * bool(late)
    wrong += [f"only {most} connections at a time: not all slow clients were there together"] * (most < 0.95 * given.slow)
    wrong += [f"{server.connections() - before} connections more than before"] * (server.connections() > before + 4)
    return {
        "slow_clients": given.slow,
        "connections_at_most": most,
        "let_go_after_s": {"p50": round(float(np.median([s for s, _ in ended])), 2), "max": round(max(s for s, _ in ended), 2)},
        "told": dict(Counter(said.split(b"\r\n")[0].decode() or "nothing" for _, said in ended)),
        "latency_ms": percentiles_ms(load.seconds),
        "latency_without_them_ms": percentiles_ms(quiet.seconds),
        "memory_more_mb": round((server.rss() - memory) / 2**20, 1),
        "wrong": wrong + well(server),
    }


def fuzz(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    import strange
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis import given as drawn_from
    from hypothesis import seed as seeded

    from edgewise.testing import damaged

    place = models(folder)
    server = start(place, folder, toml=f"grpc = false\nshared_memory = true\nbody = {1 << 20}\n[patience]\nhead_s = 2\nbody_s = 2\n")
    statuses: Counter[str] = Counter()
    wrong: list[str] = []
    ordinary, right = request("net", {"x": ROWS[:1]}), answers()[0]
    asker = strange.Asker(server.port)
    before = server.rss()

    @seeded(given.seed)
    @settings(max_examples=given.inputs, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @drawn_from(damaged.requests("net", WIDTH))
    def ask(data: bytes) -> None:
        status, body = asker.ask(data)
        statuses[status] += 1
        if not strange.proper(status, body) and len(wrong) < 20:
            wrong.append(f"{status} {body[:200]!r} for {data[:300]!r}")
        if sum(statuses.values()) % 100 == 0:
            status, body = asker.ask(ordinary)
            at = body.find(b"}]}") + 3
            if status != "200" or not np.allclose(np.frombuffer(body[at:], np.float32), right, rtol=1e-3, atol=1e-3):
                wrong.append(f"an ordinary request after {sum(statuses.values())} strange ones: {status} {body[:200]!r}")

    began = time.monotonic()
    ask()
    seconds = time.monotonic() - began
    asker.close()
    time.sleep(1)
    return {
        "inputs": sum(statuses.values()),
        "statuses": dict(statuses),
        "seconds": round(seconds),
        "memory_more_mb": round((server.rss() - before) / 2**20, 1),
        "wrong": wrong + well(server),
    }


async def described(port: int, path: Path) -> None:
    """The server's OpenAPI, in which a model and a version are often one that there is: a name at random never is."""
    client = Client(port)
    whole = json.loads((await client.get("/openapi.json")).body)
    client.close()
    known = {"model": ["net", "nobody"], "version": ["1", "7"]}

    def named(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("in") == "path" and node.get("name") in known:
                node["schema"] = {"type": "string", "enum": known[node["name"]]}
            for inner in node.values():
                named(inner)
        elif isinstance(node, list):
            for inner in node:
                named(inner)

    named(whole)
    path.write_text(json.dumps(whole))


def schema(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    place = models(folder)
    server = start(place, folder, toml="grpc = false\n")
    asking(lambda: described(server.port, folder / "openapi.json"))
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    line = [
        sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--exclude-path-regex", "unload$", "--url",
        f"http://127.0.0.1:{server.port}", "--checks", checks,
       
        "--max-examples", str(given.examples), "--seed", str(given.seed), "--request-timeout", "20", "--continue-on-failure",
        "--no-color",
    ]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, timeout=given.schema_seconds, cwd=folder)
    (folder / "schemathesis.txt").write_text(done.stdout + done.stderr)
    print(done.stdout[-6000:], done.stderr[-2000:], flush=True)

    async def again() -> None:
        client = Client(server.port)
        await client.post("/v2/repository/models/net/load")  # it may have been unloaded
        client.close()

    asking(again)
    summary = [line.strip() for line in done.stdout.splitlines() if re.search(r"generated|passed|failed|found|failures", line)]
    return {
        "status": done.returncode,
        "summary": summary[-12:],
        "wrong": ["schemathesis found faults"] * bool(done.returncode) + well(server),
    }


def leak(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    place = models(folder)
    keep(chain(2, WIDTH, seed=1), place, "cached")
    toml = "grpc = false\n[execution]\ncache_bytes = 1048576\n[models.cached]\ncache_ttl_s = 5\n"
    server = start(place, folder, toml=toml)
    good = [request("net", {"x": row[None]}) for row in ROWS]
    text = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, WIDTH], "data": ROWS[0].tolist()}]}).encode()
    others = [
        posted("/v2/models/net/infer", text),
        posted("/v2/models/net/infer", text[:-20]),
        posted("/v2/models/nobody/infer", text),
        posted("/v2/repository/index"),
        b"GET /v2/models/net HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /v2/models/net/stats HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ]
    random = np.random.default_rng(given.seed)
    memory: list[int] = []
    statuses: Counter[str] = Counter()

    async def one(client: Client, number: int) -> None:
        kind = random.integers(100)
        if kind < 80:
            data = good[number % len(good)]
        elif kind < 90:
            data = request("cached", {"x": random.standard_normal((1, WIDTH), np.float32)})
        else:
            data = others[number % len(others)]
        if kind == 0:  # goes away without waiting for its answer
            with contextlib.suppress(TimeoutError):
                await client.ask(data, 1e-4)
            statuses["given up"] += 1
            return
        if kind == 1:  # an address that nobody has asked before
            data = f"GET /v2/models/made-up-{number} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
        statuses[str((await client.ask(data)).status)] += 1

    async def work() -> str:
        client = Client(server.port)
        numbers = iter(range(given.requests))

        async def several() -> None:
            for number in numbers:
                await one(client, number)
                if number % max(1, given.requests // 200) == 0:
                    memory.append(server.rss())

        await asyncio.gather(*(several() for _ in range(CLIENTS)))
        text = (await client.get("/metrics")).body.decode()
        client.close()
        return text

    before = server.connections()
    metrics = asking(work)
    time.sleep(1)
    wrong = []
    tenth = len(memory) // 10
    first, last = float(np.median(memory[tenth : 3 * tenth])), float(np.median(memory[-2 * tenth :]))
    slope = float(np.polyfit(np.arange(len(memory) - tenth), memory[tenth:], 1)[0]) * 200  # bytes over all requests
    wrong += [f"memory grew by {(last - first) / 2**20:.2f} MB"] * (last - first > FLAT)
    wrong += [f"{server.connections() - before} connections more than before"] * (server.connections() > before + 4)
    wrong += [f"{kind}: {count}" for kind, count in statuses.items() if kind in ("0", "500", "502", "503")]
    return {
        "requests": given.requests,
        "statuses": dict(statuses),
        "rows": int(of(metrics, "edgewise_rows_total")),
        "memory_mb": {"after_a_tenth": round(first / 2**20, 2), "end": round(last / 2**20, 2), "trend_over_all": round(slope / 2**20, 2)},
        "wrong": wrong + well(server),
    }


SECTIONS = {
    "kills": kills, "disk": disk, "corrupt": corrupt, "clock": clock, "loris": loris, "fuzz": fuzz, "schema": schema, "leak": leak,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--slow", type=int, default=1000, help="of loris: slow clients")
    parser.add_argument("--patience", type=float, default=10.0, help="of loris: the server's, in seconds")
    parser.add_argument("--jump-seconds", type=float, default=5.0, help="of clock: between jumps")
    parser.add_argument("--inputs", type=int, default=50_000, help="of fuzz")
    parser.add_argument("--examples", type=int, default=300, help="of schema: for each operation")
    parser.add_argument("--schema-seconds", type=float, default=900.0)
    parser.add_argument("--requests", type=int, default=200_000, help="of leak")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="record nothing")
    given = parser.parse_args()
    on_others()
    for name in given.only.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            found = SECTIONS[name](Path(scratch), given)
        print(f"{name}: {json.dumps(found, indent=1)}", flush=True)
        if not given.dry:
            record(f"serve-faults-{name}", {"bar": BARS[name], **found, "met": not found["wrong"]})


if __name__ == "__main__":
    main()
