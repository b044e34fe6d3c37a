"""Write a quantized graph in QDQ form: standard QuantizeLinear and DequantizeLinear nodes around float operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise.compress.quantize.grid import Grid
from edgewise.compress.quantize.place import Plan, Weighted
from edgewise.compress.quantize.weights import Layer
from edgewise.graph import Graph, infer_shapes, replace_nodes
from edgewise.graph.canonical import remove_unused
from edgewise.graph.index import all_names, fresh


@dataclass(frozen=True, eq=False)
class Settled:
    """Everything that quantization decided, before it is written: the float graph, where to round, and with which integers."""

    graph: Graph
    plan: Plan
    grids: Mapping[str, Grid]
    layers: Mapping[str, Layer]


def write(settled: Settled, *, real: bool = False) -> Graph:
    """The QDQ graph. Float tensors keep their names; what is new is called after what it stands for.

    real: the same values without integers: weights as the floats that they stand for, and rounding by Div, Round, Clip and Mul. Engines
    find nothing to fuse then, and compute what the file states even where their integer kernels would saturate.
    """
    writer = _Writer(settled, real)
    for value in settled.graph.proto.graph.input:
        writer.round(value.name)
    for node in settled.graph.proto.graph.node:
        writer.node(node)
    proto = replace_nodes(settled.graph, writer.nodes, [*settled.graph.proto.graph.initializer, *writer.constants.values()]).copy_proto()
    remove_unused(proto)
    return infer_shapes(Graph.from_proto(proto, settled.graph.notes))


class _Writer:
    def __init__(self, settled: Settled, real: bool) -> None:
        self.settled = settled
        self.real = real
        self.weighted = {layer.name: layer for layer in settled.plan.weighted}
        self.adders = {layer.adder: layer for layer in settled.plan.weighted if layer.adder}
        self.rounded = set(settled.plan.rounded)
        self.taken = all_names(settled.graph.proto) | {node.name for node in settled.graph.proto.graph.node}
        self.outputs = {value.name for value in settled.graph.proto.graph.output}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.behind: dict[str, str] = {}  # float tensor -> what its Q/DQ pair gives
        self.weights: dict[tuple[str, int], str] = {}

    def node(self, node: onnx.NodeProto) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for i, name in enumerate(copy.input):
            if name in self.behind and self.settled.plan.reads_rounded(node, name):
                copy.input[i] = self.behind[name]
        if node.name in self.weighted:
            self._integers(copy, self.weighted[node.name])
        if node.name in self.adders:
            self._added(copy, self.adders[node.name])
        self.nodes.append(copy)
        for name in node.output:
            self.round(name)

    def round(self, tensor: str) -> None:
        """A Q/DQ pair behind `tensor`, where the plan has one."""
        if tensor not in self.rounded:
            return
        grid = self.settled.grids[tensor]
        if self.real:
            self._simulated(tensor, grid)
            return
        scale = self._constant(f"{tensor}_scale", np.asarray(grid.scale, np.float32))
        zero = self._constant(f"{tensor}_zero_point", np.asarray(grid.zero_point, np.uint8))
        integers = fresh(f"{tensor}_quantized", self.taken)
        self.behind[tensor] = fresh(f"{tensor}_dequantized", self.taken)
        self._add("QuantizeLinear", [tensor, scale, zero], integers)
        self._add("DequantizeLinear", [integers, scale, zero], self.behind[tensor])

    def _simulated(self, tensor: str, grid: Grid) -> None:
        scale = self._constant(f"{tensor}_scale", np.asarray(grid.scale, np.float32))
        limits = [
            self._constant(f"{tensor}_{name}", np.asarray(limit - grid.zero_point, np.float32))
            for name, limit in (("low", grid.low), ("high", grid.high))
        ]
        steps = [fresh(f"{tensor}_{name}", self.taken) for name in ("divided", "rounded", "clipped", "dequantized")]
        self._add("Div", [tensor, scale], steps[0])
        self._add("Round", [steps[0]], steps[1])
        self._add("Clip", [steps[1], *limits], steps[2])
        self._add("Mul", [steps[2], scale], steps[3])
        self.behind[tensor] = steps[3]

    def _integers(self, node: onnx.NodeProto, layer: Weighted) -> None:
        found = self.settled.layers[layer.name]
        if self.real:
            node.input[1] = self._constant(f"{layer.weight}_real", found.real)
            if found.bias is not None and not layer.adder:
                del node.input[2:]
                node.input.append(self._constant(f"{layer.bias or layer.name + '_bias'}_real", found.bias))
            return
        node.input[1] = self._weight(layer, found)
        if found.bias is None or layer.adder:
            return
        scale = np.asarray(self.settled.grids[layer.input].scale * found.grid.scale, np.float32)
        scale = np.broadcast_to(scale, found.bias.shape) if found.grid.axis is not None else scale
        name = layer.bias or f"{layer.name}_bias"
        integers = np.clip(np.rint(found.bias / scale.astype(np.float64)), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        bias = self._dequantized(name, integers, np.ascontiguousarray(scale), np.zeros(scale.shape, np.int32), 0)
        del node.input[2:]
        node.input.append(bias)

    def _added(self, node: onnx.NodeProto, layer: Weighted) -> None:
        """An Add behind a MatMul adds the bias as it was settled, in float: engines fold it into the product."""
        bias = self.settled.layers[layer.name].bias
        at = list(node.input).index(str(layer.added))
        if bias is not None:
            node.input[at] = self._constant(f"{layer.added}_corrected", bias.astype(np.float32))

    def _weight(self, layer: Weighted, found: Layer) -> str:
        # A weight that several nodes share is written once when they agree on its integers.
        key = (layer.weight, hash((found.integers.tobytes(), found.grid.scale.tobytes())))
        if key not in self.weights:
            zero = np.asarray(found.grid.zero_point, np.int8)
            self.weights[key] = self._dequantized(layer.weight, found.integers.astype(np.int8), found.grid.scale, zero, found.grid.axis)
        return self.weights[key]

    def _dequantized(self, name: str, integers: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int | None) -> str:
        inputs = [
            self._constant(f"{name}_quantized", integers),
            self._constant(f"{name}_scale", np.asarray(scale, np.float32)),
            self._constant(f"{name}_zero_point", zero),
        ]
        output = fresh(f"{name}_dequantized", self.taken)
        # Per-tensor scales have no axis; DequantizeLinear ignores it there, but some readers don't.
        self._add("DequantizeLinear", inputs, output, **({} if axis is None or np.ndim(scale) == 0 else {"axis": axis}))
        return output

    def _constant(self, name: str, value: np.ndarray) -> str:
        name = fresh(name, self.taken)
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value) if value.ndim else value, name)
        return name

    def _add(self, op: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], name=fresh(f"{output}_node", self.taken), **attributes))
