"""Pruning alone, ours and Torch-Pruning's: at equal measured time and after equal fine-tuning, who answers more of Fashion-MNIST right?

    python benchmarks/fashion/pruning.py [--speedup 2] [--seeds 3] [--epochs 6] [--work out/fashion-pruning]

ResNet-20 in fp32 throughout, on the engine where the dense one is fastest, one thread. Ours: widths by a latency table and the survey of
answers, as `fit` plans them, and the OBS update; in one step. The peers: Torch-Pruning, uniform by magnitude and global by Taylor, each in
one step, with its ratio searched for until its model takes the time of ours as measured: as much or a little more, never less. It is
searched for with channels rounded to nothing, 4 and 8, and the peer gets the one that leaves it most operations. Both see the same samples.

All are trained alike from there: one loop, labels alone, same epochs, batches, learning rate (`distill`'s own, tuned for none of them) and
seed. A seed draws the calibration samples and the order of training. The test images are read after the last training.

Interval of ours − peer: a bootstrap that draws images and seeds anew, each with all that belongs to it: the three answers to one image hang
together, so that McNemar's test on 30,000 pairs would be too sure. Beside it stands the one over images alone, for these seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch_pruning as tp

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from common import fastest, record, told
from train import WEIGHTS, task

import edgewise as ew
from edgewise import devices, measure
from edgewise.compress.prune.pruning import Survey, prune, survey
from edgewise.data import metrics
from edgewise.graph import Graph, cost, fold, parameters, parts, shrink, total
from edgewise.measure import Subject
from edgewise.measure.layermodel import correct, latency_predictor
from edgewise.measure.table import latency_table
from edgewise.models.network import Network
from edgewise.records import Interval, LatencyTable
from edgewise.search.store import write
from edgewise.train import Progress, train
from edgewise.types import from_json, to_json

NAME = "fashion-pruning"
OURS = "edgewise"
PEERS = {"Torch-Pruning, uniform": False, "Torch-Pruning, global Taylor": True}  # whether Taylor, over all layers at once

SAMPLES = 512
BATCH, LEARNING_RATE = 128, 0.05

# A peer's model is taken where its time over ours lies here; where channels come in steps too large for that, the next slower one.
EQUAL = (0.995, 1.02)
ROUNDED = (None, 4, 8)  # channels to multiples of these: Torch-Pruning's own advice for speed
MOST_RATIO, FINEST = 0.9, 1 / 128
PLANS, MARGIN = 8, 1.03  # ours: plans measured whole, and how far beyond the target one may lie

DRAWS = 4000


@dataclass
class Bench:
    """What is measured with: the dense net, its reference engine, and what was measured before in this run."""

    work: Path
    data: Any = field(default_factory=task)
    known: dict[tuple[str, str], Interval] = field(default_factory=dict)

    @cached_property
    def structure(self) -> Graph:
        return ew.export.export(module(), self.data.example_inputs(2), output_names=["logits"], norms=True)

    @cached_property
    def dense(self) -> Graph:
        return fold(self.structure)

    @cached_property
    def execution(self) -> ew.Execution:
        """Of everything that is timed: fp32, one thread, the engine where the dense net is fastest."""
        name = kept(self.work / "reference.json", lambda: fastest(self.dense, self.data.example_inputs(1)).execution.backend)
        return ew.Execution(name)

    def ratio(self, one: Graph, other: Graph) -> Interval:
        """Time of `one` over that of `other`. Time hangs on the shapes, not on the weights, so it is measured once for these."""
        key = shapes(one), shapes(other)
        if key not in self.known:
            first, second = (Subject(graph.to_bytes(), self.execution) for graph in (one, other))
            inputs, device = self.data.example_inputs(1), devices.local()
            self.known[key] = measure.compare(first, second, inputs, device, renew_pairs=10, min_pairs=30, max_seconds=25).ratio
        return self.known[key]

    @cached_property
    def table(self) -> LatencyTable:
        path = self.work / "table.json"
        if not path.exists():
            made = latency_table(self.dense, parts(self.dense), self.execution, self.data.example_inputs(1), devices.local())
            write(path, to_json(made))
        return from_json(path.read_bytes(), LatencyTable)

    def drawn(self, seed: int) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Calibration samples with their labels, out of train: the same for ours and the peers."""
        whole = self.data.split("train")
        chosen = np.random.default_rng(seed).choice(len(whole), SAMPLES, replace=False)
        return list(replace(whole, indices=whole.indices[chosen], targets=whole.targets[chosen]).batches(64))


