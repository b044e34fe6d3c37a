"""Devices elsewhere. `connect` makes one known, by its address; every function of this room that takes a device asks `of(device)` first,
so that whoever measures never knows where.

Imported by measuring processes: what a link needs is imported where one is made.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgewise.errors import InvalidInput
from edgewise.records import Device
from edgewise.types import from_json

if TYPE_CHECKING:
    from edgewise.measure.recorded import Recorded
    from edgewise.measure.remote import Remote
    from edgewise.wire.client import Link

LOCAL = "local"

_connected: dict[str, Remote | Recorded] = {}


def connect(link: Link, name: str = "") -> Device:
    """The device behind `link`, known from now on by its address. name: instead of its own. Raises MeasurementFailed, InvalidInput."""
    from edgewise.measure.recorded import Log
    from edgewise.measure.remote import Remote
    from edgewise.measure.roofs import cache_folder

    told = from_json(link.here().device, Device)
    device = replace(told, name=name or told.name, address=link.address)
    _connected[device.address] = Remote(link, device, Log(cache_folder() / "devices" / device.key))
    return device


def stand_in(profile: Path, name: str) -> Device:
    """A device that is away, by its recorded profile; `Device.name` says so, and with it every figure. Raises InvalidInput."""
    from edgewise.measure.recorded import Recorded

    recorded = Recorded.read(profile, name)
    _connected[recorded.device.address] = recorded
    return recorded.device


def interruptions(device: Device) -> tuple[str, ...]:
    """When a device elsewhere was away or started anew, in words; nothing of this machine."""
    there = of(device)
    return () if there is None else there.told


def of(device: Device) -> Remote | Recorded | None:
    """None for this machine. Raises InvalidInput for a device that nobody has connected to."""
    if device.address == LOCAL:
        return None
    found = _connected.get(device.address)
    if found is None:
        raise InvalidInput(f"{device.name} is at {device.address}, and not connected: edgewise.measure.elsewhere.connect(link) does that")
    return found
