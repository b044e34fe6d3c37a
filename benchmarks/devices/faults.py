"""A study on a device that fails in every way that devices do, and has to end right.

    python benchmarks/devices/faults.py [--only kills,cuts,reboots,disk,memory,clients] [--kills 20] [--cuts 5] [--seed 0]

Each study prunes a small net by a latency table of the device, trains it, quantizes it and measures the result, all times on a worker:

kills    on the loopback, killed (SIGKILL) at random moments and started again a moment later
cuts     in an emulated device behind 20 Mbit/s and 20 ms, whose link is cut for 30 s at random moments: packets vanish, nobody is told
reboots  the same device loses its power at random moments; its worker comes back three seconds later
disk     on a disk that holds two packages, where old ones have to go; then on one that others have filled, and emptied again
memory   in 512 MB of which another program takes all, at random moments
clients  two studies at once

It ends right when it has a verdict, a table that is fitted, no trial and no width twice, and as many pairs as blocks; where the device
couldn't do what was asked, when it says why, and the same command goes on to such an end once it can. After each, no process of a job may
be left. All but kills and clients need root (Linux).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import psutil
import torch
from common import record, small_disk
from loopback import Loopback, worker

import edgewise as ew
from edgewise import measure
from edgewise.errors import EdgewiseError
from edgewise.fitting import Result, follow
from edgewise.models.resnet import ResNet
from edgewise.testing import emulate, pictures
from edgewise.wire import client, keys

RECIPE = "prune(speedup=1.5, samples=64) > distill(epochs=2) > quantize(rounding='nearest')"
LINK = emulate.Link(mbit=20, delay_ms=20)
CUT_S = 30.0
MEMORY = 512_000_000
DISK = "640k"
HOG = "import time\nkept = []\nwhile len(kept) < 480:\n    kept.append(bytes([1]) * (1 << 20))\ntime.sleep(4)\n"
BARS = {
    "kills": "killed at 20 random moments: the study ends right, no figure counted twice, no orphan process",
    "cuts": "the link cut for 30 s, five times: the same",
    "reboots": "the device loses its power three times: the same",
    "disk": "a disk that is full: the same, or a clear error and the same once there is room",
    "memory": "memory that is used up three times: the worker lives; the same, or a clear error and the same afterwards",
    "clients": "two clients at once: the same for both",
}


def task(folder: Path) -> Any:
    if not (folder / "shapes.npz").exists():
        pictures.kept(folder / "shapes.npz", 900, side=24)
    return ew.tasks.image_classification(folder / "shapes.npz", calibration=64)


def studied(link: client.Link, data: Any, out: Path, name: str = "there") -> Result:
    torch.manual_seed(0)
    net = ResNet(blocks=1, classes=4, channels=1, width=16)
    device = measure.connect(link, name)
    return follow(net, data, recipe=RECIPE, device=device, threads=1, out=out, timing_seconds=6, table_seconds=10)


def right(result: Result) -> list[str]:
    """What is wrong with a study; nothing when it ended right."""
    study, wrong = result.study, []
    if study.verdict is None:
        wrong.append("no verdict")
    if not study.tables or any(table.model is None for table in study.tables):
        wrong.append("a latency table isn't fitted")
    keys = [trial.key for trial in study.trials]
    if len(keys) != len(set(keys)):
        wrong.append("a trial twice")
    for trial in study.trials:
        speedup = trial.speedup
        if speedup is not None and not len(speedup.pairs) == len(speedup.reference_ms) == len(speedup.candidate_ms):
            wrong.append(f"{trial.recipe or 'dense'}: {len(speedup.pairs)} pairs of {len(speedup.reference_ms)} blocks")
    for table in study.tables:
        entries = [(entry.part, entry.width) for entry in table.entries]
        if len(entries) != len(set(entries)):
            wrong.append("a width twice in a table")
    return wrong


def strays(there: Loopback) -> list[str]:
    """Processes of jobs and measuring processes that outlived their worker, or their job by three seconds."""
    time.sleep(3)
    found = []
    for process in psutil.process_iter(["cmdline", "ppid"]):
        line = " ".join(process.info["cmdline"] or [])
        own = there.process is not None and process.pid == there.process.pid
        job = "edgewise.worker.job" in line and str(there.folder) in line
        if not own and (job or ("edgewise.measure.child" in line and process.info["ppid"] == 1)):
            found.append(f"{'job' if job else 'measuring process'} {process.pid}")
    return found


def told(result: Result) -> list[str]:
    return [note for note in result.study.notes if "away" in note or "anew" in note]


class Trouble:
    """Makes trouble after random pauses until told to stop, `most` times."""

    def __init__(self, make: Callable[[], None], random: np.random.Generator, most: int, pauses: tuple[float, float] = (1.5, 15.0)) -> None:
        self.make, self.random, self.most, self.pauses, self.times = make, random, most, pauses, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while self.times < self.most and not self._over.wait(float(self.random.uniform(*self.pauses))):
            self.make()
            self.times += 1

    def __enter__(self) -> Trouble:
        self._thread.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self._over.set()
        self._thread.join()


def troubled(
    there: Loopback, folder: Path, make: Callable[[], None], random: np.random.Generator, times: int, until: bool = True
) -> list[dict[str, Any]]:
    """Studies under trouble, until it was made so many times."""
    data, rows = task(folder), list[dict[str, Any]]()
    while sum(row["times"] for row in rows) < times:
        began = time.monotonic()
        out, said = folder / f"study-{len(rows)}", ""
        with Trouble(make, random, times - sum(row["times"] for row in rows)) as trouble:
            try:
                result = studied(there.link(), data, out)
            except EdgewiseError as error:
                said = str(error)
        if said:
            print(f"said: {said}", flush=True)
            result = studied(there.link(), data, out)
        rows.append(
            {
                "times": trouble.times,
                "seconds": round(time.monotonic() - began),
                "wrong": right(result),
                "processes_left": strays(there),
                "told": len(told(result)),
                "error": said,
            }
        )
        print(rows[-1], flush=True)
    return rows


def kills(folder: Path, random: np.random.Generator, given: argparse.Namespace) -> list[dict[str, Any]]:
    with worker(folder) as there:

        def kill() -> None:
            there.stop(signal.SIGKILL)
            time.sleep(float(random.uniform(0.1, 3.0)))
            there.start()

        return troubled(there, folder, kill, random, given.kills)


def cuts(folder: Path, random: np.random.Generator, given: argparse.Namespace) -> list[dict[str, Any]]:
    with emulate.emulated(link=LINK) as device, worker(folder, device) as there:

        def cut() -> None:
            with device.without_link():
                time.sleep(CUT_S)

        return troubled(there, folder, cut, random, given.cuts)


def reboots(folder: Path, random: np.random.Generator, given: argparse.Namespace) -> list[dict[str, Any]]:
    with emulate.emulated(link=LINK) as device, worker(folder, device) as there:

        def reboot() -> None:
            device.reboot()
            time.sleep(3.0)
            there.start()

        return troubled(there, folder, reboot, random, 3)


def memory(folder: Path, random: np.random.Generator, given: argparse.Namespace) -> list[dict[str, Any]]:
    with emulate.emulated(memory_bytes=MEMORY) as device, worker(folder, device) as there:
        session = there.link().here().session
        fell = 0

        def hog() -> None:
            nonlocal fell
            before = device.memory_kills()
            device.start([sys.executable, "-c", HOG]).wait(60)
            fell += device.memory_kills() - before

        rows = troubled(there, folder, hog, random, 3)
        lives = there.link().here().session == session
        print(f"the kernel ended {fell} processes", flush=True)
        return [{**row, "ended_by_the_kernel": fell, "wrong": row["wrong"] + ["the worker died"] * (not lives)} for row in rows]


def disk(folder: Path, random: np.random.Generator, given: argparse.Namespace) -> list[dict[str, Any]]:
    data, rows = task(folder), []
    with small_disk(folder / "kept", DISK) as small, worker(folder) as there:
        result = studied(there.link(), data, folder / "tight")
        rows.append({"disk": f"{DISK}, old packages go", "wrong": right(result), "processes_left": strays(there), "error": ""})
        print(rows[-1], flush=True)
        for path in (small / "packages").iterdir():
            path.unlink()
        others, said = small / "others", ""
        with others.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        try:
            studied(there.link(), data, folder / "full")
        except EdgewiseError as error:
            said = str(error).replace(str(folder), "…")
        others.unlink()
        result = studied(there.link(), data, folder / "full")
        wrong = right(result) + ["nothing was said of the full disk"] * ("disk is full" not in said)
        rows.append({"disk": "filled by others, emptied again", "wrong": wrong, "processes_left": strays(there), "error": said})
        print(rows[-1], flush=True)
    return rows


def clients(folder: Path, random: np.random.Generator, given: argparse.Namespace) -> list[dict[str, Any]]:
    with worker(folder) as there:
        task(folder)
        line = [sys.executable, __file__, "--client", there.link().address, there.key.path]
        both = [subprocess.Popen([*line, folder / f"client-{number}"], stdout=subprocess.PIPE) for number in range(2)]
        said = [one.communicate(timeout=1800)[0] for one in both]
        rows = [{**json.loads(text.splitlines()[-1]), "processes_left": strays(there), "error": ""} for text in said]
    for row in rows:
        print(row, flush=True)
    return rows


def as_client(address: str, key: str, out: str) -> None:
    folder = Path(out)
    began = time.monotonic()
    result = studied(client.link(address, keys.read(Path(key))), task(folder.parent), folder, folder.name)
    print(json.dumps({"client": folder.name, "seconds": round(time.monotonic() - began), "wrong": right(result)}))


SECTIONS = {"kills": kills, "cuts": cuts, "reboots": reboots, "disk": disk, "memory": memory, "clients": clients}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--cuts", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        as_client(*given.client)
        return
    for name in given.only.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            rows = SECTIONS[name](Path(scratch), np.random.default_rng(given.seed), given)
        met = all(not row["wrong"] and not row["processes_left"] for row in rows)
        record(f"device-faults-{name}", {"recipe": RECIPE, "bar": BARS[name], "studies": rows, "met": met})


if __name__ == "__main__":
    main()