def module() -> Any:
    return ew.models.intake("edgewise.models.resnet:resnet20", weights=WEIGHTS).module


def shapes(graph: Graph) -> str:
    return " ".join(f"{tensor.name}{list(tensor.dims)}" for tensor in graph.proto.graph.initializer if len(tensor.dims) > 1)


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """A small JSON value that is made once."""
    if not path.exists():
        value = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(value).encode())
    return json.loads(path.read_bytes())


def ours(bench: Bench, seed: int, speedup: float) -> Network:
    network = Network(bench.structure)
    calibration = [inputs for inputs, _ in bench.drawn(seed)]
    found = survey(network, calibration, samples=SAMPLES, seed=seed)
    widths = planned(bench, found, speedup)
    pruned: Network = prune(network, calibration=calibration, widths=widths, samples=SAMPLES, seed=seed).model
    return pruned


def planned(bench: Bench, found: Survey, speedup: float) -> Mapping[str, int]:
    """As `fit` plans: solved on the table, measured whole, the table corrected, and solved again."""
    coupling, table = parts(bench.dense), bench.table
    tried: list[tuple[float, Mapping[str, int]]] = []
    for _ in range(PLANS):
        predict = latency_predictor(bench.dense, coupling, table)
        solution = found.solve(predict, predict({}) / (speedup * (1 + MARGIN) / 2))
        if not solution.reachable or any(solution.widths == before for _, before in tried):
            break
        small = shrink(bench.dense, {name: range(width) for name, width in solution.widths.items()})
        reached = bench.ratio(bench.dense, small).value
        print(f"  {OURS}: {predict({}) / solution.predicted:.2f}x predicted, {reached:.2f}x measured", flush=True)
        tried.append((reached, solution.widths))
        if speedup <= reached <= speedup * MARGIN:
            break
        table = correct(table, solution.widths, 1 / reached)
    enough = [one for one in tried if one[0] >= speedup]
    if not enough:
        raise SystemExit(f"{speedup:g}x is out of reach of pruning alone: {max((one[0] for one in tried), default=1.0):.2f}x")
    return min(enough, key=lambda one: one[0])[1]


def theirs(bench: Bench, seed: int, taylor: bool, ratio: float, round_to: int | None) -> Network:
    """Torch-Pruning as its documentation has it: the last layer is left whole; Taylor's gradients are of the loss on all samples."""
    net = module()
    example = torch.from_numpy(bench.data.example_inputs(1)["image"])
    if taylor:
        for inputs, targets in bench.drawn(seed):
            bench.data.loss(net(torch.from_numpy(inputs["image"])), torch.from_numpy(targets)).backward()
    importance = tp.importance.GroupTaylorImportance() if taylor else tp.importance.GroupMagnitudeImportance(p=2)
    pruner = tp.pruner.BasePruner(
        net, example, importance, global_pruning=taylor, pruning_ratio=ratio, round_to=round_to, ignored_layers=[net.head]
    )
    pruner.step()
    net.zero_grad()
    return Network(ew.export.export(net, bench.data.example_inputs(2), output_names=["logits"], norms=True))


@dataclass(frozen=True)
class Match:
    """A peer's model beside ours. time: its time over ours."""

    network: Network
    ratio: float
    round_to: int | None
    time: float

    @property
    def equal(self) -> bool:
        return EQUAL[0] <= self.time <= EQUAL[1]

    @property
    def operations(self) -> int:
        return operations(fold(self.network.to_graph()))


def operations(graph: Graph) -> int:
    return total(cost(graph)).macs


def matched(bench: Bench, small: Graph, make: Callable[[float, int | None], Network]) -> Match:
    """The peer's model that takes as long as `small`: of those that round otherwise, the one with the most operations left."""
    found = [one for round_to in ROUNDED if (one := _matched(bench, small, make, round_to)) is not None]
    if not found:
        raise SystemExit("none of the peer's models takes as long as ours, or longer: ask for less")
    equal = [one for one in found if one.equal]
    return max(equal, key=lambda one: one.operations) if equal else min(found, key=lambda one: one.time)


