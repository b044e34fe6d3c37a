"""A graph as LiteRT's converter can take it: fixed axes, and integers spelled so that the converter finds them.

What the converter fuses into integer kernels are float operators between pairs of QuantizeLinear and DequantizeLinear; a weight is a float
constant before such a pair. So the graph's own integers come out, with its own scales, and nothing is calibrated a second time. All of
this is ONNX to ONNX: torch isn't needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise.errors import InvalidModel
from edgewise.export.lowering import lower
from edgewise.graph import Graph, Index, fold, infer_shapes, set_axes
from edgewise.graph.canonical import remove_unused
from edgewise.graph.index import all_names, fresh

# "static": activations are rounded with ranges that the graph states; "dynamic": weights alone are integers, activations are rounded by
# the engine, anew in every call.
Kind = Literal["float", "dynamic", "static"]

# The first opset that has Gelu; and the first from which on no operator was changed before it in a way that the graph's own would show.
_GELUS, _LIKE_GELUS = 20, 18


@dataclass(frozen=True)
class Prepared:
    """graph: without an open axis; what it takes and gives is called as before. notes: what couldn't be kept in integers, and why."""

    graph: Graph
    kind: Kind
    notes: tuple[str, ...] = ()


def prepared(graph: Graph, axes: Mapping[str, int]) -> Prepared:
    """`graph` with every named axis set to its size in `axes`.

    Raises InvalidInput for an axis that the graph hasn't got, InvalidModel for one that stays open.
    """
    named = {axis for spec in graph.signature.inputs for axis in spec.shape if isinstance(axis, str)}
    if missing := sorted(named - axes.keys()):
        raise InvalidModel(f"axis {missing[0]!r} has no size: such a form is made for fixed sizes; give one sample of the wanted shape")
    fixed = lower(fold(set_axes(graph, **axes) if axes else graph), "s8")
    work = _Work(fixed)
    work.undo_dynamic()
    work.restate_weights()
    work.join_gelus()
    work.keep_boundary()
    return Prepared(work.done(), work.kind(), tuple(work.notes))


def without_dynamic(graph: Graph) -> Graph:
    """`graph` with float products by the same integer weights, where activations were rounded in every call; as it is where none are."""
    if not any(node.op_type == "MatMulInteger" for node in graph.proto.graph.node):
        return graph
    work = _Work(graph)
    work.undo_dynamic()
    return work.done()


