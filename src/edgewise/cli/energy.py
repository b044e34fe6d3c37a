"""--watts: energy modelled by what a board is stated to take, where no meter can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgewise.records import Device

WATTS = "What the board takes, to model energy where no meter can be read: idle=1.9,busy=4.2."


def with_watts(device: Device, watts: str) -> tuple[Device, list[str]]:
    """`device` with its energy modelled by `watts`, as it is for ""; and notes. Raises InvalidInput for a text that states none."""
    from edgewise import devices
    from edgewise.types import Watts

    if not watts:
        return device, []
    found, note = devices.stated(device, Watts.read(watts))
    return found, [note] if note else []
