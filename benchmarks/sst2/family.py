"""MiniLM on SST-2 asked for several speedups in one run, at two lengths of a sentence, on one thread: a family of packages.

    EDGEWISE_DATA=… python benchmarks/sst2/family.py [--speedups 3,6,12,18] [--seeds 3] [--only SEED] [--epochs 3] [--work out/sst2]

From the model that train.py made. Each member has to be as fast as asked at both lengths, against the dense model in true fp32 on the
engine that is fastest at that length. The choice is `fit`'s, on 698 validation sentences; the 2,693 of dev and test are read by the
verdicts alone. The first seed is a run of `fit` as anyone has it; the others train its recipes anew, at the widths that it planned. Beside
them stand what NNCF and ONNX Runtime make of the same model (`fit --beside`; nncf==3.4.0). Then each package is timed by other hands
(fashion/timing.py's), at both lengths. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "fashion"))
sys.path.insert(0, str(Path(__file__).parent))

import peers
from common import RESULTS, keep_study, record, told
from contenders import show
from timing import ENGINES, Side, compared
from train import TOKENS, WORK, task, tuned

import edgewise as ew
from edgewise.fitting import follow
from edgewise.graph import Graph
from edgewise.records import ShapeSpeedup
from edgewise.search.origin import dense_of

NAME = "sst2-family"
# Points that may be lost, and bytes that the file may have.
BAR = {3.0: (0.3, 24e6), 6.0: (0.6, 14e6), 12.0: (1.0, 9e6), 18.0: (1.8, 7e6)}
MOST = max(points for points, _ in BAR.values()) / 100  # what any member may lose; each is held against its own bar


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedups", default="3,6,12,18")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, help="train this seed alone, after the first, to have several at once")
    parser.add_argument("--epochs", type=int, default=3, help="for each member")
    parser.add_argument("--half-width", type=float, default=0.01, help="of the independent timing's interval, relative")
    parser.add_argument("--seconds", type=float, default=60.0, help="the longest that it takes for a package and a length")
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    speedups = sorted(float(each) for each in given.speedups.split(","))
    data = task()
    source, dense = dense_of(tuned(given.work), data, None)
    beside = made_by_others(dense, data, given.work / "beside")
    rows: list[dict[str, Any]] = []
    results = ew.family(
        source,
        data,
        speedups=speedups,
        budget=[ew.Budget(max_drop=MOST, size_bytes=int(BAR[each][1]) if each in BAR else None) for each in speedups],
        threads=1,
        out=given.work / f"family-{given.epochs}-0",
        epochs=given.epochs,
        table_seconds=240,
        beside=beside,
        progress=show,
    )
    for asked, result in zip(speedups, results, strict=True):
        rows.append(row(result, asked, 0))
        keep_study(result.study, RESULTS / NAME / f"{asked:g}x")
    for seed in range(1, given.seeds) if given.only is None else [given.only]:
        folder = given.work / f"family-{given.epochs}-{seed}"
        for asked, result in zip(speedups, results, strict=True):
            rows.append(retrained(source, data, result, asked, seed, folder))
    if given.only is not None:
        return
    feeds = data.for_model(dense.signature).timed_inputs()
    bases = []
    for feed in feeds:
        one, other = (Side(dense.to_bytes(), engine) for engine in ENGINES)
        bases.append(other if compared(one, other, feed, given.half_width, given.seconds).value > 1 else one)
    for member in rows:
        found = ew.package.open(given.work / f"family-{given.epochs}-{member['seed']}" / f"{member['asked']:g}x" / "model.edgew")
        execution = found.execution
        if execution is None:
            raise SystemExit(f"{found.source} says nothing of how it runs")
        side = Side(found.model_bytes(), execution.backend, execution.precision, 1, tuple(execution.options.items()))
        ratios = [compared(base, side, feed, given.half_width, given.seconds) for base, feed in zip(bases, feeds, strict=True)]
        member["independent"] = [ratio.told() for ratio in ratios]
        member["fast_enough"] = all(ratio.value >= 0.98 * float(member["asked"]) for ratio in ratios)
        print(f"seed {member['seed']}, {member['asked']:g}x: {' / '.join(f'{ratio.value:.2f}' for ratio in ratios)}", flush=True)
    means = {f"{asked:g}x": mean(asked, [one for one in rows if one["asked"] == asked]) for asked in speedups}
    bar = "each from 2 % below what was asked, at both lengths; lost at most 0.3 / 0.6 / 1.0 / 1.8 points; at most 24 / 14 / 9 / 7 MB"
    record(
        NAME,
        {
            "bar": bar,
            "tokens": TOKENS,
            "epochs": given.epochs,
            "references": [base.engine for base in bases],
            "members": rows,
            "means": means,
        },
    )


def made_by_others(dense: Graph, data: Any, folder: Path) -> list[Path]:
    """NNCF's int8 and ONNX Runtime's dynamic int8, as .onnx files; one that is there already is taken."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"NNCF-int8": peers.nncf, "ORT-dynamic-int8": peers.ort_dynamic}
    for name, make in paths.items():
        path = folder / f"{name}.onnx"
        if not path.exists():
            samples = data.for_model(dense.signature).calibration(300, batch_size=1)
            options = {"model_type": "transformer"} if make is peers.nncf else {}
            make(dense, samples, **options).save(path)
    return [folder / f"{name}.onnx" for name in paths]