def _matched(bench: Bench, small: Graph, make: Callable[[float, int | None], Network], round_to: int | None) -> Match | None:
    """By bisection, towards the least pruning that is fast enough. Time doesn't quite fall with the ratio: all that was tried counts."""
    low, high = 0.0, MOST_RATIO
    tried: list[Match] = []
    while high - low > FINEST:
        ratio = (low + high) / 2
        network = make(ratio, round_to)
        tried.append(Match(network, ratio, round_to, 1 / bench.ratio(small, fold(network.to_graph())).value))
        low, high = (low, ratio) if tried[-1].time <= EQUAL[1] else (ratio, high)
    equal = [one for one in tried if one.equal]
    if equal:
        return min(equal, key=lambda one: one.ratio)
    return min((one for one in tried if one.time > EQUAL[1]), key=lambda one: one.time, default=None)


def pruned(bench: Bench, folder: Path, seed: int, speedup: float) -> dict[str, Network]:
    """The models before fine-tuning: ours, and the peers' as fast as ours."""

    def peer(taylor: bool) -> tuple[Network, dict[str, Any]]:
        one = matched(bench, fold(found[OURS].to_graph()), lambda ratio, round_to: theirs(bench, seed, taylor, ratio, round_to))
        print(f"  ratio {one.ratio:.3f}, rounded to {one.round_to}: {one.time:.3f} of our time", flush=True)
        return one.network, {"ratio": one.ratio, "round_to": one.round_to, "time": one.time, "equal": one.equal}

    makers: dict[str, Callable[[], tuple[Network, dict[str, Any]]]] = {OURS: lambda: (ours(bench, seed, speedup), {})}
    makers |= {name: partial(peer, taylor) for name, taylor in PEERS.items()}
    found: dict[str, Network] = {}
    for name, make in makers.items():
        path = folder / f"{slug(name)}.onnx"
        if not path.exists():
            print(f"seed {seed}: {name}", flush=True)
            network, how = make()
            kept(folder / f"{slug(name)}.json", partial(dict, how))
            network.to_graph().save(path)
        found[name] = Network(Graph.load(path))
    return found


def slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def tuned(network: Network, bench: Bench, folder: Path, name: str, seed: int, epochs: int) -> Graph:
    """The same training for everyone; kept."""
    path = folder / f"{slug(name)}-{epochs}-epochs.onnx"
    if not path.exists():
        precision: Literal["fp32", "bf16"] = "bf16" if devices.multiplies_bf16(devices.isa()) else "fp32"
        done = train(
            network, bench.data, epochs=epochs, batch_size=BATCH, learning_rate=LEARNING_RATE, precision=precision, seed=seed,
            checkpoint=folder / f"{slug(name)}-{epochs}-epochs", progress=shown(f"seed {seed}, {name}"),
        )  # fmt: skip
        print(f"seed {seed}, {name}: {done.seconds:.0f} s, loss {done.losses[-1]:.4f}", flush=True)
        trained: Any = done.model
        trained.to_graph().save(path)
    return fold(Graph.load(path))


def shown(what: str) -> Callable[[Progress], None]:
    last = [-1]

    def show(at: Progress) -> None:
        if at.epoch != last[0]:
            last[0] = at.epoch
            print(f"  {what}: epoch {at.epoch + 1} of {at.epochs}, {at.seconds_left:.0f} s left", flush=True)

    return show


def scored(bench: Bench, graph: Graph, split: Literal["validation", "test"]) -> np.ndarray:
    """(samples,) whether the answer is right."""
    data = bench.data.unsealed().split(split)
    return metrics.top1(measure.answers(graph, bench.execution, data)) == data.targets


def bootstrapped(difference: np.ndarray, seeds: bool) -> Interval:
    """Mean of difference (seeds, images), with a 95 % interval from drawing images anew, and seeds, too. Three seeds say little of how they
    scatter (drawn anew, two thirds of their variance), which no arithmetic mends."""
    random = np.random.default_rng(0)
    count, images = difference.shape
    means = []
    for _ in range(DRAWS):
        rows = random.integers(0, count, count) if seeds else np.arange(count)
        means.append(difference[rows].mean(0)[random.integers(0, images, images)].mean())
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(difference.mean()), float(low), float(high), images)


