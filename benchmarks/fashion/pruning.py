"""Pruning alone, on the Fashion net in fp32: ours against Torch-Pruning, at equal measured latency and equal fine-tuning.

    pip install torch-pruning==1.6.1
    python benchmarks/fashion/pruning.py [--speedup 3] [--epochs 4] [--seeds 3] [--work DIR]

Ours is `prune(speedup=)` on a latency table of this machine. The peers prune by a ratio, so theirs is searched for by bisection until the
measured time is ours, or up to 3 % more. Peers: uniform (group magnitude, the same share of every layer) and global Taylor. All are then
trained by the same loop, on labels alone, for the same epochs, with the same learning rate and seeds; nothing is chosen on the test images.
One thread, batch 1, the engine on which the dense net is fastest. Interrupted, it goes on where it stopped (--work).

A difference is of correct answers on the same images, mean over seeds; its interval is a bootstrap of images and of seeds.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from common import record, told
from train import WEIGHTS, task

import edgewise as ew
from edgewise import measure
from edgewise.compress.prune.pruning import prune
from edgewise.graph import Graph, cost, fold, parts, total
from edgewise.measure import Subject
from edgewise.measure.layermodel import latency_predictor
from edgewise.measure.table import latency_table
from edgewise.models.network import Network
from edgewise.records import Interval
from edgewise.steps import native_precision
from edgewise.train import Progress, train

ROUNDS = 8
NEAR = (1.0, 1.03)  # a peer's time over ours that counts as equal
RESAMPLED = 4000

# Widths -> a network; a seed draws what it is calibrated on.
Make = Callable[[float, int], Network]


class Bench:
    """The dense net, the data, and what times a network here."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.module = ew.models.intake("edgewise.models.resnet:resnet20", weights=WEIGHTS).module
        self.structure = ew.export.export(self.module, task().example_inputs(2), output_names=["logits"], norms=True)
        self.dense = fold(self.structure)
        self.task = task().for_model(self.dense.signature)
        self.inputs = self.task.example_inputs(1)
        self.device = ew.devices.local()
        engines = [Subject(self.dense.to_bytes(), ew.Execution(name)) for name in ("onnxruntime", "openvino")]
        raced = [one for one in measure.race(engines, self.inputs, self.device) if one.ratio is not None]
        self.execution = max(raced, key=lambda one: one.ratio.value).subject.execution

    def times_faster(self, first: Graph, second: Graph, seconds: float = 20) -> Interval:
        sides = (Subject(each.to_bytes(), self.execution) for each in (first, second))
        return measure.compare(*sides, self.inputs, self.device, min_pairs=30, renew_pairs=10, max_seconds=seconds).ratio

    def note(self, name: str, make: Callable[[], Any]) -> Any:
        path = self.folder / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(make()))
        return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedup", type=float, default=3.0)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("out/fashion-pruning"))
    given = parser.parse_args()
    bench = Bench(given.work)
    ours, found = our_widths(bench, given.speedup), {}
    for seed in range(given.seeds):
        found["edgewise", seed] = trained(bench, "edgewise", seed, given.epochs, lambda seed=seed: our_network(bench, ours, seed))
    target = fold(our_network(bench, ours, 0).to_graph())
    peers: dict[str, Make] = {"uniform": lambda ratio, seed: uniform(bench, ratio), "global Taylor": lambda r, s: taylor(bench, r, s)}
    for name, make in peers.items():
        for seed in range(given.seeds):
            ratio = bench.note(f"{name}-{seed if 'Taylor' in name else 0}", lambda make=make, seed=seed: matched(bench, make, seed, target))
            found[name, seed] = trained(bench, name, seed, given.epochs, lambda make=make, seed=seed, ratio=ratio: make(ratio, seed))
    report(bench, found, given)


def our_widths(bench: Bench, speedup: float) -> dict[str, int]:
    """By the table, with the survey of seed 0: all seeds get the same shape, so that one time holds for all."""

    def solve() -> dict[str, int]:
        coupling = parts(bench.dense)
        table = latency_table(bench.dense, coupling, bench.execution, bench.inputs, bench.device, seconds=90.0)
        predict = latency_predictor(bench.dense, coupling, table)
        done = prune(Network(bench.structure), calibration=bench.task.calibration(), table=predict, speedup=speedup)
        print(done.notes, flush=True)
        narrowed = (each.partition(": ") for each in done.touched)
        return {name: int(counts.split(" → ")[1]) for name, _, counts in narrowed}

    return bench.note("widths", solve)


def our_network(bench: Bench, widths: dict[str, int], seed: int) -> Network:
    return prune(Network(bench.structure), calibration=bench.task.calibration(), widths=widths, seed=seed).model


def uniform(bench: Bench, ratio: float) -> Network:
    import torch_pruning as tp

    return by_peer(bench, tp.importance.GroupMagnitudeImportance(p=2), ratio, everywhere=False)


