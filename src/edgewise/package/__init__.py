"""The package: one `.edgew` file that holds a model, how to feed it, where it came from and what it measured.

`build` makes one, `save` writes it, `open` verifies and maps it; `recode` codes its weights otherwise, `restate` gives it other figures.
`Trust` says whose signature counts; `diff` and `patch` bring an old package up to date. The formats are in docs/format.md.
"""

from edgewise.package.build import Form, OwnForm, build, recode, restate
from edgewise.package.coded import Coders, coder_of
from edgewise.package.file import glance, open, save, to_bytes
from edgewise.package.limits import Limits
from edgewise.package.manifest import Entry, Manifest, Measured, Member, Provenance, Tensor, stored_bytes
from edgewise.package.minimal import compacted
from edgewise.package.package import Package, Profile
from edgewise.package.signing import Trust
from edgewise.package.update import diff, patch

__all__ = [
    "Coders", "Entry", "Form", "Limits", "Manifest", "Measured", "Member", "OwnForm", "Package", "Profile", "Provenance", "Tensor", "Trust",
    "build", "coder_of", "compacted", "diff", "glance", "open", "patch", "recode", "restate", "save", "stored_bytes", "to_bytes",
]  # fmt: skip
