"""Lowering: the canonical quantized graph, written the way an engine has kernels for. The integers stay; only their spelling changes.

The canonical form is QDQ with unsigned activations, which x86 wants (u8×s8 products). ARM's kernels multiply signed by signed. Which form
is used is decided by measured fidelity and time, not here. No torch is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgewise.errors import InvalidInput
from edgewise.graph import Graph, Index, infer_shapes
from edgewise.graph.index import all_names, fresh
from edgewise.types import Inputs, Runner

FORMS = {
    "qdq": "as it is",
    "u8": "activations as unsigned bytes",
    "s8": "activations as signed bytes: the same integers less 128",
}
_SHIFT = {"u8": (TensorProto.INT8, np.uint8, 128), "s8": (TensorProto.UINT8, np.int8, -128)}


@dataclass(frozen=True)
class Divergence:
    """How far a lowered graph's outputs lie from its original's, over all samples. Zero: bit by bit the same."""

    relative_l2: float
    largest: float  # of the absolute differences
    samples: int


def forms(graph: Graph) -> tuple[str, ...]:
    """The forms that `graph` can be lowered to and that change it; "qdq" always, and first."""
    index = Index(graph)
    return ("qdq", *(form for form in _SHIFT if _pairs(index, _SHIFT[form][0])))


def lower(graph: Graph, form: str) -> Graph:
    """`graph` in `form` (see FORMS): the same weights and the same integers in activations, shifted together with their zero points.

    real = scale * (integer - zero_point) is the same before and after, bit by bit. Tensors keep their names. A graph that is in that form
    already, or has no rounded activations, comes back as it is. Raises InvalidInput for an unknown form.
    """
    if form not in FORMS:
        raise InvalidInput(f"form={form!r} is unknown; use one of {', '.join(FORMS)}")
    if form == "qdq":
        return graph
    source, target, shift = _SHIFT[form]
    pairs = _pairs(Index(graph), source)
    if not pairs:
        return graph
    proto = graph.copy_proto()
    index = Index(proto)
    taken = all_names(proto)
    shifted: dict[str, str] = {}
    names = {node.name for pair in pairs for node in pair}
    for node in proto.graph.node:
        if node.name not in names:
            continue
        given = node.input[2] if len(node.input) > 2 else ""
        zero = given or f"{node.input[1]}_zero_point"
        if zero not in shifted:
            # One that isn't given is zero, in the shape of the scale.
            value = index.constant(given) if given else np.zeros([int(d or 0) for d in index.shape(node.input[1]) or ()], np.int32)
            shifted[zero] = fresh(f"{zero}_{form}", taken)
            moved = (np.asarray(value, np.int32) + shift).astype(target)
            proto.graph.initializer.append(numpy_helper.from_array(moved, shifted[zero]))
        del node.input[2:]
        node.input.append(shifted[zero])
        for attribute in node.attribute:
            if attribute.name == "output_dtype":
                attribute.i = TensorProto.INT8 if target is np.int8 else TensorProto.UINT8
    used = {name for node in proto.graph.node for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in shifted or tensor.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    return infer_shapes(Graph.from_proto(proto, graph.notes))


def check(reference: Graph, lowered: Graph, load: Callable[[bytes], Runner], inputs: Sequence[Inputs]) -> Divergence:
    """Run both on `inputs` with one engine and compare all floating outputs. `load` makes a Runner of a serialized model.

    Raises InvalidInput when there are no inputs, or the signatures differ.
    """
    if not inputs:
        raise InvalidInput("no inputs to compare on; give some samples")
    if reference.signature != lowered.signature:
        raise InvalidInput(f"the graphs differ in their signatures: {reference.signature} and {lowered.signature}")
    first, second = load(reference.to_bytes()), load(lowered.to_bytes())
    try:
        squared = error = largest = 0.0
        for sample in inputs:
            a, b = first.run(sample), second.run(sample)
            for name, value in a.items():
                difference = np.abs(value.astype(np.float64) - b[name])
                squared += float(np.square(value, dtype=np.float64).sum())
                error += float(np.square(difference).sum())
                largest = max(largest, float(difference.max(initial=0.0)))
    finally:
        first.close()
        second.close()
    return Divergence(float(np.sqrt(error / squared)) if squared else float(np.sqrt(error)), largest, len(inputs))


def _pairs(index: Index, source: int) -> list[tuple[onnx.NodeProto, ...]]:
    """Each QuantizeLinear that makes integers of type `source`, with the DequantizeLinear nodes that alone read them."""
    found = []
    for node in index.nodes:
        if node.op_type != "QuantizeLinear" or _type(node, index) != source or node.output[0] in index.outputs:
            continue
        readers = index.consumers(node.output[0])
        if readers and all(reader.op_type == "DequantizeLinear" for reader in readers):
            found.append((node, *readers))
    return found


def _type(node: onnx.NodeProto, index: Index) -> int:
    """Element type of a QuantizeLinear's integers: its zero point's, else output_dtype's, else unsigned."""
    if len(node.input) > 2 and node.input[2]:
        return index.element_type(node.input[2]) if node.input[2] in index.initializers else 0
    stated = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
    return int(stated) or TensorProto.UINT8
