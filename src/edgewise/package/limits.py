"""How much a package may ask for before it is refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Upper bounds that `open` and `Package.model_bytes` hold a file to. Raise one to read a larger package that you trust.

    `model_bytes` is what one entry's model may grow to in memory (2 GB is also the most that one ONNX message can hold). `graph_bytes`
    is small because parsing protobuf may take tens of times the bytes that it reads; large weights lie in another member. `attached_bytes`
    is for a member that is no graph and holds no weights, such as a tokenizer. `minimal_bytes`
    is what a file of the minimal profile, which is read whole, may have and may unfold to. What is coded may unfold to `unfolded_bytes` in
    any case, and beyond that to `expansion` times its bytes in the file: a small file must not cost minutes and gigabytes.
    """

    file_bytes: int = 16 * 2**30
    manifest_bytes: int = 4 * 2**20
    graph_bytes: int = 8 * 2**20
    attached_bytes: int = 64 * 2**20
    model_bytes: int = 2**31 - 1
    minimal_bytes: int = 4 * 2**20
    unfolded_bytes: int = 64 * 2**20
    expansion: int = 4096
    members: int = 256
    entries: int = 256
    tensors: int = 65_536
    axes: int = 32

    def allow(self, unfolded: int, stored: int) -> bool:
        """Whether `stored` bytes of a file may stand for so many."""
        return unfolded <= max(self.unfolded_bytes, self.expansion * stored)
