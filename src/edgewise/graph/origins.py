"""Where the channels of a pruned network stood in the one that it was pruned from: notes on the graph, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from edgewise.graph.coupling import Walk
from edgewise.graph.graph import Graph

# Of the model's metadata: {"masks": [[positions before, bits in hexadecimal, the first is the highest]], "of": {weight: {axis: mask}}}.
ORIGINS = "edgewise.origins"

Noted = dict[str, dict[int, np.ndarray]]


def note_origins(proto: onnx.ModelProto, stays: Mapping[str, Sequence[np.ndarray | None]]) -> None:
    """Note in `proto`, in place, which positions of its weights' axes were left, on top of what was noted when it was pruned before.

    stays: weight -> for each axis which of its positions stayed, (length,) bool; None for all.
    """
    before, noted = noted_origins(proto), {}
    for name in (tensor.name for tensor in proto.graph.initializer):
        axes = dict(before.get(name, {}))
        for axis, stay in enumerate(stays.get(name, ())):
            if stay is not None and not stay.all():
                known = axes.get(axis)
                mask = stay if known is None else known.copy()
                if known is not None:
                    mask[np.flatnonzero(known)[~stay]] = False
                axes[axis] = mask
        if axes:
            noted[name] = axes
    masks: dict[tuple[int, str], int] = {}
    of = {
        name: {str(axis): masks.setdefault((len(mask), np.packbits(mask).tobytes().hex()), len(masks)) for axis, mask in axes.items()}
        for name, axes in noted.items()
    }
    others = {entry.key: entry.value for entry in proto.metadata_props if entry.key != ORIGINS}
    helper.set_model_props(proto, {**others, **({ORIGINS: json.dumps({"masks": [*masks], "of": of})} if of else {})})


def noted_origins(proto: onnx.ModelProto) -> Noted:
    """weight -> axis -> which positions of the first network's are left, (positions before,) bool; only what was cut."""
    found = [entry.value for entry in proto.metadata_props if entry.key == ORIGINS]
    if not found:
        return {}
    told = json.loads(found[0])
    masks = [np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8), count=length).astype(bool) for length, bits in told["masks"]]
    return {name: {int(axis): masks[number] for axis, number in axes.items()} for name, axes in told["of"].items()}


def channel_origins(graph: Graph, tensors: Sequence[str]) -> dict[str, np.ndarray]:
    """Tensor -> the positions, (channels,) int64 ascending, that its last axis has kept of the first network's; only where some went.

    An inner tensor's channels are those of the weights that they are coupled to.
    """
    noted = noted_origins(graph.proto)
    if not noted:
        return {}
    walk = Walk(graph)
    classes = walk.settled.classes
    coupled = {
        classes[labels].tobytes(): np.flatnonzero(mask)
        for name, axes in noted.items()
        for axis, mask in axes.items()
        if axis < len(walk.of(name)) and (labels := walk.of(name)[axis]) is not None
    }
    last = {name: axes[-1] for name in tensors if (axes := walk.of(name))}
    found = {name: coupled.get(classes[labels].tobytes()) for name, labels in last.items() if labels is not None}
    return {name: positions for name, positions in found.items() if positions is not None}
