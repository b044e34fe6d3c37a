"""`edgewise sign`: put a signature into a package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[Path, typer.Argument(help="A package (.edgew).", metavar="FILE")],
    key: Annotated[Path, typer.Option("--key", help="The private key that edgewise keygen wrote.", metavar="KEY")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the signed package here, instead of in its place.")] = None,
) -> None:
    """Sign a package: whoever has the public key can tell that it is yours, and whole. A signature before is replaced.

    An encrypted key's passphrase is asked for, or read from EDGEWISE_PASSPHRASE.

    Example: edgewise sign out/model.edgew --key maker.key
    """
    from edgewise import package
    from edgewise.cli.terminal import console, facts
    from edgewise.cli.trusting import passphrase
    from edgewise.package import signing

    found = package.open(file)
    private = signing.private_key(key, passphrase(f"Passphrase of {key}") if signing.encrypted(key) else None)
    signed = signing.sign(found, private)
    signed.save(out or file)
    public = signing.PublicKey(key.stem, private.public_key().public_bytes_raw())
    rows = [
        ("signed", f"{out or file}, version {signed.manifest.version}"),
        ("by", str(public)),
        ("content id", signed.content_id),
        ("replaced", "the signature that it had" if found.signature_bytes else ""),
    ]
    console().print(facts(rows))
