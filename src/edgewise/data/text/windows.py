"""One answer of the windows of a long text: the rule by kind of answer, the same on a split and on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgewise.data.text.rows import Rows

# (rows, outputs of their calls in order, samples) -> (samples, …).
Join = Callable[[Rows, Sequence[np.ndarray], int], np.ndarray]


def mean(rows: Rows, outputs: Sequence[np.ndarray], samples: int) -> np.ndarray:
    """Classes and scores: the mean of what the windows give (of logits, before any softmax). outputs: (batch, …) each."""
    every = np.concatenate(outputs)
    if len(every) == samples:
        return every
    total = np.zeros((samples, *every.shape[1:]))
    np.add.at(total, rows.sample, every)
    counts = np.bincount(rows.sample, minlength=samples).reshape(-1, *(1,) * (every.ndim - 1))
    return (total / counts).astype(every.dtype)


def weighted(rows: Rows, outputs: Sequence[np.ndarray], samples: int) -> np.ndarray:
    """Embeddings: the mean of the windows', each by the number of its tokens, as a mean over all tokens would have it."""
    every = np.concatenate(outputs)
    if len(every) == samples:
        return every
    weights = rows.lengths.astype(np.float64)
    weights /= np.bincount(rows.sample, weights, samples)[rows.sample]
    total = np.zeros((samples, *every.shape[1:]))
    np.add.at(total, rows.sample, every * weights.reshape(-1, *(1,) * (every.ndim - 1)))
    return total.astype(every.dtype)


def side_by_side(rows: Rows, outputs: Sequence[np.ndarray], samples: int) -> np.ndarray:
    """Spans: what the windows give for each token, one window after the other, zeros behind. outputs: (batch, tokens, …) each.

    Returns (samples, tokens of all windows of the longest sample, …).
    """
    lengths = rows.lengths
    totals = np.bincount(rows.sample, lengths, samples).astype(np.int64)
    first = outputs[0]
    found = np.zeros((samples, int(totals.max(initial=0)), *first.shape[2:]), first.dtype)
    filled = np.zeros(samples, np.int64)
    row = 0
    for batch in outputs:
        for values in batch:
            sample, length = rows.sample[row], lengths[row]
            found[sample, filled[sample] : filled[sample] + length] = values[:length]
            filled[sample] += length
            row += 1
    return found
