"""Sizes as functions of widths: what axes, arithmetic and parameters become when parts of a network get narrower, without narrowing it.

The size of an axis is affine in the widths of the parts that lie along it: a concatenation is their sum, a flattened map a multiple. So
what a node computes is a sum of products of axes, and the tables that count one graph (`edgewise.graph.operations`) count all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import helper

from edgewise.errors import InvalidInput, InvalidModel
from edgewise.graph.graph import Graph
from edgewise.graph.index import Index
from edgewise.graph.operations import MACS, VIEWS, Work
from edgewise.graph.parts import Coupling
from edgewise.graph.probing import probe
from edgewise.graph.shapes import infer_shapes, set_axes
from edgewise.graph.shrink import shrink

# Vector widths: kernels compute whole vectors of channels, used or not. Eight floats are 256 bits, sixteen 512.
ROUNDINGS = (1, 8, 16)

_WEIGHT_POSITIONS = {"QLinearConv": 3, "QLinearMatMul": 3}
_FOUR_BITS = frozenset((onnx.TensorProto.INT4, onnx.TensorProto.UINT4))


@dataclass(frozen=True)
class Size:
    """A sum of products of axes: sorted numbers of axes (rows of `Layout.slope`) -> coefficient. The empty product is a constant."""

    terms: Mapping[tuple[int, ...], float]

    def __mul__(self, other: Size | float) -> Size:
        found: dict[tuple[int, ...], float] = {}
        for left, a in self.terms.items():
            for right, b in as_size(other).terms.items():
                product = tuple(sorted(left + right))
                found[product] = found.get(product, 0) + a * b
        return Size(found)

    def __add__(self, other: Size | int) -> Size:
        found = dict(self.terms)
        for product, b in as_size(other).terms.items():
            found[product] = found.get(product, 0) + b
        return Size(found)

    __rmul__ = __mul__
    __radd__ = __add__


def as_size(value: Size | float) -> Size:
    return value if isinstance(value, Size) else Size({(): value} if value else {})


@dataclass(frozen=True, eq=False)
class Layer:
    """One node. outputs, inputs: elements of the activations that it writes and reads, weights excluded.

    shape: what it does when dense, in words: layers that say the same cost the same. family: layers of one are expected to be about as
    efficient. gone: the parts (by number) without any unit of which the node isn't there at all.
    """

    name: str
    shape: str
    family: str
    outputs: Size
    inputs: Size
    macs: Size
    gone: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Terms:
    """Sums of products, ready for many widths at once. index: (terms, factors) into what `Layout.factors` gives; coefficient: (terms,)."""

    index: np.ndarray
    coefficient: np.ndarray

    def values(self, factors: np.ndarray) -> np.ndarray:
        """(n, factors) -> (n, terms)"""
        found: np.ndarray = factors.take(self.index, 1).prod(2) * self.coefficient
        return found


@dataclass(frozen=True, eq=False)
class Layout:
    """A network's sizes. Axis a has `constant[a] + slope[a] @ widths` elements. weights: of each stored tensor the bytes, and which parts
    it goes with (see Layer.gone); stored: their names.
    """

    parts: Mapping[str, int]  # name -> units, in the graph's order
    least: np.ndarray  # (parts,) the smallest width: 0 where the part is removable, else 1
    slope: np.ndarray  # (axes, parts)
    constant: np.ndarray  # (axes,)
    layers: tuple[Layer, ...]
    weights: tuple[tuple[Size, tuple[int, ...]], ...]
    stored: tuple[str, ...]

    def vector(self, widths: Mapping[str, int]) -> np.ndarray:
        """(parts,) Parts that aren't named are whole. Raises InvalidInput for an unknown name."""
        if not widths.keys() <= self.parts.keys():
            unknown = next(name for name in widths if name not in self.parts)
            raise InvalidInput(f"the model has no part {unknown!r}; its parts are {', '.join(self.parts) or '(none)'}")
        return np.array([widths.get(name, units) for name, units in self.parts.items()], np.int64)

    def factors(self, widths: np.ndarray) -> np.ndarray:
        """widths (n, parts) -> (n, 1 + parts + 3 × axes): a one; whether a part is there; every axis, for each of ROUNDINGS rounded up."""
        count, parts = len(self.constant), len(self.parts)
        found = np.empty((len(widths), 1 + parts + len(ROUNDINGS) * count))  # filled in place: the solver asks thousands of times
        found[:, 0] = 1
        found[:, 1 : 1 + parts] = widths > 0
        axes = widths @ self.slope.T + self.constant
        for i, step in enumerate(ROUNDINGS):
            found[:, 1 + parts + i * count : 1 + parts + (i + 1) * count] = axes if step == 1 else np.ceil(axes * (1 / step)) * step
        return found

    def products(self, size: Size, gone: Iterable[int], rounding: int = 0) -> dict[tuple[int, ...], float]:
        """`size` by columns of `factors`: each product's factors -> coefficient."""
        there = [1 + part for part in gone]
        start = 1 + len(self.parts) + rounding * len(self.constant)
        return {(*there, *(start + axis for axis in product)): coefficient for product, coefficient in size.terms.items()}

    def depends(self, *sizes: Size) -> tuple[int, ...]:
        """The parts that any of `sizes` changes with."""
        axes = sorted({axis for size in sizes for product in size.terms for axis in product})
        return tuple(int(part) for part in np.flatnonzero(self.slope[axes].any(0)))

    def count(self, sizes: Iterable[tuple[Size, Iterable[int]]]) -> Count:
        """The sum of `sizes`, each there only while its parts are."""
        total: dict[tuple[int, ...], float] = {}
        for size, gone in sizes:
            for product, coefficient in self.products(size, gone).items():
                total[product] = total.get(product, 0) + coefficient
        return Count(self, terms(total.keys(), total.values()))

    def operations(self) -> Count:
        """Multiply-accumulates of one call."""
        return self.count((layer.macs, layer.gone) for layer in self.layers)

    def parameter_bytes(self, shares: Mapping[str, float] | None = None) -> Count:
        """Bytes of all weights, each times its share (1 where none is given)."""
        own = shares or {}
        return self.count((size * own.get(name, 1.0), gone) for name, (size, gone) in zip(self.stored, self.weights, strict=True))


