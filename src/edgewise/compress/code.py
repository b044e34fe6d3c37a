"""The pass `code`: a package in fewer bytes, its weights the same to the bit (see `edgewise.coding`)."""

from __future__ import annotations

from edgewise import package
from edgewise.errors import InvalidInput
from edgewise.package import Coders, Package, Profile
from edgewise.types import Compressed


def code(model: Package, *, coders: Coders = "all", profile: Profile = "full") -> Compressed:
    """Weights and graph coded by whatever makes each smallest; a package that no `code` has seen is coded by the "fast" ones.

    coders: "all", "fast", or "none", which stores weights as they are (see `package.build`). Changes neither answers nor time per answer;
    what is smaller takes longer to load. profile: "minimal" is for very small models: names, provenance and measured figures stay out of
    the file (docs/format.md), and all coders are used.
    """
    if profile not in ("full", "minimal"):
        raise InvalidInput(f"profile={profile!r} isn't known; give 'full' or 'minimal'")
    rows = model.manifest.entry("main").tensors
    raw = sum(package.stored_bytes(row.dtype, row.shape) for row in rows)
    if profile == "minimal":
        small = package.compacted(model)
        note = f"the minimal profile takes {small.size_bytes:,} bytes with its graph, for weights of {raw:,}; lossless, and no faster"
        return Compressed(small, tuple(row.name for row in rows), {}, (note,))
    done = package.recode(model, coders=coders)
    rows = done.manifest.entry("main").tensors
    touched = tuple(row.name for row in rows if row.coding == "coded")
    why = 'coders="none"' if coders == "none" else "no coder makes it smaller"
    note = f"weights take {sum(row.length for row in rows):,} bytes in the package, of {raw:,}; lossless, and no faster"
    return Compressed(done, touched, {row.name: why for row in rows if row.coding == "raw"}, (note,))
