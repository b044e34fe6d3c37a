"""NVML against a library that stands in for nvidia-ml-py's `pynvml`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import pytest

from edgewise.devices import meters, nvml


class NVMLError(Exception):
    pass


class Library:
    """Cards by name; `millijoules` and `milliwatts` give each card's next reading, None where it doesn't tell."""

    NVMLError = NVMLError

    def __init__(self, names=("Card",), millijoules=None, milliwatts=4000, broken=False):
        self.names, self.broken = names, broken
        self.readings = {"mj": _readings(millijoules), "mw": _readings(milliwatts)}

    def nvmlInit(self):
        if self.broken:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetName(self, handle):
        return self.names[handle]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self._next("mj")

    def nvmlDeviceGetPowerUsage(self, handle):
        return self._next("mw")

    def _next(self, which):
        value = next(self.readings[which])
        if value is None:
            raise NVMLError("Not Supported")
        return value


def _readings(values) -> Iterator[int | None]:
    return iter(values) if isinstance(values, list) else repeat(values)


def best(library):
    return meters.best(gpu=True, gpus=lambda: nvml.gpus(library))


def test_the_energy_counter_is_taken_where_there_is_one():
    # The first reading asks whether there is a counter, the next two are the meter's.
    meter = best(Library(["NVIDIA H100"], [1000, 5_000, 12_500]))
    assert meter.name == "NVML energy counter (NVIDIA H100)"
    assert meter.start()() == pytest.approx(7.5)


def test_a_counter_that_is_reset_with_the_driver_is_no_figure():
    assert best(Library(millijoules=[1000, 5_000, 100])).start()() is None


def test_cards_without_a_counter_are_looked_at():
    meter = best(Library([b"Tesla K80", "Tesla K80"], None, 60_000))
    assert meter.name == "NVML power (2 cards: Tesla K80)"
    gpus = nvml.gpus(Library(["a", "b"], None, 60_000))
    assert [gpu.watts() for gpu in gpus] == [60, 60]
    assert meter.start()() > 0


def test_a_card_that_stops_telling_gives_no_figure():
    assert best(Library(milliwatts=[4000, 4000, *[None] * 99])).start()() is None


@pytest.mark.parametrize("library", [Library(broken=True), Library(()), Library(millijoules=None, milliwatts=None)])
def test_without_a_driver_a_card_or_a_reading_there_is_no_meter(library, tmp_path):
    assert nvml.gpus(library) == ()
    assert meters.best(gpu=True, root=tmp_path, gpus=lambda: nvml.gpus(library)) is None


def test_without_the_package_there_is_none(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert nvml.gpus() == ()


def test_a_card_never_counts_for_the_processor(tree):
    cards = nvml.gpus(Library(["NVIDIA H100"], 1000))
    root = tree({})
    assert meters.best(root=root, gpus=lambda: cards) is None
    said = meters.source(root, lambda: cards)
    assert said.startswith("none: no RAPL")
    assert "NVML energy counter (NVIDIA H100) counts a GPU alone" in said
    rapl = "sys/class/powercap/intel-rapl:0"
    tree({f"{rapl}/name": "package-0", f"{rapl}/energy_uj": "5", f"{rapl}/max_energy_range_uj": "100"})
    assert meters.best(root=root, gpus=lambda: cards).name == meters.source(root, lambda: cards) == "RAPL (1 package)"
    assert meters.best(gpu=True, root=root, gpus=lambda: cards).name.startswith("NVML")
    assert meters.best(gpu=True, root=root, gpus=tuple).name == "RAPL (1 package)"
