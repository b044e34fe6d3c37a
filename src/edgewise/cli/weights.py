"""How the weights of a package are stored, as tables: what `pack` and `inspect` show."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from edgewise.package import Entry, Package, Tensor


def coder(package: Package, tensor: Tensor) -> str:
    """The coder of a tensor; "raw" for one that is as it was; "?" where its data is damaged."""
    from edgewise.errors import InvalidInput
    from edgewise.package import coder_of

    if tensor.coding == "raw":
        return "raw"
    try:
        return coder_of(package.stored(tensor))
    except InvalidInput:
        return "?"


def rows(package: Package, entry: Entry) -> list[dict[str, Any]]:
    """A record for each weight that has a place of its own: name, dtype, shape, coder, bytes in the model and in the file."""
    from edgewise.package import stored_bytes

    return [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "coder": coder(package, tensor),
            "raw_bytes": stored_bytes(tensor.dtype, tensor.shape),
            "stored_bytes": tensor.length,
        }
        for tensor in entry.tensors
    ]


def by_coder(package: Package) -> tuple[int, int, Table]:
    """Bytes of the main entry's weights as they were and as they are stored, and a table of both by coder, the largest first."""
    from edgewise.cli.terminal import listing
    from edgewise.report import numbers

    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows(package, package.manifest.entry("main")):
        grouped[row["coder"]].append(row)
    sums = {name: (len(of), sum(row["raw_bytes"] for row in of), sum(row["stored_bytes"] for row in of)) for name, of in grouped.items()}
    table = listing("coder", "tensors", "before", "after", "ratio", right=("tensors", "before", "after", "ratio"))
    for name, (count, raw, stored) in sorted(sums.items(), key=lambda item: -item[1][1]):
        table.add_row(name, numbers.count(count), numbers.size(raw), numbers.size(stored), numbers.times(raw / stored))
    return sum(raw for _, raw, _ in sums.values()), sum(stored for _, _, stored in sums.values()), table


def by_tensor(package: Package, entry: Entry, most: int) -> tuple[Table, int]:
    """A table of the entry's largest weights, and how many are not in it."""
    from edgewise.cli.terminal import clean, listing
    from edgewise.report import numbers

    every = sorted(rows(package, entry), key=lambda row: -row["stored_bytes"])
    table = listing("tensor", "shape", "coder", "before", "after", right=("before", "after"))
    for row in every[:most]:
        shape = f"{row['dtype']} {'×'.join(map(str, row['shape']))}"
        sizes = numbers.size(row["raw_bytes"]), numbers.size(row["stored_bytes"])
        table.add_row(clean(row["name"], 24), clean(shape, 24), row["coder"], *sizes)
    return table, len(every) - min(len(every), most)
