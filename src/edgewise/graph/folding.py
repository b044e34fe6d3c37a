"""`fold`: compute once what doesn't depend on the inputs, and fold batch normalisation into the convolution before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewise.graph.canonical import add_initializer, canonicalise, remove_unused
from edgewise.graph.graph import Graph
from edgewise.graph.index import Index, all_names, rename_tensors, subgraphs
from edgewise.graph.shapes import inferred

# A folded constant may be this much larger than what it is made from; an Expand of a scalar to a gigabyte stays a node.
LARGEST_GROWTH_BYTES = 1 << 20
FLOATS = frozenset((onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16))
# They only lay a tensor out otherwise.
LAYOUT = frozenset(("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"))
# Quantized weights stay in the form integers + scale, which is what engines look for. The random ones aren't constants.
_KEPT = frozenset(("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Constant"))
_RANDOM = frozenset(("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"))


def fold(graph: Graph) -> Graph:
    """Canonical form, constants computed, batch normalisation folded, shapes inferred.

    Constants are computed by onnx's reference evaluator, one node at a time, so that the result doesn't hang on an engine.
    Quantize and dequantize nodes are left alone. Outputs agree with the original's to float rounding; names of inputs and outputs stay.
    """
    proto, notes = canonicalise(graph.copy_proto())
    proto, more = folded(proto)
    return Graph.from_proto(proto, (*graph.notes, *notes, *more))


def folded(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A canonical ModelProto, folded; and notes. Folding a shape makes more shapes known, so it goes round until nothing changes."""
    notes: list[str] = []
    total = 0
    while True:
        proto, unknown = inferred(proto)
        count = lay_out(proto) + fold_constants(proto)
        total += count
        if not count:
            break
    if total:
        notes.append(f"{total} constant nodes folded")
    if count := fold_batch_norms(proto):
        notes.append(f"{count} BatchNormalization nodes folded into the layer before them")
        proto, unknown = inferred(proto)
    return proto, (*notes, *unknown)


def lay_out(proto: onnx.ModelProto) -> int:
    """Do, once and for all, what a layout node does to a weight that nothing else reads. The weight keeps its name. Returns how many."""
    index = Index(proto)
    names: dict[str, str] = {}
    for node in index.nodes:
        weight = node.input[0] if node.input else ""
        tensor = index.initializers.get(weight)
        if node.op_type not in LAYOUT or node.domain or tensor is None or tensor.data_type not in FLOATS:
            continue
        if index.sole_consumer(weight) is None or node.output[0] in index.outputs or int(np.prod(tensor.dims)) < 2:
            continue
        values = {name: value for name in node.input if name and (value := index.constant(name)) is not None}
        made = evaluate(node, values, proto) if all(name in values for name in node.input if name) else None
        if made is None:
            continue
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(made[node.output[0]]), weight))
        names[node.output[0]] = weight
        proto.graph.node.remove(node)
    rename_tensors(proto.graph.node, names)
    if names:
        remove_unused(proto)
    return len(names)


def fold_constants(proto: onnx.ModelProto, *, leave: Callable[[onnx.NodeProto, Index], bool] | None = None) -> int:
    """Replace every node of which all inputs are constant by its value, in place, but for those to `leave`. Returns how many."""
    index = Index(proto)
    known: dict[str, np.ndarray] = {}
    made: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        values = _shape_value(node, index) if node.op_type in ("Shape", "Size") and not node.domain else None
        if node.op_type == "CastLike" and not node.domain:
            _cast_like_to_cast(node, index)
        if values is None and _foldable(node, index, known) and not (leave and leave(node, index)):
            values = evaluate(node, {name: _value(name, index, known) for name in node.input if name}, proto)
        if values is not None:
            known.update(values)
            made.append(node)
    for node in made:
        proto.graph.node.remove(node)
    for name, value in known.items():
        proto.graph.initializer.append(numpy_helper.from_array(value, name))
    if made:
        remove_unused(proto)
    return len(made)


def _foldable(node: onnx.NodeProto, index: Index, known: Mapping[str, np.ndarray]) -> bool:
    if node.domain or node.op_type in _KEPT | _RANDOM or any(subgraphs(node)) or any(name in index.outputs for name in node.output):
        return False
    if not all(name in known or name in index.initializers for name in node.input if name):
        return False
    grown = 0
    for name in node.output:
        shape = index.shape(name)
        if shape is None or not all(isinstance(axis, int) for axis in shape):
            # Unknown: only operators that can't make much of little are tried.
            if node.op_type in ("Expand", "Tile", "ConstantOfShape", "Range", "Pad", "Resize", "Upsample", "OneHot", "EyeLike"):
                return False
            continue
        grown += 8 * int(np.prod([axis for axis in shape if isinstance(axis, int)], dtype=np.int64))
    taken = sum(_value(name, index, known).nbytes for name in node.input if name)
    return grown <= 2 * taken + LARGEST_GROWTH_BYTES


