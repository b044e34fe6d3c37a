"""`read`: a user's own .onnx, from any exporter, checked and made canonical."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

from edgewise.errors import InvalidModel
from edgewise.graph.batch import unify_batch
from edgewise.graph.canonical import canonicalise
from edgewise.graph.check import check
from edgewise.graph.copies import copied_axes
from edgewise.graph.folding import folded
from edgewise.graph.graph import Graph, load_proto
from edgewise.graph.turning import turn_at_once


def read(path: str | os.PathLike[str]) -> Graph:
    """Read, check and canonicalise the ONNX file at `path`; `notes` of the result say what was changed.

    Canonical: weights inside and never listed as inputs, unique node names, no Constant or Identity nodes, constants folded,
    batch normalisation folded into convolutions, shapes inferred, the batch axis under one name on inputs and outputs.
    The names of inputs and outputs are those of the file.

    Raises InvalidModel: no such file, not ONNX, an opset or operator that isn't known, weights that are NaN or infinite, no inputs.
    """
    return canonical(load_proto(path), Path(path).name)


def canonical(proto: onnx.ModelProto, what: str) -> Graph:
    """`read` for a ModelProto in memory, which this takes over and may change. `what` names it in errors."""
    check(proto, what)
    proto, notes = canonicalise(proto)
    proto, more = folded(unify_batch(proto))
    if copied_axes(proto) + turn_at_once(proto):
        proto, again = folded(proto)
        more = (*more, *again)
    try:
        return Graph.from_proto(proto, (*notes, *more))
    except InvalidModel as error:
        raise InvalidModel(f"{what}: {error}") from error