def mean(asked: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the seeds, against the bar."""
    lost = [-float(one["points"]["value"]) for one in rows]
    average = round(statistics.fmean(lost), 3)
    size = statistics.fmean(one["size_bytes"] for one in rows)
    points, most = BAR.get(asked, (float("nan"), float("nan")))
    result = {
        "seeds": len(rows),
        "points_lost": average,
        "least_most": [min(lost), max(lost)],
        "size_bytes": round(size),
    }
    met = {"accurate": average <= points, "small": size <= most, "fast": all(one["fast_enough"] for one in rows)}
    return {**result, **met, "met": all(met.values())}


def retrained(source: Any, data: Any, first: ew.Result, asked: float, seed: int, folder: Path) -> dict[str, Any]:
    """The recipe of `first` with another seed for its trainings. What members have in common is trained once: they share `folder`."""
    kept = folder / f"{asked:g}x"
    if (kept / "row.json").exists():
        return dict(json.loads((kept / "row.json").read_text()))
    recipe = re.sub(r"distill\(([^()]*)\)", rf"distill(\1, seed={seed})", first.study.trial(chosen_of(first)).recipe)
    result = follow(source, data, recipe=recipe, threads=1, out=folder, progress=show)
    found = row(result, asked, seed)
    kept.mkdir(parents=True, exist_ok=True)
    result.best.save(kept / "model.edgew")
    (kept / "row.json").write_text(json.dumps(found))
    return found


def chosen_of(result: ew.Result) -> str:
    if result.study.verdict is None:
        raise SystemExit("a study without a verdict")
    return result.study.verdict.trial


def row(result: ew.Result, asked: float, seed: int) -> dict[str, Any]:
    study, verdict = result.study, result.study.verdict
    if verdict is None or verdict.drop is None or verdict.speedup is None or verdict.measurement is None:
        raise SystemExit("a study without a verdict")
    chosen = study.trial(verdict.trial)
    shapes: tuple[ShapeSpeedup, ...] = verdict.shapes
    print(f"seed {seed}: {verdict.summary}", flush=True)
    return {
        "seed": seed,
        "asked": asked,
        "speedups": [told(one.ratio) for one in shapes],
        "points": told(verdict.drop.difference, 100),
        "accuracy": told(verdict.quality.value, 100) if verdict.quality else None,
        "size_bytes": verdict.measurement.size_bytes,
        "execution": str(chosen.execution),
        "recipe": chosen.recipe,
        "seconds": round(study.seconds),
    }


if __name__ == "__main__":
    main()
