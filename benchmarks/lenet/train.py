"""Train the dense LeNets on MNIST: what all that makes them small is held against.

    EDGEWISE_DATA=… python benchmarks/lenet/train.py [lenet-300-100] [lenet-5] [--epochs N] [--work out/lenet]

Validation: the last 5,000 training images. No augmentation, as published. Writes NET.safetensors to the work folder; interrupted, it goes
on where it stopped. The test images aren't read here: `deep_compression.py` reads them, once, for the dense net and the small one alike.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from common import mnist
from nets import NETS
from torch import nn

import edgewise as ew
from edgewise.train import Progress, train

WORK = Path("out/lenet")
EPOCHS = {"lenet-300-100": 20, "lenet-5": 12}
LEARNING_RATE = {"lenet-300-100": 0.05, "lenet-5": 0.03}
MEAN, STD = (0.1307,), (0.3081,)  # of the 60,000 training images
TRAIN, VALIDATION = 55_000, 5_000


def task() -> ew.tasks.ImageClassification:
    """MNIST, its last 5,000 training images for validation, whichever near-copies there may be."""
    whole = ew.tasks.image_classification(mnist(), mean=MEAN, std=STD, shift=0)
    data = whole.dataset
    training = np.sort(np.concatenate([data.parts["train"], data.parts["validation"]]))
    parts = {**data.parts, "train": training[:TRAIN], "validation": training[TRAIN:]}
    if len(parts["validation"]) != VALIDATION or len(parts["test"]) != 10_000:
        raise SystemExit(f"{data.name} has {len(training)} training and {len(parts['test'])} test images; MNIST has 60,000 and 10,000")
    parts["calibration"] = np.sort(np.random.default_rng(0).choice(parts["train"], 512, replace=False))
    fingerprint = hashlib.sha256(f"{data.fingerprint} last {VALIDATION}".encode()).hexdigest()
    return replace(whole, dataset=replace(data, parts=parts, fingerprint=fingerprint))


def right(net: nn.Module, data: ew.tasks.ImageClassification, split: str = "validation") -> float:
    """Share of the split's images that are answered right."""
    with torch.no_grad():
        hits = [
            (net(torch.from_numpy(next(iter(inputs.values())))).argmax(1).numpy() == targets).sum()
            for inputs, targets in data.split(split).batches(500)
        ]
    return float(sum(hits)) / len(data.split(split))


def dense(name: str, data: ew.tasks.ImageClassification, work: Path, epochs: int | None = None) -> nn.Module:
    """The trained net: from the work folder, or trained and put there."""
    path = work / f"{name}.safetensors"
    torch.manual_seed(0)
    net = NETS[name]().eval()
    if path.exists():
        net.load_state_dict(load_file(path))
        return net
    span = epochs or EPOCHS[name]
    done = train(
        net,
        data,
        epochs=span,
        batch_size=128,
        learning_rate=LEARNING_RATE[name],
        checkpoint=work / f"{name}-dense-{span}",
        progress=reporter(f"{name}, dense"),
    )
    work.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in done.model.state_dict().items()}, path)
    return done.model


def reporter(what: str, every: float = 20.0):  # type: ignore[no-untyped-def]  # takes what either kind of progress gives
    """Prints where a training or a pass stands, now and then."""
    last = [time.monotonic()]

    def show(at: Progress | str, share: float = 0.0) -> None:
        if time.monotonic() - last[0] > every:
            last[0] = time.monotonic()
            said = at if isinstance(at, str) else f"epoch {at.epoch + 1} of {at.epochs}, loss {at.loss:.4f}"
            print(f"  {what}: {said} ({at.done if isinstance(at, Progress) else share:.0%})", flush=True)

    return show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=[*NETS])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = task()
    for name in given.nets:
        net = dense(name, data, given.work, given.epochs)
        print(f"{name}: {right(net, data):.2%} of {VALIDATION:,} validation images right")


if __name__ == "__main__":
    main()
