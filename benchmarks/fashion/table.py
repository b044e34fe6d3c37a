"""The latency table's word against the clock: whole Fashion nets that it plans for several speedups, in fp32, bf16 and int8.

    python benchmarks/fashion/table.py [--speedups 1.5,2,3,4] [--forms fp32,bf16,int8] [--seconds 90]

For each form, on its fastest engine and one thread: the table is measured, widths are solved for on what the parts are worth, as `fit`
does, and the network of these shapes is timed against the dense one in the same form. "First" is what the bare table says; "corrected"
what it says once the networks measured before are known to it, as they are to `fit`, which plans again until both are near. Nothing is
trained: time doesn't hang on the weights. Forms that this CPU doesn't have are left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from common import fastest, record, told
from train import WEIGHTS, task

import edgewise as ew
from edgewise import backends, devices, measure
from edgewise.compress.prune.pruning import Survey, survey
from edgewise.compress.quantize import quantize
from edgewise.graph import Graph, fold, parts, shrink
from edgewise.measure import Subject
from edgewise.measure.layermodel import correct, latency_predictor
from edgewise.measure.table import latency_table
from edgewise.models.network import Network

WITHIN = 0.05  # where prediction and measurement part by more, it is corrected and solved again
ROUNDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedups", default="1.5,2,3,4")
    parser.add_argument("--forms", default="fp32,bf16,int8")
    parser.add_argument("--seconds", type=float, default=90.0, help="for each table")
    given = parser.parse_args()
    module = ew.models.intake("edgewise.models.resnet:resnet20", weights=WEIGHTS).module
    structure = ew.export.export(module, task().example_inputs(2), output_names=["logits"], norms=True)
    data = task().for_model(fold(structure).signature)
    worth = survey(Network(structure), data.calibration())
    rows = []
    for form in given.forms.split(","):
        rows += planned(form, fold(structure), data, worth, [float(each) for each in given.speedups.split(",")], given.seconds)
    apart = [abs(row["corrected"]["apart_percent"]) for row in rows]
    bar = "predicted against measured speedup of the whole network within 8 %"
    record("fashion-table", {"bar": bar, "rows": rows, "largest_percent": max(apart), "met": max(apart) <= 8})


def planned(form: str, dense: Graph, data: Any, worth: Survey, speedups: list[float], seconds: float) -> list[dict[str, Any]]:
    if form == "bf16":
        engines = [ew.Execution(name, "bf16") for name in backends.installed() if "bf16" in backends.get(name).precisions()]
        if not engines:
            return []
        graph, execution = dense, engines[0]
    else:
        graph = dense if form == "fp32" else quantize(dense, calibration=data.calibration(), residual="one").model
        execution = fastest(graph, data.example_inputs(1)).execution
    inputs, device, coupling = data.example_inputs(1), devices.local(), parts(graph)
    table = latency_table(graph, coupling, execution, inputs, device, seconds=seconds)
    rows = []
    for asked in speedups:
        tried = []
        for _ in range(ROUNDS):
            predict = latency_predictor(graph, coupling, table)
            solution = worth.solve(predict, predict({}) / asked)
            if not solution.reachable:
                break
            small = shrink(graph, {name: range(width) for name, width in solution.widths.items()}, coupling=coupling)
            sides = Subject(graph.to_bytes(), execution), Subject(small.to_bytes(), execution)
            found = measure.compare(*sides, inputs, device, min_pairs=30, renew_pairs=10, max_seconds=20).ratio
            said = predict({}) / solution.predicted
            tried.append({"predicted": round(said, 3), "measured": told(found), "apart_percent": round(100 * (said / found.value - 1), 1)})
            if abs(said / found.value - 1) <= WITHIN:
                break
            table = correct(table, solution.widths, 1 / found.value)
        if not tried:
            print(f"{form} {asked:g}x: out of reach", flush=True)
            continue
        error = {"median": table.model.error, "worst": table.model.worst} if table.model else None
        rows.append(
            {"form": form, "execution": str(execution), "asked": asked, "first": tried[0], "corrected": tried[-1], "left_out_error": error}
        )
        print(
            f"{form} {execution} {asked:g}x: first {tried[0]['apart_percent']:+} %, corrected {tried[-1]['apart_percent']:+} %", flush=True
        )
    return rows


if __name__ == "__main__":
    main()
