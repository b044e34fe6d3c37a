"""A worker under fire: wrong keys, replays, altered packages, and 20,000 damaged requests by somebody who holds the key.

    python benchmarks/devices/frames.py [--frames 20000] [--seed 0]

Every request is a valid one damaged at random: method, path, query, length, body. Each has to be refused (or answered, where the damage
left it valid), none may end or hang the worker, start a second process, or write anywhere but in its folder. Before and after, bytes that
are no TLS, and TLS by another key. What is refused stands in the worker's log.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import socket
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import psutil
from common import record
from loopback import Loopback, worker

from edgewise.measure import requests
from edgewise.measure.messages import pack
from edgewise.measure.remote import packaged
from edgewise.testing import graphs
from edgewise.testing.tap import replayed, tap
from edgewise.types import Execution
from edgewise.wire import keys, messages

Asked = tuple[str, str, bytes]


def valid() -> list[Asked]:
    """One of each, as a client sends them."""
    model, inputs = graphs.mlp(batch=1)
    package = packaged(model.SerializeToString())
    digest = hashlib.sha256(package).hexdigest()
    ask = requests.Profile(requests.Model(digest, Execution("onnxruntime")), pack(inputs), None, {"seconds": 0.01, "min_samples": 1})
    job = messages.encode(messages.Job("0123456789abcdef" * 2, *requests.plain(ask), (digest,), 5.0))
    return [
        ("GET", "/v1/device", b""),
        ("GET", f"/v1/blobs/{digest}", b""),
        ("PUT", f"/v1/blobs/{digest}?from=0&of={len(package)}", package),
        ("POST", "/v1/jobs", job),
        ("GET", "/v1/jobs/0123456789abcdef0123456789abcdef?after=0&wait=0", b""),
        ("DELETE", "/v1/jobs/0123456789abcdef0123456789abcdef", b""),
    ]


def damaged(asked: Asked, random: np.random.Generator) -> Asked:
    """One to four changes: a byte, a piece cut or doubled, another number, another method."""
    method, path, body = asked
    for _ in range(random.integers(1, 5)):
        match int(random.integers(6)):
            case 0:
                method = str(random.choice(["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"]))
            case 1:
                path = altered(path.encode(), random).decode("latin-1")
            case 2 if body:
                body = altered(body, random)
            case 3 if body:
                body = body[: int(random.integers(len(body)))]
            case 4:
                path = path.replace("=0", f"={random.choice(['-1', '1e308', 'nan', '9' * 30, '', '0x10', '%00'])}")
            case _:
                body = random.bytes(int(random.integers(64)))
    path = "".join(letter if "!" <= letter <= "~" and letter not in '"<>\\^`{|}' else f"%{ord(letter):02x}" for letter in path)
    return method, path if path.startswith("/") else "/" + path, body


def altered(data: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    at = int(random.integers(len(changed)))
    changed[at] = int(random.integers(256))
    return bytes(changed)


def strangers(there: Loopback, folder: Path) -> dict[str, int]:
    """How many of those without the key got an answer."""
    other = keys.make(folder / f"other-{time.monotonic_ns()}.key")
    answered = {"no TLS": 0, "another key": 0, "no certificate": 0}
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    careless = other.client()
    careless.verify_mode = ssl.CERT_NONE
    for name, context in (("no TLS", None), ("another key", careless), ("no certificate", nobody)):
        for _ in range(20):
            try:
                with socket.create_connection(("127.0.0.1", there.port), timeout=5) as plain:
                    link = context.wrap_socket(plain) if context else plain
                    link.sendall(b"GET /v1/device HTTP/1.1\r\nHost: x\r\n\r\n")
                    answered[name] += b"HTTP/1.1 200" in link.recv(4096)
            except OSError:
                continue
    return answered


def recorded(there: Loopback) -> int:
    """How many of twenty replays of a whole conversation, all of it once or a beginning, were answered or led to a job."""
    frames, answered = valid(), 0
    with tap(there.host, there.port) as wire:
        link = http.client.HTTPSConnection("127.0.0.1", wire.port, timeout=40, context=there.key.client())
        for method, path, body in frames:
            link.request(method, path, body)
            link.getresponse().read()
        link.close()
    until = time.monotonic() + 60
    while there.link().here().queue and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(1)  # the job that was asked for is over, and logged
    log = (there.folder / "log").read_text().count("profile")
    for number in range(20):
        pieces = wire.heard if number < 10 else wire.heard[: number - 8]
        answered += b"HTTP/1.1" in replayed(pieces, there.host, there.port)
    time.sleep(1)
    return answered + (there.folder / "log").read_text().count("profile") - log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random, frames = np.random.default_rng(given.seed), valid()
    with tempfile.TemporaryDirectory() as scratch, worker(Path(scratch)) as there:
        assert there.process is not None
        process = psutil.Process(there.process.pid)
        found = {"strangers answered": sum(strangers(there, Path(scratch)).values()), "replays answered": recorded(there)}
        statuses: dict[str, int] = {}
        slowest, most_children, context = 0.0, 0, there.key.client()
        connection: Any = None
        for number in range(given.frames):
            method, path, body = damaged(frames[int(random.integers(len(frames)))], random)
            began = time.monotonic()
            try:
                connection = connection or http.client.HTTPSConnection("127.0.0.1", there.port, timeout=40, context=context)
                connection.request(method, path, body)
                reply = connection.getresponse()
                reply.read()
                name = str(reply.status)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                connection, name = None, type(error).__name__
            statuses[name] = statuses.get(name, 0) + 1
            slowest = max(slowest, time.monotonic() - began)
            if number % 500 == 0:
                most_children = max(most_children, len(process.children()))
                print(f"{number:6d} {statuses}", flush=True)
        connection.close()
        found["strangers answered"] += sum(strangers(there, Path(scratch)).values())
        until = time.monotonic() + 60
        while there.link().here().queue and time.monotonic() < until:
            time.sleep(0.2)
        alive = there.link().here().version == messages.VERSION and process.is_running()
        outside = sorted(str(path.relative_to(scratch)) for path in Path(scratch).rglob("*") if path.is_file())
        astray = [path for path in outside if not path.startswith(("kept/", "device.key", "other-", "log"))]
        refusals = (Path(scratch) / "log").read_text().count("refused")
        left = [one.pid for one in process.children(recursive=True)]
        resident = process.memory_info().rss / 1e6
    server_errors = sum(count for name, count in statuses.items() if name.startswith("5") and name != "507")
    met = alive and not any(found.values()) and not astray and not left and not server_errors and refusals > 0
    record(
        "device-frames",
        {
            "frames": given.frames,
            "statuses": dict(sorted(statuses.items())),
            **found,
            "slowest_s": round(slowest, 2),
            "most_jobs_at_once": most_children,
            "refusals_in_the_log": refusals,
            "written_elsewhere": astray,
            "processes_left": left,
            "resident_mb": round(resident, 1),
            "bar": "refused, logged, alive; nothing written but in the worker's folder",
            "met": met,
        },
    )
    print("met" if met else "MISSED")


if __name__ == "__main__":
    main()
