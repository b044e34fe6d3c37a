"""Ours and the peers' models side by side: interleaved time against one fp32 reference, and the test split, paired."""

from __future__ import annotations

from typing import Any

import peers
from common import told

import edgewise as ew
from edgewise import measure
from edgewise.data import metrics
from edgewise.graph import Graph
from edgewise.measure import Subject


def contend(ours: ew.package.Package, dense: Graph, reference: ew.Execution, task: Any, calibration: int = 300) -> list[dict[str, Any]]:
    """A row for each: speedup and points lost, with intervals. `task`: bound to the model; unlabelled ones get the reference's answers."""
    rows = [("edgewise", ours.graph(), ours.execution or reference)]
    rows += peers.every(dense, task.calibration(calibration, batch_size=1), reference.threads)
    task = task.unsealed()
    base = peers.answers(dense, reference, task.split("test"))
    if task.split("test").targets is None:
        task = task.with_targets({"test": base.argmax(axis=1)}, tuple(str(i) for i in range(base.shape[1])))
    split = task.split("test")
    quality = metrics.quality(task.metric, "test", base, split.targets, task.labels)
    found = []
    for name, graph, execution in rows:
        outputs = peers.answers(graph, execution, split)
        own = metrics.quality(task.metric, "test", outputs, split.targets, task.labels)
        drop = metrics.paired(quality, own).difference
        sides = Subject(dense.to_bytes(), reference), Subject(graph.to_bytes(), execution)
        ratio = measure.compare(*sides, task.example_inputs(1), ew.devices.local(), renew_pairs=10, min_pairs=30, max_seconds=60)
        row = {
            "name": name,
            "execution": str(execution),
            "speedup": told(ratio.ratio),
            "conclusive": ratio.conclusive,
            "metric": told(own.value, 100),
            "points": told(drop, 100),
            "relative_l2": round(measure.divergence(base, outputs), 5),
            "size_bytes": graph.size_bytes,
        }
        found.append(row)
        print(f"{name:26} {execution!s:22} {ratio.ratio.value:.2f}x [{ratio.ratio.low:.2f}, {ratio.ratio.high:.2f}]", end="  ")
        print(
            f"{drop.value * 100:+.2f} [{drop.low * 100:+.2f}, {drop.high * 100:+.2f}] points  {graph.size_bytes / 1e3:.0f} kB", flush=True
        )
    return found


def beaten(rows: list[dict[str, Any]]) -> list[str]:
    """Peers that are better than ours (the first row) on both axes at 95 %: their interval lies above ours, in speed and in the metric."""
    ours, *others = rows
    return [
        row["name"] for row in others if row["speedup"]["low"] > ours["speedup"]["high"] and row["points"]["low"] > ours["points"]["high"]
    ]


def show(what: str, share: float, left: float | None) -> None:
    print(f"  {share:4.0%}  {what}", flush=True)
