"""Dynamic quantization: weights in 8-bit integers, activations rounded anew in every call with the range that they have there.

For matrix products (MatMul, Gemm): DynamicQuantizeLinear → MatMulInteger → Cast → Mul (→ Add), all standard ONNX (opset 11).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise.compress.quantize.place import place
from edgewise.compress.quantize.weights import weight_grid
from edgewise.errors import InvalidModel
from edgewise.graph import Graph, Index, infer_shapes, replace_nodes
from edgewise.graph.canonical import remove_unused
from edgewise.graph.index import all_names, fresh
from edgewise.types import Compressed


def quantize_dynamic(graph: Graph, *, per_channel: bool, reduce_range: bool, skip: Collection[str], notes: tuple[str, ...]) -> Compressed:
    """A canonical `graph` with integer matrix products. Convolutions stay in float: integer ones without fixed ranges are slower."""
    plan = place(graph, skip=skip)
    skipped = dict(plan.skipped)
    wanted = {layer.name: layer for layer in plan.weighted if layer.op in ("Gemm", "MatMul")}
    skipped.update({layer.name: f"{layer.op} stays in float in dynamic mode" for layer in plan.weighted if layer.name not in wanted})
    if not wanted:
        raise InvalidModel('mode="dynamic" quantizes Gemm and MatMul, and none has constant weights here; use mode="static"')
    index = Index(graph)
    taken = all_names(graph.proto) | {node.name for node in graph.proto.graph.node}
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, onnx.TensorProto] = {}
    rounded: dict[str, tuple[str, str, str]] = {}
    weights: dict[tuple[str, int], tuple[str, str]] = {}

    def add(op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        nodes.append(helper.make_node(op, inputs, outputs, name=fresh(f"{outputs[0]}_node", taken), **attributes))

    def constant(name: str, value: np.ndarray) -> str:
        name = fresh(name, taken)
        constants[name] = numpy_helper.from_array(value, name)
        return name

    for node in graph.proto.graph.node:
        layer = wanted.get(node.name)
        if layer is None:
            nodes.append(node)
            continue
        if layer.input not in rounded:
            rounded[layer.input] = (
                fresh(f"{layer.input}_quantized", taken),
                fresh(f"{layer.input}_scale", taken),
                fresh(f"{layer.input}_zero_point", taken),
            )
            add("DynamicQuantizeLinear", [layer.input], list(rounded[layer.input]))
        integers, scale, zero = rounded[layer.input]
        if (layer.weight, layer.axis) not in weights:
            real = index.constant(layer.weight)
            assert real is not None  # place() lists constant weights only
            real = real.T if layer.axis == 0 else real
            grid = weight_grid(np.ascontiguousarray(real), 1 if per_channel else None, bound=64 if reduce_range else 127)
            values = grid.quantize(real).astype(np.int8)
            weights[layer.weight, layer.axis] = (
                constant(f"{layer.weight}_quantized", values),
                constant(f"{layer.weight}_scale", np.asarray(grid.scale)),
            )
        weight, weight_scale = weights[layer.weight, layer.axis]
        product, real_product, both = (fresh(f"{layer.output}_{what}", taken) for what in ("integers", "float", "scale"))
        add("MatMulInteger", [integers, weight, zero], [product])
        add("Cast", [product], [real_product], to=onnx.TensorProto.FLOAT)
        add("Mul", [scale, weight_scale], [both])
        if layer.bias is None:
            add("Mul", [real_product, both], [layer.output])
        else:
            scaled = fresh(f"{layer.output}_scaled", taken)
            add("Mul", [real_product, both], [scaled])
            add("Add", [scaled, layer.bias], [layer.output])
    proto = replace_nodes(graph, nodes, [*graph.proto.graph.initializer, *constants.values()]).copy_proto()
    remove_unused(proto)
    model = infer_shapes(Graph.from_proto(proto, graph.notes))
    notes = (*notes, f"{len(wanted)} matrix products in 8-bit integers, {graph.size_bytes / model.size_bytes:.1f}x smaller")
    return Compressed(model, tuple(wanted), skipped, notes)
