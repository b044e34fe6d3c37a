"""What the commands that ask for a signature share: their options, and the policy that these give."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.errors import InvalidInput

if TYPE_CHECKING:
    from edgewise.package import Package
    from edgewise.package.signing import Trust

PASSPHRASE = "EDGEWISE_PASSPHRASE"
_PANEL = "Trust"

Keys = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        "--key",
        help="Refuse what none of these keys signed: a folder of .pub files, with a file `revoked` of key ids if need be, or one key.",
        metavar="PATH",
        rich_help_panel=_PANEL,
    ),
]
MinimumVersion = Annotated[
    int | None, typer.Option(help="Refuse an older version than this (needs --keys).", min=1, rich_help_panel=_PANEL)
]
State = Annotated[
    Path | None,
    typer.Option(
        help="Refuse an older version than was in use before, and note this one in FILE (needs --keys).",
        metavar="FILE",
        rich_help_panel=_PANEL,
    ),
]


def trust_of(keys: Path | None, minimum_version: int | None, state: Path | None) -> Trust | None:
    """The policy that the options give; None without keys."""
    if keys is None:
        if minimum_version is not None or state is not None:
            raise InvalidInput("a version counts only where it is signed: give --keys too, the public keys that are trusted")
        return None
    from edgewise.package import installed, signing

    return signing.trusted(keys, minimum_version=minimum_version or 1, installed=installed.read(state) if state else None)


def note(package: Package, state: Path | None) -> None:
    """Keep the version of `package` as one that was in use."""
    from edgewise.package import installed

    if state is not None:
        installed.keep(state, package.manifest.provenance.model, package.manifest.version)


def passphrase(question: str, *, twice: bool = False) -> str:
    """From the environment, where no one can be asked, or asked for; never an option, which other users of the machine would see."""
    return os.environ.get(PASSPHRASE) or typer.prompt(question, hide_input=True, confirmation_prompt=twice)
