"""`edgewise doctor`: the device, and what to beware of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from edgewise import devices, measure
from edgewise.cli import doctor
from edgewise.records import Conditions, Device, Peaks

DEVICE = Device("board", "x86_64", "CPU", 4, ("avx2", "avx512_vnni"), 2**33, "Debian", {"onnxruntime": "1.31"}, "RAPL (1 package)")
QUIET = Conditions("board", "", 4, (), None, None, 0.0, 0.1, "2026-01-01T00:00:00Z")


def kinds(device: Device = DEVICE, seen: Conditions = QUIET, quota: float = 1e9) -> list[str]:
    return [name for name, _ in doctor.warnings(device, seen, quota=quota)]


def test_nothing_to_beware_of() -> None:
    assert kinds() == []


@pytest.mark.parametrize(
    ("device", "seen", "quota", "expected"),
    [
        (DEVICE, replace(QUIET, steal=0.2), 1e9, ["steal"]),
        (DEVICE, replace(QUIET, load=3.5), 1e9, ["load"]),
        (DEVICE, QUIET, 0.5, ["quota"]),
        (replace(DEVICE, isa=("avx2",)), QUIET, 1e9, ["no VNNI"]),
        (replace(DEVICE, isa=("avx512_vnni", "amx_bf16")), QUIET, 1e9, ["bf16"]),
        (replace(DEVICE, arch="aarch64", isa=("asimd",)), QUIET, 1e9, ["no dot product"]),
        (replace(DEVICE, arch="aarch64", isa=("asimd", "asimddp")), QUIET, 1e9, []),
        (replace(DEVICE, energy="none: no meter"), QUIET, 1e9, ["energy"]),
        (DEVICE, replace(QUIET, steal=None, load=None), 1e9, []),
    ],
)
def test_what_misleads_is_said(device: Device, seen: Conditions, quota: float, expected: list[str]) -> None:
    assert kinds(device, seen, quota) == expected


def test_all_of_it_at_80_columns(edgewise: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "peaks", lambda device, threads, again: Peaks(threads, 77.3, 156.0, 18.4))
    code, out, _ = edgewise("doctor")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for said in ("fp32 77.3 GFLOP/s", "✓ onnxruntime", "Python", "numpy", "EDGEWISE_CACHE", devices.local().cpu.split()[0]):
        assert said in out, out


def test_without_peaks_nothing_is_measured(edgewise: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "peaks", lambda *_, **__: pytest.fail("measured"))
    assert "not measured" in edgewise("doctor", "--no-peaks")[1]


def test_an_engine_that_is_missing_comes_with_the_line_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewise import backends

    monkeypatch.setattr(backends, "installed", dict)
    assert ("✗ openvino", "not installed: pip install 'edgewise[openvino]'") in doctor.engines(DEVICE)


def test_how_weights_are_coded_here_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewise.coding import core, fallback

    monkeypatch.setattr(core, "kernels", fallback)
    monkeypatch.setattr(core, "native", None)
    assert doctor.installed()[2][0] == "coding" and doctor.installed()[2][1].startswith("numpy fallback, slower")
    monkeypatch.setattr(core, "native", fallback)
    assert doctor.installed()[2] == ("coding", "C extension")


def test_what_the_workshop_brings_is_said_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgewise import cli

    monkeypatch.setattr(cli, "_here", lambda module: False)
    assert doctor.installed()[3:] == [
        ("not here", "demo: pip install 'edgewise[workshop,demo]'"),
        ("not here", "compress; fit and reproduce of anything but an .onnx: pip install 'edgewise[workshop]'"),
    ]
    monkeypatch.setattr(cli, "_here", lambda module: True)
    assert len(doctor.installed()) == 3
