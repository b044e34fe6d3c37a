"""`edgewise verify`: who signed a package, and whether it may be used here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli.trusting import MinimumVersion


def command(
    file: Annotated[Path, typer.Argument(help="A package (.edgew).", metavar="FILE")],
    keys: Annotated[
        Path,
        typer.Option(
            "--keys", "--key", help="A folder of trusted .pub files, with a file `revoked` if need be, or one key.", metavar="PATH"
        ),
    ],
    minimum_version: MinimumVersion = None,
    state: Annotated[
        Path | None, typer.Option(help="Refuse an older version than FILE says was in use; it is not changed.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")] = False,
) -> None:
    """Say who signed a package. Exit code 2 when no trusted key did, when its key is revoked, when it was altered, or is too old.

    Example: edgewise verify out/model.edgew --keys trusted/
    """
    from edgewise import package
    from edgewise.cli.terminal import console, facts
    from edgewise.cli.trusting import trust_of
    from edgewise.package import signing

    trust = trust_of(keys, minimum_version, state)
    assert trust is not None  # the option can't be left out
    found = package.open(file)
    key = signing.require(found, trust)
    manifest = found.manifest
    record = {
        "file": str(file),
        "signed_by": {"name": key.name, "id": key.id},
        "model": manifest.provenance.model,
        "version": manifest.version,
        "content_id": found.content_id,
    }
    if as_json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(record), indent=2).decode())
        return
    rows = [
        ("signed by", str(key)),
        ("model", manifest.provenance.model),
        ("version", str(manifest.version)),
        ("content id", found.content_id),
    ]
    out = console()
    out.print("Every byte is what its maker signed.")
    out.print(facts(rows))
