import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgewise.backends import signature
from edgewise.errors import InvalidInput, InvalidModel
from edgewise.testing import graphs
from edgewise.types import Execution, Signature, TensorSpec


def by_onnx(model: onnx.ModelProto) -> Signature:
    """The same by the onnx package."""
    constants = {tensor.name for tensor in model.graph.initializer}

    def spec(value):
        kind = value.type.tensor_type
        axes = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or f"{value.name}_{i}" for i, d in enumerate(kind.shape.dim))
        return TensorSpec(value.name, axes, helper.tensor_dtype_to_np_dtype(kind.elem_type).name)

    inputs = tuple(spec(value) for value in model.graph.input if value.name not in constants)
    return Signature(inputs, tuple(map(spec, model.graph.output)))


@pytest.mark.parametrize("make", [graphs.mlp, graphs.convolution, graphs.two_inputs, graphs.quantized_matmul, graphs.quantized_convolution])
def test_reads_what_onnx_reads(make):
    model = make()[0]
    assert signature.read(model.SerializeToString()) == by_onnx(model)


def test_initializers_are_no_inputs_and_unnamed_axes_get_names():
    model = graphs.mlp()[0]
    model.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [16, 32]))
    model.graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    found = signature.read(model.SerializeToString())
    assert found == by_onnx(model)
    assert found.inputs == (TensorSpec("x", ("x_0", 16), "float32"),)


def test_a_sequence_or_an_unknown_rank_is_refused():
    model = graphs.mlp()[0]
    model.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1])))
    with pytest.raises(InvalidModel, match="'x'"):
        signature.read(model.SerializeToString())
    model = graphs.mlp()[0]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(InvalidModel, match="'y' has no shape"):
        signature.read(model.SerializeToString())


WHOLE = graphs.mlp()[0].SerializeToString()


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.booleans())
@settings(max_examples=300, deadline=None)
def test_altered_bytes_give_a_signature_or_an_error(at, value, cut):
    altered = WHOLE[:at] if cut else WHOLE[:at] + bytes([value]) + WHOLE[at + 1 :]
    try:
        assert isinstance(signature.read(altered), Signature)
    except InvalidModel as error:
        assert str(error)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_a_signature_or_an_error(data):
    try:
        signature.read(data)
    except InvalidModel as error:
        assert str(error)


TWO = Signature(
    (TensorSpec("a", ("batch", "n"), "float32"), TensorSpec("b", ("batch", 3, "n"), "int64")),
    (TensorSpec("y", ("batch", "n"), "float32"),),
)


def test_axes_are_bound_across_inputs():
    inputs = {"a": np.zeros((2, 5), np.float32), "b": np.zeros((2, 3, 5), np.int64)}
    assert signature.bound_axes(TWO, inputs) == {"batch": 2, "n": 5}
    assert signature.with_axes(TWO, {"batch": 2}).outputs == (TensorSpec("y", (2, "n"), "float32"),)
    with pytest.raises(InvalidInput, match=r"'b' has shape \(2, 3, 4\), the model takes \(2, 3, 5\)"):
        signature.bound_axes(TWO, inputs | {"b": np.zeros((2, 3, 4), np.int64)})


def test_a_gate_notices_every_change():
    gate = signature.Gate(TWO)
    inputs = {"a": np.zeros((2, 5), np.float32), "b": np.zeros((2, 3, 5), np.int64)}
    assert gate.check(inputs)
    assert not gate.check(inputs)
    assert gate.check({"a": inputs["a"][:1], "b": inputs["b"][:1]})
    for wrong in ({"a": inputs["a"]}, inputs | {"c": inputs["a"]}, {"a": inputs["a"][:1], "b": inputs["b"].astype(np.int32)[:1]}):
        with pytest.raises(InvalidInput):
            gate.check(wrong)
    assert not gate.check({"a": inputs["a"][:1], "b": inputs["b"][:1]})


def test_a_batch_that_the_model_contradicts():
    fixed = Signature((TensorSpec("x", (4, 3), "float32"),), (TensorSpec("y", (4,), "float32"),))
    assert signature.fixed_axes(fixed, Execution("any", options={"batch": "4"})) == {}
    with pytest.raises(InvalidInput, match="batch=4"):
        signature.fixed_axes(fixed, Execution("any", options={"batch": "2"}))
