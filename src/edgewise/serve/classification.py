"""The extension "classification": instead of an output, its largest values with their places and labels (as Triton has it)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewise.errors import InvalidInput


def top(array: np.ndarray, count: int, labels: Sequence[str] = (), *, batched: bool = True) -> np.ndarray:
    """BYTES "value:index:label", the largest first, ties to the lower index, NaN last; "value:index" without labels.

    array: (batch, …) where `batched`, then (batch, classes) comes back; else (…) and (classes,). classes: `count`, or all where there are
    fewer. Raises InvalidInput for a count below 1, and for what can't be ordered.
    """
    if count < 1:
        raise InvalidInput(f"classification={count}: give how many classes, 1 or more")
    if array.dtype.kind not in "biuf":
        raise InvalidInput(f"classification: an output of {array.dtype} has no largest values")
    rows = array.reshape(len(array), -1) if batched and array.ndim > 1 else array.reshape(1, -1)
    values = rows.astype(np.float64)
    with np.errstate(invalid="ignore"):
        order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    found = np.empty(order.shape, object)
    for row, places in enumerate(order):
        for rank, place in enumerate(places.tolist()):
            label = f":{labels[place]}" if place < len(labels) else ""
            found[row, rank] = f"{values[row, place]:f}:{place}{label}".encode()
    return found if batched and array.ndim > 1 else found[0]
