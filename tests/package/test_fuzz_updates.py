"""Whatever an update's bytes are, the only error is InvalidPackage, and the old file stays as it was."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import numpy_helper

from edgewise import package
from edgewise.coding.cursor import Cursor, framed, varint
from edgewise.errors import InvalidPackage
from edgewise.package import Limits, rebuild, runs, update

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LIMITS = Limits(file_bytes=1 << 22, model_bytes=1 << 22)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("updates")


@pytest.fixture
def whole(folder: Path, make_graph: object) -> bytes:
    """An update of every kind of weight; `old.edgew` lies in the folder."""
    if not (folder / "whole.edgewd").exists():
        for name, step in (("old", 0), ("new", 1)):
            arrays = {
                "moved": (np.arange(400).reshape(20, 20) % 17 + step * np.eye(20)).astype(np.int8),
                "grid": ((np.arange(400).reshape(20, 20) % 11 + step * np.eye(20)) * np.float32(0.1 + step)).astype(np.float32),
                "float": (np.arange(400) * 0.37 + step * 1e-4).astype(np.float32),
                "kept": np.arange(300, dtype=np.float16),
                f"{name} alone": np.random.default_rng(0).normal(size=100).astype(np.float32) + step,
            }
            tensors = [numpy_helper.from_array(array, each) for each, array in arrays.items()]
            built = package.build(make_graph(*tensors), created="2026-01-01T00:00:00Z", version=1 + step)  # type: ignore[operator]
            built.save(folder / f"{name}.edgew")
        update.save(package.diff(folder / "old.edgew", folder / "new.edgew"), folder / "whole.edgewd")
    return (folder / "whole.edgewd").read_bytes()


def refused_or_right(folder: Path, data: bytes) -> None:
    """An update that its own hash makes whole."""
    old = (folder / "old.edgew").read_bytes()
    path, device = folder / "mutant.edgewd", folder / "device.edgew"
    head, body = data[: update.HEAD.size], data[update.HEAD.size + update.OWN_BYTES :]
    path.write_bytes(head + hashlib.sha256(head + body).digest() + body)
    device.write_bytes(old)
    try:
        package.patch(device, path, limits=LIMITS)
    except InvalidPackage:
        assert device.read_bytes() == old
        assert not list(folder.glob(".*"))
    else:
        assert hashlib.sha256(device.read_bytes()).digest() == head[64:96]


@given(at=st.integers(0, 10_000), length=st.integers(0, 8), by=st.binary(max_size=8))
@settings(relaxed, max_examples=200)
def test_other_bytes_somewhere(at: int, length: int, by: bytes, whole: bytes, folder: Path) -> None:
    at %= len(whole)
    refused_or_right(folder, whole[:at] + by + whole[at + length :])


@given(data=st.binary(max_size=300))
@settings(relaxed, max_examples=100)
def test_random_bodies(data: bytes, whole: bytes, folder: Path) -> None:
    refused_or_right(folder, whole[: update.HEAD.size + update.OWN_BYTES] + data)


@given(data=st.data())
@settings(relaxed, max_examples=150)
def test_manifests_with_something_else_somewhere(data: st.DataObject, whole: bytes, folder: Path, somewhere_else: Any) -> None:
    outline, _ = rebuild.skeleton(package.open(folder / "old.edgew"))
    cursor = Cursor(whole[update.HEAD.size + update.OWN_BYTES :])
    minor, signature = cursor.varint(), bytes(cursor.framed())
    plain = msgspec.json.decode(runs.decode(cursor.framed(), outline, 1 << 20))
    somewhere_else(data, plain)
    run = runs.encode(msgspec.json.encode(plain), outline)
    body = varint(minor) + framed(signature) + framed(run) + bytes(cursor.rest())
    refused_or_right(folder, whole[: update.HEAD.size + update.OWN_BYTES] + body)
