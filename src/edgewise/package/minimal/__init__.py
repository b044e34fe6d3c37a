"""The minimal profile: a package of a very small model as the fewest bytes (docs/format.md).

The same `Package` comes out of either profile.
"""

from edgewise.package.minimal.layout import MAGIC, Sections, content_id, signature, sizes, with_signature
from edgewise.package.minimal.profile import compacted, decode, encode, full, sections

__all__ = [
    "MAGIC", "Sections", "compacted", "content_id", "decode", "encode", "full", "sections", "signature", "sizes", "with_signature",
]  # fmt: skip
