"""Every operator of the table, one node at a time, against ONNX Runtime; against onnx.reference where that lacks something."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgewise.errors import InvalidModel
from edgewise.graph import Graph
from edgewise.models.network import Network
from edgewise.models.operators import TABLE


def draw(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng(sum(shape) + len(shape)).uniform(low, high, shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def scalar(value: Any, kind: Any = np.float32) -> np.ndarray:
    return np.array(value, kind)


X, ROWS, IMAGE = draw(3, 4), draw(2, 3, 4), draw(2, 4, 7, 6)


@dataclass(frozen=True, eq=False)
class Case:
    """A node. inputs: arrays, None where one is left out. fixed: positions of those that are initializers."""

    operator: str
    inputs: tuple[np.ndarray | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 18
    fixed: tuple[int, ...] = ()
    outputs: int = 1
    reference: bool = False

    def __str__(self) -> str:
        shapes = " ".join("-" if x is None else "x".join(map(str, x.shape)) or "()" for x in self.inputs)
        options = " ".join(f"{key}={getattr(value, 'name', value)}" for key, value in self.attributes.items())
        return f"{self.operator}-{self.opset} {shapes} {options} fixed={self.fixed}"


def case(operator: str, *inputs: np.ndarray | None, opset: int = 18, fixed: tuple[int, ...] = (), outputs: int = 1, **rest: Any) -> Case:
    reference = rest.pop("reference", False)
    return Case(operator, inputs, rest, opset, fixed, outputs, reference)


def built(one: Case) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The node as a model, its outputs still without types; and the inputs that aren't fixed."""
    names = ["" if x is None else f"i{n}" for n, x in enumerate(one.inputs)]
    arrays = {name: x for name, x in zip(names, one.inputs, strict=True) if x is not None}
    weights = {f"i{n}": arrays[f"i{n}"] for n in one.fixed}
    given = {name: x for name, x in arrays.items() if name not in weights}
    outputs = [f"o{n}" for n in range(one.outputs)]
    graph = helper.make_graph(
        [helper.make_node(one.operator, names, outputs, name="the_node", **one.attributes)],
        "single",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for name, x in given.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(x, name) for name, x in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", one.opset)], ir_version=10), given


def expected(proto: onnx.ModelProto, given: Mapping[str, np.ndarray], *, reference: bool) -> list[np.ndarray]:
    if reference:
        return [np.asarray(y) for y in ReferenceEvaluator(proto).run(None, dict(given))]
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, dict(given))


def network(proto: onnx.ModelProto, like: list[np.ndarray]) -> Network:
    del proto.graph.output[:]
    for number, y in enumerate(like):
        proto.graph.output.append(helper.make_tensor_value_info(f"o{number}", helper.np_dtype_to_tensor_dtype(y.dtype), y.shape))
    return Network(Graph.from_proto(proto))


def hold(one: Case) -> None:
    proto, given = built(one)
    wanted = expected(proto, given, reference=one.reference)
    with torch.no_grad():
        got = network(proto, wanted).run({name: torch.from_numpy(x.copy()) for name, x in given.items()})
    for name, want in zip(got, wanted, strict=True):
        found = got[name].numpy()
        assert found.dtype == want.dtype, f"{name}: {found.dtype}, not {want.dtype}"
        assert found.shape == want.shape, f"{name}: {found.shape}, not {want.shape}"
        np.testing.assert_allclose(found.astype(np.float64), want.astype(np.float64), rtol=2e-4, atol=2e-5)


