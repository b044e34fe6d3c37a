from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgewise.compress.quantize import quantize
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.graph import Graph, taps
from edgewise.records import Device
from edgewise.types import Inputs

Error = Callable[..., float]
Run = Callable[..., dict[str, np.ndarray]]

VARIANTS: list[dict[str, Any]] = [
    {},
    {"rounding": "nearest"},
    {"rounding": "nearest", "bias_correction": False, "equalize": False},
    {"estimator": "minmax"},
    {"estimator": "percentile"},
    {"symmetric": True},
    {"residual": "one"},
    {"residual": "none"},
    {"reduce_range": True},
    {"granularity": "tensor", "weight_symmetric": False},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_outputs_stay_close_and_the_file_is_valid(
    net: Graph, samples: list[Inputs], held_out: Inputs, error: Error, options: dict[str, Any]
) -> None:
    done = quantize(net, calibration=samples, **options)
    onnx.checker.check_model(done.model.proto, full_check=True)
    assert done.model.signature == net.signature
    assert error(net, done.model, held_out) < (0.1 if options.get("granularity") == "tensor" else 0.05)
    assert len(done.touched) == 9 and not done.skipped
    weights = [t for t in done.model.proto.graph.initializer if t.name.endswith("_w_quantized")]
    assert len(weights) == 9 and all(t.data_type == onnx.TensorProto.INT8 for t in weights)
    assert not [t for t in done.model.proto.graph.initializer if t.name.endswith("_w")]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_integer_kernels_give_what_the_file_says(net: Graph, samples: list[Inputs], held_out: Inputs, run: Run, backend: str) -> None:
    pytest.importorskip(backend)
    done = quantize(net, calibration=samples, reduce_range=True)
    stated = run(done.model, held_out, optimization="off")["y"]
    # Engines round halves and residual sums in their own ways: a step here and there, not a drift.
    assert np.linalg.norm(run(done.model, held_out, backend)["y"] - stated) < 0.01 * np.linalg.norm(stated)


def test_adaptive_rounding_beats_nearest_on_held_out_samples(new_net: Any, error: Error) -> None:
    errors: dict[str, list[float]] = {"nearest": [], "adaptive": []}
    rng = np.random.default_rng(0)
    calibration = [{"x": rng.normal(size=(8, 4, 12, 12)).astype(np.float32)} for _ in range(16)]
    test = {"x": rng.normal(size=(64, 4, 12, 12)).astype(np.float32)}
    for seed in range(3):
        n = new_net(seed)
        x = n.add("Relu", [n.conv("x", "a", 4, 12)], "ar")
        x = n.add("Relu", [n.conv(x, "b", 12, 12)], "br")
        x = n.conv(x, "y", 12, 4, 1)
        graph = n.graph({"x": ["batch", 4, 12, 12]}, {"y": ["batch", 4, 12, 12]})
        for rounding, found in errors.items():
            found.append(error(graph, quantize(graph, calibration=calibration, rounding=rounding, reduce_range=True).model, test))  # type: ignore[arg-type]
    assert np.mean(errors["adaptive"]) < 0.95 * np.mean(errors["nearest"])


def test_bias_correction_restores_the_mean_of_each_channel(net: Graph, samples: list[Inputs], run: Run) -> None:
    def bias(graph: Graph) -> float:
        every = {"x": np.concatenate([s["x"] for s in samples])}
        exact, rounded = (run(taps(g, ["project"]), every, optimization="off")["project"].mean((0, 2, 3)) for g in (net, graph))
        return float(np.abs(exact - rounded).max())

    options = {"calibration": samples, "rounding": "nearest", "granularity": "tensor", "equalize": False}
    with_it, without = quantize(net, **options), quantize(net, **options, bias_correction=False)  # type: ignore[arg-type]
    assert bias(with_it.model) < 0.1 * bias(without.model)


TOKEN_VARIANTS: list[dict[str, Any]] = [{}, {"rounding": "nearest"}, {"estimator": "minmax"}, {"residual": "one"}, {"symmetric": True}]


@pytest.mark.parametrize("options", TOKEN_VARIANTS, ids=str)
def test_a_transformer_stays_close(
    text: Graph, phrases: list[Inputs], held_out_phrases: Inputs, error: Error, options: dict[str, Any]
) -> None:
    done = quantize(text, calibration=phrases, **options)
    onnx.checker.check_model(done.model.proto, full_check=True)
    assert done.model.signature == text.signature
    assert error(text, done.model, held_out_phrases) < 0.08
    assert set(done.skipped) == {"products", "seen"}
    kept = {tensor.name: tensor for tensor in done.model.proto.graph.initializer}
    assert sum(tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2 for tensor in kept.values()) == 8


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_every_engine_runs_a_transformer_in_integers(
    text: Graph, phrases: list[Inputs], held_out_phrases: Inputs, run: Run, backend: str, mode: Any
) -> None:
    pytest.importorskip(backend)
    done = quantize(text, calibration=phrases, mode=mode, reduce_range=True)
    stated = run(done.model, held_out_phrases, optimization="off")["y"]
    assert np.linalg.norm(run(done.model, held_out_phrases, backend)["y"] - stated) < 0.02 * np.linalg.norm(stated)


def test_what_stands_in_padding_changes_nothing(text: Graph, phrases: list[Inputs]) -> None:
    rubbish = [{"ids": np.where(one["mask"] == 1, one["ids"], 7), "mask": one["mask"]} for one in phrases]
    first, second = (quantize(text, calibration=given, equalize=False).model for given in (phrases, rubbish))
    before, after = ({tensor.name: numpy_helper.to_array(tensor) for tensor in model.proto.graph.initializer} for model in (first, second))
    assert before.keys() == after.keys()
    for name, value in before.items():
        if name not in ("seen_scale", "seen_zero_point", "seen_turned_scale", "context_scale"):
            np.testing.assert_allclose(value, after[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_means_of_products_are_restored_by_the_additions_behind_them(text: Graph, phrases: list[Inputs], run: Run) -> None:
    def bias(graph: Graph) -> float:
        exact, rounded = (
            np.concatenate([run(taps(g, ["feed2"]), one, optimization="off")["feed2"][one["mask"] == 1] for one in phrases])
            for g in (text, graph)
        )
        return float(np.abs((exact - rounded).mean(0)).max())

    options = {"calibration": phrases, "rounding": "nearest", "granularity": "tensor", "smooth": False, "embeddings": False}
    with_it, without = quantize(text, **options), quantize(text, **options, bias_correction=False)  # type: ignore[arg-type]
    assert bias(with_it.model) < 0.1 * bias(without.model)


def test_names_of_tensors_stay(net: Graph, samples: list[Inputs], held_out: Inputs, run: Run) -> None:
    done = quantize(net, calibration=samples, equalize=False)
    names = ["stem", "depthwise_clip", "sum", "pool", "joined"]
    exact, rounded = run(taps(net, names), held_out), run(taps(done.model, names), held_out, optimization="off")
    for name in names:
        assert np.linalg.norm(exact[name] - rounded[name]) < 0.05 * np.linalg.norm(exact[name])


def test_the_input_is_not_changed_and_the_result_repeats(net: Graph, samples: list[Inputs]) -> None:
    before = net.to_bytes()
    first = quantize(net, calibration=samples)
    assert net.proto.SerializeToString(deterministic=True) == before
    assert quantize(net, calibration=samples).model.sha256 == first.model.sha256


def test_skip_leaves_nodes_in_float(net: Graph, samples: list[Inputs], held_out: Inputs, error: Error) -> None:
    done = quantize(net, calibration=samples, skip=("depthwise", "y"))
    assert done.skipped == {"depthwise": "left in float as asked", "y": "left in float as asked"}
    assert {"depthwise_w", "y"} <= {t.name for t in done.model.proto.graph.initializer} | {n.name for n in done.model.proto.graph.node}
    assert error(net, done.model, held_out) < 0.05


def test_fixed_batch_and_one_sample(new_net: Any, error: Error) -> None:
    n = new_net()
    n.add("Relu", [n.conv("x", "a", 2, 4)], "y")
    graph = n.graph({"x": [1, 2, 5, 5]}, {"y": [1, 4, 5, 5]})
    sample = {"x": np.random.default_rng(0).normal(size=(1, 2, 5, 5)).astype(np.float32)}
    assert error(graph, quantize(graph, calibration=[sample]).model, sample) < 0.02


def test_transposed_convolution_matmul_without_bias_and_a_dead_channel(new_net: Any, error: Error) -> None:
    n = new_net()
    up = n.rng.normal(0, 0.4, (3, 4, 2, 2)).astype(np.float32)
    up[:, 1] = 0
    n.constant("up_w", up)
    n.constant("up_b", np.array([0.1, 2.0, 0.0, -0.2], np.float32))
    n.add("ConvTranspose", ["x", "up_w", "up_b"], "up", strides=[2, 2])
    x = n.add("Relu", [n.conv("up", "mix", 4, 4, 1)], "mixed")
    x = n.add("Flatten", [x], "flat")
    n.constant("w", n.rng.normal(0, 0.3, (64, 3)).astype(np.float32))
    n.add("MatMul", [x, "w"], "y")
    graph = n.graph({"x": ["batch", 3, 2, 2]}, {"y": ["batch", 3]})
    rng = np.random.default_rng(0)
    samples = [{"x": rng.normal(size=(4, 3, 2, 2)).astype(np.float32)} for _ in range(8)]
    done = quantize(graph, calibration=samples)
    assert done.touched == ("up", "mix", "y")
    assert error(graph, done.model, samples[0]) < 0.05


def test_int32_holds_the_bias_of_a_channel_that_is_nearly_dead(new_net: Any, run: Run) -> None:
    n = new_net()
    w = n.rng.normal(0, 0.3, (4, 3, 1, 1)).astype(np.float32)
    w[1] *= 1e-14
    n.add("Conv", ["x", n.constant("w", w), n.constant("b", np.array([0, 500, 0, 0], np.float32))], "y")
    graph = n.graph({"x": ["batch", 3, 4, 4]}, {"y": ["batch", 4, 4, 4]})
    samples = [{"x": np.random.default_rng(i).normal(size=(4, 3, 4, 4)).astype(np.float32)} for i in range(4)]
    for rounding in ("nearest", "adaptive"):
        y = run(quantize(graph, calibration=samples, rounding=rounding, equalize=False).model, samples[0], optimization="off")["y"]  # type: ignore[arg-type]
        np.testing.assert_allclose(y[:, 1], 500, rtol=1e-3)


def test_weights_shared_by_two_nodes(new_net: Any, error: Error) -> None:
    n = new_net()
    w = n.constant("w", n.rng.normal(0, 0.3, (4, 4, 1, 1)).astype(np.float32))
    x = n.add("Relu", [n.add("Conv", ["x", w], "a")], "ar")
    n.add("Conv", [x, w], "y")
    graph = n.graph({"x": ["batch", 4, 3, 3]}, {"y": ["batch", 4, 3, 3]})
    samples = [{"x": np.random.default_rng(i).normal(size=(4, 4, 3, 3)).astype(np.float32)} for i in range(4)]
    assert error(graph, quantize(graph, calibration=samples).model, samples[0]) < 0.03


def test_reduced_range_follows_the_device() -> None:
    from edgewise.compress.quantize.options import saturates

    def device(arch: str, *isa: str) -> Device:
        return Device("d", arch, "cpu", 1, isa, 1, "linux", {}, "none")

    assert saturates(device("x86_64", "avx2"))
    assert not saturates(device("x86_64", "avx2", "avx512_vnni"))
    assert not saturates(device("aarch64", "asimd"))


def test_dynamic(net: Graph, held_out: Inputs, error: Error) -> None:
    done = quantize(net, mode="dynamic")
    assert done.touched == ("y",)
    assert "Conv stays in float" in done.skipped["stem"]
    assert error(net, done.model, held_out) < 0.05
    onnx.checker.check_model(done.model.proto, full_check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 4}, "bits=4.*later version"),
        ({"bits": 9}, "bits=9"),
        ({"estimator": "max"}, "estimator='max' is unknown; use one of minmax, percentile, mse, entropy"),
        ({"mode": "weights"}, "static, dynamic"),
        ({"granularity": "group"}, "channel, tensor"),
        ({"rounding": "up"}, "nearest, adaptive"),
        ({"residual": "two"}, "both, one, none"),
        ({"weight_symmetric": False}, 'granularity="tensor"'),
        ({"skip": "stem"}, "one string"),
        ({"skip": ("stam",)}, "'stem'"),
    ],
)
def test_options_that_can_not_be(net: Graph, samples: list[Inputs], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        quantize(net, calibration=samples, **options)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], "empty"),
        ([{"image": np.zeros((1, 3, 16, 16), np.float32)}], "has image; the model's inputs are x"),
        ([{"x": np.zeros((1, 3, 8, 8), np.float32)}], r"shape \(1, 3, 8, 8\)"),
        ([{"x": np.zeros((1, 3, 16, 16))}], "float64; the model expects float32"),
        ([{"x": np.full((1, 3, 16, 16), np.nan, np.float32)}], "NaN"),
        ([np.zeros((1, 3, 16, 16), np.float32)], "has ndarray"),
    ],
)
def test_calibration_that_does_not_fit(net: Graph, calibration: list[Any], message: str) -> None:
    with pytest.raises(InvalidData, match=message):
        quantize(net, calibration=calibration)


def test_models_that_can_not_be_quantized(new_net: Any, net: Graph, samples: list[Inputs]) -> None:
    with pytest.raises(InvalidModel, match="already"):
        quantize(quantize(net, calibration=samples).model, calibration=samples)
    n = new_net()
    n.add("Relu", ["x"], "y")
    graph = n.graph({"x": [1, 4]}, {"y": [1, 4]})
    with pytest.raises(InvalidModel, match="no Conv, Gemm or MatMul"):
        quantize(graph, calibration=[{"x": np.zeros((1, 4), np.float32)}])
    with pytest.raises(InvalidModel, match="static"):
        quantize(graph, mode="dynamic")
