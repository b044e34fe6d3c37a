"""The torch oracle: what the module itself gives, and whether a graph gives the same."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree

from edgewise.errors import InvalidInput, InvalidModel
from edgewise.export.modes import evaluating
from edgewise.graph import Graph
from edgewise.types import Execution, Inputs, Outputs, Runner


@dataclass(frozen=True)
class Parity:
    """How far a graph's outputs lie from torch's, on the samples given.

    max_abs: the largest difference of any element. relative_l2: ||graph - torch|| / ||torch||, of the worst output, whose name is `output`.
    """

    output: str
    max_abs: float
    relative_l2: float
    samples: int
    tolerance: float


def tensors(inputs: Inputs) -> dict[str, torch.Tensor]:
    # Copied: torch refuses (loudly) to share memory with a read-only array, which is what a cached data set gives.
    return {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}


def takes(module: nn.Module, inputs: Mapping[str, object]) -> bool:
    """Whether the names of `inputs` are parameters of `forward`, so that they can be passed by name."""
    return set(inputs) <= set(inspect.signature(module.forward).parameters)


def run_torch(module: nn.Module | ExportedProgram, inputs: Inputs, *, names: Sequence[str] | None = None) -> Outputs:
    """Run `module` on `inputs` in evaluation mode, without gradients, and put its modes back.

    Inputs go to `forward`'s parameters by name where the names fit, otherwise in order. Outputs are flattened in torch's order and called
    `names`; without them, a dict's keys, or "output_0", "output_1" … Raises InvalidInput when the module refuses them.
    """
    given = tensors(inputs)
    called: nn.Module
    if isinstance(module, ExportedProgram):
        called = module.module()
        # A program takes by name what it was traced with by name, whatever its forward says.
        by_name = set(module.call_spec.in_spec.child(1).context) == set(given)
    else:
        called, by_name = module, takes(module, given)
    with evaluating(called), torch.inference_mode():
        result = _call(called, given, by_name)
    leaves = [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    if names is None:
        keys = list(result) if isinstance(result, Mapping) and len(result) == len(leaves) else range(len(leaves))
        names = [key if isinstance(key, str) else f"output_{key}" for key in keys]
    if len(names) != len(leaves):
        raise InvalidInput(f"the module gives {len(leaves)} outputs, {len(names)} names are given ({', '.join(names)}); give one for each")
    # Copied: an output may be a view of a parameter.
    return {name: leaf.detach().cpu().numpy().copy() for name, leaf in zip(names, leaves, strict=True)}


def _call(module: nn.Module, given: dict[str, torch.Tensor], by_name: bool) -> object:
    try:
        return module(**given) if by_name else module(*given.values())
    except (TypeError, RuntimeError, ValueError, IndexError, AttributeError, NotImplementedError) as error:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" for name, tensor in given.items())
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidInput(
            f"the model can't take {shapes}: {reason}; check shape, dtype and number of inputs against its forward"
        ) from error


def parity(
    module: nn.Module | ExportedProgram,
    graph: Graph,
    inputs: Inputs,
    *,
    tolerance: float = 1e-4,
    runner: Runner | None = None,
) -> Parity:
    """Hold `graph` against `module` on real samples.

    tolerance: largest relative L2 error of any output; fp32 rounding stays some ten times under the default. `runner`: the graph, loaded;
    without one, the first engine installed loads it, in true fp32 on one thread.

    Raises InvalidModel when an output lies farther away, isn't finite where torch's is, or has another shape: which, how far, what to do.
    """
    expected = run_torch(module, inputs, names=[spec.name for spec in graph.signature.outputs])
    got = _run(graph, inputs, runner)
    samples = len(next(iter(inputs.values())))
    worst = Parity(graph.signature.outputs[0].name, 0.0, 0.0, samples, tolerance)
    for name, reference in expected.items():
        if got[name].shape != reference.shape:
            raise InvalidModel(
                f"output {name!r} is {got[name].shape} in the graph and {reference.shape} in torch; "
                "a shape was frozen in the export: take sizes from tensors (x.shape[0]) in forward, then export again"
            )
        found = _distance(name, reference, got[name], samples, tolerance)
        if not found.relative_l2 <= tolerance:
            raise InvalidModel(
                f"output {name!r} of the exported graph is off by {found.relative_l2:.2g} (relative L2; at most {tolerance:g}), "
                f"{found.max_abs:.3g} at the worst element, on {samples} samples; look for random or stateful layers and branches in "
                "forward, or accept it with a larger tolerance; `edgewise compare` names the first layer that parts"
            )
        if found.relative_l2 >= worst.relative_l2:
            worst = found
    return worst


def _distance(name: str, reference: np.ndarray, got: np.ndarray, samples: int, tolerance: float) -> Parity:
    expected, actual = reference.astype(np.float64), got.astype(np.float64)
    same = (expected == actual) | (np.isnan(expected) & np.isnan(actual))  # equal infinities would make a NaN of their difference
    difference = np.where(same, 0.0, np.where(same, 0.0, actual) - np.where(same, 0.0, expected))
    finite = np.where(np.isfinite(expected), expected, 0.0)
    norm = float(np.linalg.norm(finite))
    error = float(np.linalg.norm(difference))
    relative = 0.0 if error == 0 else error / norm if norm else float("inf")
    return Parity(name, float(np.abs(difference).max(initial=0.0)), relative, samples, tolerance)


def _run(graph: Graph, inputs: Inputs, runner: Runner | None) -> Outputs:
    if runner is not None:
        return runner.run(inputs)
    from edgewise import backends

    loaded = backends.load(graph.to_bytes(), Execution(next(iter(backends.installed()))))
    try:
        return loaded.run(inputs)
    finally:
        loaded.close()
