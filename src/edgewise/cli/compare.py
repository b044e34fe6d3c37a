"""`edgewise compare`: two models on the same data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from edgewise.cli import derive, given
from edgewise.cli.contrast import run, study_at
from edgewise.errors import InvalidInput

if TYPE_CHECKING:
    from edgewise.graph import Graph
    from edgewise.records import Comparison
    from edgewise.types import Split

LAYER_SAMPLES = 16  # enough for a relative error of every tensor; all of a split would hold every tensor of every sample at once


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """The command with the options of the task that `arguments` name."""
    pictures = given.task_options(given.named_task(arguments))

    def command(
        a: Annotated[Path, typer.Argument(help="What is compared against: model.onnx or model.edgew; or a study's folder.", metavar="A")],
        b: Annotated[Path, typer.Argument(help="The other one.", metavar="B")],
        data: Annotated[str | None, typer.Option(help=given.DATA)] = None,
        split: Annotated[str, typer.Option(help="train, calibration or validation; the test split is for a verdict.")] = "validation",
        samples: Annotated[int | None, typer.Option(help="So many of the split (all unless given).", min=1)] = None,
        tolerance: Annotated[float, typer.Option(help="From which relative error on two layers part.", min=0.0)] = 0.1,
        task: Annotated[str, typer.Option(help="What the models are for; or your own, as module:function.")] = given.USUAL_TASK,
        as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of tables.")] = False,
        **options: Any,
    ) -> None:
        """Compare two models on the same data: divergence, agreement, the first layer where they part, accuracy change per class.

        Example: edgewise compare model.onnx out/model.edgew --data pictures/

        Two folders of studies: which widths came out otherwise on another
        device, and why. Example: edgewise compare out-local/ out-pi/

        How pictures are fed is read from a package where one of the two is one,
        and the options below overrule it.
        """
        first, second = study_at(a), study_at(b)
        if first and second:
            run(first, second, as_json=as_json)
            return
        if data is None and task == given.USUAL_TASK:
            raise InvalidInput(
                "--data is missing: on random inputs models agree or differ by chance; give pictures like those they will see"
            )
        left, right = given.model(a), given.model(b)
        known = given.packaged_options([left.package, right.package])
        made = given.make_task(task, data, options, defaults=known)
        found = compared(left, right, made, split, samples, tolerance)
        if as_json:
            from edgewise.types import to_json

            typer.echo(to_json(found).decode())
        else:
            _show(found, left, right, made, split, tolerance)

    return derive.with_options(command, pictures)


def compared(a: given.Model, b: given.Model, task: Any, split: str, samples: int | None, tolerance: float) -> Comparison:
    """Both under the executions that they have here, on one split, paired sample by sample."""
    from edgewise import measure, tasks
    from edgewise.data import metrics
    from edgewise.records import Comparison

    bound = tasks.bound(task, a.graph.signature), tasks.bound(task, b.graph.signature)
    splits: list[Split] = [each.split(split) for each in bound]
    if samples is not None:
        splits = [given.first(each, samples) for each in splits]
    first, second = (measure.answers(model.graph, model.execution, each, model.form) for model, each in zip((a, b), splits, strict=True))
    layers, parting = _layers(a, b, splits, tolerance)
    qualities: list[Any] = [None, None]
    targets = splits[0].targets
    same = metrics.agree(task.metric, first, second, targets)
    if targets is not None:
        qualities = [metrics.quality(task.metric, split, outputs, targets, task.labels) for outputs in (first, second)]
    return Comparison(
        names=(a.name, b.name) if a.name != b.name else (f"{a.name} (a)", f"{b.name} (b)"),
        n=len(first),
        relative_l2=measure.divergence(first, second),
        max_abs=float(np.abs(first - second).max()),
        agreement=None if same is None else metrics.wilson(int(same.sum()), len(same)),
        layers=layers,
        first_parting=parting,
        quality_a=qualities[0],
        quality_b=qualities[1],
        drop=metrics.paired(qualities[0], qualities[1]) if qualities[0] and qualities[1] else None,
    )


def _layers(a: given.Model, b: given.Model, splits: Sequence[Split], tolerance: float) -> tuple[tuple[tuple[str, float], ...], str | None]:
    """Tensor by tensor, both on b's engine (another, where that one has a form of its own). Nothing where the two take another layout."""
    from edgewise import backends, measure
    from edgewise.graph import rename_inputs

    size = next((axis for spec in a.graph.signature.inputs for axis in spec.shape[:1] if isinstance(axis, int)), LAYER_SAMPLES)
    batches = [next(split.batches(size))[0] for split in splits]
    ours, theirs = batches
    if [array.shape for array in ours.values()] != [array.shape for array in theirs.values()]:
        return (), None
    renamed = b.graph if [*ours] == [*theirs] else rename_inputs(b.graph, dict(zip(theirs, ours, strict=True)))
    found = measure.layers(a.graph, renamed, batches[0], tolerance=tolerance, execution=backends.plain(b.execution))
    apart = {layer.tensor: layer.divergence for layer in found.layers}
    return tuple(apart.items()), first_parting(a.graph, apart, tolerance)


def first_parting(graph: Graph, apart: Mapping[str, float], tolerance: float) -> str | None:
    """The first tensor beyond `tolerance` from which the difference goes on to an output; None when there is none.

    A difference that is gone in what follows is no parting: a pass that moves scale from one layer into the next makes such.
    """
    from edgewise.graph import Index

    index = Index(graph)
    lasting: dict[str, bool] = {}
    # Against the graph's order, so that what follows a tensor is known. What only one of the two graphs has says nothing either way.
    for name in reversed(index.tensors):
        following = [lasting[out] for node in index.consumers(name) for out in node.output if out in lasting]
        goes_on = any(following) or not following
        lasting[name] = goes_on and apart[name] > tolerance if name in apart else goes_on
    return next((name for name in apart if lasting.get(name)), None)


def _show(found: Comparison, a: given.Model, b: given.Model, task: Any, split: str, tolerance: float) -> None:
    from edgewise import report
    from edgewise.cli.terminal import clean, console

    out = console()
    out.print(report.compare_table(found))
    said = f"a: {found.names[0]} on {a.execution}; b: {found.names[1]} on {b.execution}; {split} split of {task.name}"
    out.print(clean(said), style="dim")
    gone = [name for name, error in found.layers if error > tolerance]
    if gone and found.first_parting is None:
        names = f"{', '.join(gone[:4])}{' …' if len(gone) > 4 else ''}"
        out.print(
            clean(f"Apart inside, but not in what follows: {names}. Quantizing moves scale between layers, which looks so."), style="dim"
        )
    for note in getattr(task, "notes", ()):
        out.print(clean(f"Note: {note}."), style="dim")
