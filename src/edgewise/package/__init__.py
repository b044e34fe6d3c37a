"""The package: one `.edgew` file that holds a model, how to feed it, where it came from and what it measured.

`build` makes one, `save` writes it, `open` verifies and maps it. `Trust` says whose signature counts; `diff` and `patch` bring an old one up to
date. The formats are in docs/format.md.
"""

from edgewise.package.build import Form, build
from edgewise.package.file import open, save
from edgewise.package.limits import Limits
from edgewise.package.manifest import Entry, Manifest, Measured, Member, Provenance, Tensor
from edgewise.package.package import Package
from edgewise.package.signing import Trust

__all__ = ["Entry", "Form", "Limits", "Manifest", "Measured", "Member", "Package", "Provenance", "Tensor", "Trust", "build", "open", "save"]
