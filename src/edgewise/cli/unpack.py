"""`edgewise unpack`: a package's model as an ONNX file again, the same to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgewise.errors import InvalidInput, InvalidPackage


def command(
    file: Annotated[Path, typer.Argument(help="A package (.edgew).", metavar="FILE")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The ONNX file to write.", metavar="FILE")],
    entry: Annotated[str, typer.Option(help="Which of the package's models; `edgewise inspect` lists them.")] = "main",
) -> None:
    """Write a package's model as an ONNX file: the graph and the weights that were packed, to the bit.

    Every byte of the package is verified first. The file is written whole, or not at all.

    Example: edgewise unpack model.edgew -o model.onnx
    """
    from edgewise import package
    from edgewise.cli.terminal import clean, console
    from edgewise.report import numbers

    if not file.exists():
        raise InvalidPackage(f"{file} does not exist; give a package (.edgew)")
    if out.exists() and out.samefile(file):
        raise InvalidInput(f"-o {out} is the package itself; give another name, as {file.with_suffix('.onnx').name}")
    graph = package.open(file).graph(entry)
    try:
        graph.save(out)
    except OSError as error:
        raise InvalidInput(f"can't write {out}: {error.strerror or error}; what was there before is unchanged") from error
    console().print(clean(f"{out}  {numbers.size(graph.size_bytes)}, SHA-256 {graph.sha256}"))
