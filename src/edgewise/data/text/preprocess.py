"""What makes a model's input of a text, as data: a package's manifest carries it, and `run` on a device makes the very same numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgewise.errors import InvalidInput

# The member of a package that holds the tokenizer.
TOKENIZER = "tokenizer.json"
MOST_LENGTHS = 16
SHORTEST, LONGEST = 8, 32_768  # tokens of a row: special tokens need room, and attention is quadratic
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TextPreprocess:
    """A text, or a pair of texts -> rows of token ids, one row unless it is longer than `max_length`: then a row for each window.

    tokenizer: SHA-256 of the tokenizer.json that goes with it.
    max_length: most tokens of a row, special ones included. stride: tokens that a window shares with the one before.
    ids, mask, types: the model's names for its inputs, each (batch, tokens); "" for one that it doesn't take. dtype: of them all.
    pad_id: what fills up a row. pad_to: how long every row is made; 0: as long as the longest of its call.
    lengths: rows of a call are made as long as the next of these, so that an engine which compiles for shapes sees few; longer ones than
    the last, and all where there are none, are as long as the longest of their call.
    pair: whether a sample is two texts.
    """

    tokenizer: str
    max_length: int = 512
    stride: int = 128
    ids: str = "input_ids"
    mask: str = "attention_mask"
    types: str = ""
    dtype: Literal["int64", "int32"] = "int64"
    pad_id: int = 0
    pad_to: int = 0
    pair: bool = False
    lengths: tuple[int, ...] = ()
    kind: Literal["text"] = "text"

    def __post_init__(self) -> None:
        # A manifest from elsewhere comes through here too, so everything that allocates or loops is bounded.
        if not _DIGEST.fullmatch(self.tokenizer):
            raise InvalidInput(f"tokenizer={self.tokenizer[:80]!r}: give the SHA-256 of a tokenizer.json, 64 hexadecimal digits")
        if not SHORTEST <= self.max_length <= LONGEST:
            raise InvalidInput(f"max_length={self.max_length}: give the most tokens of a row, from {SHORTEST} to {LONGEST}")
        if not 0 <= self.stride <= self.max_length // 2:
            raise InvalidInput(f"stride={self.stride}: give the tokens that windows share, from 0 to half of max_length={self.max_length}")
        names = [name for name in (self.ids, self.mask, self.types) if name]
        if not self.ids or len(set(names)) != len(names):
            raise InvalidInput(
                f"inputs {self.ids!r}, {self.mask!r}, {self.types!r}: give a name of its own to each, one at least to the ids"
            )
        if self.dtype not in ("int64", "int32"):
            raise InvalidInput(f"dtype={self.dtype!r}: give int64 or int32")
        if not 0 <= self.pad_id < 2**31:
            raise InvalidInput(f"pad_id={self.pad_id}: give the id of the token that fills up, 0 or more")
        if self.pad_to and not self.max_length <= self.pad_to <= LONGEST:
            raise InvalidInput(f"pad_to={self.pad_to}: give 0, or from max_length={self.max_length} to {LONGEST}")

        if self.lengths:
            rising = all(a < b for a, b in zip(self.lengths, self.lengths[1:], strict=False))
            if not rising or not 1 <= self.lengths[0] <= self.lengths[-1] <= self.max_length or len(self.lengths) > MOST_LENGTHS:
                raise InvalidInput(
                    f"lengths={self.lengths}: give up to {MOST_LENGTHS} numbers of tokens, rising, none over max_length={self.max_length}"
                )
            if not self.mask or self.pad_to:
                raise InvalidInput(f"lengths={self.lengths}: only where a mask tells what is filled up, and no pad_to is given")

    def filled(self, longest: int) -> int:
        """How long the rows of a call are made whose longest has so many tokens."""
        return self.pad_to or next((length for length in self.lengths if length >= longest), longest)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's inputs."""
        return tuple(name for name in (self.ids, self.mask, self.types) if name)
