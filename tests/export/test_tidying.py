"""Exports that go on training: every parameter there, under its name, with its value; nothing folded away."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgewise.errors import InvalidModel
from edgewise.export import export, parity
from edgewise.graph import Graph, fold, parts
from edgewise.models.resnet import resnet8
from edgewise.testing import nets


def weights(graph: Graph) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.proto.graph.initializer}


@pytest.mark.parametrize("name", ["mobilenet_like", "vit_like", "shared"])
def test_every_parameter_is_there_under_its_name(name: str) -> None:
    module = nets.NETS[name]()
    graph = export(module, nets.example(name), norms=True)
    found = weights(graph)
    for key, value in module.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            expected = value.numpy()
            same = found[key].shape == expected.shape and np.array_equal(found[key], expected)
            assert same or np.array_equal(found[key], expected.T), key
    operators = [node.op_type for node in graph.proto.graph.node]
    assert operators.count("BatchNormalization") == sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    assert graph.signature.batched
    assert parity(module, graph, nets.example(name)).relative_l2 < 1e-5
    convolutions = [node for node in graph.proto.graph.node if node.op_type == "Conv"]
    assert [len(node.input) - 2 for node in convolutions] == [
        int(f"{node.input[1].removesuffix('weight')}bias" in module.state_dict()) for node in convolutions
    ]
    # What an engine gets has as many nodes as the plain export.
    assert len(fold(graph).proto.graph.node) <= len(export(module, nets.example(name)).proto.graph.node)


@pytest.mark.parametrize("name", ["mobilenet_like", "vit_like", "unet_like", "gated"])
def test_parts_are_called_alike_in_the_form_that_serves(name: str) -> None:
    """A plan is made on the one, and the other is pruned by it."""
    module = nets.NETS[name]()
    plain, training = (export(module, nets.example(name), norms=norms) for norms in (False, True))
    names = [[(part.name, part.kind, part.units) for part in parts(graph).parts] for graph in (plain, fold(plain), training)]
    assert names[0] and names[0] == names[1] == names[2]


def test_fresh_parameters_are_not_stored_once() -> None:
    """All batch norms of a fresh net hold the same ones and zeros."""
    module = resnet8()
    found = weights(export(module, {"image": np.ones((2, 1, 28, 28), np.float32)}, norms=True))
    assert {name for name in module.state_dict() if not name.endswith("num_batches_tracked")} <= set(found)


def test_a_parameter_that_changes_nothing_yet_stays() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.shift = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(1))
            self.layer = nn.Conv2d(2, 2, 1)
            nn.init.zeros_(self.layer.bias)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.scale + self.shift

    found = weights(export(Scaled(), {"x": np.ones((2, 2, 3, 3), np.float32)}, norms=True))
    assert {"scale", "shift", "layer.weight", "layer.bias"} <= set(found)


def test_what_cannot_be_exported_says_why_here_too() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(InvalidModel, match="Branches can't be exported"):
        export(Branches(), {"x": np.ones((2, 3), np.float32)}, norms=True)
