"""What a user's ONNX file has to be before anything else looks at it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import defs, numpy_helper

from edgewise.errors import InvalidModel
from edgewise.graph.index import all_nodes, subgraphs
from edgewise.graph.operations import names

OLDEST_OPSET = 11
# com.microsoft: what ONNX Runtime's own quantizer and fusions write; engines other than ONNX Runtime may refuse such a node.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
# Where an operand is infinite, the output is useless. Elsewhere (the mask that Where or Add put on attention scores) it is common.
_WEIGHTED = names(
    "Conv ConvTranspose Gemm MatMul BatchNormalization LayerNormalization InstanceNormalization GroupNormalization Mul PRelu LSTM GRU RNN "
    "QuantizeLinear DequantizeLinear QLinearConv QLinearMatMul"
)


def check(proto: onnx.ModelProto, what: str) -> None:
    """Raise InvalidModel unless the opset, every operator, every weight and the inputs are such that the model can be worked on."""
    _check_operators(proto, what)
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        reason = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
        raise InvalidModel(f"{what} is not valid ONNX: {reason}; export it again") from error
    _check_weights(proto, what)
    _check_inputs(proto, what)


def _check_operators(proto: onnx.ModelProto, what: str) -> None:
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    version = opsets.get("", opsets.get("ai.onnx", 0))
    newest = defs.onnx_opset_version()
    if not OLDEST_OPSET <= version <= newest:
        raise InvalidModel(
            f"{what} uses opset {version or '(none)'}; opsets {OLDEST_OPSET} to {newest} are supported: "
            f"export it again with opset_version=18, or convert it with onnx.version_converter.convert_version(model, 18)"
        )
    own = {(function.domain, function.name) for function in proto.functions}
    for node in all_nodes(proto.graph.node):
        if (node.domain, node.op_type) in own:
            continue
        if node.domain not in DOMAINS:
            raise InvalidModel(
                f"{what}: node {node.name!r} is a {node.domain}.{node.op_type}, a custom operator; "
                "no engine here has it: export the model with standard ONNX operators"
            )
        if node.domain in ("", "ai.onnx"):
            try:
                defs.get_schema(node.op_type, version, "")
            except defs.SchemaError as error:
                raise InvalidModel(
                    f"{what}: node {node.name!r} is a {node.op_type}, which opset {version} does not have; export the model again"
                ) from error


def _check_weights(proto: onnx.ModelProto, what: str) -> None:
    weighted = {name for node in all_nodes(proto.graph.node) if node.op_type in _WEIGHTED for name in node.input}
    for tensor in constants(proto):
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind not in "fcV" or not values.size:
            continue
        if values.dtype.itemsize < 4:  # bfloat16 and float8 have no isnan of their own
            values = values.astype(np.float32)
        nans = int(np.count_nonzero(np.isnan(values)))
        infinities = int(np.count_nonzero(np.isinf(values))) if tensor.name in weighted else 0
        if nans or infinities:
            found = f"{nans} NaN" if nans else f"{infinities} infinite"
            raise InvalidModel(
                f"{what}: weight {tensor.name!r} {list(tensor.dims)} has {found} values; training diverged: take an earlier checkpoint"
            )


def _check_inputs(proto: onnx.ModelProto, what: str) -> None:
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if not inputs:
        raise InvalidModel(f"{what} has no inputs: it computes a constant; export the model with its example inputs")
    for value in inputs:
        if value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
            raise InvalidModel(f"{what}: input {value.name!r} takes text; export the model without its tokenizer, so that it takes numbers")


def constants(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Every tensor stored in the model: initializers and the values of Constant nodes, subgraphs included. Named by what they define."""
    found = list(proto.graph.initializer)

    def walk(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        named = onnx.TensorProto()
                        named.CopyFrom(attribute.t)
                        named.name = node.output[0]
                        found.append(named)
            for inner in subgraphs(node):
                found.extend(inner.initializer)
                walk(inner)

    walk(proto.graph)
    return found
