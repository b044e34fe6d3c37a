"""`edgewise pack`: any ONNX file as a package, lossless unless a divergence is allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgewise.cli import derive
from edgewise.errors import InvalidInput, InvalidModel

if TYPE_CHECKING:
    from edgewise.cli.calibration import Calibration
    from edgewise.cli.rounding import Rounded
    from edgewise.graph import Graph
    from edgewise.package import Package, Profile

# Of `package.build`: what a file on its own says nothing about, or what isn't given on a command line.
NO_OPTIONS = ("created", "preprocess", "postprocess", "execution", "provenance", "measured", "forms", "files", "take_out_bytes", "limits")


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """The command with the options of `package.build`, and of how pictures are read."""
    from edgewise import package
    from edgewise.cli import calibration as samples

    pictures = samples.options()
    building = derive.options(package.build, panel="Package", leave_out=NO_OPTIONS)

    def command(
        model: Annotated[Path, typer.Argument(help="An ONNX file; weights in files beside it come along.", metavar="MODEL")],
        out: Annotated[Path, typer.Option("--out", "-o", help="The package to write.", metavar="FILE")],
        profile: Annotated[
            Literal["full", "minimal"],
            typer.Option(help="minimal: the fewest bytes, for very small models; inner names go.", metavar="full|minimal"),
        ] = "full",
        max_divergence: Annotated[
            float | None,
            typer.Option(help="Round weights until the answers move by so much of their norm, as 0.01. Not lossless.", metavar="SHARE"),
        ] = None,
        calibration: Annotated[
            str | None,
            typer.Option(help="Samples to round by, no labels: pictures, or an .npz with an array for each input.", metavar="DATA"),
        ] = None,
        **options: Any,
    ) -> None:
        """Pack an ONNX file: the same model to the bit, its weights coded in fewer bytes. No data, no training.

        With --max-divergence weights are rounded first, without training:
        far fewer bytes, and answers that differ by about that share of
        their norm. Samples in --calibration tell which weights matter.

        Example: edgewise pack model.onnx -o model.edgew --coders all

        Example: edgewise pack model.onnx -o small.edgew --max-divergence 0.01 --calibration pictures/
        """
        given = derive.collect(pictures, options)
        if calibration is None and given:
            raise InvalidInput(
                f"{', '.join(f'--{name}' for name in sorted(given))} say how pictures of --calibration are read; give it too"
            )
        if max_divergence is None and calibration is not None:
            raise InvalidInput(f"--calibration {calibration}: nothing is rounded without --max-divergence; give it too, as 0.01")
        arguments = derive.collect(building, options)
        if max_divergence is None:
            graph, packed = pack(model, out, profile=profile, **arguments)
            _show(graph.size_bytes, out, packed)
        else:
            rounded, before, packed = smaller(model, out, max_divergence, calibration, given, profile=profile, **arguments)
            _show(before, out, packed, rounded)

    return derive.with_options(command, [*building, *pictures])


def pack(model: Path, out: Path, *, profile: Profile = "full", **options: Any) -> tuple[Graph, Package]:
    """Write the package of an ONNX file, and read it; options as of `package.build`. Raises InvalidModel or InvalidInput."""
    graph = _loaded(model, out)
    return graph, _written(graph, graph.sha256, model, out, profile, options)


def smaller(
    model: Path, out: Path, divergence: float, where: str | None, pictures: dict[str, Any], *, profile: Profile = "full", **options: Any
) -> tuple[Rounded, int, Package]:
    """The same of a model whose weights are rounded before; and the bytes that it had. where, pictures: as `calibration.read` has them.

    Nothing is written before all else is done. Raises MissingExtra without torch.
    """
    from edgewise.cli import calibration as samples
    from edgewise.cli.progress import telling
    from edgewise.cli.rounding import possible, rounded
    from edgewise.cli.terminal import clean, console

    possible(divergence)
    graph = _loaded(model, out)
    if not out.absolute().parent.is_dir():
        raise InvalidInput(f"can't write {out}: does its folder exist?")
    data: Calibration | None = None if where is None else samples.read(where, graph.signature, pictures)
    for note in data.notes if data else ():
        console().print(clean(f"data: {note}"), style="dim")
    with telling() as tell:
        found = rounded(graph, divergence, data, tell)
        tell("coding the weights", 1.0, None)
        return found, graph.size_bytes, _written(found.graph, graph.sha256, model, out, profile, options)


def _loaded(model: Path, out: Path) -> Graph:
    from edgewise.graph import Graph

    if not model.is_file():
        raise InvalidModel(f"{model} {'is a folder' if model.is_dir() else 'does not exist'}; give an ONNX file")
    if out.exists() and out.samefile(model):
        raise InvalidInput(f"-o {out} is the model itself; give another name, as {model.with_suffix('.edgew').name}")
    return Graph.load(model)


def _written(graph: Graph, source_sha256: str, model: Path, out: Path, profile: Profile, options: dict[str, Any]) -> Package:
    from edgewise import __version__, package

    created = datetime.now(UTC).isoformat(timespec="seconds")
    origin = package.Provenance(model=model.name, source_sha256=source_sha256, versions={"edgewise": __version__})
    found = package.build(graph, created=created, provenance=origin, **options)
    found.save(out, profile=profile)
    return found if profile == "full" else package.open(out)


def _show(before: int, out: Path, packed: Package, rounded: Rounded | None = None) -> None:
    from edgewise.cli.terminal import clean, console, section
    from edgewise.cli.weights import by_coder
    from edgewise.report import numbers

    shown = console()
    sizes = f"{out}  {numbers.size(packed.size_bytes)} for {numbers.size(before)} of ONNX"
    if packed.profile == "minimal":
        shown.print(clean(f"{sizes}{': the same weights to the bit' if rounded is None else ''}"))
    else:
        shown.print(clean(f"{sizes}{', the same to the bit' if rounded is None else ''}"))
    for line in _told(rounded) if rounded else ():
        shown.print(clean(line))
    if packed.profile == "minimal":
        return
    raw, stored, table = by_coder(packed)
    if table.row_count:
        section(shown, f"Weights: {numbers.size(raw)} in {numbers.size(stored)}", table)


def _told(rounded: Rounded) -> list[str]:
    """How far the model is from what it was, in words."""
    seen, held = rounded.samples
    lines = ["No longer the same model to the bit: its weights are rounded."]
    if rounded.seen is None:
        return [
            *lines,
            f"Divergence: the weights moved by {rounded.weights:.3g} of their norm (asked: {rounded.asked:g} at most). How far the answers "
            "moved is not known without --calibration.",
        ]
    within = f"{rounded.seen:.3g} on the {seen:,} that rounding saw, {rounded.asked:g} asked at most"
    if rounded.held is None:
        return [*lines, f"Divergence of the answers: {within}; too few samples to hold any out, so others will diverge more."]
    return [
        *lines,
        f"Divergence of the answers: {rounded.held:.3g} of their norm on {held:,} samples rounding did not see ({within}).",
    ]
