"""edgewise.coding on one core: bytes against the empirical entropy, millions of symbols a second, beside constriction and zstd.

python benchmarks/coding.py [--symbols N] [--rounds N]

Symbols are int8: from a rounded normal distribution whose entropy is 7.8, 4 or 1 bits, and a matrix with dead rows and columns. (8 bits of
entropy in 8 bits are noise, which every coder stores as it is.) Each round runs every coder once, in turn; speeds are medians of rounds
with their 95 % intervals. Times are those of `encode` and `decode` whole: the choice of the table, copies and all. constriction 0.5 gets
the empirical distribution without having to store it; it and zstandard are left out where they aren't installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from common import record, told

from edgewise import coding
from edgewise.measure.statistics import median_interval

OURS = ("rans", "huffman", "adaptive", "mixing", "packed")


@dataclass
class Contender:
    """encode: () -> what decode takes; size: bytes of that."""

    encode: Callable[[], Any]
    decode: Callable[[Any], Any]
    size: Callable[[Any], int] = len
    encoding: list[float] = field(default_factory=list)
    decoding: list[float] = field(default_factory=list)


def data(symbols: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    side = int(symbols**0.5)
    drawn = {}
    for bits, sigma in (("8 bits", 62.0), ("4 bits", 3.87), ("1 bit", 0.407)):
        drawn[bits] = np.rint(random.normal(0, sigma, (side, side))).clip(-128, 127).astype(np.int8)
    alive = (random.random(side) < 0.3) & (random.random((side, 1)) < 0.3)
    drawn["dead rows and columns"] = np.where(alive, drawn["4 bits"], 0).astype(np.int8)
    return drawn


def ours(values: np.ndarray, name: str) -> Contender:
    return Contender(partial(coding.encode, values, coders={name}), lambda blob: coding.decode(blob, values.shape, values.dtype))


def constriction_ans(values: np.ndarray) -> Contender | None:
    try:
        import constriction
    except ImportError:
        return None
    symbols = values.ravel().astype(np.int32) - int(values.min())
    model = constriction.stream.model.Categorical(np.bincount(symbols) / symbols.size, perfect=False)

    def encode() -> np.ndarray:
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(symbols, model)
        return coder.get_compressed()

    def decode(words: np.ndarray) -> np.ndarray:
        return constriction.stream.stack.AnsCoder(words).decode(model, symbols.size)

    return Contender(encode, decode, lambda words: words.nbytes)


def general(values: np.ndarray) -> dict[str, Contender]:
    raw = values.tobytes()
    try:
        import zstandard
    except ImportError:
        return {"zlib 6": Contender(partial(zlib.compress, raw, 6), zlib.decompress)}
    unpack = zstandard.ZstdDecompressor().decompress
    levels = {level: zstandard.ZstdCompressor(level=level) for level in (3, 19)}
    return {f"zstd {level}": Contender(partial(packer.compress, raw), unpack) for level, packer in levels.items()}


def entropy_bytes(values: np.ndarray) -> float:
    counts = np.unique(values, return_counts=True)[1]
    return float((counts * np.log2(counts.sum() / counts)).sum() / 8)


def race(values: np.ndarray, rounds: int) -> dict[str, Any]:
    contenders = {name: ours(values, name) for name in OURS}
    if (peer := constriction_ans(values)) is not None:
        contenders["constriction ANS"] = peer
    contenders |= general(values)
    blobs = {name: each.encode() for name, each in contenders.items()}
    for turn in range(rounds):
        for name, each in contenders.items():
            began = time.perf_counter()
            each.decode(blobs[name])
            each.decoding.append(time.perf_counter() - began)
            # A dozen seconds a call would leave no time for rounds; speeds of encoding need fewer.
            if turn < 7 and name != "zstd 19":
                began = time.perf_counter()
                each.encode()
                each.encoding.append(time.perf_counter() - began)
    bound = entropy_bytes(values)
    return {
        name: {
            "bytes": each.size(blobs[name]),
            "over_entropy": round(each.size(blobs[name]) / bound - 1, 5),
            "decode_msymbols_s": told(median_interval([values.size / seconds / 1e6 for seconds in each.decoding]), digits=1),
            "encode_msymbols_s": told(median_interval([values.size / seconds / 1e6 for seconds in each.encoding]), digits=1)
            if each.encoding
            else None,
        }
        for name, each in contenders.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--symbols", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results = {}
    for name, values in data(given.symbols).items():
        results[name] = {"entropy_bits": round(8 * entropy_bytes(values) / values.size, 4), "coders": race(values, given.rounds)}
        print(f"{name}: {results[name]['entropy_bits']} bits a symbol, n={given.rounds}")
        for coder, row in results[name]["coders"].items():
            encoding = row["encode_msymbols_s"]["value"] if row["encode_msymbols_s"] else float("nan")
            speed = row["decode_msymbols_s"]
            print(
                f"  {coder:17s} {row['bytes']:9,} bytes  {100 * row['over_entropy']:+8.3f} %   decode {speed['value']:7.1f} "
                f"[{speed['low']:.1f}, {speed['high']:.1f}]   encode {encoding:7.1f} M/s"
            )
    bars = "rANS decoding >= 250 M symbols/s on one core and within 0.1 % of the entropy at 8 bits; adaptive coder >= 12 M symbols/s"
    record("coding", {"bar": bars, "implementation": coding.implementation(), "symbols": given.symbols, "data": results})


if __name__ == "__main__":
    main()