class _Work:
    """The rewriting, in place on a copy."""

    def __init__(self, graph: Graph) -> None:
        self.proto = graph.copy_proto()
        self.graph_notes = graph.notes
        self.taken = all_names(self.proto) | {node.name for node in self.proto.graph.node}
        self.notes: list[str] = []

    def undo_dynamic(self) -> None:
        """DynamicQuantizeLinear → MatMulInteger → Cast → Mul, as a float product with an integer weight: the engine rounds the rest."""
        index = Index(self.proto)
        for node in index.nodes:
            if node.op_type != "MatMulInteger":
                continue
            scaled = _scaled(node, index)
            weight = index.constant(node.input[1])
            if scaled is None or weight is None or weight.dtype != np.int8 or (len(node.input) > 3 and node.input[3]):
                raise InvalidModel(
                    f"node {node.name!r} (MatMulInteger) isn't the way in which edgewise quantizes dynamically, and LiteRT has no other; "
                    "give a graph of quantize(mode='dynamic'), or the float one"
                )
            source, scale, last = scaled
            axes: dict[str, Any] = {} if scale.ndim == 0 else {"axis": weight.ndim - 1}
            real = fresh(f"{node.input[1]}_dequantized", self.taken)
            zero = self._constant(f"{node.input[1]}_zero_point", np.zeros(scale.shape, np.int8))
            stated = self._constant(f"{node.input[1]}_scale", scale)
            self._before(last, helper.make_node("DequantizeLinear", [node.input[1], stated, zero], [real], **axes))
            self._swap(last, helper.make_node("MatMul", [source, real], [last.output[0]]))
        remove_unused(self.proto)

    def restate_weights(self) -> None:
        """Integer constants behind DequantizeLinear as floats before a pair of their own; biases, and what no kernel takes, as floats."""
        index = Index(self.proto)
        for node in index.nodes:
            integers = index.constant(node.input[0]) if node.op_type == "DequantizeLinear" else None
            if integers is None:
                continue
            scale, zero, axis = _grid(node, index)
            if scale is None or zero is None:
                raise _computed(node)
            laid = _along(scale, axis, integers.ndim), _along(zero, axis, integers.ndim)
            real = ((integers.astype(np.float32) - laid[1].astype(np.float32)) * laid[0]).astype(np.float32)
            if integers.dtype != np.int8 or zero.any():
                if integers.dtype != np.int32:
                    self.notes.append(f"{node.input[0]} stays in float: LiteRT takes weights as int8 around zero, not {integers.dtype}")
                self._rename(node.output[0], self._constant(f"{node.output[0]}_real", real))
                self.proto.graph.node.remove(node)
                continue
            rounded = fresh(f"{node.output[0]}_rounded", self.taken)
            source = self._constant(f"{node.output[0]}_real", real)
            axes: dict[str, Any] = {"axis": axis} if scale.ndim else {}
            stated = [self._constant(f"{node.output[0]}_scale", scale), self._constant(f"{node.output[0]}_zero", zero.astype(np.int8))]
            self._before(node, helper.make_node("QuantizeLinear", [source, *stated], [rounded], **axes))
            self._swap(node, helper.make_node("DequantizeLinear", [rounded, *stated], [node.output[0]], **axes))
        remove_unused(self.proto)

    def join_gelus(self) -> None:
        """x/√2 → Erf → +1 → ·½ → ·x as one Gelu, which LiteRT has a kernel for: its Erf is a polynomial of a dozen operators."""
        own = next((entry for entry in self.proto.opset_import if entry.domain in ("", "ai.onnx")), None)
        if own is None or own.version < _LIKE_GELUS:
            return
        own.version = max(own.version, _GELUS)
        index = Index(self.proto)
        for node in index.nodes:
            found = _gelu(node, index) if node.op_type == "Erf" else None
            if found is not None:
                source, last = found
                self._swap(last, helper.make_node("Gelu", [source], [last.output[0]]))
        remove_unused(self.proto)

    def keep_boundary(self) -> None:
        """A product with the float next to 1, where rounding begins or ends at the boundary: the converter would make that one integer too.

        The form has to take and give what the graph does, and an operator in it is faster than rounding outside. It must be one that the
        converter neither folds away (as it does 1) nor rounds along (as it does a limit, or a copy).
        """
        index = Index(self.proto)
        one = ""
        for node in index.nodes:
            begins = node.op_type == "QuantizeLinear" and node.input[0] in index.inputs
            ends = node.op_type == "DequantizeLinear" and node.output[0] in index.outputs and node.input[0] not in index.initializers
            one = one or (self._constant("next_to_one", np.nextafter(np.float32(1), np.float32(2))) if begins or ends else "")
            if begins:
                held = fresh(f"{node.input[0]}_held", self.taken)
                self._before(node, helper.make_node("Mul", [node.input[0], one], [held]))
                node.input[0] = held
            if ends:
                result = node.output[0]
                inner = fresh(f"{result}_inner", self.taken)
                self._rename(result, inner)
                node.output[0] = inner
                last = helper.make_node("Mul", [inner, one], [result], name=fresh(f"{result}_node", self.taken))
                self.proto.graph.node.insert(list(self.proto.graph.node).index(node) + 1, last)

    def kind(self) -> Kind:
        index = Index(self.proto)
        rounded = [node for node in index.nodes if node.op_type == "QuantizeLinear"]
        if any(node.input[0] not in index.initializers for node in rounded):
            return "static"
        return "dynamic" if rounded else "float"

    def done(self) -> Graph:
        return infer_shapes(Graph.from_proto(self.proto, self.graph_notes))

    def _constant(self, name: str, value: np.ndarray) -> str:
        name = fresh(name, self.taken)
        self.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _before(self, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
        new.name = fresh(f"{new.output[0]}_node", self.taken)
        self.proto.graph.node.insert(list(self.proto.graph.node).index(node), new)

    def _swap(self, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
        self._before(node, new)
        self.proto.graph.node.remove(node)

    def _rename(self, old: str, new: str) -> None:
        for node in self.proto.graph.node:
            for position, name in enumerate(node.input):
                if name == old:
                    node.input[position] = new


def _scaled(product: onnx.NodeProto, index: Index) -> tuple[str, np.ndarray, onnx.NodeProto] | None:
    """Of an integer product that is scaled back: the float tensor that was rounded, the weight's scale, and the node that ends it."""
    rounding = index.producer(product.input[0])
    cast = index.sole_consumer(product.output[0])
    last = index.sole_consumer(cast.output[0]) if cast is not None and cast.op_type == "Cast" else None
    if rounding is None or rounding.op_type != "DynamicQuantizeLinear" or last is None or last.op_type != "Mul" or cast is None:
        return None
    both = index.producer(next(name for name in last.input if name != cast.output[0]))
    if both is None or both.op_type != "Mul" or rounding.output[1] not in both.input:
        return None
    scale = index.constant(next((name for name in both.input if name != rounding.output[1]), ""))
    return None if scale is None else (rounding.input[0], scale.squeeze(), last)


def _computed(node: onnx.NodeProto) -> InvalidModel:
    return InvalidModel(f"node {node.name!r} ({node.op_type}) has scales that are computed; give a graph with constant ones")


def _grid(node: onnx.NodeProto, index: Index) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """Scale, zero point and axis of a DequantizeLinear; the first two are None where they are computed."""
    scale = index.constant(node.input[1])
    zero = (
        index.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(() if scale is None else scale.shape, np.int8)
    )
    rank = len(index.shape(node.input[0]) or ())
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    if scale is not None and scale.size == 1:  # one for all: LiteRT's kernels tell that from one for each of one channel
        scale, zero = scale.reshape(()), None if zero is None else zero.reshape(())
    return scale, zero, axis % rank if rank else 0


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return values if values.ndim == 0 else values.reshape([-1 if axis == other else 1 for other in range(rank)])


def _gelu(erf: onnx.NodeProto, index: Index) -> tuple[str, onnx.NodeProto] | None:
    """What the exact GELU around `erf` reads, and its last node; half may come first, in between or last. None for any other use of Erf."""
    divide, one = index.producer(erf.input[0]), index.sole_consumer(erf.output[0])
    if divide is None or one is None or one.op_type != "Add" or not _is(one, erf.output[0], 1.0, index):
        return None
    source = divide.input[0]
    by = index.constant(divide.input[1])
    wanted = {"Div": 2**0.5, "Mul": 2**-0.5}.get(divide.op_type)
    if by is None or by.size != 1 or wanted is None or not np.isclose(float(by.reshape(())), wanted, rtol=1e-5):
        return None
    first = index.sole_consumer(one.output[0])
    if first is None or first.op_type != "Mul":
        return None
    other = next((name for name in first.input if name != one.output[0]), "")
    if _is(first, one.output[0], 0.5, index):  # x * (0.5 * (1 + erf))
        last = index.sole_consumer(first.output[0])
        return (source, last) if last is not None and last.op_type == "Mul" and source in last.input else None
    half = index.producer(other)
    if half is not None and half.op_type == "Mul" and source in half.input and _is(half, source, 0.5, index):  # (0.5 * x) * (1 + erf)
        return source, first
    last = index.sole_consumer(first.output[0])  # (x * (1 + erf)) * 0.5
    if other == source and last is not None and last.op_type == "Mul" and _is(last, first.output[0], 0.5, index):
        return source, last
    return None


def _is(node: onnx.NodeProto, tensor: str, value: float, index: Index) -> bool:
    """Whether what `node` combines `tensor` with is the one number `value`."""
    other = next((index.constant(name) for name in node.input if name != tensor), None)
    return other is not None and other.size == 1 and bool(np.isclose(float(other.reshape(())), value, rtol=1e-6))
