"""Requests that share a call: their rows joined, and every request given its own back. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgewise.errors import EdgewiseError
from edgewise.types import Inputs, Outputs, Signature

Key = tuple[tuple[int, ...], ...]


class NotRows(EdgewiseError):
    """An output that should lead with the batch axis has another number of rows, so nobody knows whose they are."""


def key_of(signature: Signature, inputs: Inputs) -> Key:
    """What has to be equal for two requests to share a call: every axis but the first."""
    return tuple(inputs[spec.name].shape[1:] for spec in signature.inputs)


def joined(parts: Sequence[Inputs]) -> Inputs:
    """One call's inputs: the rows of all `parts`, in their order."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def split(outputs: Outputs, rows: Sequence[int], wanted: Sequence[Sequence[str]]) -> list[Outputs]:
    """Each request's rows of the outputs that it wants (none named: of all). Raises NotRows where an output hasn't as many rows.

    What is given are views of the call's arrays.
    """
    total = sum(rows)
    for name, array in outputs.items():
        if not array.ndim or len(array) != total:
            raise NotRows(f"output {name!r} came with shape {array.shape} from a call of {total} rows; it doesn't lead with the batch axis")
    found, start = [], 0
    for count, names in zip(rows, wanted, strict=True):
        found.append({name: outputs[name][start : start + count] for name in names or outputs})
        start += count
    return found


def chosen(outputs: Outputs, wanted: Sequence[str]) -> Outputs:
    """The wanted outputs alone; none named: all."""
    return {name: outputs[name] for name in wanted} if wanted else outputs
