"""Pruning by half on families of nets, through the same calls for all: nothing below asks which net it has.

    python benchmarks/generality.py [--only NAME,NAME] [--samples 64] [--epochs 4]

Each net is pruned to half of its operations, what stays making up for what went; exported, and held against torch; trained a step on, saved
(structure as data, weights as safetensors) and loaded back; and timed against itself in fp32, each on the engine where it is fastest. A net
with data of its own, EfficientNet-Lite0 with the published weights, is also distilled for a few minutes, without labels. The small nets are
random: how far they get apart says that nothing broke, and not what pruning costs.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "efficientnet"))

from common import fastest, record, told

import edgewise as ew
from edgewise import backends, devices, measure
from edgewise.compress.distill import distill
from edgewise.compress.prune.pruning import prune
from edgewise.graph import Graph, cost, fold, parameters, total
from edgewise.models import miniatures
from edgewise.models.network import Network
from edgewise.types import Inputs

FACTOR = 2.0
BATCH = 32
PUBLISHED = "EfficientNet-Lite0"
SAME = 1e-4  # relative, between torch and an engine: fp32 rounding stays some ten times under it

# A net, and the shape of one sample of each of its inputs. Larger than in the tests, so that there is time to be saved.
NETS: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[int, ...]]]] = {
    "MobileNetV2-like": (functools.partial(miniatures.MobileNetLike, width=24), {"image": (3, 64, 64)}),
    "DenseNet-like": (functools.partial(miniatures.DenseNetLike, growth=12, layers=4), {"image": (3, 32, 32)}),
    "U-Net-like": (functools.partial(miniatures.UNetLike, width=16), {"image": (3, 64, 64)}),
    "two inputs": (functools.partial(miniatures.TwoInputs, width=32), {"image": (3, 32, 32), "sensors": (12,)}),
    "ViT-like": (functools.partial(miniatures.ViTLike, width=96, heads=6), {"image": (3, 16, 16)}),
    "gated (SwiGLU)": (functools.partial(miniatures.Gated, width=96), {"tokens": (6, 96)}),
    "grouped convolutions": (functools.partial(miniatures.Grouped, width=32), {"image": (3, 32, 32)}),
    "shared weights": (functools.partial(miniatures.Shared, width=32), {"image": (3, 32, 32)}),
}


@dataclass(frozen=True)
class Case:
    """A net in evaluation mode, samples to prune by, others to judge by, and the data that it may be distilled on, where it has any."""

    name: str
    module: nn.Module
    calibration: Sequence[Inputs]
    held_out: Sequence[Inputs]
    task: Any = None


@dataclass(frozen=True)
class OneBatch:
    """What training asks of data: a single batch, without labels."""

    inputs: Inputs
    targets: None = None

    def split(self, name: str) -> OneBatch:
        return self

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def training_batches(self, *, batch_size: int, epoch: int, seed: int) -> Iterator[tuple[Inputs, None]]:
        yield self.inputs, None


def cases(folder: Path, samples: int, only: Sequence[str]) -> Iterator[Case]:
    for name, (build, shapes) in NETS.items():
        if not only or name in only:
            yield random_case(name, build, shapes, samples)
    if not only or PUBLISHED in only:
        yield published_case(folder, samples)


def random_case(name: str, build: Callable[[], nn.Module], shapes: dict[str, tuple[int, ...]], samples: int) -> Case:
    """A random net and random samples. Batch norms have the statistics that these leave."""
    torch.manual_seed(0)
    module, random = build(), np.random.default_rng(0)
    half = -(-samples // BATCH)
    batches = [{key: random.standard_normal((BATCH, *shape), dtype=np.float32) for key, shape in shapes.items()} for _ in range(2 * half)]
    with torch.no_grad():
        for batch in batches:
            module(**{key: torch.from_numpy(array) for key, array in batch.items()})
    return Case(name, module.eval(), batches[:half], batches[half:])


def published_case(folder: Path, samples: int) -> Case:
    """EfficientNet-Lite0 as PyPI has it, and crops of natural pictures."""
    from crops import crops
    from fit import module

    np.savez(folder / "crops.npz", **crops())
    task = ew.tasks.image_classification(folder / "crops.npz", mean=(127.0,) * 3, std=(128.0,) * 3, scale=1.0, flip=True)
    task = task.unsealed()  # no choice is made here: the test split is only reported on
    held_out = [inputs for inputs, _ in task.split("test").batches(BATCH)]
    return Case(PUBLISHED, module(), task.calibration(samples), held_out, task)


def treated(case: Case, samples: int, epochs: int, folder: Path) -> dict[str, Any]:
    """All that is asked of one net; a row of the table."""
    began = time.monotonic()
    example = {name: array[:2] for name, array in case.calibration[0].items()}
    dense = Network(ew.export.export(case.module, example, norms=True))
    done = prune(dense, calibration=case.calibration, operations=FACTOR, samples=samples)
    seconds = time.monotonic() - began
    graphs = fold(dense.structure), fold(done.model.to_graph())
    before, after = (answers(graph, case.held_out) for graph in graphs)
    first = {name: array[:8] for name, array in case.held_out[0].items()}
    loaded, trained = stepped(done.model, dense, first, folder)
    row = {
        "name": case.name,
        "operations": counted([total(cost(graph)).macs for graph in graphs]),
        "parameters": counted([parameters(graph) for graph in graphs]),
        "parts": {"touched": len(done.touched), "skipped": len(done.skipped)},
        "notes": list(done.notes),
        "divergence": round(measure.divergence(before, after), 4),
        "samples_held_out": len(before),
        "parity": parity(done.model, first),
        "parity_loaded": parity(loaded, first),
        **trained,
        **timed(*graphs, {name: array[:1] for name, array in first.items()}),
        "seconds_pruning": round(seconds, 1),
    }
    if case.task is not None:
        row["agreement"] = distilled(case, done.model, graphs[0], before, epochs)
    return row


def counted(pair: Sequence[int]) -> dict[str, float]:
    before, after = pair
    return {"before": before, "after": after, "factor": round(before / after, 3)}


def answers(graph: Graph, batches: Sequence[Inputs]) -> np.ndarray:
    """The first output, on the first engine."""
    runner = backends.load(graph.to_bytes(), ew.Execution(next(iter(backends.installed())), threads=devices.cores()))
    try:
        return np.concatenate([next(iter(runner.run(batch).values())) for batch in batches])
    finally:
        runner.close()


def parity(network: Network, inputs: Inputs) -> dict[str, Any]:
    """The net in torch against ONNX Runtime on its graph."""
    graph = fold(network.to_graph())
    runner = backends.load(graph.to_bytes(), ew.Execution("onnxruntime"))
    try:
        found = ew.export.parity(network, graph, inputs, tolerance=float("inf"), runner=runner)
    finally:
        runner.close()
    return {"max_abs": float(f"{found.max_abs:.2g}"), "relative_l2": float(f"{found.relative_l2:.2g}"), "same": found.relative_l2 <= SAME}


def stepped(small: Network, teacher: Network, inputs: Inputs, folder: Path) -> tuple[Network, dict[str, Any]]:
    """`small` after one step of training towards `teacher`, saved and loaded back; and whether that is the same to the bit."""
    batch = OneBatch(inputs)
    done = distill(small, task=batch, teacher=teacher, epochs=1, weight=1.0, batch_size=len(batch), learning_rate=1e-3)  # type: ignore[arg-type]
    trained: Network = done.model
    trained.structure.save(folder / "structure.onnx")
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, folder / "weights.safetensors")
    loaded = Network(Graph.load(folder / "structure.onnx"))
    loaded.load_state_dict(load_file(folder / "weights.safetensors"))
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        same = all(torch.equal(one, loaded.run(tensors)[name]) for name, one in trained.run(tensors).items())
    return loaded, {"step": {"weights_moved": len(done.touched), "left": len(done.skipped), "loss": done.notes[0]}, "loaded_same": same}


def timed(dense: Graph, small: Graph, inputs: Inputs) -> dict[str, Any]:
    """Interleaved, in fp32 on one thread; each on the engine where it is fastest."""
    device = devices.local()
    reference, candidate = (fastest(graph, inputs) for graph in (dense, small))
    ratio = measure.compare(reference, candidate, inputs, device, renew_pairs=10, min_pairs=30, max_seconds=40)
    return {
        "speedup": told(ratio.ratio),
        "conclusive": ratio.conclusive,
        "dense_ms": round(float(np.median(ratio.reference_ms)), 4),
        "executions": [str(reference.execution), str(candidate.execution)],
    }


def distilled(case: Case, small: Network, dense: Graph, before: np.ndarray, epochs: int) -> dict[str, Any]:
    """How often the most likely class is the dense net's, before and after a short distillation that sees no label."""
    targets = {"test": before.argmax(axis=1)}
    task = case.task.with_targets(targets, tuple(str(i) for i in range(before.shape[1])))
    teacher = backends.load(dense.to_bytes(), ew.Execution(next(iter(backends.installed())), threads=devices.cores()))
    began = time.monotonic()
    try:
        precision: Literal["fp32", "bf16"] = "bf16" if devices.multiplies_bf16(devices.isa()) else "fp32"
        done = distill(small, task=task, teacher=teacher.run, epochs=epochs, weight=1.0, batch_size=BATCH, precision=precision)
    finally:
        teacher.close()
    found: dict[str, Any] = {"epochs": epochs, "precision": precision, "seconds": round(time.monotonic() - began)}
    for name, network in (("before", small), ("after", done.model)):
        outputs = answers(fold(network.to_graph()), case.held_out)
        quality = ew.data.metrics.quality(task.metric, "test", outputs, task.split("test").targets, task.labels)
        found[name] = {**told(quality.value, 100), "divergence": round(measure.divergence(before, outputs), 4)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names, with commas between; all unless given")
    parser.add_argument("--samples", type=int, default=64, help="that pruning looks at")
    parser.add_argument("--epochs", type=int, default=4, help="of distillation, for a net with data")
    given = parser.parse_args()
    only = [name for name in given.only.split(",") if name]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases(Path(scratch), given.samples, only):
            rows.append(row := treated(case, given.samples, given.epochs, Path(scratch)))
            show(row)
    record("generality", {"bar": "halved in operations; the same in torch and in an engine; saved, loaded and trained on", "nets": rows})


def show(row: dict[str, Any]) -> None:
    operations, weights, speed = row["operations"], row["parameters"], row["speedup"]
    print(f"{row['name']:22} {operations['before'] / 1e6:7.2f} → {operations['after'] / 1e6:7.2f} M operations", end="  ")
    print(
        f"{weights['before'] / 1e3:7.1f} → {weights['after'] / 1e3:7.1f} k parameters  parity {row['parity']['relative_l2']:.0e}", end="  "
    )
    print(f"{speed['value']:.2f}x [{speed['low']:.2f}, {speed['high']:.2f}]  apart {row['divergence']:.3f}", end="  ")
    print(f"step {row['step']['weights_moved']} weights  loaded {'same' if row['loaded_same'] else 'OTHER'}", flush=True)
    if "agreement" in row:
        print(f"{'':22} agreement {row['agreement']}", flush=True)


if __name__ == "__main__":
    main()
