"""`edgewise reproduce`: a package made again from its recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewise.cli import derive, given
from edgewise.cli.fit import writable
from edgewise.cli.progress import telling
from edgewise.errors import EdgewiseError, InvalidData, InvalidModel, InvalidPackage

if TYPE_CHECKING:
    from edgewise.graph import Graph
    from edgewise.models import Intake
    from edgewise.package import Package


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """The command with the options of the task that `arguments` name."""
    pictures = given.task_options(given.named_task(arguments))

    def command(
        file: Annotated[Path, typer.Argument(help="The package.", metavar="PACKAGE")],
        model: Annotated[str, typer.Argument(help="The model that it was made from.", metavar="MODEL")],
        data: Annotated[str | None, typer.Option(help="The data that it was made with.")] = None,
        weights: Annotated[Path | None, typer.Option(help="A .safetensors file, for a callable.")] = None,
        out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the new package there.", metavar="FILE")] = None,
        task: Annotated[str, typer.Option(help="What the model is for; or your own, as module:function.")] = given.USUAL_TASK,
        **options: Any,
    ) -> None:
        """Make a package again from the recipe inside it, and say whether it comes out the same to the bit.

        Example: edgewise reproduce out/model.edgew model.onnx --data pictures/

        How pictures are fed is read from the package; splits that were not the
        usual ones (--validation, --test, --calibration, --seed) have to be
        given again. Exit code 1: another model came out; it says how far apart.
        """
        from edgewise import package

        if not file.exists():
            raise InvalidPackage(f"{file} does not exist; give a package (.edgew)")
        if out is not None:
            writable(out.parent)
        found = package.open(file)
        refuse_without_origin(found, file)
        made_task = given.make_task(task, data, options, defaults={**given.model_options(model), **given.packaged_options([found])})
        with telling() as tell:
            tell("reading the model", 0.1, None)
            source, dense, bound = dense_graph(model, made_task, weights)
            same_origin(found, dense, bound, model)
            tell(found.manifest.provenance.recipe or "the dense model", 0.3, None)
            graph = again(found, source, dense, bound)
            tell("comparing", 0.9, None)
            outcome = compared(found, graph, bound)
        if out is not None:
            repacked(found, graph, outcome.identical).save(out)
        _show(found, outcome, out)
        if not outcome.identical:
            raise EdgewiseError("not the same to the bit")

    return derive.with_options(command, pictures)


def refuse_without_origin(found: Package, file: Path) -> None:
    if not found.manifest.provenance.source_sha256 or found.manifest.provenance.data is None:
        raise InvalidPackage(f"{file} doesn't say what it was made from, so it can't be made again; `edgewise fit` writes that down")


def dense_graph(model: str, task: Any, weights: Path | None) -> tuple[Intake, Graph, Any]:
    """The model as it came and as `fit` starts from it, and the task as that model takes it."""
    from edgewise import tasks
    from edgewise.search.origin import dense_of

    given.import_from_here()
    source, dense = dense_of(model, task, weights)
    return source, dense, tasks.bound(task, dense.signature)


def same_origin(found: Package, dense: Graph, task: Any, model: str) -> None:
    """Raises InvalidModel or InvalidData when the package was made from something else, with what differs."""
    origin = found.manifest.provenance
    if dense.sha256 != origin.source_sha256:
        raise InvalidModel(
            f"{model} is not what the package was made from: its graph is {dense.sha256[:12]}…, the package names "
            f"{(origin.source_sha256 or '')[:12]}…. Give the same weights{_unlike(origin.versions)}"
        )
    if origin.data is not None and task.fingerprint() != origin.data.fingerprint:
        now = task.summary()
        counts = ", ".join(
            f"{split} {origin.data.samples.get(split, 0)} then, {n} now"
            for split, n in now.samples.items()
            if n != origin.data.samples.get(split)
        )
        raise InvalidData(
            f"the data is not what the package was made with ({counts or 'as many samples, but other ones, or other preprocessing'}). "
            f"It was {origin.data.source}: give that, with the same --validation, --test, --calibration and --seed"
        )


def _unlike(versions: Mapping[str, str]) -> str:
    """Libraries that write graphs, where they aren't of the versions that the package names."""
    from edgewise.cli.doctor import version

    changed = [f"{name} {then} then, {version(name) or 'none'} now" for name, then in versions.items() if version(name) not in (then, None)]
    return f", or the same versions ({', '.join(changed)})" if changed else ""


