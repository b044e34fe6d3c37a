import importlib.metadata
from dataclasses import replace

import pytest

from edgewise.devices import local
from edgewise.devices.probe import memory, system
from edgewise.records import Device
from edgewise.types import from_json, to_json

INFO = {"proc/meminfo": "MemFree: 5 kB\nMemTotal:        4194304 kB"}


def test_this_machine():
    device = local()
    assert device.backends["onnxruntime"] == importlib.metadata.version("onnxruntime")
    assert device.cores >= 1
    assert device.memory_bytes > 1 << 24
    assert device.energy
    assert device.address == "local"
    assert from_json(to_json(device), Device) == device
    assert device.key == local().key == replace(device, name="renamed").key


def test_an_engine_under_another_package_name(monkeypatch):
    def version(name):
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return "9.9"

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]})
    assert local().backends["onnxruntime"] == "9.9"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4 << 30),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/memory.max": "268435456"}, 256 << 20),
        ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/memory.max": "max"}, 4 << 30),
        ({"proc/self/cgroup": "4:memory:/b", "sys/fs/cgroup/memory/b/memory.limit_in_bytes": "1048576"}, 1 << 20),
        ({"proc/self/cgroup": "4:memory:/b", "sys/fs/cgroup/memory/b/memory.limit_in_bytes": "9223372036854771712"}, 4 << 30),
    ],
)
def test_memory_is_what_the_cgroup_leaves(tree, files, expected):
    assert memory(tree(INFO | files)) == expected


def test_memory_and_system_without_files(tmp_path):
    assert memory(tmp_path) > 0
    assert system(tmp_path)


def test_system_names_the_distribution(tree):
    assert system(tree({"etc/os-release": 'NAME=x\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"'})).startswith(
        "Debian GNU/Linux 12 (bookworm), "
    )
