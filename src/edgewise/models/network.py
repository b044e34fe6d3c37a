"""`Network`: a graph as a torch module that trains. Its structure is data, its weights are the graph's initializers: no pickle anywhere."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor, nn

from edgewise.errors import InvalidInput, InvalidModel
from edgewise.graph import Graph, Index
from edgewise.graph.folding import FLOATS
from edgewise.graph.sparsity import sparse_weights
from edgewise.graph.trainable import fixed_weights
from edgewise.models.binding import to_proto, to_tensor
from edgewise.models.plan import Plan, execute, make_plan

# Inputs that are weights by their place.
_WEIGHTS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "RMSNormalization": (1,),
}
# What these read is a weight if it is no mere number: a bias, a scale per channel, an embedding, a class token.
_ANYWHERE = frozenset(("Add", "Concat", "Div", "Einsum", "Mul", "Sub", "Sum"))
_FIRST = frozenset(("Expand", "Gather", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"))
# Masks add this much to what is not to be attended to; no weight is so large.
_MASK = 1e4


class Network(nn.Module):
    """A graph that runs and trains.

    Every floating initializer that is a weight is an nn.Parameter, the mean and variance of batch norms are buffers, and other constants
    buffers that `state_dict` leaves out. Where an export marked what is no parameter (`export(..., norms=True)`), that mark decides;
    in a graph of unknown origin, what is read where weights stand. It starts in evaluation mode.

    In training mode BatchNormalization uses the batch's statistics and moves the running ones, as torch's does. A graph has no dropout.
    Parameters are called as their initializers, escaped (see `escaped`), because torch forbids dots: `state_dict` holds ":conv1:weight".

    Weights that the graph marks as sparse (`graph.mark_sparse`) train under a mask: what is zero gets no gradient and stays zero, whoever
    trains. The masks are buffers of bools, part of `state_dict`; `masks` lists them.

    Raises InvalidModel, which names node and operator, for what can't be run in torch: quantized nodes, control flow, custom operators.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.structure = graph
        index = Index(graph)
        statistics = _statistics(index)
        self._plan = make_plan(graph, {*_trained(graph, index, statistics), *statistics})
        self._inputs = tuple(spec.name for spec in graph.signature.inputs)
        self._outputs = tuple(spec.name for spec in graph.signature.outputs)
        self._held = tuple((slot, escaped(name)) for slot, name in self._plan.held)
        for _, name in self._plan.held:
            tensor = to_tensor(index.initializers[name])
            if name in self._plan.constants:
                self.register_buffer(escaped(name), tensor, persistent=False)
            elif name in statistics:
                self.register_buffer(escaped(name), tensor)
            else:
                self.register_parameter(escaped(name), nn.Parameter(tensor))
        self._masked = self._mask(sparse_weights(graph.proto))
        self.eval()

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Inputs in the signature's order, or by name; outputs in its order. One output comes as itself."""
        given = dict(zip(self._inputs, inputs, strict=False))
        if len(inputs) > len(self._inputs) or given.keys() & named.keys():
            raise InvalidInput(f"{len(inputs)} inputs in order and {', '.join(named) or 'none'} by name; {self._wants()}")
        values = self._execute(given | named, ())
        outputs = tuple(values[self._plan.slots[name]] for name in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def run(self, inputs: Mapping[str, Tensor], taps: Sequence[str] = ()) -> dict[str, Tensor]:
        """The outputs, and the tensors that `taps` names (of the graph's inner ones, its inputs or weights), by name; differentiable.

        Raises InvalidInput for a name that the graph doesn't have, or an input that is missing.
        """
        slots = self._plan.slots
        if unknown := [name for name in taps if name not in slots]:
            raise InvalidInput(f"there is no tensor {unknown[0]!r} to tap; `Index(network.structure).tensors` lists them")
        values = self._execute(inputs, [slots[name] for name in taps])
        return {name: values[slots[name]] for name in dict.fromkeys((*self._outputs, *taps))}

    @property
    def plan(self) -> Plan:
        """The order of work; never changes."""
        return self._plan

    def filled(self, inputs: Mapping[str, Tensor]) -> list[Any]:
        """The plan's slots with inputs and weights in them, where a pass begins. Raises InvalidInput for other inputs than the graph's."""
        if inputs.keys() != set(self._inputs):
            raise InvalidInput(f"got {', '.join(inputs) or 'nothing'}; {self._wants()}")
        values = list(self._plan.blank)
        for name, tensor in inputs.items():
            values[self._plan.slots[name]] = tensor
        parameters, buffers = self._parameters, self._buffers
        for slot, key in self._held:
            values[slot] = parameters[key] if key in parameters else buffers[key]
        return values

    def weight(self, name: str) -> Tensor:
        """The parameter or buffer of an initializer. Change it in place, under no_grad."""
        key = escaped(name)
        found = self._parameters[key] if key in self._parameters else self._buffers.get(key)
        if found is None:
            raise InvalidInput(f"there is no weight {name!r}; `weights()` lists them")
        return found

    def weights(self) -> dict[str, Tensor]:
        """Parameters and running statistics by initializer, in the order in which the graph reads them."""
        return {name: self.weight(name) for _, name in self._plan.held if name not in self._plan.constants}

    def masks(self) -> dict[str, Tensor]:
        """Of the sparse weights by initializer: True where an element may be other than zero. Change them in place, with the weights."""
        return {unescaped(key): self.get_buffer(mask) for _, key, mask in self._masked}

    def to_graph(self) -> Graph:
        """The structure with the weights as they are now, batch norms kept. `edgewise.graph.fold` makes it ready for engines."""
        proto = self.structure.copy_proto()
        held = {name for _, name in self._plan.held}
        for tensor in proto.graph.initializer:
            if tensor.name in held:
                tensor.CopyFrom(to_proto(self.weight(tensor.name), tensor))
        return Graph.from_proto(proto, self.structure.notes)

    def extra_repr(self) -> str:
        return f"{len(self._plan.node_by_node)} nodes, {sum(p.numel() for p in self.parameters())} parameters, {self.structure.signature}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        """What never changes is shared between copies: the structure, and the plan made from it."""
        memo[id(self.structure)], memo[id(self._plan)] = self.structure, self._plan
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return twin

    def _execute(self, inputs: Mapping[str, Tensor], taps: Sequence[int]) -> list[Any]:
        values, buffers = self.filled(inputs), self._buffers
        if self.training:
            for slot, _, mask in self._masked:
                values[slot] = values[slot] * buffers[mask]
        execute(self._plan.steps(self.training, taps), values, frozenset(taps))
        return values

    def _mask(self, sparse: frozenset[str]) -> tuple[tuple[int, str, str], ...]:
        """Register the mask of each sparse parameter: (slot, its key, the mask's)."""
        found = [(slot, key, f"mask{key}") for slot, key in self._held if key in self._parameters and unescaped(key) in sparse]
        for _, key, mask in found:
            self.register_buffer(mask, self.get_parameter(key).detach() != 0)
        return tuple(found)

    def _wants(self) -> str:
        return "the network takes " + ", ".join(f"{spec.name} {spec.shape}" for spec in self.structure.signature.inputs)


def escaped(name: str) -> str:
    """An initializer's name as torch allows it: dots become colons, and a leading one keeps it apart from every attribute of a module."""
    return ":" + name.replace("%", "%25").replace(":", "%3A").replace(".", ":")


def unescaped(key: str) -> str:
    """The initializer's name for a key of `state_dict` or `named_parameters`."""
    return key[1:].replace(":", ".").replace("%3A", ":").replace("%25", "%")


def _statistics(index: Index) -> frozenset[str]:
    """Running means and variances. Raises InvalidModel for one that is read elsewhere too: it would change there with every batch."""
    places: dict[str, set[bool]] = {}
    for node in index.nodes:
        for position, name in enumerate(node.input):
            places.setdefault(name, set()).add(node.op_type == "BatchNormalization" and position in (3, 4))
    found = [name for name in index.initializers if True in places.get(name, ())]
    if shared := [name for name in found if False in places[name]]:
        raise InvalidModel(
            f"{shared[0]!r} is a batch norm's running statistic and another node's weight at once: an exporter stored equal tensors once; "
            "part them with edgewise.graph.trainable"
        )
    return frozenset(found)


def _trained(graph: Graph, index: Index, statistics: frozenset[str]) -> set[str]:
    floating = {name for name, tensor in index.initializers.items() if tensor.data_type in FLOATS and name not in statistics}
    fixed = fixed_weights(graph.proto)
    if fixed is not None:
        return floating - fixed
    found = set()
    for node in index.nodes:
        for position, name in enumerate(node.input):
            if name in floating and _is_weight(node.op_type, position, index.initializers[name]):
                found.add(name)
    return found


def _is_weight(operator: str, position: int, tensor: onnx.TensorProto) -> bool:
    if operator in _WEIGHTS:
        return position in _WEIGHTS[operator]
    if np.prod(tensor.dims) < 2 or not (operator in _ANYWHERE or (operator in _FIRST and position == 0)):
        return False
    values = numpy_helper.to_array(tensor).astype(np.float32)
    return bool((np.abs(values) < _MASK).all())
