"""`edgewise devices`: the devices that one measures on, by name."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.errors import EdgewiseError, InvalidInput

if TYPE_CHECKING:
    from edgewise.devices.known import Known

ACTIONS = "add, remove, key, export, emulate; nothing lists them"


def command(
    action: Annotated[str, typer.Argument(help=f"One of {ACTIONS}.", metavar="[ACTION]")] = "",
    words: Annotated[list[str] | None, typer.Argument(help="What it is done to: see the examples.", metavar="…")] = None,
    key: Annotated[Path | None, typer.Option(help="The device's key, the file that its worker was started with.", metavar="FILE")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Of export: the profile to write.", metavar="FILE")] = None,
    cpu: Annotated[str, typer.Option(help="Of emulate: the share of one core.")] = "100%",
    memory: Annotated[str, typer.Option(help="Of emulate: as 256M.")] = "1G",
    link: Annotated[str, typer.Option(help="Of emulate: rate, delay, jitter and loss, as 20mbit,20ms,5ms,1%.")] = "",
) -> None:
    """List the devices that are known: name, processor, engines, memory, temperature, round trip, whether they answer.

    Example: edgewise devices key device.key                          makes a key, for both ends

    edgewise devices add pi https://pi.local:7070 --key device.key    from now on, --device pi

    edgewise devices remove pi

    edgewise devices export pi -o pi.profile.json                     what was measured there, for when it is away

    edgewise devices emulate --cpu 25% --memory 256M --link 20mbit,20ms -- edgewise worker --listen 0.0.0.0:7070 --key device.key
    """
    given = words or []
    match action, given:
        case "", []:
            _list()
        case "add", [name, url]:
            _add(name, url, key)
        case "remove", [name]:
            _remove(name)
        case "key", [path]:
            from edgewise.wire import keys

            made = keys.make(path)
            print(f"{made.path}: key {made.id}. Keep it secret; the device and whoever measures on it hold the same file.")
        case "export", [name]:
            _export(name, out or Path(f"{name}.profile.json"))
        case "emulate", [_, *_]:
            from edgewise.cli.emulating import emulate

            raise SystemExit(emulate(cpu, memory, link, given))
        case _:
            raise InvalidInput(f"edgewise devices {' '.join([action, *given])}: give {ACTIONS}. edgewise devices --help shows examples")


def _add(name: str, url: str, key: Path | None) -> None:
    from edgewise.devices import known
    from edgewise.wire import client, keys

    if Path(url).is_file():
        from edgewise.measure.recorded import Recorded

        Recorded.read(Path(url), name)
        known.add(known.Known(name, profile=str(Path(url).resolve())))
        print(f"{name}: from the profile {url}; every figure will say so.")
        return
    if key is None:
        raise InvalidInput("a device is added with its key: --key FILE, the one that its worker was started with")
    held = keys.read(key)
    known.add(known.Known(name, client.link(url, held).address, str(held.path.resolve())))
    try:
        told = _asked(known.find(name))
    except EdgewiseError as error:
        print(f"{name} is kept, but doesn't answer now: {error}")
        return
    print(f"{name}: {told}")


def _remove(name: str) -> None:
    from edgewise.devices import known

    known.remove(name)
    print(f"{name} is forgotten.")


def _list() -> None:
    from edgewise.cli.terminal import clean, console, listing
    from edgewise.devices import known, local

    table = listing("device", "processor", "cores", "memory", "engines", "state", right=("cores", "memory"))
    here = local()
    rows = [("local", here.cpu, str(here.cores), f"{here.memory_bytes / 1e9:.1f} GB", ", ".join(here.backends), "this machine")]
    for one in known.all_known():
        try:
            rows.append(_row(one))
        except EdgewiseError as error:
            rows.append((one.name, "", "", "", "", f"away: {error}"))
    for row in rows:
        table.add_row(*map(clean, row))
    console().print(table)


def _row(one: Known) -> tuple[str, str, str, str, str, str]:
    from edgewise.records import Device
    from edgewise.types import from_json
    from edgewise.wire import client, keys

    if one.profile:
        return one.name, "", "", "", "", f"from a profile: {one.profile}"
    link = client.link(one.url, keys.read(one.key))
    link.patience_s = 3.0
    try:
        link.here()
        began = time.perf_counter()
        told = link.here()
        trip_ms = (time.perf_counter() - began) * 1e3
    finally:
        link.close()
    device = from_json(told.device, Device)
    heat = "" if told.temperature_c is None else f", {told.temperature_c:.0f} °C"
    free = "" if told.memory_free_bytes is None else f", {told.memory_free_bytes / 1e6:.0f} MB free"
    state = f"alive, {trip_ms:.0f} ms{heat}{free}" + (f", {told.queue} jobs" if told.queue else "")
    return one.name, device.cpu, str(device.cores), f"{device.memory_bytes / 1e9:.1f} GB", ", ".join(device.backends), state


def _asked(one: Known) -> str:
    _, cpu, cores, memory, engines, state = _row(one)
    return f"{cpu}, {cores} cores, {memory}, {engines}; {state}"


def _export(name: str, out: Path) -> None:
    from edgewise.cli.given import device
    from edgewise.measure.elsewhere import of
    from edgewise.measure.remote import Remote
    from edgewise.search.store import write
    from edgewise.types import to_json

    found = device(name)
    there = of(found)
    if not isinstance(there, Remote):
        raise InvalidInput(f"{name} is no device with a worker: only what was measured on one can be exported")
    profile = there.log.profile(found)
    write(out, to_json(profile))
    print(f"{out}: {len(profile.figures)} figures, {len(profile.tables)} latency tables. It stands in for {name} where that is away:")
    print(f"edgewise devices add {name}-recorded {out}")