def _value(name: str, index: Index, known: Mapping[str, np.ndarray]) -> np.ndarray:
    return known[name] if name in known else numpy_helper.to_array(index.initializers[name])


def evaluate(node: onnx.NodeProto, inputs: Mapping[str, np.ndarray], proto: onnx.ModelProto) -> dict[str, np.ndarray] | None:
    """The outputs of one node; None where the reference evaluator can't (it lacks a few operators)."""
    from onnx.reference import ReferenceEvaluator  # a third of this room's import time, and many graphs fold nothing

    outputs = [name for name in node.output if name]
    graph = helper.make_graph(
        [node],
        "constant",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape) for name, value in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    try:
        model = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, dict(inputs))
        if not all(isinstance(value, np.ndarray | np.generic) for value in results):
            return None
        return {name: np.asarray(value) for name, value in zip(outputs, results, strict=True)}
    except Exception:  # whatever the evaluator trips over, the node simply stays: nothing is lost but a little time at run time
        return None


def _cast_like_to_cast(node: onnx.NodeProto, index: Index) -> None:
    """CastLike of a constant hangs on the type of its second input alone, which inference knows."""
    element_type = index.element_type(node.input[1])
    if element_type:
        node.op_type = "Cast"
        del node.input[1:]
        node.attribute.append(helper.make_attribute("to", element_type))


def _shape_value(node: onnx.NodeProto, index: Index) -> dict[str, np.ndarray] | None:
    """Shape and Size of a tensor whose axes (those asked for) are all fixed."""
    shape = index.shape(node.input[0])
    if shape is None or node.output[0] in index.outputs:
        return None
    if node.op_type == "Shape":
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        shape = shape[slice(attributes.get("start", 0), attributes.get("end", len(shape)))]
    fixed = [axis for axis in shape if isinstance(axis, int)]
    if len(fixed) != len(shape):
        return None
    value = np.array(fixed, np.int64) if node.op_type == "Shape" else np.array(np.prod(fixed, dtype=np.int64), np.int64)
    return {node.output[0]: value}


def fold_batch_norms(proto: onnx.ModelProto) -> int:
    """Fold BatchNormalization into the Conv or ConvTranspose that alone feeds it, in place. Returns how many.

    y = (conv(x, w) + b - mean) * s + beta with s = scale / sqrt(variance + epsilon), per output channel, is
    conv(x, w * s) + ((b - mean) * s + beta). Computed in float64, stored in the weight's type.
    """
    taken = all_names(proto)
    count = 0
    for norm in [node for node in proto.graph.node if node.op_type == "BatchNormalization" and not node.domain]:
        index = Index(proto)  # small graphs; one fold changes what the next one sees
        conv = index.producer(norm.input[0])
        if conv is None or conv.op_type not in ("Conv", "ConvTranspose") or conv.domain or not index.sole_consumer(norm.input[0]):
            continue
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in norm.attribute}
        if attributes.get("training_mode", 0) or any(index.consumers(name) or name in index.outputs for name in norm.output[1:] if name):
            continue
        parameters = [index.constant(name) for name in norm.input[1:5]]
        weight = index.constant(conv.input[1])
        bias = index.constant(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else np.zeros(1)
        if weight is None or bias is None or any(value is None for value in parameters):
            continue
        scale, beta, mean, variance = (value.astype(np.float64) for value in parameters if value is not None)
        factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
        new_weight = (weight * _per_output_channel(conv, weight, factor)).astype(weight.dtype)
        new_bias = ((bias.astype(np.float64) - mean) * factor + beta).astype(weight.dtype)
        name = conv.input[1]
        if index.sole_consumer(name) is not None:  # nobody else needs the weight as it was: it keeps its name
            proto.graph.initializer.remove(index.initializers[name])
            taken.discard(name)
        names = [add_initializer(proto, name, new_weight, taken), add_initializer(proto, f"{name}.bias", new_bias, taken)]
        result = norm.output[0]
        proto.graph.node.remove(norm)
        del conv.input[1:]
        conv.input.extend(names)
        conv.output[0] = result
        count += 1
    if count:
        remove_unused(proto)
    return count


def _per_output_channel(conv: onnx.NodeProto, weight: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """`factor`, one number per output channel, shaped so that it multiplies `weight`.

    Conv: (outputs, inputs / group, ...). ConvTranspose: (inputs, outputs / group, ...), the inputs of each group in a row.
    """
    spatial = (1,) * (weight.ndim - 2)
    if conv.op_type == "Conv":
        return factor.reshape(-1, 1, *spatial)
    group = next((attribute.i for attribute in conv.attribute if attribute.name == "group"), 1)
    return np.repeat(factor.reshape(group, -1), weight.shape[0] // group, axis=0).reshape(weight.shape[0], -1, *spatial)
