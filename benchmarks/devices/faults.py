"""A study on a device that fails: its worker is killed at random moments, and it has to end right.

    python benchmarks/devices/faults.py [--kills 20] [--seed 0]

Each study prunes a small net by a latency table of the device, trains it, quantizes it and measures the result, all times on a worker on
the loopback, which is killed (SIGKILL) at random moments and started again a moment later. A study ends right when it has a verdict, a
table that is fitted, no trial and no width twice, and as many pairs as blocks. After each, no process of a job may be left.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import psutil
import torch
from common import record
from loopback import Loopback, worker

import edgewise as ew
from edgewise import measure
from edgewise.fitting import Result, follow
from edgewise.models.resnet import ResNet
from edgewise.testing import pictures

RECIPE = "prune(speedup=1.5, samples=64) > distill(epochs=2) > quantize(rounding='nearest')"


def task(folder: Path) -> Any:
    pictures.kept(folder / "shapes.npz", 900, side=24)
    return ew.tasks.image_classification(folder / "shapes.npz", calibration=64)


def studied(there: Loopback, data: Any, out: Path, name: str = "there") -> Result:
    torch.manual_seed(0)
    net = ResNet(blocks=1, classes=4, channels=1, width=16)
    device = measure.connect(there.link(), name)
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
    """Processes of jobs and measuring processes that outlived their worker."""
    found = []
    for process in psutil.process_iter(["cmdline", "ppid"]):
        line = " ".join(process.info["cmdline"] or [])
        own = there.process is not None and process.pid == there.process.pid
        job = "edgewise.worker.job" in line and str(there.folder) in line
        if not own and (job or ("edgewise.measure.child" in line and process.info["ppid"] == 1)):
            found.append(line[-120:])
    return found


class Killer:
    """Kills the worker at random moments until told to stop."""

    def __init__(self, there: Loopback, random: np.random.Generator, most: int) -> None:
        self.there, self.random, self.most, self.kills = there, random, most, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while self.kills < self.most and not self._over.wait(float(self.random.uniform(1.5, 15.0))):
            self.there.stop(signal.SIGKILL)
            self.kills += 1
            time.sleep(float(self.random.uniform(0.1, 3.0)))
            self.there.start()

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *rest: object) -> None:
        self._over.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random = np.random.default_rng(given.seed)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch, worker(Path(scratch)) as there:
        folder = Path(scratch)
        data = task(folder)
        whole = studied(there, data, folder / "whole")
        chosen = whole.study.trial(whole.study.verdict.trial).recipe if whole.study.verdict else ""
        print(f"without a fault: {whole.study.seconds:.0f} s, {chosen}", flush=True)
        kills = 0
        while kills < given.kills:
            began = time.monotonic()
            with Killer(there, random, given.kills - kills) as killer:
                result = studied(there, data, folder / f"study-{kills}")
            kills += killer.kills
            time.sleep(3)
            row = {
                "kills": killer.kills,
                "seconds": round(time.monotonic() - began),
                "wrong": right(result),
                "processes_left": strays(there),
                "told": len([note for note in result.study.notes if "away" in note or "anew" in note]),
            }
            rows.append(row)
            print(row, flush=True)
    met = all(not row["wrong"] and not row["processes_left"] for row in rows)
    record(
        "device-faults",
        {
            "recipe": RECIPE,
            "seconds_without_a_fault": round(whole.study.seconds),
            "kills": kills,
            "studies": rows,
            "bar": "killed at 20 random moments: the study ends right, no figure counted twice, no orphan process",
            "met": met,
        },
    )


if __name__ == "__main__":
    main()
