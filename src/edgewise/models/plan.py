"""The order of work of a network, made once from its graph: every node as a Python callable that reads and writes numbered slots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import Tensor

from edgewise.errors import InvalidModel
from edgewise.graph import Graph, Index
from edgewise.models.binding import DTYPES, Function, Moded, Node, Operator, to_tensor
from edgewise.models.fusing import chains
from edgewise.models.operators import QUANTIZED, TABLE

# Their results are small numbers about shapes, kept on the CPU so that reading them waits for no other device.
_ABOUT_SHAPES = frozenset(("Shape", "Size"))
ABSENT = 0  # the slot that holds None


class Step(NamedTuple):
    function: Function
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    spent: tuple[int, ...]  # slots that nobody reads after this step
    label: str


@dataclass(frozen=True, eq=False)
class Plan:
    """slots: where a tensor of that name stands. blank: what stands in the slots before a call: constants that are no tensors of a device.
    held: (slot, initializer) of those that are; `constants`: which of them neither train nor are running statistics.
    training, evaluation: with chains of nodes as one step (`models.fusing`); inside: the slots that these don't fill, and `whole` does: the
    same with a step for each node, (training, evaluation)."""

    slots: Mapping[str, int]
    blank: tuple[Any, ...]
    held: tuple[tuple[int, str], ...]
    constants: tuple[str, ...]
    training: tuple[Step, ...]
    evaluation: tuple[Step, ...]
    inside: frozenset[int]
    whole: tuple[tuple[Step, ...], tuple[Step, ...]]

    @property
    def node_by_node(self) -> tuple[Step, ...]:
        """In evaluation, a step for each node of the graph, in its order."""
        return self.whole[1]

    def steps(self, training: bool, taps: Iterable[int]) -> tuple[Step, ...]:
        """What fills the slots that `taps` asks for."""
        if self.inside.isdisjoint(taps):
            return self.training if training else self.evaluation
        return self.whole[0] if training else self.whole[1]


def make_plan(graph: Graph, alive: Iterable[str], table: Mapping[str, Operator] = TABLE) -> Plan:
    """alive: the initializers that may change, which no builder may bind. table: how each operator is bound.

    Raises InvalidModel for what can't be run or trained.
    """
    index = Index(graph)
    work = _Work(graph, index, frozenset(alive), table)
    for node in index.nodes:
        work.add(node)
    return work.plan()


class _Work:
    """A plan in the making."""

    def __init__(self, graph: Graph, index: Index, alive: frozenset[str], table: Mapping[str, Operator]) -> None:
        self.index, self.alive, self.table = index, alive, table
        self.outputs = [spec.name for spec in graph.signature.outputs]
        self.opset = next((entry.version for entry in graph.proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
        self.stored = frozenset(index.initializers)
        self.values: dict[str, np.ndarray] = {
            name: numpy_helper.to_array(tensor) for name, tensor in index.initializers.items() if name not in alive
        }
        self.shapes = {name: shape for name in self._names() if (shape := index.shape(name)) is not None}
        self.blank: list[Any] = [None]
        self.slots: dict[str, int] = {}
        self.fixed: dict[tuple[str, str], int] = {}  # (how, initializer) -> slot
        self.about_shapes: set[str] = set()
        self.training: list[Step] = []
        self.evaluation: list[Step] = []
        for spec in graph.signature.inputs:
            self.slot(spec.name)
        for name in self.outputs:
            if name in index.initializers:
                self.slot(name)

    def _names(self) -> Iterable[str]:
        for node in self.index.nodes:
            yield from (name for name in (*node.input, *node.output) if name)

    def slot(self, name: str) -> int:
        if name not in self.slots:
            self.slots[name] = len(self.blank)
            self.blank.append(None)
        return self.slots[name]

    def fixed_slot(self, how: str, name: str) -> int:
        """A slot with a constant that isn't moved with the network: as a number, or as a tensor on the CPU."""
        if (how, name) not in self.fixed:
            self.fixed[how, name] = len(self.blank)
            self.blank.append(self.values[name].item() if how == "number" else to_tensor(self.index.initializers[name]))
        return self.fixed[how, name]

    def add(self, node: onnx.NodeProto) -> None:
        operator = _operator(node, self.table)
        bound = self.bind(node, operator)
        names = list(node.input)
        while names and not names[-1]:
            names.pop()
        computed = [name for name in names if name and name not in self.values]
        small = node.op_type in _ABOUT_SHAPES or (bool(computed) and all(name in self.about_shapes for name in computed))
        inputs = [self.source(name, position, operator, small, bool(computed)) for position, name in enumerate(names)]
        moved = [] if small else [p for p, name in enumerate(names) if name in self.about_shapes and p not in operator.values]
        if small:
            self.about_shapes.update(node.output)
        outputs = tuple(self.slot(name) if name else self.slot(f"{node.name}: unused") for name in node.output[: self.read(node)])
        label = _label(node)
        modes = (bound.training, bound.evaluation) if isinstance(bound, Moded) else (bound, bound)
        for steps, function in zip((self.training, self.evaluation), modes, strict=True):
            steps.append(Step(_moving(function, moved) if moved else function, tuple(inputs), outputs, (), label))

    def source(self, name: str, position: int, operator: Operator, small: bool, computed: bool) -> int:
        if not name or (name in self.values and position in operator.values):
            return ABSENT
        if name not in self.values:
            return self.slot(name)
        if operator.scalars and computed and self.values[name].ndim == 0:
            return self.fixed_slot("number", name)
        return self.fixed_slot("tensor", name) if small else self.slot(name)

    def read(self, node: onnx.NodeProto) -> int:
        """How many outputs somebody reads, counted up to the last that is; one at least."""
        used = [i for i, name in enumerate(node.output, 1) if name and (self.index.consumers(name) or name in self.index.outputs)]
        return max(used, default=1)

    def bind(self, node: onnx.NodeProto, operator: Operator) -> Function | Moded:
        seen = Node(
            operator=node.op_type,
            name=node.name,
            opset=self.opset,
            attributes={attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute},
            inputs=tuple(node.input),
            outputs=self.read(node),
            listed=len(node.output),
            constants=self.values,
            shapes=self.shapes,
            stored=self.stored,
        )
        return operator.bind(seen)

    def fused(self) -> dict[int, Step | None]:
        """What stands for the nodes of chains, by the slot that a node fills: the chain's step for its last one, None for the others."""
        stand_ins: dict[int, Step | None] = {}
        for chain in chains(self.index, self.values.get, self.opset):
            *inside, filled = (self.slot(node.output[0]) for node in chain.nodes)
            inputs = tuple(self.slot(name) for name in chain.inputs)
            stand_ins |= {**dict.fromkeys(inside), filled: Step(chain.function, inputs, (filled,), (), _label(chain.nodes[-1]))}
        return stand_ins

    def plan(self) -> Plan:
        stand_ins = self.fused()
        held = tuple((slot, name) for name, slot in self.slots.items() if name in self.index.initializers)
        for _, name in held:
            if self.index.initializers[name].data_type not in DTYPES:
                to_tensor(self.index.initializers[name])  # says why it can't be
        kept = {self.slots[name] for name in self.outputs} | {slot for slot, _ in held} | {*self.fixed.values(), ABSENT}
        return Plan(
            slots=self.slots,
            blank=tuple(self.blank),
            held=held,
            constants=tuple(name for _, name in held if name not in self.alive),
            training=_spent(_standing_in(self.training, stand_ins), kept),
            evaluation=_spent(_standing_in(self.evaluation, stand_ins), kept),
            inside=frozenset(slot for slot, step in stand_ins.items() if step is None),
            whole=(_spent(self.training, kept), _spent(self.evaluation, kept)),
        )


