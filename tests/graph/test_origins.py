"""What a pruned network has kept of the one that it was pruned from, through any number of steps."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgewise.graph import Index, fold, parts, shrink
from edgewise.graph.origins import channel_origins, noted_origins
from edgewise.models.network import Network
from edgewise.testing import encoder_graphs as encoders

GRAPH = encoders.encoder(layers=2)


def values(graph):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.proto.graph.initializer}


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=3), st.booleans())
def test_the_noted_positions_of_the_first_weights_are_the_weights_that_are_left(choices, whole_branch):
    small = GRAPH
    for number, choice in enumerate(choices):
        keep = {}
        for part in parts(small).parts:
            units = [unit for unit in range(part.units) if choice >> unit & 1] or [0]
            keep[part.name] = units
        removable = [part.name for part in parts(small).parts if part.removable]
        if whole_branch and number == len(choices) - 1 and removable:
            keep[removable[0]] = []
        small = shrink(small, keep, exact=True)
    first, left = values(GRAPH), values(small)
    noted = noted_origins(small.proto)
    assert set(noted) <= set(left)
    for name, value in left.items():
        if name not in first or value.dtype.kind != "f":
            continue
        expected = first[name]
        for axis, mask in noted.get(name, {}).items():
            expected = np.compress(mask, expected, axis=axis)
        np.testing.assert_array_equal(value, expected)


def test_channels_of_inner_tensors_are_those_of_the_weights_they_are_coupled_to():
    names = [part.name for part in parts(GRAPH).parts if part.kind != "hidden"]
    assert channel_origins(GRAPH, Index(GRAPH).tensors) == {}
    small = shrink(shrink(GRAPH, {names[1]: [0, 3, 5, 6, 9], names[0]: [1]}), {names[1]: [0, 2, 4]})
    found = channel_origins(small, Index(small).tensors)
    inner = next(node.output[0] for node in small.proto.graph.node if node.op_type == "Relu")
    assert found[inner].tolist() == [0, 5, 9]
    query = next(node.output[0] for node in small.proto.graph.node if "layers.0.attention.query.weight" in node.input)
    assert found[query].tolist() == [4, 5, 6, 7]
    stream = next(node.output[0] for node in small.proto.graph.node if node.op_type == "LayerNormalization")
    assert stream not in found


def test_the_notes_stay_while_it_trains_and_go_when_it_is_made_ready_for_engines():
    name = next(part.name for part in parts(GRAPH).parts if part.kind == "neurons")
    small = shrink(GRAPH, {name: range(3)})
    assert noted_origins(Network(small).to_graph().proto).keys() == noted_origins(small.proto).keys() != set()
    assert noted_origins(fold(small).proto) == {}
