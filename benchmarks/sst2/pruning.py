"""Pruning and distillation alone, in fp32: MiniLM on SST-2 at several speedups, beside every other layer kept.

    EDGEWISE_DATA=… python benchmarks/sst2/pruning.py [--speedups 2,3,5] [--seeds 3] [--epochs 3] [--work out/sst2]

Ours: `prune(speedup=…)` by latency tables at both lengths, then `distill`; seeds after the first train its widths anew. Layer dropping:
layers 1, 3 and 5 taken out whole, or all but the first, then the same training. Nothing is quantized; the reference and all models run in
true fp32 on one thread. The 2,693 sentences of dev and test are read by the verdicts alone. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from common import record, told
from contenders import show
from train import TOKENS, WORK, task, tuned

from edgewise.fitting import Result, follow
from edgewise.graph import Graph, parts
from edgewise.search.origin import dense_of
from edgewise.search.pruning import TOKENS as HOW

BAR = {2.0: 0.4, 3.0: 0.7, 5.0: 1.0}  # points that may be lost
DROPPED = {"every other layer kept": (1, 3, 5), "the first layer kept": (1, 2, 3, 4, 5)}


def without_layers(dense: Graph, gone: tuple[int, ...]) -> dict[str, int]:
    """The widths that take these layers out: their heads and inner units, all of them."""
    kinds = {kind: [part.name for part in parts(dense).parts if part.kind == kind] for kind in ("heads", "neurons")}
    if len(kinds["heads"]) < 6 or len(kinds["neurons"]) < 6:
        raise SystemExit(f"{len(kinds['heads'])} attentions and {len(kinds['neurons'])} inner layers were found; MiniLM has six of each")
    return {kinds[kind][layer]: 0 for layer in gone for kind in ("heads", "neurons")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedups", default="2,3,5")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    data = task()
    source, dense = dense_of(tuned(given.work), data, None)
    asked: dict[str, tuple[str, float | None]] = {
        f"edgewise {speedup}x": (f"prune(speedup={speedup})", float(speedup)) for speedup in given.speedups.split(",")
    }
    asked |= {name: (f"prune(widths={without_layers(dense, gone)!r})", None) for name, gone in DROPPED.items()}
    rows = []
    widths: dict[str, str] = {}
    for seed in range(given.seeds):
        for name, (first, speedup) in asked.items():
            recipe = f"{widths.get(name, first)} > distill(epochs={given.epochs}{HOW}, seed={seed})"
            folder = given.work / f"pruning-{given.epochs}" / f"{name.replace(' ', '-')}-{seed}"
            result = follow(source, data, recipe=recipe, threads=1, out=folder, table_seconds=240, progress=show)
            narrower = {part.part: part.width for part in result.study.widths if part.width < part.units}
            widths.setdefault(name, f"prune(widths={narrower!r})")
            rows.append(row(name, speedup, seed, result))
            print(f"{name}, seed {seed}: {rows[-1]['speedups']}, {rows[-1]['points']['value']:+.2f} points", flush=True)
    means = [mean(name, speedup, [one for one in rows if one["name"] == name]) for name, (_, speedup) in asked.items()]
    ours, peers = ([one for one in means if (one["asked"] is None) == dropped] for dropped in (False, True))
    better = [(a["name"], b["name"]) for a in peers for b in ours if a["speedup"] >= b["speedup"] and a["points_lost"] < b["points_lost"]]
    bar = "lost at most 0.4 / 0.7 / 1.0 points at 2x / 3x / 5x, means of the seeds; dropping layers is nowhere better on both axes"
    met = all(one["met"] for one in ours) and not better
    record(
        "sst2-pruning", {"bar": bar, "tokens": TOKENS, "epochs": given.epochs, "rows": rows, "means": means, "better": better, "met": met}
    )


def row(name: str, asked: float | None, seed: int, result: Result) -> dict[str, Any]:
    study, verdict = result.study, result.study.verdict
    if verdict is None or verdict.drop is None:
        raise SystemExit("a study without a verdict")
    chosen = study.trial(verdict.trial)
    return {
        "name": name,
        "asked": asked,
        "seed": seed,
        "speedups": [told(one.ratio) for one in verdict.shapes],
        "points": told(verdict.drop.difference, 100),
        "execution": str(chosen.execution),
        "recipe": chosen.recipe,
        "seconds": round(study.seconds),
    }


def mean(name: str, asked: float | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
    speedup = statistics.fmean(min(one["value"] for one in each["speedups"]) for each in rows)
    lost = statistics.fmean(-each["points"]["value"] for each in rows)
    met = None if asked is None else speedup >= 0.98 * asked and lost <= BAR.get(asked, 0.0)
    return {"name": name, "asked": asked, "seeds": len(rows), "speedup": round(speedup, 3), "points_lost": round(lost, 3), "met": met}


if __name__ == "__main__":
    main()
