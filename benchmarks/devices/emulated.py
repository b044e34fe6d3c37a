"""The Fashion net fitted for a small device that is emulated: a quarter of a core, 256 MB, a link of 20 Mbit/s and 20 ms.

    EDGEWISE_DATA=… python benchmarks/devices/emulated.py [--speedup 4] [--epochs 5] [--work out/emulated]

Three things. A latency table of the net is made there and here, by the clock of whoever waits for it, in turns. `fit` asks for 4x there,
where every time is measured; then for 4x here. Where the widths came out otherwise, what the two tables say of it is printed
(`edgewise compare`). Needs root (Linux). Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "fashion"))
sys.path.insert(0, str(Path(__file__).parent))

from common import record, told
from contenders import show
from loopback import worker
from train import WEIGHTS, task

import edgewise as ew
from edgewise import devices, measure
from edgewise.graph import Graph, fold, parts
from edgewise.measure.table import latency_table
from edgewise.records import Device, Study
from edgewise.report.contrast import partings
from edgewise.testing import emulate
from edgewise.types import Execution

CPU, MEMORY, LINK = 0.25, 256_000_000, emulate.Link(mbit=20, delay_ms=20)
TABLE_S = 60.0
TIMES = 1.5  # what a table there may take of one here


def net() -> Any:
    return ew.models.intake("edgewise.models.resnet:resnet20", weights=WEIGHTS)


def dense() -> Graph:
    return fold(ew.export.export(net().module, task().example_inputs(2), output_names=["logits"]))


def table_s(graph: Graph, device: Device) -> float:
    """Seconds until a latency table of the net is here."""
    began = time.monotonic()
    latency_table(graph, parts(graph), Execution("onnxruntime"), task().example_inputs(1), device, seconds=TABLE_S)
    return time.monotonic() - began


def said(study: Study, result: ew.Result) -> dict[str, Any]:
    verdict = study.verdict
    if verdict is None or verdict.drop is None or verdict.speedup is None:
        raise SystemExit("a study without a verdict")
    return {
        "device": study.device.name,
        "met": result.met,
        "speedup": told(verdict.speedup.ratio),
        "points": told(verdict.drop.difference, 100),
        "recipe": study.trial(verdict.trial).recipe,
        "execution": str(study.trial(verdict.trial).execution),
        "seconds": round(study.seconds),
        "notes": [note for note in study.notes if "away" in note or "anew" in note],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedup", type=float, default=4.0)
    parser.add_argument("--max-drop", type=float, default=0.005)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--tables", type=int, default=2, help="tables made on each side, in turns")
    parser.add_argument("--work", type=Path, default=Path("out/emulated"))
    given = parser.parse_args()
    budget = ew.Budget(speedup=given.speedup, max_drop=given.max_drop)
    with (
        tempfile.TemporaryDirectory() as folder,
        emulate.emulated(cpu=CPU, memory_bytes=MEMORY, link=LINK) as board,
        worker(Path(folder), board) as there,
    ):
        far, near = measure.connect(there.link(print), "emulated"), devices.local()
        graph = dense()
        took: dict[str, list[float]] = {"there": [], "here": []}
        for _ in range(given.tables):
            for name, device in (("here", near), ("there", far)):
                took[name].append(round(table_s(graph, device), 1))
                print(f"a table {name}: {took[name][-1]} s", flush=True)
        options: dict[str, Any] = {"budget": budget, "threads": 1, "epochs": given.epochs, "progress": show}
        sides = (("there", far), ("here", near))
        results = [ew.fit(net(), task(), device=device, out=given.work / name, **options) for name, device in sides]
    studies = [result.study for result in results]
    names = ("emulated", "here")
    differ = [
        {"part": each.part, "units": each.units, "widths": each.widths, "tables_differ": each.differ, "reason": each.reason(names)}
        for each in partings(*studies)
    ]
    for row in differ:
        print(f"{row['part']}: {row['widths'][0]} there, {row['widths'][1]} here, of {row['units']}: {row['reason']}", flush=True)
    times = statistics.median(took["there"]) / statistics.median(took["here"])
    rows = [said(study, result) for study, result in zip(studies, results, strict=True)]
    record(
        "device-emulated",
        {
            "bar": f"{given.speedup:g}x met there; a table takes at most {TIMES:g} times as long as here; other widths have a reason",
            "emulated": {"cpu": CPU, "memory_bytes": MEMORY, "link": str(LINK)},
            "table_seconds": {"asked": TABLE_S, **took, "there_over_here": round(times, 3)},
            "fits": rows,
            "widths_that_differ": differ,
            "met": rows[0]["met"] and times <= TIMES and all(row["reason"] for row in differ),
        },
    )


if __name__ == "__main__":
    main()