@dataclass(frozen=True, eq=False)
class Count:
    """A plain count as a function of widths: a predictor for the solver, where the budget isn't one of time."""

    layout: Layout
    terms: Terms

    def __call__(self, widths: Mapping[str, int]) -> float:
        return float(self.many(self.layout.vector(widths)[None])[0])

    def many(self, widths: np.ndarray) -> np.ndarray:
        """widths (n, parts) -> (n,)"""
        found: np.ndarray = self.terms.values(self.layout.factors(widths)).sum(1)
        return found


def operations_predictor(graph: Graph, parts: Coupling, **axes: int) -> Count:
    """Multiply-accumulates of one call as a function of widths: what `edgewise.graph.cost` finds in the network shrunk to them."""
    return layout(graph, parts, **axes).operations()


def size_predictor(graph: Graph, parts: Coupling, shares: Mapping[str, float] | None = None) -> Count:
    """Bytes of the weights as a function of widths. shares: of a weight's bytes, by its name, what is left of them where it is coded."""
    return layout(graph, parts).parameter_bytes(shares)


def terms(products: Iterable[tuple[int, ...]], coefficients: Iterable[float]) -> Terms:
    """Products of different lengths in one array: the short ones filled up with factor 0, which is one."""
    rows = [tuple(product) for product in products]
    most = max((len(row) for row in rows), default=0) or 1
    index = np.array([row + (0,) * (most - len(row)) for row in rows], np.int64).reshape(len(rows), most)
    return Terms(index, np.array(list(coefficients), np.float64))


def layout(graph: Graph, parts: Coupling, **axes: int) -> Layout:
    """Read the sizes off `graph`, whose parts are `parts`; named axes that aren't given are 1.

    Raises InvalidModel when the shapes around a dot product aren't known.
    """
    named = {axis for spec in graph.signature.inputs for axis in spec.shape if isinstance(axis, str)}
    sizes = {name: axes.get(name, 1) for name in named}
    fixed = set_axes(graph, **sizes) if named else infer_shapes(graph)
    # Shapes that are computed on the way are known once what they are computed from is folded; but then nodes are gone.
    reading = _Reading(Index(fixed), parts, probe(fixed.proto, {}))
    lost = {i: _lost(graph, parts, part.name) for i, part in enumerate(parts.parts) if part.removable}
    layers, computed = [], set(reading.index.inputs)
    for node in reading.index.nodes:
        if not any(name in computed for name in node.input):
            continue  # of constants alone: an engine computes it once, when it loads the model
        computed.update(node.output)
        if node.op_type not in VIEWS:
            gone = tuple(i for i, (nodes, _) in lost.items() if node.name in nodes)
            layer = _layer(node, reading, computed, gone)
            layers += [layer] if layer else []
    weights = [
        (_bytes(tensor, reading), tuple(i for i, (_, tensors) in lost.items() if tensor.name in tensors))
        for tensor in reading.index.initializers.values()
    ]
    return Layout(
        {part.name: part.units for part in parts.parts},
        np.array([0 if part.removable else 1 for part in parts.parts], np.int64),
        np.array([slope for slope, _ in reading.axes], np.float64).reshape(len(reading.axes), len(parts.parts)),
        np.array([constant for _, constant in reading.axes], np.float64),
        tuple(layers),
        tuple(weights),
        tuple(reading.index.initializers),
    )


