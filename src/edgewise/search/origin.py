"""What a search starts from: the dense model as a graph, its training form, itself as a teacher; and a recipe applied outside a search."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise import backends, devices, registry
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, fold, taps, trainable
from edgewise.models import Intake, intake
from edgewise.models.huggingface import head_for
from edgewise.recipe import apply, divided, level, parse
from edgewise.types import Execution, Inputs, Outputs, Runner

if TYPE_CHECKING:
    import torch

    from edgewise.tasks import TrainingTask


def dense_of(model: Any, task: TrainingTask, weights: str | Path | None) -> tuple[Intake, Graph]:
    """The model as it came and as a float graph; a torch model's graph is held against torch on real samples."""
    if isinstance(model, Graph):
        return Intake("graph", "model", graph=model), model
    if isinstance(model, Intake):
        source = model
    elif isinstance(model, str | Path):
        source = intake(model, weights=weights, head=head_for(task))
    else:
        source = Intake("module", type(model).__name__, module=model)
    if source.graph is not None:
        return source, source.graph
    from edgewise import export

    if source.program is not None:
        graph = export.export_program(source.program)
        runs: Any = source.program
    elif source.module is not None:
        graph = _exported(source.module, task)
        runs = source.module
    else:
        raise InvalidInput(f"{source.name}: neither a module, a graph nor a program; see models.intake")
    names = [spec.name for spec in graph.signature.inputs]
    example = dict(zip(names, _fed(runs, task.example_inputs(8)).values(), strict=True))
    export.parity(runs, graph, example)
    return source, graph


def _exported(module: torch.nn.Module, task: TrainingTask, *, norms: bool = False) -> Graph:
    """The module in ONNX. What it says of its outputs and open axes is used, and what the task says of the axes of its inputs."""
    from edgewise import export

    axes = {**getattr(task, "axes", {}), **getattr(module, "axes", {})}
    outputs = getattr(module, "outputs", ("logits",))
    return export.export(module, _fed(module, task.example_inputs(2)), axes=axes, output_names=outputs, norms=norms)


def _fed(module: Any, inputs: Inputs) -> Inputs:
    """Of what a task feeds, what makes a difference to the module, where it says so: not all encoders tell sentences apart."""
    takes = getattr(module, "takes", None)
    if not isinstance(takes, tuple):
        return inputs
    if missing := [name for name in takes[:2] if name not in inputs]:
        raise InvalidInput(f"the model takes {', '.join(takes)}, and the task feeds {', '.join(inputs)}: give a task with {missing[0]}")
    return {name: inputs[name] for name in takes if name in inputs}


def structure_of(source: Intake, task: TrainingTask) -> Callable[[], Graph] | None:
    """What gives the training form of a model, made when first asked for; None for one that can't be trained, or not without torch."""
    if (source.module is None and source.graph is None) or importlib.util.find_spec("torch") is None:
        return None

    @cache
    def structure() -> Graph:
        if source.graph is not None:
            return trainable(source.graph)
        if source.module is None:
            raise ValueError("a program has no training form")
        return _exported(source.module, task, norms=True)

    return structure


def remade(recipe: str, source: Intake, dense: Graph, task: Any, reference: Execution | None) -> Graph:
    """The graph that `recipe` makes, as the search makes it. reference: where the dense model teaches, for recipes that train."""
    steps, _ = divided(parse(recipe))
    given = {"task": task, "device": devices.local(), "calibration": task.calibration}
    if not steps.steps or level(registry.load("pass", steps.steps[0].name)) == "graph":
        made: Graph = apply(steps, dense, **given).model
        return made
    from edgewise.models.network import Network

    structure = structure_of(source, task)
    if structure is None:
        raise InvalidInput(f"{steps}: this model can't be trained again; give the module or .onnx file that it was made from")
    teacher = Teacher(dense, reference or Execution(next(iter(backends.installed()))), structure=structure)
    try:
        trained: Graph = apply(steps, Network(structure()), export=lambda network: fold(network.to_graph()), teacher=teacher, **given).model
    finally:
        teacher.close()
    return trained


class Teacher:
    """The dense model as a function of inputs, on the engine where it is fastest; loaded when it is first asked. It can be looked into.

    It remembers what it answered: stages of one training, and the members of a family, see the same batches epoch by epoch, and a call
    of the dense model is a third of a step that trains a narrow one. answers: a folder where its answers to texts may be kept.
    """

    def __init__(
        self,
        dense: Graph,
        execution: Execution,
        most_bytes: int = 2**28,
        *,
        structure: Callable[[], Graph] | None = None,
        answers: Path | None = None,
    ) -> None:
        self.answers = answers
        self._dense, self._execution = dense, replace(backends.plain(execution), threads=devices.cores())
        self._structure = structure or (lambda: dense)
        self._runner: Runner | None = None
        self._tapped: dict[tuple[str, ...], Runner] = {}
        self._known: dict[bytes, Outputs] = {}
        self._left = most_bytes

    def __call__(self, inputs: Inputs) -> Outputs:
        name = hashlib.sha256(b"".join(repr((key, a.shape, a.dtype.str)).encode() + a.tobytes() for key, a in inputs.items())).digest()
        if name in self._known:
            return self._known[name]
        if self._runner is None:
            self._runner = backends.load(self._dense.to_bytes(), self._execution)
        answers = self._runner.run(inputs)
        size = sum(answer.nbytes for answer in answers.values())
        if size <= self._left:
            self._known[name] = {key: answer.copy() for key, answer in answers.items()}
            self._left -= size
        return answers

    def graph(self) -> Graph:
        """What can be looked into: the training form, whose tensors are called as the student's."""
        return self._structure()

    def tapped(self, names: Sequence[str]) -> Callable[[Inputs], Outputs]:
        """What answers with these inner tensors of `graph` too; nothing of it is remembered here."""
        wanted = tuple(names)
        if wanted not in self._tapped:
            self._tapped[wanted] = backends.load(taps(self.graph(), wanted).to_bytes(), self._execution)
        return self._tapped[wanted].run

    def close(self) -> None:
        for runner in (self._runner, *self._tapped.values()):
            if runner is not None:
                runner.close()
        self._runner = None
        self._tapped.clear()
