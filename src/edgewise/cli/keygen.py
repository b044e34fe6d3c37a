"""`edgewise keygen`: a pair of keys to sign packages with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Option("-o", "--out", help="The private key; the public one lies beside it, as .pub.", metavar="FILE")],
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Protect the private key with a passphrase (asked for, or in EDGEWISE_PASSPHRASE).")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite keys that are there.")] = False,
) -> None:
    """Make a pair of Ed25519 keys: the private one signs packages, devices get the public one.

    Example: edgewise keygen -o maker.key
    """
    from edgewise.cli.terminal import console, facts
    from edgewise.cli.trusting import passphrase
    from edgewise.package import signing

    made = signing.write_pair(out, passphrase=passphrase("Passphrase", twice=True) if encrypt else None, force=force)
    public = out.with_suffix(".pub")
    console().print(
        facts(
            [
                ("private key", f"{out}: signs; keep it off devices, and a copy of it safe"),
                ("public key", f"{public}: for the devices' folder of trusted keys"),
                ("key id", made.id),
                ("next", f"edgewise sign out/model.edgew --key {out}"),
            ]
        )
    )
