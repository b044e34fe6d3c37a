"""Train the Fashion net: ResNet-20 on Fashion-MNIST 28×28, to at least 93.0 % on the 10,000 test images.

    python benchmarks/fashion/train.py        # writes benchmarks/fashion/resnet20.safetensors (1.1 MB)

About 50 minutes of one core; interrupted, it goes on where it stopped. Nothing here reads the test images but the last line.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import fashion, record

import edgewise as ew
from edgewise import measure
from edgewise.backends import load
from edgewise.models.resnet import resnet20
from edgewise.train import Progress, train

WEIGHTS = Path(__file__).parent / "resnet20.safetensors"
EPOCHS = 12
MEAN, STD = (0.2860,), (0.3530,)  # of the 60,000 training images


def task() -> ew.tasks.ImageClassification:
    labels = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    return ew.tasks.image_classification(fashion(), labels=labels, mean=MEAN, std=STD, shift=2, flip=True)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = task()
    told = [0.0]

    def show(at: Progress) -> None:
        if time.monotonic() - told[0] > 30:
            told[0] = time.monotonic()
            left = f"{at.seconds_left / 60:.0f} min left"
            print(f"epoch {at.epoch + 1}/{at.epochs}  {at.done:.1%}  loss {at.loss:.4f}  {left}", flush=True)

    checkpoint = Path(__file__).parent / "checkpoint"
    done = train(resnet20(), data, epochs=EPOCHS, batch_size=64, learning_rate=0.08, checkpoint=checkpoint, progress=show)
    save_file({name: value.contiguous() for name, value in done.model.state_dict().items()}, WEIGHTS)
    report(data)


def report(data: ew.tasks.ImageClassification) -> None:
    """Accuracy of the weights on disk, on validation and test."""
    module = ew.models.intake("edgewise.models.resnet:resnet20", weights=WEIGHTS).module
    graph = ew.export.export(module, data.example_inputs(2))
    runner = load(graph.to_bytes(), ew.Execution("onnxruntime"))
    data = data.for_model(graph.signature).unsealed()
    result = {}
    for name in ("validation", "test"):
        found = measure.quality(runner, data.split(name), metric="accuracy", labels=data.labels).value
        result[name] = {"accuracy": found.value, "low": found.low, "high": found.high, "n": found.n}
        print(f"{name}: {found.value:.2%} [{found.low:.2%}, {found.high:.2%}], n={found.n}")
    record("fashion-train", {"bar": "test accuracy at least 93.0 %", "met": result["test"]["accuracy"] >= 0.93, **result})


if __name__ == "__main__":
    report(task()) if sys.argv[1:] == ["--report"] else main()
