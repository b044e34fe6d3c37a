"""`edgewise patch`: the new package from the old one and an update."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli.trusting import Keys, MinimumVersion, State


def command(
    old: Annotated[Path, typer.Argument(help="The package that is here.", metavar="OLD")],
    update: Annotated[Path, typer.Argument(help="The update that edgewise diff wrote.", metavar="UPDATE")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the new package here, instead of in the old one's place.")] = None,
    keys: Keys = None,
    minimum_version: MinimumVersion = None,
    state: State = None,
) -> None:
    """Make the new package of the old one and an update, the same to the byte as the one that the update was made from.

    Whatever happens meanwhile, a power cut too, the old package or the new one is there, never a mixture. With --keys the new one has to be
    signed by one of them, and no older than the old one.

    Example: edgewise patch model.edgew update.edgewd --keys trusted/
    """
    from edgewise import package
    from edgewise.cli.terminal import console, facts
    from edgewise.cli.trusting import note, trust_of
    from edgewise.report import numbers

    made = package.patch(old, update, out, trust=trust_of(keys, minimum_version, state))
    note(made, state)
    rows = [
        ("new package", f"{out or old}, {numbers.size(made.size_bytes)}, version {made.manifest.version}"),
        ("content id", made.content_id),
        ("signature", "by a trusted key" if keys else "not checked (--keys)" if made.signature_bytes else "none"),
    ]
    console().print(facts(rows))
