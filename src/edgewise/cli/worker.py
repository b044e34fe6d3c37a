"""`edgewise worker`: lets others measure on this device."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from edgewise.errors import InvalidInput


def command(
    key: Annotated[
        Path, typer.Option(help="The device's key; clients hold the same file (edgewise devices key makes one).", metavar="FILE")
    ],
    listen: Annotated[str, typer.Option(help="Where: this machine alone unless told otherwise.", metavar="HOST:PORT")] = "127.0.0.1:7070",
    folder: Annotated[
        Path | None, typer.Option(help="Where packages are kept (the user's cache folder unless given).", metavar="DIR")
    ] = None,
    cache_mb: Annotated[float, typer.Option(help="The most that kept packages may take.", min=1.0)] = 1000.0,
    install: Annotated[bool, typer.Option("--install", help="As a systemd unit that starts with the machine, and end.")] = False,
) -> None:
    """Take packages from a workshop that holds the key, measure them here, and send the figures back.

    Needs no torch. Everything goes over TLS; whoever hasn't the key is refused. Nothing that is sent is run but models, by their engine.

    Example: edgewise worker --listen 0.0.0.0:7070 --key device.key
    """
    from edgewise import registry
    from edgewise.measure.roofs import cache_folder
    from edgewise.wire import keys
    from edgewise.worker import service

    for module in ("starlette", "uvicorn"):
        registry.need(module)
    held = keys.read(key)
    host, port = _address(listen)
    where = folder or cache_folder() / "worker"
    if install:
        print(service.installed(service.Unit(sys.executable, f"{host}:{port}", held.path.resolve(), where.resolve(), cache_mb)))
        return
    sys.stdout.flush()
    words = [host, str(port), str(held.path.resolve()), str(where.resolve()), str(int(cache_mb * 1e6))]
    os.execv(sys.executable, [sys.executable, "-m", "edgewise.worker", *words])


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidInput(f"--listen {text}: give an address and a port, as 0.0.0.0:7070")
    return host.strip("[]") or "0.0.0.0", int(port)