class _Reading:
    """Shapes in terms of axes, as the coupling's walk left them."""

    def __init__(self, index: Index, parts: Coupling, probed: Index) -> None:
        self.index = index
        self._probed = probed
        self.axes: dict[tuple[tuple[float, ...], int], int] = {}  # (slope per part, constant) -> its number
        self._walk = parts.walk
        self._units = [part.units for part in parts.parts]
        self._owner = np.full(parts.walk.atoms.count, -1)  # class of atoms -> part
        for number, part in enumerate(parts.parts):
            one = part.slices[0]
            labels = self._walk.of(one.tensor)[one.axis]
            if labels is not None:
                self._owner[self._walk.settled.classes[labels[one.indices.reshape(-1)]]] = number

    def shape(self, tensor: str) -> tuple[Any, ...] | None:
        """Sizes of the axes: numbers where nothing can be pruned, else `Size`; None when unknown."""
        dims = self.index.shape(tensor)
        if dims is None or not all(isinstance(dim, int) for dim in dims):
            dims = self._probed.shape(tensor)
        if dims is None or not all(isinstance(dim, int) for dim in dims):
            return None
        labels = self._walk.of(tensor)
        found: list[Any] = list(dims)
        for axis, atoms in enumerate(labels if len(labels) == len(dims) else ()):
            if atoms is None:
                continue
            owners = self._owner[self._walk.settled.classes[atoms]]
            counts = np.bincount(owners[owners >= 0], minlength=len(self._units))
            if counts.any():
                slope = tuple((counts / self._units).tolist())
                number = self.axes.setdefault((slope, int((owners < 0).sum())), len(self.axes))
                found[axis] = Size({(number,): 1})
        return tuple(found)


def _lost(graph: Graph, parts: Coupling, name: str) -> tuple[set[str], set[str]]:
    """Nodes and stored tensors that go with the whole of a part. What is only passed on then counts as gone."""
    small = shrink(graph, {name: ()}, coupling=parts).proto.graph
    nodes = {node.name for node in graph.proto.graph.node} - {node.name for node in small.node if node.op_type != "Identity"}
    return nodes, {tensor.name for tensor in graph.proto.graph.initializer} - {tensor.name for tensor in small.initializer}


def _layer(node: onnx.NodeProto, reading: _Reading, computed: set[str], gone: tuple[int, ...]) -> Layer | None:
    inputs = tuple(reading.shape(name) if name else None for name in node.input)
    outputs = tuple(shape for name in node.output if name and (shape := reading.shape(name)) is not None)
    counted = node.op_type in MACS
    if not outputs or (counted and any(name and shape is None for name, shape in zip(node.input, inputs, strict=True))):
        if counted:
            raise InvalidModel(
                f"the shapes around {node.op_type} node {node.name!r} aren't known, so neither is what narrowing it saves; "
                "export the model with fixed shapes, or fold it first"
            )
        return None
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    macs: Any = MACS[node.op_type](Work(inputs, outputs, attributes)) if counted else 0
    read = [shape for name, shape in zip(node.input, inputs, strict=True) if name in computed and shape is not None]
    whole = [reading.index.shape(name) or () for name in (*node.input[:1], *node.output[:1])]
    weight = reading.index.shape(node.input[_WEIGHT_POSITIONS.get(node.op_type, 1)]) or () if counted else ()
    kind = " ".join(filter(None, [node.op_type, _by(weight[2:]), "grouped" if attributes.get("group", 1) != 1 else ""]))
    return Layer(
        name=node.name,
        shape=" ".join(filter(None, [kind, _by(whole[0]), f"· {_by(weight)}" if weight else "", f"→ {_by(whole[1])}"])),
        family=kind,
        outputs=_sum(prod(shape) for shape in outputs),
        inputs=_sum(prod(shape) for shape in read),
        macs=as_size(macs),
        gone=gone,
    )


def _sum(sizes: Iterable[Any]) -> Size:
    return as_size(sum(sizes))


def _by(shape: Iterable[Any]) -> str:
    return "×".join(map(str, shape))


def _bytes(tensor: onnx.TensorProto, reading: _Reading) -> Size:
    elements = as_size(prod(reading.shape(tensor.name) or ()))
    if tensor.data_type in _FOUR_BITS:
        return Size({product: coefficient / 2 for product, coefficient in elements.terms.items()})
    return elements * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
