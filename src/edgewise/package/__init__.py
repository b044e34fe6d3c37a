"""The package: one `.edgew` file that holds a model, how to feed it, where it came from and what it measured.

`build` makes one, `save` writes it, `open` verifies and maps it; `recode` codes its weights otherwise, `restate` gives it other figures.
The format is on one screen: docs/format.md.
"""

from edgewise.package.build import Form, build, recode, restate
from edgewise.package.coded import Coders, coder_of
from edgewise.package.file import open, save
from edgewise.package.limits import Limits
from edgewise.package.manifest import Entry, Manifest, Measured, Member, Provenance, Tensor, stored_bytes
from edgewise.package.package import Package

__all__ = [
    "Coders", "Entry", "Form", "Limits", "Manifest", "Measured", "Member", "Package", "Provenance", "Tensor", "build", "coder_of",
    "open", "recode", "restate", "save", "stored_bytes",
]  # fmt: skip
