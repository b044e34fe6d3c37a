from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import load_from_string
from onnx.reference import ReferenceEvaluator

from edgewise import backends
from edgewise.measure import peaks, roofs
from edgewise.measure.bandwidth import bandwidth
from edgewise.records import Peaks
from edgewise.types import Execution

FOUND = Peaks(1, 10.0, 30.0, 5.0)


@pytest.fixture
def counted(monkeypatch):
    """`measured` replaced by a constant; the list grows with each call."""
    calls: list[int] = []

    def measured(threads):
        calls.append(threads)
        return replace(FOUND, threads=threads)

    monkeypatch.setattr(roofs, "measured", measured)
    return calls


def test_measured_once_per_device_and_threads(device, counted, tmp_path):
    assert peaks(device, 1, cache=tmp_path) == FOUND
    assert peaks(device, 1, cache=tmp_path) == FOUND
    assert peaks(device, 2, cache=tmp_path).threads == 2
    peaks(replace(device, cpu="another"), 1, cache=tmp_path)
    peaks(device, 1, cache=tmp_path, again=True)
    assert counted == [1, 2, 1, 1]
    assert len(list(tmp_path.iterdir())) == 3  # no temporary file is left


def test_a_broken_cache_is_measured_anew(device, counted, tmp_path):
    peaks(device, 1, cache=tmp_path)
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:10])
    assert peaks(device, 1, cache=tmp_path) == FOUND
    assert counted == [1, 1]


def test_what_the_device_knows_is_believed(device, counted, tmp_path):
    assert peaks(replace(device, peaks=(FOUND,)), 1, cache=tmp_path) is FOUND
    assert not counted


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path))
    assert roofs.cache_folder() == tmp_path
    monkeypatch.delenv("EDGEWISE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert roofs.cache_folder() == tmp_path / "xdg/edgewise"
    monkeypatch.setattr("sys.platform", "darwin")
    assert roofs.cache_folder() == Path.home() / "Library/Caches/edgewise"


def test_arrays_outgrow_the_last_cache(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       8388608 kB\n")
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cache/index3"
    folder.mkdir(parents=True)
    (folder / "size").write_text("32768K\n")
    assert roofs.triad_bytes(tmp_path) == 128 << 20
    (folder / "size").write_text("1K\n")
    assert roofs.triad_bytes(tmp_path) == 64 << 20
    (tmp_path / "proc/meminfo").write_text("MemTotal:       262144 kB\n")
    assert roofs.triad_bytes(tmp_path) == 16 << 20


def test_the_products_are_right(monkeypatch):
    """The graphs that the int8 roof is measured with compute what they say, on an engine and in onnx's reference."""
    monkeypatch.setattr(roofs, "ROWS", 4)
    for _, model, inputs in roofs._products():
        raised = load_from_string(model)
        raised.opset_import[0].version = 19  # onnx.reference has no DequantizeLinear of 18
        expected = ReferenceEvaluator(raised).run(None, inputs)[0]
        got = backends.load(model, Execution("onnxruntime")).run(inputs)["y"]
        assert np.linalg.norm(got - expected.astype(float)) <= 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_bandwidth_is_a_speed(threads):
    assert 0.05 < bandwidth(4 << 20, threads, 2) < 5000


def test_measured_for_real(monkeypatch):
    monkeypatch.setattr(backends, "installed", lambda: {"onnxruntime": None})
    found = roofs.measured(1, blocks=1, block_ms=5, array_bytes=4 << 20)
    assert 0.1 < found.fp32_gflops <= found.int8_gops
    assert found.memory_gbps > 0.05