UNARY = (
    "Abs Asinh Atan Ceil Celu Cos Cosh Elu Erf Exp Floor HardSigmoid HardSwish Identity LeakyRelu Mish Neg Reciprocal Relu Round Selu "
    "Sigmoid Sign Sin Sinh Softplus Softsign Tan Tanh ThresholdedRelu"
)
CASES = [
    *(case(name, X) for name in UNARY.split()),
    case("Round", scalar([-1.5, -0.5, 0.5, 1.5, 2.5])),
    *(case(name, draw(3, 4, low=-0.9, high=0.9)) for name in ("Acos", "Asin", "Atanh")),
    *(case(name, draw(3, 4, low=1.1, high=4)) for name in ("Acosh", "Log", "Sqrt")),
    case("BitwiseNot", np.array([1, -7], np.int32)),
    case("Not", X > 0),
    case("IsNaN", scalar([1, np.nan, np.inf])),
    *(case("IsInf", scalar([1, np.inf, -np.inf]), detect_negative=n, detect_positive=p) for n, p in ((1, 1), (0, 1), (1, 0))),
    case("Gelu", X, opset=20),
    case("Gelu", X, opset=20, approximate="tanh"),
    case("Swish", X, opset=24, alpha=1.5, reference=True),
    case("LeakyRelu", X, alpha=0.3),
    case("Elu", X, alpha=0.7),
    case("Celu", X, alpha=0.7),
    case("Selu", X, alpha=1.2, gamma=0.9),
    case("ThresholdedRelu", X, alpha=0.5),
    case("HardSigmoid", X, alpha=1 / 6, beta=0.5),
    case("PRelu", IMAGE, draw(4, 1, 1), fixed=(1,)),
    case("PRelu", IMAGE, draw(1), fixed=(1,)),
    *(case("Clip", X, *map(scalar, bounds), opset=11, fixed=(1, 2)[: len(bounds)]) for bounds in ((-1, 1), (0,), (0, 1.5), (0.5,))),
    case("Clip", X),
    case("Clip", X, None, scalar(1), fixed=(2,)),
    case("Clip", X, scalar(-1), scalar(1)),
    case("Clip", X, scalar(-1), scalar(1), fixed=(1,)),
    case("Clip", X, scalar(1), scalar(-1), opset=13, fixed=(1, 2)),
    case("Clip", ints(-5, 5), scalar(-2, np.int64), scalar(2, np.int64), fixed=(1, 2)),
    case("Cast", X, to=TensorProto.INT64),
    case("Cast", X, to=TensorProto.BOOL),
    case("Cast", ints(1, 0), to=TensorProto.FLOAT),
    case("CastLike", X, ints(1)),
    case("Dropout", X, scalar(0.5), fixed=(1,)),
    case("Dropout", X, opset=11, ratio=0.3),
    case("Dropout", X, scalar(0.5), outputs=2, fixed=(1,)),
    # two tensors and more
    *(case(name, draw(3, 1), draw(4)) for name in ("Add", "Sub", "Mul", "Div", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")),
    *(case(name, X, scalar(0.7), fixed=(1,)) for name in ("Add", "Sub", "Mul", "Div", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")),
    *(case(name, scalar(0.7), X, fixed=(0,)) for name in ("Add", "Sub", "Mul", "Div", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")),
    case("Div", ints(-7, 7, 5), ints(2, -2, 3)),
    case("Div", ints(-7, 7, 5), scalar(2, np.int64), fixed=(1,)),
    case("Div", scalar(7, np.int64), ints(2, -2, 3), fixed=(0,)),
    case("Add", X, draw(4), fixed=(1,)),
    case("Equal", ints(1, 2), ints(1, 3)),
    case("Equal", ints(1, 2), scalar(2, np.int64), fixed=(1,)),
    case("Pow", draw(3, 4, low=0.1), draw(4)),
    case("Pow", X, scalar(2), fixed=(1,)),
    case("Pow", X, scalar(3, np.int64), fixed=(1,)),
    case("Pow", scalar(2), X, fixed=(0,)),
    case("Pow", ints(2, 3), scalar(2.0), fixed=(1,)),
    case("Mod", ints(-7, 7, 5), ints(3, -3, 3)),
    case("Mod", X, draw(4, low=0.5), fmod=1),
    *(case(name, X > 0, X > 1) for name in ("And", "Or", "Xor")),
    *(case(name, np.array([6, 3], np.int32), np.array([5, 1], np.int32)) for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    *(case(name, X, draw(4), draw(3, 1)) for name in ("Max", "Min", "Sum", "Mean")),
    case("Max", X),
    case("Max", ints(1, 5), ints(4)),
    case("Where", X > 0, X, scalar(-1.0), fixed=(2,)),
    case("Where", X > 0, draw(4), draw(3, 1)),
    case("MatMul", ROWS, draw(4, 5)),
    case("MatMul", ROWS, draw(4), fixed=(1,)),
    case("MatMul", draw(2, 1, 3, 4), draw(5, 4, 2)),
    case("Gemm", X, draw(4, 5), draw(5), fixed=(1, 2)),
    case("Gemm", draw(4, 3), draw(5, 4), draw(3, 1), transA=1, transB=1, alpha=0.5, beta=2.0),
    case("Gemm", X, draw(4, 5), alpha=0.5),
    case("Gemm", X, draw(4, 5), scalar(0.3)),
    case("Einsum", ROWS, draw(2, 5, 4), equation="bij, bkj -> bik"),
    case("Einsum", ROWS, equation="...ij->...ji"),
    # along axes
    *(case(name, ROWS, opset=opset, axis=axis) for name in ("Softmax", "LogSoftmax") for opset in (11, 13) for axis in (0, 1, -1)),
    *(case("Softmax", ROWS, opset=opset) for opset in (11, 13)),
    *(case(name, X, **options) for name in ("ArgMax", "ArgMin") for options in ({}, {"axis": -1, "keepdims": 0})),
    case("ArgMax", scalar([[1, 2, 2]]), axis=1, select_last_index=1),
    *(case("CumSum", X, scalar(1, np.int64), fixed=(1,), exclusive=e, reverse=r) for e in (0, 1) for r in (0, 1)),
    *(case("TopK", X, ints(2), fixed=(1,), outputs=2, axis=axis, largest=large) for axis in (0, -1) for large in (0, 1)),
    case("TopK", scalar([1, 3, 3, 0, 3]), ints(2), fixed=(1,), outputs=2),
    # places and shapes
    *(case("Reshape", ROWS, ints(*to), fixed=fixed) for to in ((6, 4), (0, -1), (-1,), (2, 1, 3, 4)) for fixed in ((), (1,))),
    case("Reshape", draw(0, 3), ints(3, 0), fixed=(1,), allowzero=1),
    *(case("Flatten", ROWS, axis=axis) for axis in (0, 1, 2, 3, -1)),
    case("Squeeze", draw(1, 3, 1), opset=11, axes=[0]),
    *(case("Squeeze", draw(1, 3, 1), ints(-1), fixed=fixed) for fixed in ((), (0,), (1,))[::2]),
    case("Squeeze", draw(1, 3, 1)),
    case("Unsqueeze", X, opset=11, axes=[0, 3]),
    case("Unsqueeze", X, ints(-1, 0), fixed=(1,)),
    case("Unsqueeze", X, ints(1)),
    case("Transpose", ROWS),
    case("Transpose", ROWS, perm=[1, 0, 2]),
    *(case("Expand", draw(3, 1), ints(*to), fixed=fixed) for to in ((3, 4), (2, 1, 4), (1, 1)) for fixed in ((), (1,))),
    case("Tile", X, ints(2, 3), fixed=(1,)),
    case("Concat", X, draw(3, 2), axis=-1),
    *(case("Split", draw(7, 2), opset=opset, **rest, outputs=2) for opset, rest in ((11, {"split": [3, 4]}), (18, {"num_outputs": 2}))),
    case("Split", draw(7, 2), ints(3, 4), opset=13, fixed=(1,), outputs=2),
    case("Split", draw(6, 2), opset=13, outputs=3),
    case("Split", draw(2, 6), opset=11, outputs=2, axis=-1),
    case("Slice", draw(7, 5), ints(1), ints(6), fixed=(1, 2)),
    case("Slice", draw(7, 5), ints(-3, 0), ints(2**62, -1), ints(0, -1), fixed=(1, 2, 3)),
    case("Slice", draw(7, 5), ints(0, 1), ints(7, 5), ints(0, 1), ints(3, 2), fixed=(1, 2, 3, 4)),
    case("Slice", draw(7, 5), ints(-1, 3), ints(-(2**62), 0), ints(0, 1), ints(-2, -1), fixed=(1, 2, 3, 4)),
    case("Slice", draw(7, 5), ints(5, 1), ints(0, 5), ints(0, 1), ints(-2, 2)),
    case("Slice", draw(7, 5), ints(1), ints(3), ints(-1)),
    case("Gather", X, scalar(-1, np.int64), fixed=(1,), axis=1),
    case("Gather", X, ints(2, 0), fixed=(1,)),
    case("Gather", X, ints(-1, 1), fixed=(1,), axis=-1),
    case("Gather", draw(9, 4), np.array([[1, -2], [0, 8]]), fixed=(0,)),
    case("Gather", X, np.array([[1, 2]], np.int32), axis=1),
    case("Gather", X, scalar(1, np.int64), axis=1),
    case("GatherElements", X, np.array([[0, -1], [1, 2], [3, 0]]), axis=1),
    case("GatherND", ROWS, np.array([[0, 1], [1, -1]])),
    case("GatherND", ROWS, np.array([[1], [2]]), batch_dims=1),
    case("ScatterND", draw(5, 2), np.array([[1], [3]]), draw(2, 2)),
    case("ScatterND", draw(5, 2), np.array([[1], [1]]), draw(2, 2), reduction="add"),
    case("ScatterElements", X, np.array([[0, -1]]), draw(1, 2), axis=1),
    case("ScatterElements", X, np.array([[0, 0]]), draw(1, 2), axis=1, reduction="add"),
    case("Shape", ROWS, opset=13),
    *(case("Shape", ROWS, start=start, end=end) for start, end in ((1, 3), (-2, 9), (0, -1))),
    case("Size", ROWS),
    case("ConstantOfShape", ints(2, 3)),
    case("ConstantOfShape", ints(2), value=numpy_helper.from_array(np.array([7], np.int32))),
    case("Range", scalar(1, np.int64), scalar(9, np.int64), scalar(3, np.int64)),
    case("Range", scalar(5.0), scalar(1.0), scalar(-1.5), fixed=(2,)),
    *(case("Trilu", draw(3, 4), *k, fixed=(1,)[: len(k)], upper=upper) for upper in (0, 1) for k in ((), (scalar(1, np.int64),))),
    case("OneHot", ints(1, -1, 9), scalar(4, np.int64), scalar([0.5, 2.0]), fixed=(1, 2)),
    case("OneHot", np.array([[1, 0]]), ints(3), scalar([0, 1.0]), fixed=(1,), axis=1),
    case("NonZero", scalar([[1, 0], [0, 3]])),
    *(case("DepthToSpace", draw(2, 8, 3, 2), blocksize=2, mode=mode) for mode in ("DCR", "CRD")),
    case("SpaceToDepth", draw(2, 2, 4, 6), blocksize=2),
    # norms
    *(case("LayerNormalization", ROWS, draw(4), draw(4), fixed=(1, 2), outputs=n, epsilon=e) for n in (1, 3) for e in (1e-5, 0.1)),
    case("LayerNormalization", ROWS, draw(4), fixed=(1,)),
    case("LayerNormalization", ROWS, draw(3, 4), fixed=(1,), axis=1),
    case("LayerNormalization", ROWS, draw(4), draw(4), fixed=(1, 2), axis=1, reference=True),
    case("RMSNormalization", ROWS, draw(4), fixed=(1,), opset=23, reference=True),
    case("RMSNormalization", ROWS, draw(3, 4), fixed=(1,), opset=23, axis=-2, epsilon=0.1, reference=True),
    case("InstanceNormalization", IMAGE, draw(4), draw(4), fixed=(1, 2), epsilon=0.01),
    case("GroupNormalization", IMAGE, draw(2), draw(2), fixed=(1, 2), num_groups=2, reference=True),
    case("GroupNormalization", IMAGE, draw(4), draw(4), fixed=(1, 2), num_groups=2, opset=21),
    case("BatchNormalization", IMAGE, draw(4), draw(4), draw(4), draw(4, low=0.5), fixed=(1, 2, 3, 4), epsilon=0.01),
    case("BatchNormalization", X, draw(4), draw(4), draw(4), draw(4, low=0.5), fixed=(1, 2, 3, 4), opset=11),
    *(case("LRN", IMAGE, size=size, alpha=0.5, beta=0.6, bias=1.5) for size in (1, 3)),
    case("LRN", draw(4, 4, 3, 2), size=2, alpha=0.5, reference=True),
    case("LpNormalization", scalar([[0, 0], [3, 4]]), axis=1),
    *(case("LpNormalization", X, p=p, axis=axis) for p in (1, 2) for axis in (0, -1)),
    *(case(name, IMAGE) for name in ("GlobalAveragePool", "GlobalMaxPool")),
]  # fmt: skip


@pytest.mark.parametrize("one", CASES, ids=str)
def test_single_nodes(one: Case) -> None:
    hold(one)


REDUCTIONS = [name for name in TABLE if name.startswith("Reduce")]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    x = draw(2, 3, 4, low=0.2)
    by_input = 13 if name == "ReduceSum" else 18
    for keep in (0, 1):
        hold(case(name, x, opset=11, axes=[1], keepdims=keep))
        hold(case(name, x, opset=11, axes=[0, -1], keepdims=keep))
        hold(case(name, x, ints(-1, 0), opset=by_input, fixed=(1,), keepdims=keep))
        hold(case(name, x, ints(1), opset=by_input, keepdims=keep))
        hold(case(name, x, opset=11, keepdims=keep))
        hold(case(name, x, opset=by_input, keepdims=keep))
    if name in ("ReduceSum", "ReduceMean", "ReduceMax"):
        hold(case(name, x, ints(), opset=by_input, fixed=(1,), noop_with_empty_axes=1))


SPATIAL = st.integers(1, 3).flatmap(
    lambda rank: st.tuples(
        st.lists(st.integers(5, 8), min_size=rank, max_size=rank),
        st.lists(st.integers(1, 3), min_size=rank, max_size=rank),
        st.lists(st.integers(1, 3), min_size=rank, max_size=rank),
        st.lists(st.integers(1, 2), min_size=rank, max_size=rank),
        st.lists(st.integers(0, 2), min_size=2 * rank, max_size=2 * rank),
    )
)
AUTO = st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])


@settings(max_examples=60, deadline=None)
@given(SPATIAL, AUTO, st.sampled_from([1, 2]), st.booleans())
def test_convolutions(spatial: tuple[list[int], ...], auto: str, group: int, bias: bool) -> None:
    sizes, kernel, strides, dilations, pads = spatial
    assume(auto == "NOTSET" or set(dilations) == {1})  # ONNX Runtime refuses the combination
    weights = [draw(4, 4 // group, *kernel), *([draw(4)] if bias else [])]
    place = {"pads": pads} if auto == "NOTSET" else {"auto_pad": auto}
    hold(
        case("Conv", draw(2, 4, *sizes), *weights, fixed=(1, 2)[: len(weights)], strides=strides, dilations=dilations, group=group, **place)
    )


def test_a_convolution_by_its_defaults_and_with_a_computed_weight() -> None:
    hold(case("Conv", IMAGE, draw(3, 4, 2, 2), fixed=(1,)))
    hold(case("Conv", IMAGE, draw(3, 4, 2, 2)))


@settings(max_examples=60, deadline=None)
@given(SPATIAL, AUTO, st.sampled_from([1, 2]), st.booleans(), st.integers(0, 1))
def test_transposed_convolutions(spatial: tuple[list[int], ...], auto: str, group: int, bias: bool, extra: int) -> None:
    sizes, kernel, strides, dilations, pads = spatial
    rank = len(sizes)
    assume(rank < 3)
    whole = [s * (n - 1) + (k - 1) * d + 1 + extra for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)]
    assume(extra < min(strides) and (auto == "NOTSET" or all(k >= s for k, s in zip(kernel, strides, strict=True))))  # else it refuses
    assume(all(length > pads[i] + pads[i + rank] for i, length in enumerate(whole)))
    place = {"pads": pads} if auto == "NOTSET" else {"auto_pad": auto}
    weights = [draw(4, 4 // group, *kernel), *([draw(4)] if bias else [])]
    options = {"strides": strides, "dilations": dilations, "group": group, "output_padding": [extra] * rank, **place}
    hold(case("ConvTranspose", draw(2, 4, *sizes), *weights, fixed=(1, 2)[: len(weights)], **options))


@pytest.mark.parametrize("auto", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("shape", [[10, 8], [9, 9], [11, 9]])
def test_transposed_convolutions_of_a_wanted_size(auto: str, shape: list[int]) -> None:
    x, weight = draw(1, 4, 5, 4), draw(4, 2, 3, 3)
    hold(case("ConvTranspose", x, weight, draw(2), fixed=(1, 2), strides=[2, 2], output_shape=shape, auto_pad=auto))


@settings(max_examples=80, deadline=None)
@given(SPATIAL, AUTO, st.booleans(), st.booleans(), st.booleans())
def test_pooling(spatial: tuple[list[int], ...], auto: str, ceil: bool, include: bool, maximum: bool) -> None:
    sizes, kernel, strides, dilations, pads = spatial
    assume(all(pad < size for pad, size in zip(pads, kernel * 2, strict=True)))  # a window all in the padding has no value
    assume(auto == "NOTSET" or (set(dilations) == {1} and all(k >= s for k, s in zip(kernel, strides, strict=True))))
    place = {"pads": pads, "ceil_mode": int(ceil)} if auto == "NOTSET" else {"auto_pad": auto}
    options = {"kernel_shape": kernel, "strides": strides, "dilations": dilations, **place}
    if not maximum:
        options["count_include_pad"] = int(include)
    hold(case("MaxPool" if maximum else "AveragePool", draw(2, 3, *sizes), opset=19, **options))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["constant", "reflect", "edge", "wrap"]),
    st.lists(st.integers(-1, 3), min_size=6, max_size=6),
    st.booleans(),
    st.booleans(),
)
def test_padding(mode: str, pads: list[int], fixed: bool, value: bool) -> None:
    x = draw(4, 5, 6)
    given = [ints(*pads), *([scalar(0.5)] if value and mode == "constant" else [])]
    assume(mode == "constant" or min(pads) >= 0)
    hold(case("Pad", x, *given, opset=19, fixed=(1, 2)[: len(given)] if fixed else (), mode=mode))


def test_padding_of_some_axes() -> None:
    hold(case("Pad", draw(3, 4, 5), ints(1, 0, 2, 3), None, ints(-1, 0), fixed=(1, 3), mode="constant"))
    hold(case("Pad", draw(3, 4, 5), ints(0, 1, 0, 0, 0, 2), opset=11, fixed=(1,), mode="reflect"))
    hold(case("Pad", ints(1, 2), ints(1, 1), scalar(7, np.int64), opset=13, fixed=(1, 2)))


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
    st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    st.sampled_from([(14, 12), (14, 6), (21, 24), (4, 9), (1, 1), (7, 5)]),
    st.booleans(),
    st.booleans(),
)
def test_resizing_to_sizes(mode: str, coordinates: str, rounding: str, to: tuple[int, int], fixed: bool, exclude: bool) -> None:
    # At a half, which of two neighbours is nearest is a matter of the last bit: other factors than powers of two are left to `linear`.
    assume(mode != "nearest" or to in ((14, 12), (14, 6), (7, 6)))
    options = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
    if mode == "cubic":
        options["exclude_outside"] = int(exclude)
    hold(case("Resize", IMAGE, None, None, ints(2, 4, *to), fixed=(3,) if fixed else (), opset=13, **options))


@pytest.mark.parametrize("scales", [(1, 1, 2, 2), (1, 1, 0.6, 1.3), (1, 1, 3, 0.5)])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "half_pixel_symmetric"])
def test_resizing_by_scales(scales: tuple[float, ...], mode: str, coordinates: str) -> None:
    by = np.array(scales, np.float32)
    hold(case("Resize", IMAGE, None, by, fixed=(2,), opset=19, mode=mode, coordinate_transformation_mode=coordinates))
    hold(case("Resize", IMAGE, scalar([]), by, opset=19, mode=mode, coordinate_transformation_mode=coordinates))


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
def test_resizing_some_axes(policy: str) -> None:
    hold(case("Resize", IMAGE, None, None, ints(9, 10), fixed=(3,), axes=[2, 3], mode="linear", keep_aspect_ratio_policy=policy))


QKV = (draw(2, 4, 5, 6), draw(2, 4, 7, 6) / 2, draw(2, 4, 7, 3))


@pytest.mark.parametrize(
    "one",
    [
        case("Attention", *QKV, opset=23),
        case("Attention", *QKV, opset=23, scale=0.3, softcap=1.5),
        case("Attention", *QKV, draw(5, 7), opset=23),
        case("Attention", *QKV, draw(5, 7) > -1.5, opset=23),
        case("Attention", *QKV, np.arange(35).reshape(5, 7) > 6, opset=23),  # the first token attends to nothing
        case("Attention", *QKV, opset=23, is_causal=1),
        case("Attention", QKV[0], QKV[1][:, :2], QKV[2][:, :2], opset=23),
        case("Attention", draw(2, 5, 12), draw(2, 7, 6), draw(2, 7, 8), opset=23, q_num_heads=4, kv_num_heads=2),
    ],
    ids=str,
)
def test_attention(one: Case) -> None:
    hold(Case(one.operator, one.inputs, one.attributes, one.opset, reference=True))


def test_every_operator_of_the_table_is_held() -> None:
    elsewhere = {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "Pad", "Resize", "Attention", *REDUCTIONS}
    assert {one.operator for one in CASES} | elsewhere == set(TABLE)


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (case("MaxPool", IMAGE, kernel_shape=[2, 2], outputs=2), r"'the_node' \(MaxPool\).*indices"),
        (
            case("Resize", IMAGE, draw(8), scalar([1, 1, 2, 2]), fixed=(1, 2), coordinate_transformation_mode="tf_crop_and_resize"),
            "coordinate_transformation_mode='tf_crop_and_resize'",
        ),
        (case("Resize", IMAGE, None, scalar([1, 1, 0.5, 0.5]), fixed=(2,), mode="linear", antialias=1), "antialias"),
        (case("Dropout", X, scalar(0.5), np.array(True), fixed=(1, 2)), "eval"),
        (case("ScatterND", draw(5, 2), np.array([[1]]), draw(1, 2), reduction="max"), "none or add"),
        (case("GRU", draw(3, 2, 4), draw(1, 6, 4), draw(1, 6, 2), fixed=(1, 2), hidden_size=2), r"'the_node' \(GRU\) has no counterpart"),
        (case("QuantizeLinear", X, scalar(0.1), np.array(0, np.uint8), fixed=(1, 2)), "is quantized.*train the float model"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_named(one: Case, message: str) -> None:
    proto, _ = built(one)
    with pytest.raises(InvalidModel, match=message) as caught:
        network(proto, [X] * one.outputs)
    assert len(str(caught.value).splitlines()) == 1


def test_gradients_on_the_bounds_are_those_of_relu6() -> None:
    proto, _ = built(case("Clip", scalar([0, 3, 6]), scalar(0), scalar(6), fixed=(1, 2)))
    x = torch.tensor([0.0, 3.0, 6.0], requires_grad=True)
    network(proto, [scalar([0, 0, 0])])(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 0]
    assert math.isclose(float(x.detach().sum()), 9)
