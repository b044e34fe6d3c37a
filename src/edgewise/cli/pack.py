"""`edgewise pack`: any ONNX file as a package, lossless."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgewise.cli import derive
from edgewise.errors import InvalidInput, InvalidModel

if TYPE_CHECKING:
    from edgewise.graph import Graph
    from edgewise.package import Package, Profile

# Of `package.build`: what a file on its own says nothing about, or what isn't given on a command line.
NO_OPTIONS = ("created", "preprocess", "postprocess", "execution", "provenance", "measured", "forms", "take_out_bytes", "limits")


def command_for(arguments: Sequence[str]) -> Callable[..., Any]:
    """The command with the options of `package.build`."""
    from edgewise import package

    building = derive.options(package.build, panel="Package", leave_out=NO_OPTIONS)

    def command(
        model: Annotated[Path, typer.Argument(help="An ONNX file; weights in files beside it come along.", metavar="MODEL")],
        out: Annotated[Path, typer.Option("--out", "-o", help="The package to write.", metavar="FILE")],
        profile: Annotated[
            Literal["full", "minimal"],
            typer.Option(help="minimal: the fewest bytes, for very small models; inner names go.", metavar="full|minimal"),
        ] = "full",
        **options: Any,
    ) -> None:
        """Pack an ONNX file: the same model to the bit, its weights coded in fewer bytes. No data, no training.

        Example: edgewise pack model.onnx -o model.edgew --coders all
        """
        graph, packed = pack(model, out, profile=profile, **derive.collect(building, options))
        _show(graph.size_bytes, out, packed)

    return derive.with_options(command, building)


def pack(model: Path, out: Path, *, profile: Profile = "full", **options: Any) -> tuple[Graph, Package]:
    """Write the package of an ONNX file, and read it; options as of `package.build`. Raises InvalidModel or InvalidInput."""
    from edgewise import __version__, package
    from edgewise.graph import Graph

    if not model.is_file():
        raise InvalidModel(f"{model} {'is a folder' if model.is_dir() else 'does not exist'}; give an ONNX file")
    if out.exists() and out.samefile(model):
        raise InvalidInput(f"-o {out} is the model itself; give another name, as {model.with_suffix('.edgew').name}")
    graph = Graph.load(model)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    origin = package.Provenance(model=model.name, source_sha256=graph.sha256, versions={"edgewise": __version__})
    found = package.build(graph, created=created, provenance=origin, **options)
    found.save(out, profile=profile)
    return graph, found if profile == "full" else package.open(out)


def _show(before: int, out: Path, packed: Package) -> None:
    from edgewise.cli.terminal import clean, console, section
    from edgewise.cli.weights import by_coder
    from edgewise.report import numbers

    shown = console()
    if packed.profile == "minimal":
        shown.print(clean(f"{out}  {numbers.size(packed.size_bytes)} for {numbers.size(before)} of ONNX: the same weights to the bit"))
        return
    raw, stored, table = by_coder(packed)
    shown.print(clean(f"{out}  {numbers.size(packed.size_bytes)} for {numbers.size(before)} of ONNX, the same to the bit"))
    if table.row_count:
        section(shown, f"Weights: {numbers.size(raw)} in {numbers.size(stored)}", table)
