"""`edgewise diff`: the update from one package to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    old: Annotated[Path, typer.Argument(help="The package that devices have.", metavar="OLD")],
    new: Annotated[Path, typer.Argument(help="The one that they shall have.", metavar="NEW")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The update (.edgewd).", metavar="FILE")],
    reencode: Annotated[
        bool,
        typer.Option(
            "--reencode/--no-reencode",
            help="Let devices code weights again, which their edgewise must do as this one does; else coded weights are sent as they are.",
        ),
    ] = True,
) -> None:
    """Write what devices need to make the new package of the old one: weights as differences, where that is smaller.

    The update is tried before it is written; the new package's signature comes along.

    Example: edgewise diff old.edgew new.edgew -o update.edgewd
    """
    from edgewise import package
    from edgewise.cli.terminal import console, facts
    from edgewise.package import update
    from edgewise.report import numbers

    made = package.diff(old, new, reencode=reencode)
    update.save(made, out)
    size = out.stat().st_size
    rows = [
        ("update", f"{out}, {numbers.size(size)}: {100 * size / made.new_bytes:.1f} % of the new package"),
        ("from", f"{old}, SHA-256 {made.old_sha256.hex()}"),
        ("to", f"{new}, SHA-256 {made.new_sha256.hex()}"),
        ("next", f"edgewise patch {old} {out}"),
    ]
    console().print(facts(rows))
