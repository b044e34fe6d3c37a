import subprocess
import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgewise import backends
from edgewise.errors import InvalidInput
from edgewise.export.lowering import FORMS, check, forms, lower
from edgewise.graph import Graph, taps
from edgewise.types import Execution, Runner


def qdq(seed: int, *, zero_points: bool = True) -> Graph:
    """x → Q/DQ → Conv (int8 weights) → Relu → Q/DQ → y, with random scales and zero points."""
    rng = np.random.default_rng(seed)
    values = {
        "w_q": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "w_s": rng.uniform(0.001, 0.01, 4).astype(np.float32),
        "w_z": np.zeros(4, np.int8),
        "x_s": np.float32(rng.uniform(0.01, 0.05)),
        "x_z": np.uint8(rng.integers(0, 256)),
        "y_s": np.float32(rng.uniform(0.01, 0.1)),
        "y_z": np.uint8(rng.integers(0, 256)),
    }
    x, y = (["x_s", "x_z"], ["y_s", "y_z"]) if zero_points else (["x_s"], ["y_s"])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *x], ["x_q"], name="q1"),
        helper.make_node("DequantizeLinear", ["x_q", *x], ["x_dq"], name="d1"),
        helper.make_node("DequantizeLinear", ["w_q", "w_s", "w_z"], ["w"], name="dw", axis=0),
        helper.make_node("Conv", ["x_dq", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("QuantizeLinear", ["r", *y], ["y_q"], name="q2"),
        helper.make_node("DequantizeLinear", ["y_q", *y], ["y"], name="d2"),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 6, 6])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()],
    )  # fmt: skip
    return Graph.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))


def loader(backend: str = "onnxruntime", **options: str) -> Callable[[bytes], Runner]:
    return lambda model: backends.load(model, Execution(backend, options=options))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), zero_points=st.booleans())
def test_signed_activations_are_the_same_integers_less_128(seed: int, zero_points: bool) -> None:
    graph = qdq(seed, zero_points=zero_points)
    signed = lower(graph, "s8")
    onnx.checker.check_model(signed.proto, full_check=True)
    x = {"x": np.random.default_rng(seed).normal(0, 2, (2, 3, 6, 6)).astype(np.float32)}
    found = []
    for each in (graph, signed):
        runner = loader(optimization="off")(taps(each, ["x_q", "y_q"]).to_bytes())
        found.append(runner.run(x))
        runner.close()
    for name in ("x_q", "y_q"):
        assert found[1][name].dtype == np.int8
        assert (found[0][name].astype(int) - 128 == found[1][name]).all()
    assert (found[0]["y"] == found[1]["y"]).all()
    back = lower(signed, "u8")
    assert check(graph, back, loader(optimization="off"), [x]).largest == 0


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_check_compares_in_the_engine_that_will_run_it(backend: str) -> None:
    pytest.importorskip(backend)
    graph = qdq(3)
    x = [{"x": np.random.default_rng(i).normal(0, 2, (2, 3, 6, 6)).astype(np.float32)} for i in range(3)]
    found = check(graph, lower(graph, "s8"), loader(backend), x)
    assert found.samples == 3 and found.relative_l2 < 0.01  # an engine may round halves differently per form
    other = check(graph, qdq(4), loader(backend), x)
    assert other.relative_l2 > 0.1 and other.largest > 0


def test_forms_that_change_something() -> None:
    graph = qdq(0)
    assert forms(graph) == ("qdq", "s8")
    assert forms(lower(graph, "s8")) == ("qdq", "u8")
    assert lower(graph, "qdq") is graph and lower(graph, "u8") is graph
    floating = Graph.from_proto(
        helper.make_model(
            helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="r")], "g",
                              [helper.make_tensor_value_info("x", 1, [1])], [helper.make_tensor_value_info("y", 1, [1])]),
            opset_imports=[helper.make_opsetid("", 18)],
        )
    )  # fmt: skip
    assert forms(floating) == ("qdq",) and lower(floating, "s8") is floating


def test_weights_stay_as_they_are() -> None:
    graph = qdq(0)
    signed = {t.name: t for t in lower(graph, "s8").proto.graph.initializer}
    assert signed["w_q"] == next(t for t in graph.proto.graph.initializer if t.name == "w_q")
    assert "x_z" not in signed and signed["x_z_s8"].data_type == TensorProto.INT8


def test_errors_say_what_to_do() -> None:
    with pytest.raises(InvalidInput, match=", ".join(FORMS)):
        lower(qdq(0), "int8")
    with pytest.raises(InvalidInput, match="samples"):
        check(qdq(0), qdq(0), loader(), [])


def test_lowering_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import edgewise.export.lowering"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
