"""The bytes of a package's members while it is built: weights one after the other, and members one after the other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewise.package import coded
from edgewise.package.limits import Limits
from edgewise.package.manifest import Member, Tensor, aligned
from edgewise.package.weights import Weight


@dataclass(frozen=True)
class _Place:
    offset: int
    length: int
    coding: str


class Pool:
    """The weights of all entries, one after the other; what an earlier entry holds already is not stored again.

    Raw ones are 64-byte aligned, for whoever maps them; coded ones are read by a decoder, and follow without a gap.
    """

    def __init__(self, coders: coded.Coders) -> None:
        self.pieces: list[bytes] = []
        self.end = 0
        self.coders = coders
        self._known: dict[tuple[str, str, tuple[int, ...]], _Place] = {}

    def add(self, taken: Sequence[Weight]) -> tuple[Tensor, ...]:
        # An entry's own rows never overlap (`check` says why), so only entries before this one are looked through.
        known = dict(self._known)
        elements = sum(math.prod(weight.shape) for weight in taken)
        coders, least = coded.chosen(self.coders, elements), coded.least_saved(self.coders, elements)
        # (A coder sees rows and columns: the same bytes in another shape are coded otherwise.)
        keys = [(hashlib.sha256(weight.data).hexdigest(), weight.dtype, weight.shape) for weight in taken]
        places = [known.pop(key, None) for key in keys]
        blobs = [
            coded.encode_tensor(weight.data, weight.dtype, weight.shape, coders) if place is None else None
            for weight, place in zip(taken, places, strict=True)
        ]
        rows = []
        for weight, key, kept, blob in zip(taken, keys, places, _restrained(taken, blobs), strict=True):
            place = kept or self._store(weight.data, blob if blob is None or len(weight.data) - len(blob) >= least else None)
            self._known.setdefault(key, place)
            rows.append(Tensor(weight.name, weight.dtype, weight.shape, "weights", place.offset, place.length, place.coding))
        return tuple(rows)

    def _store(self, raw: bytes, blob: bytes | None) -> _Place:
        data, offset = (raw, aligned(self.end)) if blob is None else (blob, self.end)
        self.pieces += [bytes(offset - self.end), data]
        self.end = offset + len(data)
        return _Place(offset, len(data), "raw" if blob is None else "coded")

    def joined(self) -> bytes:
        return b"".join(self.pieces)


def _restrained(taken: Sequence[Weight], blobs: Sequence[bytes | None]) -> list[bytes | None]:
    """`blobs` that a reader takes: weights that shrink without measure (hundreds of megabytes of zeros) stay raw, the worst first."""
    kept = list(blobs)
    unfolded = sum(len(weight.data) for weight in taken)
    stored = sum(len(weight.data) if blob is None else len(blob) for weight, blob in zip(taken, kept, strict=True))
    shrunk = [(len(weight.data) / len(blob), i) for i, (weight, blob) in enumerate(zip(taken, blobs, strict=True)) if blob is not None]
    for _, i in sorted(shrunk, reverse=True):
        if Limits().allow(unfolded, stored):
            break
        stored += len(taken[i].data) - len(kept[i] or b"")
        kept[i] = None
    return kept


def placed(members: Mapping[str, bytes], graphs: Mapping[str, bytes]) -> tuple[Member, ...]:
    """graphs: members before they were coded."""
    rows: list[Member] = []
    end = 0
    for name, data in members.items():
        is_coded = name in graphs and data is not graphs[name]
        digest = hashlib.sha256(data).hexdigest()
        rows.append(
            Member(name, aligned(end), len(data), digest, "lzma", len(graphs[name]))
            if is_coded
            else Member(name, aligned(end), len(data), digest)
        )
        end = aligned(end) + len(data)
    return tuple(rows)
