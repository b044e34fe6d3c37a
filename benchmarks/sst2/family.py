"""MiniLM on SST-2 asked for several speedups in one run, at two lengths of a sentence, on one thread: a family of packages.

    EDGEWISE_DATA=… python benchmarks/sst2/family.py [--speedups 3,6,12,18] [--seeds 3] [--only SEED] [--untimed] [--epochs 3]
                                                            [--work out/sst2]

From the model that train.py made. Each member has to be as fast as asked at both lengths, against the dense model in true fp32 on the
engine that is fastest at that length. The choice is `fit`'s, on 698 validation sentences; the 2,693 of dev and test are read by the
verdicts alone. The first seed is a run of `fit` as anyone has it; the others train its recipes anew, at the widths that it planned and
on the engines that it chose. Beside the first stand what NNCF and ONNX Runtime make of the same model (`fit --beside`; nncf==3.4.0).
Then each package is timed by other hands (fashion/timing.py's), at both lengths. Interrupted, it goes on where it stopped. What each
seed gave is kept by itself (results/sst2-family/seed-N.json), so that they can be run on different days (--only), the first one first.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
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
from edgewise.search.store import write

NAME = "sst2-family"
# Points that may be lost, and bytes that the file may have.
BAR = {3.0: (0.3, 24e6), 6.0: (0.6, 14e6), 12.0: (1.0, 9e6), 18.0: (1.8, 7e6)}
MOST = max(points for points, _ in BAR.values()) / 100  # what any member may lose; each is held against its own bar


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedups", default="3,6,12,18")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, help="this seed alone")
    parser.add_argument("--untimed", action="store_true", help="train, and keep no record: for several seeds at once; then run it again")
    parser.add_argument("--epochs", type=int, default=3, help="for each member")
    parser.add_argument("--half-width", type=float, default=0.01, help="of the independent timing's interval, relative")
    parser.add_argument("--seconds", type=float, default=60.0, help="the longest that it takes for a package and a length")
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    speedups = sorted(float(each) for each in given.speedups.split(","))
    data = task()
    source, dense = dense_of(tuned(given.work), data, None)
    for seed in range(given.seeds) if given.only is None else [given.only]:
        folder = given.work / f"family-{given.epochs}-{seed}"
        if seed:
            rows = [retrained(source, data, first, seed, folder) for first in kept(0) if first["asked"] in speedups]
        else:
            rows = planned(source, data, dense, speedups, given.epochs, folder, given.work / "beside")
        if not given.untimed:
            bases = timed(rows, dense, data, folder, given.half_width, given.seconds)
            keep(seed, [{**one, "epochs": given.epochs, "references": bases} for one in rows])
    if given.untimed:
        return
    rows = [one for seed in range(given.seeds) for one in kept(seed)]
    means = {f"{asked:g}x": mean(asked, [one for one in rows if one["asked"] == asked]) for asked in speedups}
    bar = "each from 2 % below what was asked, at both lengths; lost at most 0.3 / 0.6 / 1.0 / 1.8 points; at most 24 / 14 / 9 / 7 MB"
    record(
        NAME,
        {
            "bar": bar,
            "tokens": TOKENS,
            "members": rows,
            "means": means,
        },
    )


def planned(
    source: Any, data: Any, dense: Graph, speedups: Sequence[float], epochs: int, folder: Path, others: Path
) -> list[dict[str, Any]]:
    """The first seed: a family as `fit` makes it, its studies kept."""
    results = ew.family(
        source,
        data,
        speedups=speedups,
        budget=[ew.Budget(max_drop=MOST, size_bytes=int(BAR[each][1]) if each in BAR else None) for each in speedups],
        threads=1,
        out=folder,
        epochs=epochs,
        table_seconds=240,
        beside=made_by_others(dense, data, others),
        progress=show,
    )
    for asked, result in zip(speedups, results, strict=True):
        keep_study(result.study, RESULTS / NAME / f"{asked:g}x")
    return [row(result, asked, 0) for asked, result in zip(speedups, results, strict=True)]


def timed(rows: list[dict[str, Any]], dense: Graph, data: Any, folder: Path, half_width: float, seconds: float) -> list[str]:
    """Adds to each row what its package is timed at, by length; gives the reference's engines."""
    feeds = data.for_model(dense.signature).timed_inputs()
    bases = []
    for feed in feeds:
        one, other = (Side(dense.to_bytes(), engine) for engine in ENGINES)
        bases.append(other if compared(one, other, feed, half_width, seconds).value > 1 else one)
    for member in rows:
        found = ew.package.open(folder / f"{member['asked']:g}x" / "model.edgew")
        execution = found.execution
        if execution is None:
            raise SystemExit(f"{found.source} says nothing of how it runs")
        side = Side(found.model_bytes(), execution.backend, execution.precision, 1, tuple(execution.options.items()))
        ratios = [compared(base, side, feed, half_width, seconds) for base, feed in zip(bases, feeds, strict=True)]
        member["independent"] = [ratio.told() for ratio in ratios]
        member["fast_enough"] = all(ratio.value >= 0.98 * float(member["asked"]) for ratio in ratios)
        print(f"seed {member['seed']}, {member['asked']:g}x: {' / '.join(f'{ratio.value:.2f}' for ratio in ratios)}", flush=True)
    return [base.engine for base in bases]


def keep(seed: int, rows: list[dict[str, Any]]) -> None:
    (RESULTS / NAME).mkdir(exist_ok=True)
    write(RESULTS / NAME / f"seed-{seed}.json", json.dumps(rows, indent=1).encode())


def kept(seed: int) -> list[dict[str, Any]]:
    """What a seed gave, on whatever day; nothing of one that wasn't run. Raises SystemExit where it is the first one."""
    path = RESULTS / NAME / f"seed-{seed}.json"
    if not path.exists():
        if seed:
            return []
        raise SystemExit(f"{path} isn't there; run --only 0 first")
    return list(json.loads(path.read_text()))


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


def retrained(source: Any, data: Any, first: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """The recipe of the first seed's member with another seed for its trainings. What members have in common is trained once."""
    asked = float(first["asked"])
    made = folder / f"{asked:g}x"
    if (made / "row.json").exists():
        return dict(json.loads((made / "row.json").read_text()))
    recipe = re.sub(r"distill\(([^()]*)\)", rf"distill(\1, seed={seed})", first["recipe"])
    result = follow(source, data, recipe=recipe, threads=1, out=folder, engines=[str(first["execution"]).split()[0]], progress=show)
    found = row(result, asked, seed)
    made.mkdir(parents=True, exist_ok=True)
    result.best.save(made / "model.edgew")
    (made / "row.json").write_text(json.dumps(found))
    return found


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
