"""MiniLM's tables of words in fewer bits, nothing else rounded: accuracy on the validation sentences, bytes in a package.

    EDGEWISE_DATA=… python benchmarks/sst2/tables.py [--bits 8,6,5,4,3,2] [--work out/sst2]

The model that train.py made. Nothing is trained, and test sentences aren't read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from common import record, told
from train import WORK, right, task, tuned

from edgewise import package
from edgewise.compress.quantize.tables import tables, with_tables
from edgewise.data import metrics
from edgewise.graph import Graph
from edgewise.search.origin import dense_of
from edgewise.types import Compressed


def coded_bytes(graph: Graph, names: set[str]) -> int:
    """Of the tables and their scales, where a package holds them."""
    rows = package.build(graph, created="").manifest.entry("main").tensors
    return sum(row.length for row in rows if row.name.removesuffix("_quantized").removesuffix("_scale") in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", default="8,6,5,4,3,2")
    parser.add_argument("--work", type=Path, default=WORK)
    given = parser.parse_args()
    data = task()
    _, dense = dense_of(tuned(given.work), data, None)
    known = data.for_model(dense.signature)
    names = set(tables(dense).values())
    before = right(dense, known, "validation")
    print(f"float: {before.value.value:.2%} of {before.value.n}, {coded_bytes(dense, names):,} bytes")
    rows = []
    for bits in map(int, given.bits.split(",")):
        graph = with_tables(Compressed(dense, (), {}, ()), (), bits).model
        found, held = right(graph, known, "validation"), coded_bytes(graph, names)
        drop = metrics.paired(before, found).difference
        rows.append({"bits": bits, "accuracy": told(found.value, 100), "points": told(drop, 100), "coded_bytes": held})
        print(f"{bits} bits: {found.value.value:.2%}, {100 * drop.value:+.2f} points, {held:,} bytes", flush=True)
    record("sst2-tables", {"float": told(before.value, 100), "rows": rows})


if __name__ == "__main__":
    main()
