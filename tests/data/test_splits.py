"""Splits by content: equal samples on one side, shares as asked, nothing moved by order or company."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edgewise.data.splits import assign, digest
from edgewise.errors import InvalidInput

DIGESTS = [hashlib.sha256(str(i).encode()).digest() for i in range(4000)]
SHARES = {"test": 0.15, "validation": 0.1}


def test_everything_lands_once_and_in_about_its_share() -> None:
    parts = assign(DIGESTS, fractions=SHARES)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(4000))
    for name, share in SHARES.items():
        assert abs(len(parts[name]) - 4000 * share) < 4 * np.sqrt(4000 * share * (1 - share))


def test_a_place_depends_on_content_and_seed_alone() -> None:
    whole, some = assign(DIGESTS, fractions=SHARES), assign(DIGESTS[:1000] * 2, fractions=SHARES)
    for name, indices in some.items():
        first = [i for i in whole[name] if i < 1000]
        assert indices.tolist() == first + [i + 1000 for i in first]
    assert not np.array_equal(whole["test"], assign(DIGESTS, fractions=SHARES, seed=1)["test"])


def test_shares_must_leave_something() -> None:
    for wrong in ({"test": 0.6, "validation": 0.4}, {"test": -0.1}):
        with pytest.raises(InvalidInput, match="add up"):
            assign(DIGESTS, fractions=wrong)


def test_a_digest_covers_shape_and_content() -> None:
    flat = np.arange(12, dtype=np.uint8)
    assert (
        len({digest(flat), digest(flat.reshape(3, 4)), digest(flat.reshape(4, 3)), digest(flat[::-1]), digest(flat.astype(np.int8))}) == 5
    )
    assert digest(flat.reshape(3, 4).T) == digest(np.ascontiguousarray(flat.reshape(3, 4).T))
