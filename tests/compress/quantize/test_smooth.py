"""Smoothing against SmoothQuant's own formula in numpy, and against the function that it must not change."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from edgewise.compress.quantize import calibrate, quantize
from edgewise.compress.quantize.place import place
from edgewise.compress.quantize.smooth import LIMIT, scales, smoothed
from edgewise.graph import Graph, Index, taps
from edgewise.types import Inputs

Run = Callable[..., dict[str, np.ndarray]]


def eased(graph: Graph, samples: list[Inputs], **options: Any) -> tuple[Graph, dict[str, Any]]:
    done, found = smoothed(graph, place(graph, **options), samples, calibrate.default_execution())
    return done, {one.tensor: one for one in found}


def test_the_function_stays(text: Graph, phrases: list[Inputs], held_out_phrases: Inputs, run: Run) -> None:
    done, found = eased(text, phrases)
    assert {"entry", "norm1"} <= set(found)
    before, after = run(text, held_out_phrases)["y"], run(done, held_out_phrases)["y"]
    np.testing.assert_allclose(after, before, atol=1e-5 * float(np.abs(before).max()))


def test_scales_are_those_of_the_paper(text: Graph, phrases: list[Inputs], run: Run) -> None:
    done, found = eased(text, phrases)
    one = found["entry"]
    seen = [run(taps(text, ["entry"]), sample)["entry"][sample["mask"].astype(bool)] for sample in phrases]
    activation = np.abs(np.concatenate(seen)).max(0).astype(np.float64)
    weights = np.concatenate([Index(text).constant(f"{name}_w") for name in ("query", "key", "value")], 1)  # type: ignore[arg-type]
    expected = activation**one.strength / np.abs(weights).max(1).astype(np.float64) ** (1 - one.strength)
    expected /= np.exp(np.log(expected).mean())
    np.testing.assert_allclose(one.scale, expected, rtol=1e-5)
    assert one.scale.argmax() == 3
    nodes = {node.name: node for node in done.proto.graph.node}
    index = Index(done)
    for name in ("query", "key", "value"):
        smooth = index.constant(nodes[f"{name}_product"].input[1])
        assert smooth is not None
        np.testing.assert_allclose(smooth, Index(text).constant(f"{name}_w") * one.scale[:, None], rtol=1e-6)  # type: ignore[operator]


def test_a_residual_sum_reads_what_was_not_divided(text: Graph, phrases: list[Inputs]) -> None:
    done, found = eased(text, phrases)
    assert not found["entry"].absorbed
    nodes = {node.name: node for node in done.proto.graph.node}
    assert "entry" in nodes["sum1"].input and "norm1" in nodes["sum2"].input
    assert {nodes[f"{name}_product"].input[0] for name in ("query", "key", "value")} == {"entry_smooth"}


def test_a_norm_that_only_products_read_takes_the_division(new_net: Any, run: Run) -> None:
    net = new_net()
    x = net.norm("x", "norm", 12, {2: 40.0})
    net.add("Add", [net.linear(x, "left", 12, 8), net.linear(x, "right", 12, 8)], "y")
    graph = net.graph({"x": ["batch", "tokens", 12]}, {"y": ["batch", "tokens", 8]})
    rng = np.random.default_rng(0)
    samples = [{"x": rng.normal(size=(2, 5, 12)).astype(np.float32)} for _ in range(8)]
    done, found = eased(graph, samples)
    one = found["norm"]
    assert one.absorbed and [node.op_type for node in done.proto.graph.node] == [node.op_type for node in graph.proto.graph.node]
    norm = next(node for node in done.proto.graph.node if node.name == "norm")
    for at, name in ((1, "norm_gain"), (2, "norm_bias")):
        np.testing.assert_allclose(Index(done).constant(norm.input[at]), Index(graph).constant(name) / one.scale, rtol=1e-6)  # type: ignore[operator]
    before = run(graph, samples[0])["y"]
    np.testing.assert_allclose(run(done, samples[0])["y"], before, atol=1e-5 * float(np.abs(before).max()))


def test_a_gated_layer_is_divided_where_it_is_linear(new_net: Any, run: Run) -> None:
    net = new_net()
    gate = net.linear("x", "gate", 8, 12)
    up = net.linear("x", "up", 8, 12)
    net.weights["up_w"][:, 4] *= 30
    h = net.add("Mul", [net.add("Sigmoid", [gate], "open"), up], "h")
    net.linear(h, "y", 12, 8)
    graph = net.graph({"x": ["batch", "tokens", 8]}, {"y": ["batch", "tokens", 8]})
    samples = [{"x": np.random.default_rng(i).normal(size=(2, 5, 8)).astype(np.float32)} for i in range(8)]
    done, found = eased(graph, samples)
    assert found["h"].absorbed and len(done.proto.graph.node) == len(graph.proto.graph.node)
    held = [{tensor.name: numpy_helper.to_array(tensor) for tensor in one.proto.graph.initializer} for one in (graph, done)]
    changed = [name for name, value in held[0].items() if not np.array_equal(value, held[1][name])]
    readers = [node.name for node in done.proto.graph.node if set(node.input) & set(changed)]
    assert readers == ["up_product", "up", "y_product"]
    before = run(graph, samples[0])["y"]
    np.testing.assert_allclose(run(done, samples[0])["y"], before, atol=1e-5 * float(np.abs(before).max()))


def test_it_halves_the_error_of_quantization(
    text: Graph, phrases: list[Inputs], held_out_phrases: Inputs, error: Callable[..., float]
) -> None:
    found = {smooth: quantize(text, calibration=phrases, smooth=smooth, embeddings=0) for smooth in (True, False)}
    errors = {smooth: error(text, done.model, held_out_phrases) for smooth, done in found.items()}
    assert errors[True] < 0.5 * errors[False]
    assert any("smoothed" in note for note in found[True].notes) and not any("smoothed" in note for note in found[False].notes)


def test_dynamic_quantization_is_smoothed_where_samples_are_given(
    text: Graph, phrases: list[Inputs], held_out_phrases: Inputs, error: Callable[..., float]
) -> None:
    errors = [
        error(text, quantize(text, mode="dynamic", calibration=given, embeddings=0).model, held_out_phrases) for given in ((), phrases)
    ]
    assert errors[1] < 0.7 * errors[0]


def test_convolution_nets_stay_as_they_are(net: Graph, samples: list[Inputs]) -> None:
    done, found = eased(net, samples)
    assert done is net and not found


def test_what_is_skipped_keeps_its_weights(text: Graph, phrases: list[Inputs]) -> None:
    done, found = eased(text, phrases, skip=("query_product", "key_product", "value_product"))
    assert "entry" not in found
    assert "query_w" in {tensor.name for tensor in done.proto.graph.initializer}


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_dead_and_extreme_channels_keep_their_scale_in_bounds(strength: float) -> None:
    activation = np.array([0.0, 1e-5, 1.0, 1e6], np.float32)
    found = scales(activation, np.array([1.0, 1.0, 1e-9, 1.0], np.float32), strength)
    assert found[0] == found[2] == 1 and np.isfinite(found).all()
    assert (found >= 1 / LIMIT).all() and (found <= LIMIT).all()
