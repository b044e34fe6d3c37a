"""What an engine brings along with its first model isn't that model's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewise import backends, package
from edgewise.errors import InvalidPackage
from edgewise.graph import Graph
from edgewise.host import warming
from edgewise.host.settings import ModelSettings, Settings
from edgewise.testing import graphs
from edgewise.types import Execution

FIRST = next(iter(backends.installed()))

HOSTED = """
import asyncio, json, sys
from edgewise.host.hosting import LocalHost
from edgewise.host.settings import Settings

async def story():
    host = LocalHost(sys.argv[1], Settings(memory_bytes=1 << 30, cores=1, poll_s=0, curves=False))
    await host.start()
    for name in ("m0", "m1"):
        await host.load(name)
    print(json.dumps(sorted(host.vitals().kept.items())))
    await host.close()

asyncio.run(story())
"""


def put(path: Path, execution: Execution, seed: int = 0, width: int = 2048) -> None:
    weights = {"w": np.random.default_rng(seed).standard_normal((512, width), dtype=np.float32)}
    graph = graphs.build([("MatMul", ["x", "w"], ["y"])], {"x": ("batch", 512)}, {"y": ("batch", width)}, weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    package.build(Graph.from_proto(graph), created="2026-01-01T00:00:00Z", execution=execution).save(path)


@pytest.mark.parametrize("engine", [name for name in ("onnxruntime", "openvino") if name in backends.installed()])
def test_the_first_model_of_an_engine_is_no_larger_than_the_next(tmp_path: Path, engine: str) -> None:
    for i in range(2):
        put(tmp_path / f"m{i}" / "1" / "model.edgew", Execution(engine), i)
    done = subprocess.run([sys.executable, "-c", HOSTED, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (_, first), (_, second) = json.loads(done.stdout)
    assert second > 4 << 20 and first < second + (6 << 20)


def test_engines_are_those_that_the_models_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {name: backends.get(name) for name in ("onnxruntime", "openvino", "litert")}
    monkeypatch.setattr(backends, "installed", lambda: there)
    assert warming.engines(tmp_path, Settings()) == {"onnxruntime"}
    put(tmp_path / "a" / "1" / "model.edgew", Execution("openvino"), width=4)
    assert warming.engines(tmp_path, Settings()) == {"openvino"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.onnx").write_bytes(b"never read")
    (tmp_path / "c.edgew").write_bytes(b"damaged")
    assert warming.engines(tmp_path, Settings()) == {"openvino", "onnxruntime"}
    own = {"a": ModelSettings(process=True), "b": ModelSettings(backend="litert"), "c": ModelSettings(backend="litert")}
    assert warming.engines(tmp_path, Settings(models=own)) == {"litert"}


def test_an_engine_that_can_not_be_warmed_up_is_told_of_later() -> None:
    warming.warm("none-of-that-name")
    warming.warm(FIRST)


def test_a_glance_reads_the_manifest_alone(tmp_path: Path) -> None:
    file = tmp_path / "m.edgew"
    put(file, Execution("onnxruntime", threads=3), width=4)
    data = bytearray(file.read_bytes())
    data[-8] ^= 1
    file.write_bytes(data)
    with pytest.raises(InvalidPackage):
        package.open(file)
    manifest = package.glance(file)
    assert manifest is not None and manifest.execution == Execution("onnxruntime", threads=3)
    data[200] ^= 1
    file.write_bytes(data)
    with pytest.raises(InvalidPackage, match="SHA-256"):
        package.glance(file)
