import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edgewise.compress.quantize.patches import patches, rows, unrows
from edgewise.compress.quantize.place import Weighted


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 3], "strides": [2, 1]},
        {"dilations": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER"},
        {"group": 2, "pads": [1, 1, 1, 1]},
        {"group": 4, "auto_pad": "VALID"},
    ],
    ids=str,
)
def test_rows_times_patches_is_the_convolution(attributes: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    groups = int(str(attributes.get("group", 1)))
    x = rng.normal(size=(2, 4, 9, 8)).astype(np.float32)
    w = rng.normal(size=(8, 4 // groups, 3, 2)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[3, 2], **attributes)
    layer = Weighted("conv", "Conv", "x", "y", "w", None, 0, groups)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", 1, x.shape)], [helper.make_empty_tensor_value_info("y")],
        [onnx.numpy_helper.from_array(w, "w")],
    )  # fmt: skip
    (y,) = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])).run(None, {"x": x})
    columns = patches(x, layer, node, (3, 2), 10**6, 0)
    ours = np.einsum("grk,gpk->pgr", rows(w, layer), columns).reshape(2, -1, 8)
    np.testing.assert_allclose(ours, y.reshape(2, 8, -1).transpose(0, 2, 1), rtol=1e-4, atol=1e-4)
    assert (unrows(rows(w, layer), layer, w.shape) == w).all()


def test_one_seed_draws_the_same_positions() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 20, 20)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])
    layer = Weighted("conv", "Conv", "x", "y", "w", None, 0)
    few = patches(x, layer, node, (3, 3), 50, 7)
    assert few.shape == (1, 50, 27)
    np.testing.assert_allclose(patches(2 * x, layer, node, (3, 3), 50, 7), 2 * few)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_matrix_product_has_one_column_per_feature(axis: int) -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(size=(6, 4)).astype(np.float32)
    x = rng.normal(size=(2, 3, w.shape[1 - axis])).astype(np.float32)
    layer = Weighted("fc", "Gemm", "x", "y", "w", None, axis)
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="fc", transB=1 - axis)
    ours = (rows(w, layer) @ np.swapaxes(patches(x, layer, node, (), 100, 0), 1, 2))[0].T
    np.testing.assert_allclose(ours, x.reshape(-1, x.shape[-1]) @ (w.T if axis == 0 else w), rtol=1e-5, atol=1e-5)
    assert (unrows(rows(w, layer), layer, w.shape) == w).all()