def _operator(node: onnx.NodeProto, table: Mapping[str, Operator]) -> Operator:
    what = f"node {node.name!r} ({node.domain + '.' if node.domain else ''}{node.op_type})"
    if node.op_type not in table and (node.op_type in QUANTIZED or node.op_type.startswith("QLinear")):
        raise InvalidModel(f"{what} is quantized: integers can't be trained; train the float model, then quantize what comes out")
    if node.domain not in ("", "ai.onnx") or node.op_type not in table:
        raise InvalidModel(f"{what} has no counterpart in torch here; export the model with standard operators, or leave it untrained")
    return table[node.op_type]


def _moving(function: Function, positions: Sequence[int]) -> Function:
    """What was computed about shapes goes to the device of the data that it meets."""

    def moved(*inputs: Any) -> Any:
        device = next(x.device for i, x in enumerate(inputs) if isinstance(x, Tensor) and i not in positions)
        return function(*(x.to(device) if i in positions else x for i, x in enumerate(inputs)))

    return moved


def _label(node: onnx.NodeProto) -> str:
    return f"node {node.name!r} ({node.op_type})"


def _standing_in(steps: Sequence[Step], stand_ins: Mapping[int, Step | None]) -> list[Step]:
    return [found for step in steps if (found := stand_ins.get(step.outputs[0], step)) is not None]


def _spent(steps: Sequence[Step], kept: set[int]) -> tuple[Step, ...]:
    """Each step with the slots that it is the last to use."""
    last: dict[int, int] = {}
    for number, step in enumerate(steps):
        for slot in (*step.inputs, *step.outputs):
            last[slot] = number
    ends: dict[int, list[int]] = {}
    for slot, number in last.items():
        if slot not in kept:
            ends.setdefault(number, []).append(slot)
    return tuple(step._replace(spent=tuple(ends.get(number, ()))) for number, step in enumerate(steps))


def execute(steps: Sequence[Step], values: list[Any], kept: frozenset[int]) -> None:
    """Take the steps, in place on `values`, letting go of what is spent unless it is to be `kept`."""
    label = ""
    try:
        for function, inputs, outputs, spent, label in steps:  # noqa: B007 (read where a step fails)
            result = function(*[values[slot] for slot in inputs])
            if len(outputs) == 1:
                values[outputs[0]] = result
            else:
                for slot, tensor in zip(outputs, result, strict=True):
                    values[slot] = tensor
            for slot in spent:
                if slot not in kept:
                    values[slot] = None
    except Exception as error:
        error.add_note(f"in {label}")
        raise
