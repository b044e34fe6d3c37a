"""The trained MiniLM as what it differs by from PyPI's, rounded and coded to less than 2 MB, so that the other scripts can start from it.

    python benchmarks/sst2/kept.py [--work out/sst2]      # after train.py: writes tuned.bin beside this script

Matrices are rounded to multiples of one step (the same distortion everywhere is what costs the fewest bits: reverse water-filling, Cover &
Thomas, 10.3.3), the table of tokens to those of a coarser one, vectors and the new head to finer ones; the step is the smallest whose file
fits. At a bit a weight most of what was learnt rounds to zero, so what is left of a matrix is stretched until it is as long, in the
direction of what was learnt, as before. `restore` is the other way. The model that it gives is not quite the one that was trained: this
prints the accuracy of both, on validation and on test; nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).parents[1]))

import msgspec
import numpy as np
from common import record, told
from safetensors.numpy import load_file, save_file

from edgewise import coding

FILE = Path(__file__).parent / "tuned.bin"
LIMIT = 1_950_000
BETTER = 1.1  # what contexts save over the entropy of each tensor
COARSER, TABLE = 1.5, "word_embeddings"
FINER = 16.0  # of vectors, which are few, and of tensors that the published model hasn't got
SETTINGS = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


class Kept(msgspec.Struct):
    """tensors: name, shape, step as it is stretched, and `coding`'s bytes of int16 multiples. config: the folder's config.json."""

    tensors: list[tuple[str, list[int], float, bytes]]
    config: bytes


def encoded(weights: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray], step: float, config: bytes) -> bytes:
    """weights, base: float32 by name. A tensor that `base` has in no such shape counts from zero."""
    tensors = []
    for name, values in sorted(weights.items()):
        multiples = _multiples(values, name, base, step)
        exact = values - _before(base, name, values.shape)
        along = float((exact * multiples).sum(dtype=np.float64))
        stretched = float((exact * exact).sum(dtype=np.float64)) / along if along else step
        tensors.append((name, list(values.shape), stretched, coding.encode(multiples)))
    return msgspec.msgpack.encode(Kept(tensors, config))


def entropy_bytes(weights: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray], step: float) -> float:
    """What `encoded` comes to, nearly: the entropy of each tensor's multiples."""
    bits = 0.0
    for name, values in weights.items():
        _, counts = np.unique(_multiples(values, name, base, step), return_counts=True)
        bits -= float((counts * np.log2(counts / values.size)).sum())
    return bits / 8


def decoded(data: bytes, base: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights, float32 by name."""
    kept = msgspec.msgpack.decode(data, type=Kept)
    found = {}
    for name, shape, step, blob in kept.tensors:
        multiples = coding.decode(blob, tuple(shape), np.int16).astype(np.float32)
        found[name] = _before(base, name, tuple(shape)) + np.float32(step) * multiples
    return found


def restore(out: Path, published: Path) -> Path:
    """A Hugging Face folder with the trained model, from `FILE` and the published encoder's folder."""
    data = FILE.read_bytes()
    out.mkdir(parents=True, exist_ok=True)
    for name in SETTINGS:
        if (published / name).exists():
            shutil.copy(published / name, out)
    (out / "config.json").write_bytes(msgspec.msgpack.decode(data, type=Kept).config)
    part = out / "model.part"
    save_file(decoded(data, of(published)), part, metadata={"format": "pt"})
    part.replace(out / "model.safetensors")  # last, and whole: where it stands, the folder is
    return out


def of(folder: Path) -> dict[str, np.ndarray]:
    """A folder's weights by name; those of a published encoder as a classifier has them, with its prefix."""
    weights = load_file(folder / "model.safetensors")
    return {name if name.startswith(("bert.", "classifier.")) else f"bert.{name}": values for name, values in weights.items()}


def _multiples(values: np.ndarray, name: str, base: Mapping[str, np.ndarray], step: float) -> np.ndarray:
    exact = (values - _before(base, name, values.shape)) / _step(step, name, values.shape, base)
    return np.clip(np.rint(exact), -32767, 32767).astype(np.int16)


def _before(base: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    known = base.get(name)
    return known.astype(np.float32) if known is not None and known.shape == shape else np.zeros(shape, np.float32)


def _step(step: float, name: str, shape: tuple[int, ...], base: Mapping[str, np.ndarray]) -> float:
    if len(shape) != 2 or name not in base:
        return step / FINER
    return step * COARSER if TABLE in name else step


def main() -> None:
    from train import WORK, pretrained, right, task

    from edgewise.search.origin import dense_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    folder = given.work / "tuned"
    weights, base = {name: values.astype(np.float32) for name, values in of(folder).items() if values.dtype.kind == "f"}, of(pretrained())
    config = (folder / "config.json").read_bytes()
    low, high = 1e-4, 1e-1  # bisected: bytes fall as the step grows
    while high / low > 1.005:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if entropy_bytes(weights, base, middle) <= BETTER * LIMIT else (middle, high)
    data = encoded(weights, base, high, config)
    print(f"step {high:.6f}: {len(data):,} bytes", flush=True)
    if len(data) > LIMIT:
        raise SystemExit(f"over {LIMIT:,} bytes: lower BETTER")
    FILE.write_bytes(data)
    whole = task()
    rows = []
    for name, at in (("trained", folder), ("kept", restore(given.work / "kept", pretrained()))):
        _, dense = dense_of(at, whole, None)
        known = whole.for_model(dense.signature)
        splits: tuple[Literal["validation", "test"], ...] = ("validation", "test")
        for split in splits:
            found = right(dense, known.unsealed() if split == "test" else known, split)
            print(f"{name}: {split} {found.value.value:.2%} of {found.value.n:,} sentences", flush=True)
            rows.append({"model": name, "split": split, "accuracy": told(found.value, 100)})
    record("sst2-kept", {"bytes": len(data), "step": high, "rows": rows})


if __name__ == "__main__":
    main()
