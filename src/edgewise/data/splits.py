"""Which sample belongs to which split, decided by its content.

A sample's place is a hash of its bytes and the seed, so equal samples always fall on one side (a split can't leak), and the order of
files, or a few samples more or less, moves nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from edgewise.errors import InvalidInput


def digest(sample: np.ndarray) -> bytes:
    """SHA-256 over shape, dtype and content of one sample."""
    array = np.ascontiguousarray(sample)
    return hashlib.sha256(f"{array.shape}{array.dtype.str}".encode() + array.tobytes()).digest()


def assign(digests: Sequence[bytes], *, fractions: Mapping[str, float], seed: int = 0, rest: str = "train") -> dict[str, np.ndarray]:
    """Split samples: name -> their indices, ascending.

    digests: one per sample (`digest`). fractions: share per split, in order; what remains is `rest`.
    Shares are met in expectation: the count of a split of share p out of n deviates by about sqrt(n p (1 - p)).
    """
    total = sum(fractions.values())
    if total >= 1 or any(share < 0 for share in fractions.values()):
        raise InvalidInput(f"fractions {dict(fractions)} add up to {total:g}; give shares from 0 that leave something for {rest!r}")
    salt = str(seed).encode()
    place = np.array([int.from_bytes(hashlib.sha256(salt + d).digest()[:8], "big") for d in digests], dtype=np.float64) / 2.0**64
    splits, low = {}, 0.0
    for name, share in fractions.items():
        splits[name] = np.flatnonzero((place >= low) & (place < low + share))
        low += share
    splits[rest] = np.flatnonzero(place >= low)
    return splits
