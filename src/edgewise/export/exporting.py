"""`export`: a torch module, or a program exported from one, as a canonical `Graph`."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from edgewise.errors import InvalidInput, InvalidModel
from edgewise.export.modes import evaluating, quiet
from edgewise.export.oracle import run_torch, takes, tensors
from edgewise.export.tidying import called_as, named_apart, tidied
from edgewise.graph import Graph, canonical, set_axes, trainable
from edgewise.graph.trainable import mark_fixed
from edgewise.models.program import load_program

OPSET = 18


def export(
    module: nn.Module,
    example: Mapping[str, np.ndarray],
    *,
    batch_axis: str | None = "batch",
    axes: Mapping[int, str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = OPSET,
    norms: bool = False,
) -> Graph:
    """Trace `module` in evaluation mode on `example` and give it as ONNX, folded, its leading axes named `batch_axis`.

    example: input name -> array (batch, ...). Names that are parameters of `forward` go there; otherwise the arrays are passed in
    order. Either way the graph's inputs carry these names. With `batch_axis=None` all axes are fixed as in the example, but for `axes`.
    axes: further axes that are open, as {1: "tokens"}: number -> name, of every input that has so many.
    norms: give the training form instead (`edgewise.graph.trainable`): batch norms are kept, and weights are called as the module's
    parameters and buffers are, though a linear layer's may lie transposed. Dropout isn't part of it.
    The module comes back as it was: parameters, buffers and training modes.

    Raises InvalidModel with torch's reason when the module can't be traced or has no ONNX form, InvalidInput for an empty example.
    """
    if not example or any(array.ndim == 0 or not array.size for array in example.values()):
        raise InvalidInput("export needs one example array per input, each (batch, ...) with at least one sample; see Task.example_inputs")
    traced = {name: _two(array) if batch_axis else array for name, array in example.items()}
    named = {**({0: batch_axis} if batch_axis else {}), **(axes or {})}
    run_torch(module, traced, names=output_names)  # what torch itself refuses is clearer before it is traced
    by_name = takes(module, traced)
    given = tensors(traced)
    # Its own name would be torch's for the batch; how long another axis may be, torch finds out while it traces.
    opened = {number: Dim(name) if number == 0 else Dim.DYNAMIC for number, name in named.items()}
    dynamic = {name: {number: dim for number, dim in opened.items() if number < tensor.ndim} for name, tensor in given.items()}
    with evaluating(module), _explained(type(module).__name__):
        program = torch.export.export(
            module,
            () if by_name else tuple(given.values()),
            dict(given) if by_name else None,
            dynamic_shapes=dynamic if by_name else _positional(module, tuple(dynamic.values())),
        )
        proto = _to_onnx(program, opset, [*given], output_names, keep=module if norms else None)
    return _finished(proto, type(module).__name__, named, norms=norms)


def export_program(program: ExportedProgram | str | os.PathLike[str], *, batch_axis: str | None = "batch", opset: int = OPSET) -> Graph:
    """A program that `torch.export` made (or the path of its .pt2) as ONNX. Axes are dynamic where the program's are.

    torch saves no names of axes: the leading one becomes `batch_axis` when it is dynamic. Raises InvalidModel.
    """
    loaded = program if isinstance(program, ExportedProgram) else load_program(program)
    with _explained("the exported program"):
        proto = _to_onnx(loaded, opset, None, None)
    return _finished(proto, "the exported program", {0: batch_axis} if batch_axis else {})


def _to_onnx(
    program: ExportedProgram,
    opset: int,
    input_names: list[str] | None,
    output_names: Sequence[str] | None,
    *,
    keep: nn.Module | None = None,
) -> onnx.ModelProto:
    """keep: a module whose parameters are to stay as they are, each on its own."""
    with quiet():
        result = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=input_names,
            output_names=output_names,
            external_data=False,
            verbose=False,
            optimize=keep is None,  # the optimizer folds batch norms, and stores once what has equal values
        )
        if result is None:
            raise InvalidModel("torch.onnx.export gave no model; update torch and onnxscript")
        named_apart(result.model)
        if keep is None:
            return called_as(result.model_proto, program.state_dict)
        result.model, fixed = tidied(result.model, keep)
        proto = result.model_proto
        mark_fixed(proto, fixed)
        return proto


def _finished(proto: onnx.ModelProto, what: str, named: Mapping[int, str], *, norms: bool = False) -> Graph:
    graph = trainable(proto, what=what) if norms else canonical(proto, what)
    shapes = [spec.shape for spec in graph.signature.inputs]
    found = {shape[axis]: name for shape in shapes for axis, name in named.items() if axis < len(shape)}
    return set_axes(graph, **{axis: name for axis, name in found.items() if isinstance(axis, str) and axis != name})


def _two(array: np.ndarray) -> np.ndarray:
    """At least two samples: torch takes an axis of length one in the example for a fixed one."""
    return np.repeat(array, 2, axis=0) if len(array) == 1 else array


def _positional(module: nn.Module, dynamic: tuple[Any, ...]) -> tuple[Any, ...]:
    """Dynamic shapes as torch wants them: what `*args` of forward takes is one tuple of its own."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    kinds = [parameter.kind for parameter in parameters[: len(dynamic)]]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return dynamic
    plain = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*dynamic[:plain], dynamic[plain:])


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Whatever torch's tracer or translator raises (it is many kinds), as an InvalidModel with the line that matters."""
    try:
        with quiet():
            yield
    except InvalidInput:
        raise
    except Exception as error:  # torch's tracer and translator raise dozens of classes, without a base
        reason, place = _reason(error)
        raise InvalidModel(f"{what} can't be exported: {reason}{place}; {_advice(reason)}") from error


def _reason(error: BaseException) -> tuple[str, str]:
    """The first line of the innermost error that says something, and where in the user's code it happened."""
    while error.__cause__ is not None and str(error.__cause__).strip():
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    place = re.findall(r'File "([^"]+)", line (\d+), in (\w+)', text)
    where = f" (in {place[-1][2]}, {place[-1][0]}:{place[-1][1]})" if place else ""
    return (lines[0][:300] if lines else type(error).__name__), where


def _advice(reason: str) -> str:
    if "data-dependent" in reason or "Dynamic control flow" in reason or "bool" in reason:
        return "forward must not branch on values: use torch.where, or torch.cond"
    if "onstraint" in reason or "specializ" in reason or "marked as dynamic" in reason or "dynamic dimension" in reason:
        return "forward fixes the batch axis: use x.shape[0] instead of a number, or export with batch_axis=None"
    if "argument" in reason or "forward" in reason or "unexpected keyword" in reason or "positional" in reason:
        return "the example's names have to be forward's parameters, or as many as it takes, in order"
    if "No ONNX function" in reason or "decomposition" in reason or "onnx" in reason.lower():
        return "replace that operator in the model by ones that ONNX has"
    return "try torch.export.export(module.eval(), example) on its own to see all of it"
