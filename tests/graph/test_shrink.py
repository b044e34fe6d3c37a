"""Parts and their removal, on networks that no rule knows by name.

The oracle: a network from which units are taken gives what the whole one gives when nothing reads these units (the columns that read them
are zero). That holds for filters, neurons and heads alike, through concatenation, flattening, depthwise convolution and normalisation.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgewise import backends
from edgewise.compress.quantize import quantize
from edgewise.errors import InvalidInput
from edgewise.export import export
from edgewise.graph import Graph, cost, fold, found_again, parts, shrink, taps, total
from edgewise.models.resnet import resnet8
from edgewise.testing import nets
from edgewise.types import Execution

NETS = ("mobilenet_like", "densenet_like", "unet_like", "two_inputs", "vit_like", "gated", "grouped", "shared")


def _resnet() -> tuple[torch.nn.Module, dict[str, np.ndarray]]:
    torch.manual_seed(0)
    net = resnet8()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval(), {"image": np.random.default_rng(0).normal(size=(2, 1, 28, 28)).astype(np.float32)}


@cache
def exported(name: str, norms: bool = True) -> tuple[Graph, dict[str, np.ndarray]]:
    module, example = _resnet() if name == "resnet" else (getattr(nets, name)(), nets.example(name))
    return (export(module, example, norms=True) if norms else fold(exported(name)[0])), example


def answers(graph: Graph, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    runner = backends.load(graph.to_bytes(), Execution("onnxruntime"))
    try:
        return list(runner.run(inputs).values())
    finally:
        runner.close()


def unread(graph: Graph, part: object, gone: np.ndarray) -> Graph:
    """`graph` where nothing reads the units `gone` of `part`."""
    proto = graph.copy_proto()
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    for one in part.slices:  # type: ignore[attr-defined]
        if one.role == "in":
            value = numpy_helper.to_array(stored[one.tensor]).copy()
            np.moveaxis(value, one.axis, 0)[one.indices[gone].reshape(-1)] = 0
            stored[one.tensor].CopyFrom(numpy_helper.from_array(value, one.tensor))
    return Graph.from_proto(proto)


@pytest.mark.parametrize("name", ("resnet", *NETS))
@pytest.mark.parametrize("norms", (True, False))
def test_a_pruned_network_gives_what_the_whole_one_gives_when_nothing_reads_the_units(name: str, norms: bool) -> None:
    graph, example = exported(name, norms)
    coupling = parts(graph)
    assert coupling.parts, coupling.fixed
    generator = np.random.default_rng(1)
    masked, keep = graph, {}
    for part in coupling.parts:
        if part.kind == "hidden":  # see test_hidden.py: what is not read still counts in the statistics of a layer norm
            continue
        stay = np.sort(generator.choice(part.units, max(1, part.units // 2), replace=False))
        keep[part.name] = stay.tolist()
        masked = unread(masked, part, np.setdiff1d(np.arange(part.units), stay))
    small = shrink(graph, keep)
    onnx.checker.check_model(small.proto, full_check=True)
    for got, expected in zip(answers(small, example), answers(masked, example), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-4)
    assert total(cost(small)).macs < 0.75 * total(cost(graph)).macs
    assert small.size_bytes < graph.size_bytes


def test_one_part_at_a_time_too() -> None:
    graph, example = exported("vit_like")
    for part in parts(graph).parts:
        if part.kind == "hidden":
            continue
        small = shrink(graph, {part.name: list(range(1, part.units))})
        expected = answers(unread(graph, part, np.array([0])), example)
        for got, whole in zip(answers(small, example), expected, strict=True):
            np.testing.assert_allclose(got, whole, rtol=2e-4, atol=2e-4)


def test_a_residual_net_has_streams_and_inner_channels() -> None:
    graph, _ = exported("resnet")
    found = {part.name: part for part in parts(graph).parts}
    assert found["stages.0.conv1.weight"].units == 16
    assert {one.role for one in found["stages.0.conv1.weight"].slices} == {"out", "along", "in"}
    stream = found["conv.weight"]
    makers = {one.tensor for one in stream.slices if one.role == "out" and one.tensor.endswith("weight")}
    assert stream.units == 16 and makers == {"conv.weight", "stages.0.conv2.weight"}
    assert all(part.kind == "channels" for part in found.values())
    assert [part.removable for part in found.values()].count(True) >= 1


def test_heads_of_an_attention_and_units_of_its_feed_forward_block() -> None:
    graph, _ = exported("vit_like")
    kinds = [part.kind for part in parts(graph).parts]
    # Both attentions, in matrix products and as torch's own function.
    assert sorted(kinds) == ["heads", "heads", "hidden", "neurons", "neurons"]


def test_a_whole_branch_goes() -> None:
    graph, example = exported("resnet")
    coupling = parts(graph)
    part = next(part for part in coupling.parts if part.removable)
    small = shrink(graph, {part.name: []}, exact=True)
    expected = answers(unread(graph, part, np.arange(part.units)), example)
    for got, whole in zip(answers(small, example), expected, strict=True):
        inner = got - whole
        # At the border, a convolution of zeros is its bias too, so the constant holds everywhere.
        assert np.abs(inner).max() < 2e-4
    assert sum(node.op_type == "Conv" for node in small.proto.graph.node) < sum(node.op_type == "Conv" for node in graph.proto.graph.node)


@pytest.mark.parametrize("name", ("resnet", "mobilenet_like", "vit_like"))
@pytest.mark.parametrize("norms", (True, False))
def test_nothing_is_left_of_a_branch_that_an_engine_would_compute(name: str, norms: bool) -> None:
    graph, example = exported(name, norms)
    coupling = parts(graph)
    keep = {part.name: [] for part in coupling.parts if part.removable}
    assert keep
    whole, small = shrink(graph, keep, exact=True), shrink(graph, keep)
    counts = [Counter(node.op_type for node in one.proto.graph.node) for one in (whole, small)]
    assert counts[1]["Identity"] == 0
    constants = [sum(name.endswith("_constant") for name in stored(one)) for one in (whole, small)]
    assert counts[1]["Add"] == counts[0]["Add"] - constants[0] + constants[1]
    assert constants[1] == (name == "vit_like")  # its first branch follows no bias but that of every place
    if name != "resnet":  # nothing that the constants cross
        np.testing.assert_allclose(answers(small, example)[0], answers(whole, example)[0], rtol=2e-4, atol=2e-4)


def test_a_constant_that_crosses_a_relu_is_exact_where_it_was_open() -> None:
    graph, example = exported("resnet")
    keep = {"stages.0.conv1.weight": []}
    whole, small = shrink(graph, keep, exact=True), shrink(graph, keep)
    before = answers(taps(whole, ["relu", "relu_2"]), example)
    after = answers(taps(small, ["relu"]), example)[-1]
    opened = before[-2] > 0
    assert opened.any() and not opened.all()
    np.testing.assert_allclose(after[opened], before[-1][opened], rtol=2e-4, atol=2e-4)


def test_a_quantized_graph_keeps_no_rounding_of_what_is_rounded_and_activated() -> None:
    graph, example = exported("resnet", norms=False)
    integer = quantize(graph, calibration=[example], rounding="nearest", equalize=False).model
    keep = {part.name: [] for part in parts(graph).parts if part.removable}
    small = shrink(integer, keep)
    counted = Counter(node.op_type for node in small.proto.graph.node)
    assert counted["Relu"] < Counter(node.op_type for node in integer.proto.graph.node)["Relu"] and counted["Identity"] == 0
    # An engine rounds chains that it fuses its own way.
    np.testing.assert_allclose(answers(small, example)[0], answers(shrink(integer, keep, exact=True), example)[0], rtol=0, atol=0.02)


def stored(graph: Graph) -> set[str]:
    return {tensor.name for tensor in graph.proto.graph.initializer}


def test_a_branch_and_its_stream_go_together() -> None:
    graph, example = exported("resnet")
    coupling = parts(graph)
    part = next(part for part in coupling.parts if part.removable)
    stream = coupling.part("conv.weight")
    masked = unread(unread(graph, part, np.arange(part.units)), stream, np.arange(8))
    small = shrink(graph, {part.name: [], stream.name: list(range(8, 16))}, exact=True)
    np.testing.assert_allclose(answers(small, example)[0], answers(masked, example)[0], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ("resnet", "mobilenet_like", "densenet_like"))
def test_a_quantized_graph_has_the_same_parts(name: str) -> None:
    graph, example = exported(name, norms=False)
    integer = quantize(graph, calibration=[example], rounding="nearest", equalize=False).model
    float_parts = {part.name: part.units for part in parts(graph).parts}
    assert {part.name: part.units for part in parts(integer).parts} == float_parts
    keep = {name: list(range(max(1, units // 2))) for name, units in float_parts.items()}
    small = shrink(integer, keep)
    assert answers(small, example)[0].shape == answers(integer, example)[0].shape
    assert small.size_bytes < integer.size_bytes


def test_what_cannot_go_has_a_reason() -> None:
    graph, _ = exported("resnet")
    assert parts(graph).fixed == {"head.weight": "it is an output of the model"}


def test_an_unknown_part_a_wrong_unit_and_an_empty_part() -> None:
    graph, _ = exported("resnet")
    with pytest.raises(InvalidInput, match="has no part 'nowhere'"):
        shrink(graph, {"nowhere": [0]})
    with pytest.raises(InvalidInput, match="give distinct numbers from 0 to 15"):
        shrink(graph, {"conv.weight": [0, 16]})
    with pytest.raises(InvalidInput, match="give distinct numbers"):
        shrink(graph, {"conv.weight": [0, 0]})
    with pytest.raises(InvalidInput, match="at least one of its 16 units has to stay"):
        shrink(graph, {"conv.weight": []})


@pytest.mark.parametrize("norms", (True, False))
def test_a_part_whose_first_weight_went_with_a_branch_is_found_again(norms: bool) -> None:
    graph, _ = exported("resnet", norms)
    before = parts(graph)
    small = shrink(graph, {"stages.2.conv1.weight": []})
    after = parts(small)
    names = found_again(before, after)
    assert "stages.2.conv2.weight" not in {part.name for part in after.parts}
    assert after.part(names["stages.2.conv2.weight"]).units == before.part("stages.2.conv2.weight").units
    assert "stages.2.conv1.weight" not in names and names["conv.weight"] == "conv.weight"
    assert set(names.values()) == {part.name for part in after.parts}


def test_shrinking_twice_is_shrinking_once() -> None:
    graph, example = exported("densenet_like")
    part = parts(graph).parts[0]
    once = shrink(graph, {part.name: list(range(2, part.units))})
    twice = shrink(shrink(graph, {part.name: list(range(1, part.units))}), {part.name: list(range(1, part.units - 1))})
    np.testing.assert_allclose(answers(once, example)[0], answers(twice, example)[0], rtol=1e-5, atol=1e-5)
