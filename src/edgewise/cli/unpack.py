"""`edgewise unpack`: a package's model as a file again, the same to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgewise.errors import InvalidInput, InvalidPackage


def command(
    file: Annotated[Path, typer.Argument(help="A package (.edgew).", metavar="FILE")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.", metavar="FILE")],
    entry: Annotated[str, typer.Option(help="Which of the package's models; `edgewise inspect` lists them.")] = "main",
) -> None:
    """Write a package's model as an ONNX file, or an engine's own form of it as the file that it is: all that was packed, to the bit.

    Every byte of the package is verified first. The file is written whole, or not at all.

    Example: edgewise unpack model.edgew -o model.onnx
    """
    import hashlib

    from edgewise import package
    from edgewise.cli.terminal import clean, console
    from edgewise.package.atomic import write_bytes
    from edgewise.report import numbers

    if not file.exists():
        raise InvalidPackage(f"{file} does not exist; give a package (.edgew)")
    if out.exists() and out.samefile(file):
        raise InvalidInput(f"-o {out} is the package itself; give another name, as {file.with_suffix('.onnx').name}")
    found = package.open(file)
    # An engine's own form is a file as it is; a graph's bytes have one order only as `Graph` writes them.
    own = found.manifest.entry(entry).format != found.manifest.entry("main").format
    data = found.model_bytes(entry) if own else found.graph(entry).to_bytes()
    write_bytes(out, data)
    console().print(clean(f"{out}  {numbers.size(len(data))}, SHA-256 {hashlib.sha256(data).hexdigest()}"))
