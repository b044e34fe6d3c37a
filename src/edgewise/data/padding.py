"""Padding: positions of a batch that hold no token, so that sentences of different lengths can share a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.types import Inputs, Signature


@dataclass(frozen=True)
class Padding:
    """`mask`: the input, (batch, tokens), that is 1 where a token stands and 0 where none does; None where the model has no such input."""

    mask: str | None = None

    @classmethod
    def of(cls, signature: Signature, samples: Sequence[Inputs]) -> Padding:
        """By the input's name (it has "mask" in it), its rank, and what it holds in the samples."""
        for spec in signature.inputs:
            if "mask" in spec.name.lower() and len(spec.shape) == 2 and all(_marks(np.asarray(s[spec.name])) for s in samples):
                return cls(spec.name)
        return cls()

    def without(self, values: np.ndarray, sample: Mapping[str, np.ndarray]) -> np.ndarray:
        """`values` as (tokens, channels) without padding, where they are (batch, tokens, channels) of this sample; else as they are."""
        if self.mask is None:
            return values
        mask = np.asarray(sample[self.mask])
        if values.ndim != 3 or values.shape[:2] != mask.shape or mask.all():
            return values
        return np.asarray(values[mask.astype(bool)])


def _marks(mask: np.ndarray) -> bool:
    """Zeros and ones, with a one in every row."""
    return bool(np.isin(mask, (0, 1)).all() and mask.any(1).all())
