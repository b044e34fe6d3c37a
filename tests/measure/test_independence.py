from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from edgewise import measure
from edgewise.compress.quantize import quantize
from edgewise.errors import InvalidInput
from edgewise.graph import Graph
from edgewise.measure.independence import mixing
from edgewise.testing import graphs
from edgewise.types import Execution

HERE = Execution("onnxruntime")


def net() -> tuple[Graph, dict[str, np.ndarray]]:
    model, _ = graphs.mlp()
    rows = np.random.default_rng(0).standard_normal((9, 16), dtype=np.float32)
    rows[4] *= 50  # one that moves a scale which is taken over all of them
    return Graph.from_proto(model), {"x": rows}


def tokens(*, masked: bool, count: int = 4) -> tuple[Graph, dict[str, np.ndarray]]:
    """The mean of x (batch, tokens, 2) over its tokens, with or without regard to the mask."""
    nodes: list[Any] = [
        ("Cast", ["mask"], ["kept"], {"to": TensorProto.FLOAT}),
        ("Unsqueeze", ["kept", "last"], ["column"]),
        ("Mul", ["x", "column" if masked else "one"], ["weighted"]),
        ("ReduceSum", ["weighted", "tokens_axis"], ["total"], {"keepdims": 0}),
        ("ReduceSum", ["column", "tokens_axis"], ["count"], {"keepdims": 0}),
        ("Div", ["total", "count"], ["y"]),
    ]
    weights = {"last": np.array([-1]), "tokens_axis": np.array([1]), "one": np.float32(1)}
    model = graphs.build(
        nodes, {"x": ("batch", "tokens", 2), "mask": ("batch", "tokens")}, {"y": ("batch", 2)}, weights, types={"mask": TensorProto.INT64}
    )
    mask = (np.arange(6) < np.random.default_rng(0).integers(2, 7, (count, 1))).astype(np.int64)
    return Graph.from_proto(model), {"x": np.random.default_rng(1).standard_normal((count, 6, 2), dtype=np.float32), "mask": mask}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_float_and_static_integers_are_independent(engine: str) -> None:
    pytest.importorskip(engine)
    graph, inputs = net()
    static = quantize(graph, calibration=[inputs], reduce_range=True).model
    for model in (graph, static):
        found = measure.rows(model, Execution(engine), inputs)
        assert found.verdict == "independent" and found.padding is None and found.samples == 9 and not found.mixing


def test_a_scale_of_all_rows_is_found_and_named() -> None:
    graph, inputs = net()
    dynamic = quantize(graph, mode="dynamic").model
    found = measure.rows(dynamic, HERE, inputs)
    assert found.verdict == "dependent" and found.mixing == mixing(dynamic) and len(found.mixing) == 2
    assert min(found.together, found.neighbours) > 10 * found.tolerance and found.largest == max(found.together, found.neighbours)
    # Rows that happen to be alike prove nothing.
    alike = {"x": np.repeat(inputs["x"][:1], 3, 0)}
    assert measure.rows(dynamic, HERE, alike).largest < 1e-6
    assert measure.rows(dynamic, HERE, alike).verdict == "dependent"


def test_what_mixes_rows_in_another_way_is_measured() -> None:
    model = graphs.build([("Softmax", ["x"], ["y"], {"axis": 0})], {"x": ("batch", 3)}, {"y": ("batch", 3)}, {})
    inputs = {"x": np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)}
    found = measure.rows(Graph.from_proto(model), HERE, inputs)
    assert not found.mixing and found.verdict == "dependent"
    assert measure.rows(Graph.from_proto(model), HERE, inputs, divergence=2.0).verdict == "independent"


@pytest.mark.parametrize("padded", [True, False])
def test_padding_that_is_masked_changes_nothing_and_padding_that_is_not_does(padded: bool) -> None:
    for masked in (True, False):
        graph, inputs = tokens(masked=masked)
        if not padded:
            inputs = {"x": inputs["x"] + 1, "mask": np.ones_like(inputs["mask"])}
        found = measure.rows(graph, HERE, inputs)
        assert found.together < 1e-6 and found.padding is not None
        # Zeros behind the last token add nothing to a sum: where there was no padding, only its count could tell.
        assert (found.padding < 1e-6) == (masked or not padded)
        assert found.verdict == ("independent" if masked or not padded else "dependent")


def test_nan_is_never_the_same() -> None:
    model = graphs.build([("Log", ["x"], ["y"])], {"x": ("batch", 2)}, {"y": ("batch", 2)}, {})
    found = measure.rows(Graph.from_proto(model), HERE, {"x": -np.ones((3, 2), np.float32)})
    assert found.largest == np.inf and found.verdict == "dependent"


def test_models_and_samples_that_can_not_be_asked() -> None:
    graph, inputs = net()
    with pytest.raises(InvalidInput, match="1 sample can't have neighbours"):
        measure.rows(graph, HERE, {"x": inputs["x"][:1]})
    model = graphs.build([("Relu", ["x"], ["y"])], {"x": (1, 2)}, {"y": (1, 2)}, {})
    with pytest.raises(InvalidInput, match="leave its batch axis free"):
        measure.rows(Graph.from_proto(model), HERE, {"x": np.zeros((2, 2), np.float32)})
