"""The smallest LeNets: `penalize` to so many bytes, packed in the minimal profile, signed, and scored from that file in a fresh process.

    EDGEWISE_DATA=… python benchmarks/lenet/smallest.py [lenet-5:950 …] [--seeds 3] [--work out/lenet]

From the dense nets of `train.py`. Teachers are they, or a dense net of the same shape that was trained on moved pictures. Of each target
and seed: the bytes of all coded weights as they stand in the file (steps, biases and layouts included), the bytes of the file (graph,
labels, preprocessing, signature, hash), and the error on the 5,000 validation images. Sizes and epochs are set beforehand; bars are of the
means over the seeds. Once all are made, each file answers the test images, once, beside the dense net. Interrupted, every training goes on
where it stopped, and what is done isn't done again. --tiny: two epochs each, to see that it runs; nothing is recorded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from common import record, told
from deep_compression import CREATED, answered
from nets import NETS
from safetensors.torch import load_file, save_file
from torch import nn
from train import LEARNING_RATE, WORK, dense, reporter, right, task

import edgewise as ew
from edgewise import package
from edgewise.compress.rate.penalize import penalize
from edgewise.data import metrics
from edgewise.graph import fold
from edgewise.models.network import Network
from edgewise.package import minimal, signing
from edgewise.records import Quality
from edgewise.search.store import write
from edgewise.train import train


@dataclass(frozen=True)
class Target:
    """size: what `penalize` is asked for. The bars: mean bytes of weights and file, and mean validation error in percent.

    shifted: pixels that the pictures were moved by at most on which the dense net was trained that is the teacher; 0: the dense net itself.
    """

    net: str
    size: int
    epochs: int
    weights_bar: int
    file_bar: int
    error_bar: float
    learning_rate: float = 2e-3
    shifted: int = 0


TEACHER_EPOCHS = 30
SPLITS: tuple[Literal["validation", "test"], ...] = ("validation", "test")
TARGETS = {
    "lenet-5:950": Target("lenet-5", 950, 50, 950, 1_600, 1.0, learning_rate=4e-3, shifted=2),
    "lenet-5:1500": Target("lenet-5", 1_500, 50, 1_500, 2_200, 0.8, learning_rate=4e-3, shifted=2),
    "lenet-300-100:2200": Target("lenet-300-100", 2_200, 60, 2_200, 2_800, 1.7, shifted=1),
}


def teacher(target: Target, whole: Network, data: ew.tasks.ImageClassification, work: Path) -> nn.Module:
    """What answers for the pictures beside their labels."""
    if not target.shifted:
        return whole
    path = work / f"{target.net}-shifted-{target.shifted}.safetensors"
    torch.manual_seed(0)
    net = NETS[target.net]().eval()
    if path.exists():
        net.load_state_dict(load_file(path))
        return net
    done = train(
        net,
        replace(data, shift=target.shifted),
        epochs=TEACHER_EPOCHS,
        batch_size=128,
        learning_rate=LEARNING_RATE[target.net],
        checkpoint=work / f"{target.net}-shifted-{target.shifted}",
        progress=reporter(f"{target.net}, teacher"),
    )
    save_file({key: value.contiguous() for key, value in done.model.state_dict().items()}, path)
    return done.model


def made(name: str, target: Target, seed: int, epochs: int, whole: Network, data: ew.tasks.ImageClassification, work: Path) -> Path:
    """The signed file of one training, and beside it what is known of it."""
    place = work / "smallest" / f"{name.replace(':', '-')}-{epochs}-{seed}"
    path = place / "small.edgew"
    if path.exists():
        return path
    began = time.monotonic()
    done = penalize(
        whole,
        task=data,
        size_bytes=target.size,
        teacher=teacher(target, whole, data, work),
        epochs=epochs,
        learning_rate=target.learning_rate,
        seed=seed,
        checkpoint=place / "training",
        progress=reporter(f"{name}, seed {seed}"),
    )
    built = package.build(
        fold(done.model.to_graph()), created=CREATED, preprocess=data.preprocess, postprocess=data.postprocess, labels=data.labels
    )
    key = place / "key.pem"
    signing.write_pair(key, force=True)
    built.save(place / "unsigned.edgew", profile="minimal")
    signed = signing.sign(package.open(place / "unsigned.edgew"), signing.private_key(key))
    facts = {
        "weights_bytes": len(minimal.sections(built).weights),
        "shapes": [list(weight.shape) for weight in done.model.weights().values()],
        "nonzero": sum(int(np.count_nonzero(weight.detach().numpy())) for weight in done.model.weights().values()),
        "minutes_of_last_call": round((time.monotonic() - began) / 60, 1),
    }
    write(place / "facts.json", json.dumps(facts).encode())
    signed.save(path, profile="minimal")
    return path


def opened(path: Path) -> package.Package:
    """The package, which the key beside it signed."""
    found = package.open(path)
    signing.require(found, signing.trusted(path.with_name("key.pub")))
    return found


def scored(path: Path, split: str) -> np.ndarray:
    """(samples,) 1 where the file answers right, 0 where not, by a process of its own."""
    line = [sys.executable, __file__, "--score", str(path), split]
    subprocess.run(line, check=True, timeout=600)
    return np.load(path.with_name(f"{split}.npy"))


def score(path: Path, split: str) -> None:
    found = opened(path)
    data = task().for_model(found.graph().signature)
    quality = answered(found.graph(), data.unsealed() if split == "test" else data, split)
    np.save(path.with_name(f"{split}.npy"), np.asarray(quality.scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=[*TARGETS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--score", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.score:
        score(Path(given.score[0]), given.score[1])
        return
    names = given.targets
    if unknown := [name for name in names if name not in TARGETS]:
        raise SystemExit(f"{', '.join(unknown)}: give some of {', '.join(TARGETS)}")
    data = task()
    files: dict[str, list[Path]] = {}
    wholes: dict[str, Network] = {}
    for name in names:
        target = TARGETS[name]
        if target.net not in wholes:
            wholes[target.net] = Network(ew.export.export(dense(target.net, data, given.work), data.example_inputs(2), norms=True))
        whole = wholes[target.net]
        known = data.for_model(whole.structure.signature)
        for seed in range(given.seeds):
            path = made(name, target, seed, 2 if given.tiny else target.epochs, whole, known, given.work)
            files.setdefault(name, []).append(path)
            print(f"{name}, seed {seed}: {figures(path)}", flush=True)
    rows = {}
    for name in names:
        whole = wholes[TARGETS[name].net]
        known = data.for_model(whole.structure.signature)
        reference = {split: answered(fold(whole.to_graph()), known.unsealed() if split == "test" else known, split) for split in SPLITS}
        print(f"{name}: dense {1 - right(whole, known):.2%} validation error")
        rows[name] = row(TARGETS[name], files[name], reference)
    if not given.tiny:
        record("smallest-lenet", {"seeds": given.seeds, "targets": rows})


def figures(path: Path) -> dict[str, Any]:
    """Of a file: its bytes, those of its weights, and its validation error."""
    facts = json.loads(path.with_name("facts.json").read_text())
    return {
        **facts,
        "file_bytes": path.stat().st_size,
        "validation_error_percent": round(100 * float(1 - scored(path, "validation").mean()), 3),
    }


def row(target: Target, paths: list[Path], reference: dict[str, Quality]) -> dict[str, Any]:
    """All seeds of a target, and their means against the bars."""
    seeds = []
    for path in paths:
        test = scored(path, "test")
        gap = metrics.paired(reference["test"], replace(reference["test"], scores=tuple(test.tolist()))).difference
        seeds.append(
            {**figures(path), "test_error_percent": round(100 * float(1 - test.mean()), 3), "test_difference_points": told(gap, 100)}
        )
    keys = ("weights_bytes", "file_bytes", "validation_error_percent", "test_error_percent")
    mean = {key: round(float(np.mean([one[key] for one in seeds])), 3) for key in keys}
    bars = {"weights_bytes": target.weights_bar, "file_bytes": target.file_bar, "validation_error_percent": target.error_bar}
    result = {
        "asked_bytes": target.size,
        "epochs": target.epochs,
        "dense_error_percent": {split: round(100 * (1 - quality.value.value), 3) for split, quality in reference.items()},
        "seeds": seeds,
        "mean": mean,
        "bars_of_means": bars,
        "met": all(mean[key] <= bar for key, bar in bars.items()),
    }
    print(f"  mean of {len(seeds)}: {mean}; bars {bars}; met: {result['met']}")
    return result


if __name__ == "__main__":
    main()
