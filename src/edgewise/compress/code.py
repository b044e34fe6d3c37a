"""The pass `code`: a package's weights in fewer bytes, the same to the bit (see `edgewise.coding`)."""

from __future__ import annotations

from edgewise import package
from edgewise.package import Coders, Package
from edgewise.types import Compressed


def code(model: Package, *, coders: Coders = "all") -> Compressed:
    """Weights and graph coded by whatever makes each smallest; a package that no `code` has seen is coded by the "fast" ones.

    coders: "all", "fast", or "none", which stores weights as they are (see `package.build`). Changes neither answers nor time per answer;
    what is smaller takes longer to load.
    """
    done = package.recode(model, coders=coders)
    rows = done.manifest.entry("main").tensors
    touched = tuple(row.name for row in rows if row.coding == "coded")
    why = 'coders="none"' if coders == "none" else "no coder makes it smaller"
    raw = sum(package.stored_bytes(row.dtype, row.shape) for row in rows)
    note = f"weights take {sum(row.length for row in rows):,} bytes in the package, of {raw:,}; lossless, and no faster"
    return Compressed(done, touched, {row.name: why for row in rows if row.coding == "raw"}, (note,))
