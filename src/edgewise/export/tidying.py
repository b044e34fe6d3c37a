"""What torch's exporter leaves, tidied without touching a weight: for graphs that go on training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import numpy_helper
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common
from torch import Tensor, nn

from edgewise.graph.index import rename_tensors

# onnxscript's own selection, but for the rules that take a parameter away: those that fold batch norms, that drop a bias of zeros, that
# multiply by one or add zero (which may be a parameter's first value).
RULES = (
    common.cast_cast_rule,
    common.no_op_cast_rule,
    common.no_op_expand_rule,
    common.no_op_transpose_rule,
    common.reshape_reshape_rule,
    common.transpose_transpose_rule,
    common.unsqueeze_unsqueeze_rule,
    common.squeeze_reshape_1d_rule,
    common.collapse_slice_rule,
    common.collapse_slice2_rule,
    common.one_reshape_matmul_reshape_rule,
    common.two_reshapes_matmul_reshape_rule,
    common.cast_constant_of_shape_rule,
    common.cast_constant_of_shape_without_value_rule,
    common.min_min_rule,
    common.max_max_rule,
    common.min_max_rule,
    common.max_min_rule,
    common.successive_relu_rule,
    common.successive_clip_rule,
    common.successive_relu_clip_rule,
    common.successive_clip_relu_rule,
    common.normalize_pad_format_conv_rule,
    common.fuse_pad_into_conv_rule,
)


def tidied(model: ir.Model, module: nn.Module) -> tuple[ir.Model, set[str]]:
    """`model`, as torch.onnx.export gives it without optimizing, with no-ops gone and computed shapes followed; changed in place.

    Also the names of its initializers that are no parameters of `module`. Parameters keep their names and their values, also where values
    agree (the exporter's own optimizer would store them once); one that the module has under two names is stored once.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    _tie(model, module)
    optimizer.inline(model)
    for _ in range(2):
        # A node that reads a parameter is left: what is computed from one has to stay computed, or to be named after it.
        optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=lambda node: _reads(node, parameters))
        model = rewriter.rewrite(model, RULES)
    optimizer.remove_unused_nodes(model)
    return model, {name for name in model.graph.initializers if name not in parameters}


def named_apart(model: ir.Model) -> None:
    """Give inner tensors that are called as an output other names, in place: torch looks at none when it names outputs as it was asked."""
    outputs = {value.name: value for value in model.graph.outputs}
    inner = [value for node in model.graph for value in node.outputs]
    taken = {value.name for value in (*inner, *model.graph.inputs, *model.graph.initializers.values())}
    for value in inner:
        if value.name in outputs and value is not outputs[value.name]:
            number = next(number for number in range(len(taken) + 1) if f"{value.name}_inner_{number}" not in taken)
            value.name = f"{value.name}_inner_{number}"
            taken.add(value.name)


def called_as(proto: onnx.ModelProto, parameters: Mapping[str, Tensor]) -> onnx.ModelProto:
    """`proto` with each matrix that the exporter's optimizer stored transposed, under a number, called as its parameter again; in place.

    Parts are called by their weights, in the graph that serves as in the one that trains.
    """
    stored = {tensor.name for tensor in proto.graph.initializer}
    gone = {
        name: value.detach().cpu().numpy()
        for name, value in parameters.items()
        if name not in stored and value.ndim == 2 and value.dtype == torch.float32
    }
    names: dict[str, str] = {}
    for tensor in proto.graph.initializer:
        if tensor.name in parameters or len(tensor.dims) != 2 or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        alike = [name for name, value in gone.items() if value.shape == (tensor.dims[1], tensor.dims[0])]
        laid = numpy_helper.to_array(tensor).T
        name = next((name for name in alike if np.array_equal(gone[name], laid)), None)
        if name is not None:
            del gone[name]
            names[tensor.name] = name
            tensor.name = name
    rename_tensors(proto.graph.node, names)
    for value in proto.graph.value_info:
        value.name = names.get(value.name, value.name)
    return proto


def _reads(node: ir.Node, parameters: dict[str, nn.Parameter]) -> bool | None:
    """False: not to be folded. None: as the folding thinks best."""
    return False if any(value is not None and value.name in parameters for value in node.inputs) else None


def _tie(model: ir.Model, module: nn.Module) -> None:
    """Store a tied parameter once, under the first of its names, in place. torch.export keeps all of them, or the last one."""
    first: dict[int, str] = {}
    initializers = model.graph.initializers
    for name, parameter in module.named_parameters(remove_duplicate=False):
        own = first.setdefault(id(parameter), name)
        if own == name or name not in initializers:
            continue
        if own in initializers:
            ir.convenience.replace_all_uses_with(initializers[name], initializers[own])
        else:
            initializers[name].name = own