def rows(bench: Bench, folder: Path, seed: int, speedup: float, epochs: int) -> list[dict[str, Any]]:
    """All but the test split, of one seed."""
    starts = pruned(bench, folder, seed, speedup)
    found = []
    for name, start in starts.items():
        before, graph = fold(start.to_graph()), tuned(start, bench, folder, name, seed, epochs)
        found.append(
            {
                "seed": seed,
                "name": name,
                "graph": graph,
                "speedup": told(bench.ratio(bench.dense, graph)),
                "time_to_ours": told(bench.ratio(graph, fold(starts[OURS].to_graph()))),
                "operations": operations(graph),
                "parameters": parameters(graph),
                "matching": json.loads((folder / f"{slug(name)}.json").read_bytes()),
                "validation": {
                    "before_training": round(100 * float(scored(bench, before, "validation").mean()), 2),
                    "after": round(100 * float(scored(bench, graph, "validation").mean()), 2),
                },
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedup", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--work", type=Path, default=Path("out/fashion-pruning"), help="where an interrupted run goes on; one for each dense net"
    )
    given = parser.parse_args()
    bench = Bench(given.work)
    given.work.mkdir(parents=True, exist_ok=True)
    models = [
        row
        for seed in range(given.seeds)
        for row in rows(bench, given.work / f"{given.speedup:g}x" / f"seed{seed}", seed, given.speedup, given.epochs)
    ]
    dense = scored(bench, bench.dense, "test")
    right: dict[str, list[np.ndarray]] = {}
    for row in models:
        score = scored(bench, row.pop("graph"), "test")
        right.setdefault(row["name"], []).append(score)
        row["accuracy"] = told(metrics.wilson(int(score.sum()), len(score)), 100)
        show(row)
    compared = [against(name, right) for name in PEERS]
    record(
        NAME,
        {
            "bar": "pruning alone, at equal measured time and training: no worse than Torch-Pruning, and better than one of it at 95 %",
            "asked": {"speedup": given.speedup, "seeds": given.seeds, "epochs": given.epochs},
            "settings": {"objective": "labels alone", "batch_size": BATCH, "learning_rate": LEARNING_RATE, "calibration": SAMPLES},
            "torch_pruning": version("torch-pruning"),
            "reference": str(bench.execution),
            "dense_accuracy": told(metrics.wilson(int(dense.sum()), len(dense)), 100),
            "models": models,
            "ours_minus_peer": compared,
            "met": all(row["no_worse"] for row in compared) and any(row["better"] for row in compared),
        },
    )


def show(row: Mapping[str, Any]) -> None:
    speed, accuracy = row["speedup"], row["accuracy"]
    print(f"seed {row['seed']}  {row['name']:29} {speed['value']:.2f}x [{speed['low']:.2f}, {speed['high']:.2f}]", end="  ")
    print(f"{row['operations'] / 1e6:5.1f} M operations  validation {row['validation']['before_training']:.2f}", end=" → ")
    print(f"{row['validation']['after']:.2f} %  test {accuracy['value']:.2f} %", flush=True)


def against(name: str, right: Mapping[str, list[np.ndarray]]) -> dict[str, Any]:
    difference = np.stack(right[OURS]).astype(float) - np.stack(right[name])
    both, images = (bootstrapped(difference, seeds) for seeds in (True, False))
    print(f"ours − {name}: {100 * both.value:+.2f} points [{100 * both.low:+.2f}, {100 * both.high:+.2f}]", flush=True)
    by_seed = [round(100 * float(one.mean()), 2) for one in difference]
    counts = {"ours_alone_right": int((difference > 0).sum()), "peer_alone_right": int((difference < 0).sum())}
    return {
        "peer": name,
        "points": {**told(both, 100), "seeds": len(difference)},
        "points_for_these_seeds": told(images, 100),
        "points_by_seed": by_seed,
        **counts,
        "no_worse": both.high >= 0,
        "better": both.low > 0,
    }


if __name__ == "__main__":
    main()
