"""Odd texts: 10,000 strings of random Unicode, empty ones, and ones of 100 kB: the same answer on every engine, or a clear error.

    EDGEWISE_DATA=… python benchmarks/sst2/odd.py [PACKAGE.edgew …] [--texts 10000] [--work out/sst2]

Packages go through what `edgewise run` does with texts: the tokenizer in the package, windows for long texts, row by row. Left out: the
model that train.py made, packed in fp32 and in int8. On each engine the package's divergence from the first engine, on the validation
sentences, is what an odd text's is held against: relative L2 over all logits, and the share of texts with the same answer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from common import record
from train import WORK, task, tuned

from edgewise import backends, measure, package
from edgewise.cli import texts as shown
from edgewise.compress.quantize import quantize
from edgewise.data.text import windows
from edgewise.errors import InvalidData
from edgewise.package import Package
from edgewise.search.origin import dense_of
from edgewise.types import Execution

LONG = 100_000  # bytes
CREATED = "2026-01-01T00:00:00Z"
# Planes that hold letters, marks, emoji and private use, without surrogates.
RANGES = (
    (0x00, 0x7F),
    (0x80, 0x24F),
    (0x300, 0x36F),
    (0x370, 0x1FFF),
    (0x2000, 0x2BFF),
    (0x3000, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xE000, 0xFFFD),
    (0x10000, 0x1FAFF),
    (0x20000, 0x2FA1F),
    (0xE0000, 0xE01EF),
)


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Of 0 to 60 characters, each text from some of the ranges, with spaces here and there."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        chosen = [RANGES[i] for i in random.choice(len(RANGES), random.integers(1, 4), replace=False)]
        points = [int(random.integers(*chosen[random.integers(len(chosen))], endpoint=True)) for _ in range(random.integers(0, 61))]
        found.append("".join(" " if random.random() < 0.15 else chr(point) for point in points))
    return found


def edge_texts(seed: int = 1) -> list[str]:
    """Empty and blank ones, controls, and 100 kB of words, of one letter, of nothing between, and of random characters."""
    random = np.random.default_rng(seed)
    words = " ".join(f"w{int(number)}" for number in random.integers(0, 1000, LONG))
    mixed = "".join(random_texts(LONG // 20, seed))
    return [
        "",
        " ",
        "\n\t\r",
        "\0",
        "\ufeff",
        "\u200b" * 20,
        "\u202e abc",
        "[SEP] [CLS] [PAD]",
        words[:LONG],
        "a" * LONG,
        " " * LONG,
        "é" * (LONG // 2),
        mixed[:LONG],
    ]


def answered(found: Package, execution: Execution, texts: Sequence[str]) -> np.ndarray:
    """(texts, classes) logits, as `edgewise run` gets them."""
    runner = backends.load(found.model_bytes(), execution)
    try:
        told = shown.answers(runner, shown.encoder_of(found), texts, "\t")
        return windows.mean(told.rows, told.outputs, len(texts))
    finally:
        runner.close()


def packed(work: Path) -> dict[str, Package]:
    """The dense model, and the same in int8."""
    data = task(calibration=128)
    _, dense = dense_of(tuned(work), data, None)
    known = data.for_model(dense.signature)
    graphs = {"fp32": dense, "int8": quantize(dense, calibration=known.calibration()).model}
    return {
        name: package.build(graph, created=CREATED, preprocess=known.preprocess, postprocess=known.postprocess, files=known.files)
        for name, graph in graphs.items()
    }


def refused(found: Package, texts: Sequence[str]) -> dict[int, str]:
    """The errors of those that no row comes of, by their places."""
    encoder, errors = shown.encoder_of(found), {}
    for place, text in enumerate(texts):
        try:
            encoder.rows([text])
        except InvalidData as error:
            errors[place] = str(error)
    return errors


def row(name: str, found: Package, texts: list[str], plain: list[str]) -> dict[str, Any]:
    # Engines with a form of their own run it where a package holds it, as those that `fit` makes for them do.
    first, *others = [Execution(engine) for engine in backends.installed() if engine in backends.taking() or found.forms(engine)]
    began = time.perf_counter()
    errors = refused(found, texts)
    left = [text for place, text in enumerate(texts) if place not in errors]
    reference = {"odd": answered(found, first, left), "plain": answered(found, first, plain)}
    engines: dict[str, dict[str, Any]] = {}
    for execution in others:
        there = {"odd": answered(found, execution, left), "plain": answered(found, execution, plain)}
        engines[str(execution)] = {
            kind: {
                "divergence": measure.divergence(reference[kind], there[kind]),
                "same_answer": float((reference[kind].argmax(1) == there[kind].argmax(1)).mean()),
                "largest": float(np.abs(reference[kind] - there[kind]).max()),
            }
            for kind in there
        } | {"finite": bool(np.isfinite(there["odd"]).all())}
    seconds = time.perf_counter() - began
    print(f"{name}: {len(left)} texts answered, {len(errors)} refused, {seconds:.0f} s", flush=True)
    for other, told in engines.items():
        print(f"  {other} beside {first}: {told}", flush=True)
    return {
        "package": name,
        "reference": str(first),
        "answered": len(left),
        "refused": len(errors),
        "errors": sorted({said.split("(")[0] for said in errors.values()}),
        "engines": engines,
        "met": all(each["finite"] and each["odd"]["divergence"] <= max(2 * each["plain"]["divergence"], 1e-4) for each in engines.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", type=Path)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    packages = {path.parent.name: package.open(path) for path in given.packages} or packed(given.work)
    texts = [*edge_texts(), *random_texts(given.texts)]
    split = task().split("validation")
    plain = [str(text) for text in split.texts.dataset.texts(split.indices)]
    rows = [row(name, found, texts, plain) for name, found in packages.items()]
    bar = "the same answer on every engine within twice the divergence of plain sentences, or the same clear error"
    record("sst2-odd", {"texts": len(texts), "bar": bar, "packages": rows, "met": all(each["met"] for each in rows)})


if __name__ == "__main__":
    main()
