"""The latency table's word against the clock, for a transformer: MiniLM at several lengths of a sequence, in fp32 and int8.

    python benchmarks/transformer_table.py [--lengths 32,64,128] [--forms fp32,int8] [--speedups 1.5,2,3,6,12] [--seconds 120]

For each form and length, on its fastest engine and one thread: a table is measured (heads, inner units, the width of the stream, branches
that are gone, and all of them together), and networks are timed against the dense one in the same form that the table never saw. "Planned"
ones are solved for on what the parts are worth, as `fit` does; "drawn" ones have widths at random, as slow as the same speedup asks for.
Planned ones that miss by over 5 % correct the table and are planned again, as `fit` does: "corrected". Nothing is trained: time doesn't
hang on the weights. Needs what minilm/model.py needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "minilm"))

import numpy as np
import torch
from common import fastest, record, told
from model import Sentence, batches, exported, sentences

from edgewise import devices, measure
from edgewise.compress.prune.surveying import Survey, survey
from edgewise.compress.quantize import quantize
from edgewise.graph import Coupling, Graph, fold, parts, shrink, trainable
from edgewise.measure import Subject
from edgewise.measure.layermodel import correct, latency_predictor
from edgewise.measure.table import default_ladder, latency_table
from edgewise.models.network import Network
from edgewise.records import Interval, LatencyTable
from edgewise.types import Inputs

WITHIN = 0.05  # where prediction and measurement part by more, it is corrected and solved again
ROUNDS = 4
LEAST_STREAM = 32

Widths = Mapping[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="32,64,128")
    parser.add_argument("--forms", default="fp32,int8")
    parser.add_argument("--speedups", default="1.5,2,3,6,12")
    parser.add_argument("--seconds", type=float, default=120.0, help="for each table")
    parser.add_argument("--samples", type=int, default=128, help="sentences on which parts are judged")
    given = parser.parse_args()
    torch.manual_seed(0)  # of the head, which is untrained
    structure = trainable(exported(Sentence(classes=2)))
    texts = [text for text in sentences("train")[0] if len(text.split()) > 8]
    picked = np.random.default_rng(0).permutation(len(texts))[: 8 * given.samples]
    calibration = batches([texts[i] for i in picked], 32)
    calibration = [calibration[i] for i in np.random.default_rng(0).permutation(len(calibration))]
    worth = survey(
        Network(structure), calibration, samples=given.samples, progress=lambda what, share: print(f"{share:4.0%} {what}", flush=True)
    )
    rows = []
    for form in given.forms.split(","):
        graph = fold(structure)
        if form == "int8":
            graph = quantize(graph, calibration=calibration[:4]).model
        for length in map(int, given.lengths.split(",")):
            rows += at_length(form, graph, length, worth, [float(each) for each in given.speedups.split(",")], given.seconds)
    apart = {
        length: max(abs(row["apart_percent"]) for row in rows if row["length"] == length) for length in {row["length"] for row in rows}
    }
    bar = "predicted against measured within 8 % at every length"
    record("transformer-table", {"bar": bar, "rows": rows, "largest_percent": apart, "met": max(apart.values()) <= 8})


def at_length(form: str, graph: Graph, length: int, worth: Survey, speedups: list[float], seconds: float) -> list[dict[str, Any]]:
    inputs: Inputs = {"input_ids": np.full((1, length), 2000, np.int64), "attention_mask": np.ones((1, length), np.int64)}
    execution, device, coupling = fastest(graph, inputs).execution, devices.local(), parts(graph)
    table = latency_table(graph, coupling, execution, inputs, device, seconds=seconds)
    random = np.random.default_rng(length)
    rows: list[dict[str, Any]] = []

    def timed(widths: Widths) -> Interval:
        small = shrink(graph, {name: range(width) for name, width in widths.items()}, coupling=coupling)
        sides = Subject(graph.to_bytes(), execution), Subject(small.to_bytes(), execution)
        return measure.compare(*sides, inputs, device, min_pairs=30, renew_pairs=10, max_seconds=20).ratio

    def note(kind: str, asked: float, said: float, found: Interval) -> float:
        apart = said / found.value - 1
        row = {"form": form, "execution": str(execution), "length": length, "kind": kind, "asked": asked, "predicted": round(said, 3)}
        rows.append({**row, "measured": told(found), "apart_percent": round(100 * apart, 1)})
        print(f"{form} {execution} {length} tokens, {kind} {asked:g}x: {100 * apart:+.1f} %", flush=True)
        return apart

    for asked in speedups:
        predict = latency_predictor(graph, coupling, table)
        widths = drawn(coupling, lambda widths, at=predict: at.ratio(widths), 1 / asked, random)
        if widths is not None:
            note("drawn", asked, 1 / predict.ratio(widths), timed(widths))
    for asked in speedups:
        corrected: LatencyTable = table
        for number in range(ROUNDS):
            predict = latency_predictor(graph, coupling, corrected)
            solution = worth.solve(predict, predict({}) / asked)
            if not solution.reachable:
                print(f"{form} {length} tokens, {asked:g}x: out of reach", flush=True)
                break
            found = timed(solution.widths)
            apart = note("corrected" if number else "planned", asked, predict({}) / solution.predicted, found)
            if abs(apart) <= WITHIN:
                break
            corrected = correct(corrected, solution.widths, 1 / found.value)
    return rows


def drawn(coupling: Coupling, ratio: Callable[[Widths], float], goal: float, random: np.random.Generator) -> dict[str, int] | None:
    """Widths at random, each part's its own share of a common level that makes the whole as slow as `goal`; None where that can't be."""
    tilt = {part.name: random.normal(0, 0.4) for part in coupling.parts}
    gone = {part.name for part in coupling.parts if part.removable and random.random() < 0.15}

    def at(level: float) -> dict[str, int]:
        found = {}
        for part in coupling.parts:
            grid = [part.units, *default_ladder(part.units, kind=part.kind)]
            least = LEAST_STREAM if part.kind == "hidden" else min(grid)
            wanted = part.units * min(1.0, float(np.exp(level + tilt[part.name])))
            found[part.name] = 0 if part.name in gone else min((width for width in grid if width >= least), key=lambda w: abs(w - wanted))
        return found

    low, high = -6.0, 2.0
    if ratio(at(low)) > goal:
        return None
    for _ in range(25):
        level = (low + high) / 2
        low, high = (low, level) if ratio(at(level)) > goal else (level, high)
    return at(low)


if __name__ == "__main__":
    main()
