"""Stated watts: how they are read, what they come to, and that a meter is better."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgewise import devices
from edgewise.errors import InvalidInput
from edgewise.records import Device
from edgewise.types import Watts, from_json, to_json

WATTS = Watts(busy=4.2, idle=1.9)
BARE = Device("board", "aarch64", "CPU", 4, (), 2**32, "Linux", {}, "none: no meter")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("idle=1.9,busy=4.2", WATTS),
        ("busy=4.2, idle=1.9", WATTS),
        ("busy=3", Watts(3)),
        ("busy=.5,idle=0", Watts(0.5, 0)),
    ],
)
def test_as_they_are_written(text, expected):
    assert Watts.read(text) == expected
    assert Watts.read(expected.text) == expected


@pytest.mark.parametrize(
    "text", ["", "4.2", "busy", "busy=", "busy=4,2", "busy=4.2W", "busy=-1", "busy=nan", "idle=1.9", "busy=4.2,busy=3", "busy=4,power=3"]
)
def test_what_states_nothing_is_refused(text):
    with pytest.raises(InvalidInput, match=r"as idle=1\.9,busy=4\.2"):
        Watts.read(text)


@pytest.mark.parametrize(
    ("given", "said"), [((0, None), "above 0"), ((float("inf"), None), "above 0"), ((4, 5), "0 to busy=4"), ((4, -1), "0 to")]
)
def test_what_no_board_takes_is_refused(given, said):
    with pytest.raises(InvalidInput, match=said):
        Watts(*given)


def test_energy_is_the_time_of_a_busy_board():
    assert WATTS.energy_mj(2.5) == pytest.approx(10.5)
    assert str(WATTS) == "modelled: 4.2 W busy, 1.9 W idle, as stated"
    assert str(Watts(3)) == "modelled: 3 W busy, as stated"


def test_a_device_without_a_meter_takes_them_and_its_measurements_are_kept_apart():
    device, note = devices.stated(BARE, WATTS)
    assert (device.energy, device.watts, note) == (str(WATTS), WATTS, "")
    assert len({BARE.key, device.key, devices.stated(BARE, Watts(5))[0].key}) == 3
    assert devices.stated(device, Watts(5))[0].energy == "modelled: 5 W busy, as stated"  # the later word counts
    assert from_json(to_json(device), Device) == device


def test_a_meter_is_better():
    metered = replace(BARE, energy="RAPL (1 package)")
    device, note = devices.stated(metered, WATTS)
    assert device == metered
    assert "weren't needed" in note and "RAPL (1 package)" in note


def test_a_device_that_states_none_is_written_as_before():
    """Packages hold devices: what signs or updates an older one must find its bytes again."""
    assert b"watts" not in to_json(BARE)
    assert from_json(to_json(BARE), Device) == BARE
