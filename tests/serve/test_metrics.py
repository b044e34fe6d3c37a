"""What Prometheus is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from edgewise.host.hosting import LocalHost
from edgewise.host.requests import Request
from edgewise.host.settings import Settings
from edgewise.serve import metrics
from edgewise.testing import graphs
from edgewise.testing.hosts import FakeHost, identity


def test_memory_under_a_cap(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(graphs.mlp()[0].SerializeToString())

    async def story() -> str:
        host = LocalHost(tmp_path, Settings(memory_bytes=1 << 30, poll_s=0, cores=1, curves=False))
        await host.start()
        try:
            for _ in range(2):
                await host.infer(Request("net", {"x": np.ones((1, 16), np.float32)}))
            return metrics.text(host, {}).decode()
        finally:
            await host.close()

    told = dict(line.rsplit(" ", 1) for line in asyncio.run(story()).splitlines() if not line.startswith("#"))
    assert float(told["edgewise_memory_cap_bytes"]) == 1 << 30
    for name, count in (("hits", 1), ("misses", 1), ("loads", 1), ("evictions", 0), ("failed", 0)):
        assert float(told[f"edgewise_residency_{name}_total"]) == count


def test_a_host_without_memory_of_its_own() -> None:
    assert "edgewise_memory" not in metrics.text(FakeHost({"echo": identity()}), {}).decode()