def again(found: Package, source: Intake, dense: Graph, task: Any) -> Graph:
    """The package's recipe applied to the dense model, as the search does it."""
    from edgewise.search.origin import remade

    origin = found.manifest.provenance
    return remade(origin.recipe, source, dense, task, origin.reference or found.execution)


@dataclass(frozen=True)
class Outcome:
    """identical: graph and weights are the same bytes. The rest is on the validation split, where they are not."""

    identical: bool
    sha256: str
    weights_changed: tuple[str, ...] = ()
    relative_l2: float = 0.0
    agreement: float | None = 1.0
    n: int = 0


def compared(found: Package, graph: Graph, task: Any) -> Outcome:
    from edgewise import backends, measure
    from edgewise.data import metrics

    before = found.graph()
    if before.sha256 == graph.sha256:
        return Outcome(True, graph.sha256)
    execution = backends.plain(given.execution_of(found))
    first, second = (measure.answers(each, execution, task.split("validation")) for each in (before, graph))
    same = metrics.agree(task.metric, first, second, task.split("validation").targets)
    agreement = None if same is None else float(same.mean())
    return Outcome(False, graph.sha256, _changed(before, graph), measure.divergence(first, second), agreement, len(first))


def _changed(before: Graph, after: Graph) -> tuple[str, ...]:
    """Names of weights that differ, or that only one of the two has."""
    left, right = ({tensor.name: tensor.SerializeToString() for tensor in each.proto.graph.initializer} for each in (before, after))
    return tuple(name for name in dict.fromkeys([*left, *right]) if left.get(name) != right.get(name))


def repacked(found: Package, graph: Graph, identical: bool) -> Package:
    """A package with the new graph. What the old one measured, and engines' own forms, are kept only where it is the very same model.

    Without its form, such an engine couldn't run the package: another is named for it.
    """
    from edgewise import backends, package
    from edgewise.search.packing import finished

    manifest, execution = found.manifest, found.execution
    built = package.build(
        graph,
        created=manifest.created,
        version=manifest.version,
        preprocess=found.preprocess,
        postprocess=found.postprocess,
        labels=manifest.labels if found.postprocess is None else (),
        execution=execution if identical or execution is None else backends.plain(execution),
        provenance=manifest.provenance,
        measured=manifest.measured if identical else None,
        files=found.files,
        rows=found.rows if identical else None,
        forms={
            entry.name: package.OwnForm(found.model_bytes(entry.name), entry.engine)
            for entry in manifest.entries
            if identical and entry.format != manifest.entry("main").format
        },
    )
    return finished(built, manifest.provenance.recipe)


def _show(found: Package, outcome: Outcome, out: Path | None) -> None:
    from edgewise.cli.terminal import clean, console, facts

    shown = console()
    origin = found.manifest.provenance
    if outcome.identical:
        shown.print(clean("✓ The same to the bit: graph and weights."), style="green")
    else:
        shown.print(clean("✗ Another model came out."), style="red")
    rows = [("recipe", origin.recipe or "none: the dense model"), ("model", origin.model), ("SHA-256", outcome.sha256)]
    if not outcome.identical:
        names = ", ".join(outcome.weights_changed[:4])
        rows += [
            ("weights", f"{len(outcome.weights_changed)} differ: {names}{' …' if len(outcome.weights_changed) > 4 else ''}"),
            (
                "outputs",
                f"{outcome.relative_l2:.3g} apart (relative L2) on {outcome.n} samples"
                + ("" if outcome.agreement is None else f", the same answer on {outcome.agreement:.1%}"),
            ),
            ("versions", _unlike(origin.versions).removeprefix(", or the same versions ").strip("()") or "the same as then"),
        ]
    if out is not None:
        rows.append(("written", f"{out}{'' if outcome.identical else ', without measured figures: they were of the other model'}"))
    shown.print(facts(rows))
