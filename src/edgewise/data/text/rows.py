"""Token ids of many texts, row after row, and how some of them become the inputs of one call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgewise.data.text.preprocess import TextPreprocess
from edgewise.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Rows:
    """Row r is ids[starts[r]:starts[r + 1]], with as many types; sample[r] says which text it came from, ascending.

    ids: (tokens,) int32. types: (tokens,) int8. spans: (tokens, 2) int32, first and last + 1 character of the token in its text, in that
    of a pair that is looked through (the second); −1 for special tokens and for the first text of a pair.
    """

    ids: np.ndarray
    types: np.ndarray
    spans: np.ndarray
    starts: np.ndarray
    sample: np.ndarray

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def span(self, row: int) -> np.ndarray:
        """(tokens, 2) of one row."""
        found: np.ndarray = self.spans[self.starts[row] : self.starts[row + 1]]
        return found

    def of(self, sample: int) -> tuple[np.ndarray, tuple[int, ...]]:
        """`spans` of all rows of a sample, (tokens, 2), and how many tokens each has."""
        first, last = np.searchsorted(self.sample, (sample, sample + 1))
        return self.spans[self.starts[first] : self.starts[last]], tuple(self.lengths[first:last].tolist())

    def inputs(self, chosen: np.ndarray, preprocess: TextPreprocess) -> dict[str, np.ndarray]:
        """The model's inputs for the rows `chosen`, as long as `preprocess` makes the longest of them: each (batch, tokens).

        Raises InvalidInput for rows of several lengths where the model takes no mask, and so couldn't tell what is filling.
        """
        lengths = self.lengths[chosen]
        longest = preprocess.filled(int(lengths.max(initial=1)))
        if not preprocess.mask and not preprocess.pad_to and lengths.min(initial=longest) < longest:
            raise InvalidInput("the model takes no mask, so rows of one call must be equally long; feed them by `calls`")
        there = np.arange(longest) < lengths[:, None]
        places = (self.starts[chosen][:, None] + np.arange(longest))[there]
        found = {}
        for name, values, filling in ((preprocess.ids, self.ids, preprocess.pad_id), (preprocess.types, self.types, 0)):
            if name:
                found[name] = np.full(there.shape, filling, preprocess.dtype)
                found[name][there] = values[places]
        if preprocess.mask:
            found[preprocess.mask] = there.astype(preprocess.dtype)
        return {name: found[name] for name in preprocess.inputs}

    def calls(self, size: int, preprocess: TextPreprocess) -> Iterator[np.ndarray]:
        """Rows in order, up to `size` at a time; equally long ones alone where the model takes no mask."""
        if size < 1:
            raise InvalidInput(f"batch size {size}: give 1 or more")
        every = np.arange(len(self))
        if preprocess.mask or preprocess.pad_to:
            alike = [every]
        else:
            alike = np.split(every, np.flatnonzero(np.diff(self.lengths)) + 1)
        for run in alike:
            for start in range(0, len(run), size):
                yield run[start : start + size]
