"""MiniLM as a sentence encoder, six times as fast: distilled on SST-2's sentences without labels, by the cosine to the model as it came.

    EDGEWISE_DATA=… python benchmarks/sst2/embeddings.py [--speedup 6] [--epochs 3] [--seed 0] [--work out/sst2]

The published encoder is its own teacher. The verdict is on the 2,693 sentences of dev and test, which nothing was trained on or chosen by.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from common import record, told
from contenders import show
from train import TOKENS, WORK, data, pretrained

import edgewise as ew

BAR = 0.97


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedup", type=float, default=6.0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    task = ew.tasks.sentence_embedding(data(), tokenizer=pretrained(), as_test=("dev", "test"), tokens=TOKENS)
    budget = ew.Budget(speedup=given.speedup, max_drop=1 - BAR)
    folder = given.work / f"embeddings-{given.speedup:g}-{given.epochs}-{given.seed}"
    result = ew.fit(
        pretrained(), task, budget=budget, threads=1, out=folder, epochs=given.epochs, seed=given.seed, table_seconds=240, progress=show
    )
    study, verdict = result.study, result.study.verdict
    if verdict is None or verdict.quality is None or verdict.measurement is None:
        raise SystemExit("a study without a verdict")
    print(verdict.summary)
    fast = all(one.ratio.value >= 0.98 * given.speedup for one in verdict.shapes)
    record(
        "sst2-embeddings",
        {
            "asked": given.speedup,
            "epochs": given.epochs,
            "tokens": TOKENS,
            "speedups": [told(one.ratio) for one in verdict.shapes],
            "cosine": told(verdict.quality.value, digits=4),
            "size_bytes": verdict.measurement.size_bytes,
            "execution": str(study.trial(verdict.trial).execution),
            "recipe": study.trial(verdict.trial).recipe,
            "seconds": round(study.seconds),
            "bar": f"{given.speedup:g}x at both lengths, mean cosine to the teacher {BAR} on texts that were not trained on",
            "met": fast and verdict.quality.value.value >= BAR,
        },
    )


if __name__ == "__main__":
    main()
