import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edgewise.compress.quantize.grid import Grid, activation_grid


@settings(deadline=None, max_examples=50)
@given(low=st.floats(-100, 0), high=st.floats(0.01, 100), symmetric=st.booleans())
def test_activation_grid_holds_its_range_and_zero(low: float, high: float, symmetric: bool) -> None:
    grid = activation_grid(low, high, symmetric=symmetric)
    assert grid.fake(np.zeros(1))[0] == 0
    inside = np.linspace(low, high, 101)
    assert (
        np.abs(grid.fake(inside) - inside).max() <= float(grid.scale) * 1.001
    )  # half a step, one at the end where zero's place was rounded
    if symmetric and low < 0:
        assert grid.zero_point == 128


def test_a_constant_tensor_gets_a_scale_that_can_be_divided_by() -> None:
    assert np.isfinite(activation_grid(0.0, 0.0).fake(np.zeros(3))).all()


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_arithmetic_is_that_of_onnx(axis: int | None) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 3, (4, 5)).astype(np.float32)
    shape = () if axis is None else (x.shape[axis],)
    scale = rng.uniform(0.01, 0.05, shape).astype(np.float32)
    grid = Grid(scale, np.zeros(shape, np.int32), -128, 127, axis)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=axis or 0),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=axis or 0),
    ]
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [
            helper.make_tensor_value_info("q", onnx.TensorProto.INT8, x.shape),
            helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, x.shape),
        ],
        [onnx.numpy_helper.from_array(scale, "s"), onnx.numpy_helper.from_array(np.zeros(shape, np.int8), "z")],
    )
    integers, real = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])).run(None, {"x": x})
    assert (grid.quantize(x) == integers).all()
    np.testing.assert_allclose(grid.dequantize(integers), real, rtol=1e-6)
    np.testing.assert_allclose(grid.fake(x), real, rtol=1e-6, atol=1e-7)