def taylor(bench: Bench, ratio: float, seed: int) -> Network:
    import torch_pruning as tp

    return by_peer(bench, tp.importance.GroupTaylorImportance(), ratio, everywhere=True, gradients_of=seed)


def by_peer(bench: Bench, importance: Any, ratio: float, *, everywhere: bool, gradients_of: int | None = None) -> Network:
    """Torch-Pruning as its documentation does it: the classifier's outputs left alone, gradients of some training batches for Taylor."""
    import torch_pruning as tp

    module = copy.deepcopy(bench.module).train(False)
    example = torch.from_numpy(next(iter(bench.inputs.values())))
    pruner = tp.pruner.BasePruner(
        module, example, importance, global_pruning=everywhere, pruning_ratio=ratio, ignored_layers=[module.head]
    )  # fmt: skip
    if gradients_of is not None:
        batches = bench.task.training_batches(batch_size=128, epoch=0, seed=gradients_of)
        for _, (inputs, targets) in zip(range(8), batches, strict=False):
            cross_entropy(module(torch.from_numpy(next(iter(inputs.values())))), torch.from_numpy(targets)).backward()
    pruner.step()
    module.zero_grad(set_to_none=True)
    return Network(ew.export.export(module, bench.task.example_inputs(2), output_names=["logits"], norms=True))


def matched(bench: Bench, make: Make, seed: int, target: Graph) -> float:
    """The ratio at which the peer's time is ours; of those that were tried, the one nearest to it and not faster."""
    low, high, tried = 0.0, 0.95, {}
    for _ in range(ROUNDS):
        ratio = (low + high) / 2
        slower = bench.times_faster(fold(make(ratio, seed).to_graph()), target, seconds=10).value
        tried[ratio] = slower
        print(f"  ratio {ratio:.4f}: {slower:.3f} times our time", flush=True)
        if NEAR[0] <= slower <= NEAR[1]:
            return ratio
        low, high = (ratio, high) if slower > NEAR[1] else (low, ratio)
    return min((ratio for ratio in tried if tried[ratio] >= NEAR[0]), key=lambda ratio: tried[ratio])


def trained(bench: Bench, name: str, seed: int, epochs: int, make: Callable[[], Network]) -> Graph:
    path = bench.folder / f"{name}-{seed}-{epochs}.onnx".replace(" ", "-")
    if not path.exists():

        def show(at: Progress) -> None:
            if at.done == 1:
                print(f"  {name}, seed {seed}: loss {at.loss:.4f}", flush=True)

        done = train(
            make(), bench.task, epochs=epochs, batch_size=128, learning_rate=0.05, precision=native_precision(), seed=seed, progress=show
        )  # fmt: skip
        network: Any = done.model
        fold(network.to_graph()).save(path)
    return Graph.load(path)


def report(bench: Bench, found: dict[tuple[str, int], Graph], given: argparse.Namespace) -> None:
    split = bench.task.unsealed().split("test")
    both = ew.Execution("onnxruntime", threads=bench.device.cores)
    right = {key: measure.answers(graph, both, split).argmax(1) == split.targets for key, graph in found.items()}
    base = float((measure.answers(bench.dense, both, split).argmax(1) == split.targets).mean())
    rows = []
    for name in dict.fromkeys(name for name, _ in found):
        scores = np.array([right[name, seed] for seed in range(given.seeds)], float)
        graph = found[name, 0]
        row = {
            "name": name,
            "accuracy": [round(100 * float(one.mean()), 2) for one in scores],
            "speedup": [told(bench.times_faster(bench.dense, found[name, seed])) for seed in range(given.seeds)],
            "operations": total(cost(graph)).macs,
            "size_bytes": graph.size_bytes,
        }
        if name != "edgewise":
            ours = np.array([right["edgewise", seed] for seed in range(given.seeds)], float)
            row["ours_minus_this"] = told(difference(ours - scores), 100)
        rows.append(row)
        print(row, flush=True)
    peers = [row for row in rows if row["name"] != "edgewise"]
    result = {
        "bar": "no worse than Torch-Pruning (uniform; global Taylor), and better on at least one at 95 %",
        "asked": {"speedup": given.speedup, "epochs": given.epochs, "seeds": given.seeds, "precision": native_precision()},
        "execution": str(bench.execution),
        "dense_accuracy": round(100 * base, 2),
        "rows": rows,
        "worse_than": [row["name"] for row in peers if row["ours_minus_this"]["high"] < 0],
        "better_than": [row["name"] for row in peers if row["ours_minus_this"]["low"] > 0],
    }
    record("fashion-pruning", result)


def difference(apart: np.ndarray) -> Interval:
    """apart: (seeds, images) of -1, 0 and 1. Both are drawn again, for both could have been others."""
    drawn = np.random.default_rng(0)
    seeds, images = apart.shape
    means = [apart[drawn.integers(0, seeds, seeds)][:, drawn.integers(0, images, images)].mean() for _ in range(RESAMPLED)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(apart.mean()), float(low), float(high), images)


if __name__ == "__main__":
    main()
