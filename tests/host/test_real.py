"""With the engine, packages and this process's own memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from onnx import numpy_helper

from edgewise import backends
from edgewise.errors import InvalidInput
from edgewise.host import memory
from edgewise.host.hosting import LocalHost
from edgewise.host.requests import Answer, Refused, Request
from edgewise.host.settings import ModelSettings, Settings
from edgewise.testing import graphs
from edgewise.types import Execution

from .conftest import save

MEGABYTE = 2**20


def tell(folder: Path, story: Callable[[LocalHost], Awaitable[Any]], **given: Any) -> Any:
    async def run() -> Any:
        host = LocalHost(folder, Settings(**{"poll_s": 0, "cores": 2, **given}))
        await host.start()
        try:
            return await asyncio.wait_for(story(host), 40)
        finally:
            await host.close()

    return asyncio.run(run())


def whole(rows: int = 16, columns: int = 4, seed: int = 0) -> Any:
    """An MLP of whole numbers: any order of adding gives the same bits. x (batch, 16) -> y (batch, 4), z (batch, 8)."""
    random = np.random.default_rng(seed)
    weights = {
        "w1": random.integers(-4, 5, (rows, 8)).astype(np.float32),
        "w2": random.integers(-4, 5, (8, columns)).astype(np.float32),
    }
    nodes: list[graphs.Node] = [("MatMul", ["x", "w1"], ["z"]), ("Relu", ["z"], ["r"]), ("MatMul", ["r", "w2"], ["y"])]
    return graphs.build(nodes, {"x": ("batch", rows)}, {"y": ("batch", columns), "z": ("batch", 8)}, weights)


def heavy(megabytes: int, seed: int) -> Any:
    """A product with a matrix of so many megabytes."""
    random = np.random.default_rng(seed)
    width = megabytes * MEGABYTE // 4 // 512
    weights = {"w": random.standard_normal((512, width), dtype=np.float32)}
    return graphs.build([("MatMul", ["x", "w"], ["m"]), ("ReduceSum", ["m"], ["y"])], {"x": ("batch", 512)}, {"y": (1, 1)}, weights)


def test_thousands_of_mixed_requests_are_answered_bit_by_bit_as_alone(tmp_path: Path) -> None:
    save(whole(), tmp_path / "first" / "1" / "model.edgew")
    save(whole(seed=1), tmp_path / "second.edgew")
    two, _ = graphs.two_inputs()
    table = numpy_helper.to_array(two.graph.initializer[0])
    two.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.round(table * 4), "table"))
    save(two, tmp_path / "two" / "3" / "model.edgew")
    alone = {
        "first": backends.load(whole().SerializeToString(), Execution("onnxruntime")),
        "second": backends.load(whole(seed=1).SerializeToString(), Execution("onnxruntime")),
        "two": backends.load(two.SerializeToString(), Execution("onnxruntime")),
    }
    random = np.random.default_rng(5)

    def draw(i: int) -> Request:
        rows = int(random.integers(1, 4))
        name = ("first", "second", "two")[int(random.integers(3))]
        if name == "two":
            length = int(random.choice([3, 5, 7]))
            inputs = {
                "ids": random.integers(0, 11, (rows, length)),
                "scale": random.integers(-9, 9, (rows, length)).astype(np.float32),
            }
            return Request(name, inputs, outputs=((), ("z",), ("y", "z"))[i % 3])
        return Request(name, {"x": random.integers(-9, 9, (rows, 16)).astype(np.float32)}, outputs=((), ("y",), ("z",))[i % 3])

    requests = [draw(i) for i in range(4000)]

    async def story(host: LocalHost) -> list[Answer]:
        async def client(part: list[Request]) -> list[Answer]:
            return [await host.infer(request) for request in part]

        parts = await asyncio.gather(*(client(requests[i::40]) for i in range(40)))
        answers: list[Any] = [None] * len(requests)
        for i, part in enumerate(parts):
            answers[i::40] = part
        return answers

    shared = 0
    for request, answer in zip(requests, tell(tmp_path, story, inline_ms=0), strict=True):
        expected = alone[request.model].run(request.inputs)
        assert set(answer.outputs) == set(request.outputs or expected)
        for name, array in answer.outputs.items():
            assert array.dtype == expected[name].dtype and array.shape == expected[name].shape
            assert array.tobytes() == expected[name].tobytes()
        shared += answer.rows > len(next(iter(request.inputs.values())))
    assert shared > 100


def test_memory_goes_back_when_models_leave(tmp_path: Path) -> None:
    for i in range(3):
        save(heavy(24, i), tmp_path / f"m{i}" / "1" / "model.edgew", rows=None)
    request = {"x": np.ones((1, 512), np.float32)}
    process = psutil.Process()

    async def story(host: LocalHost) -> None:
        idle = process.memory_info().rss
        for name in ("m0", "m1", "m2", "m0"):
            await host.infer(Request(name, request))
            assert process.memory_info().rss - idle < 130 * MEGABYTE
        assert host.vitals().tally.evictions >= 1
        with_model = process.memory_info().rss - idle
        for name in ("m0", "m1", "m2"):
            await host.unload(name)
        without = process.memory_info().rss - idle
        assert with_model > 20 * MEGABYTE and without < with_model - 20 * MEGABYTE and without < 12 * MEGABYTE
        assert host.vitals().tally.highest <= 143 * MEGABYTE

    tell(tmp_path, story, memory_bytes=130 * MEGABYTE)


def test_one_that_can_not_fit_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    save(heavy(24, 0), tmp_path / "m" / "1" / "model.edgew", rows=None)

    async def story(host: LocalHost) -> None:
        before = memory.rss_bytes()
        with pytest.raises(Refused, match=r"estimated from .* bytes of weights"):
            await host.infer(Request("m", {"x": np.ones((1, 512), np.float32)}))
        assert memory.rss_bytes() - before < 15 * MEGABYTE

    tell(tmp_path, story, memory_bytes=20 * MEGABYTE)


def test_what_a_load_took_is_learned_under_a_cap_alone(tmp_path: Path) -> None:
    """Elsewhere freed memory stays in the process, and the next load seems to take nothing: a cap that believed that would be passed."""
    save(heavy(4, 0), tmp_path / "m" / "1" / "model.edgew")

    def learned() -> tuple[int, int]:
        (kept,) = json.loads((tmp_path / "m" / "1" / ".model.edgew.curves.json").read_bytes()).values()
        return kept["kept"], kept["peak"]

    async def story(host: LocalHost) -> None:
        await host.load("m")

    tell(tmp_path, story)
    assert learned() == (0, 0)
    tell(tmp_path, story, memory_bytes=500 * MEGABYTE)
    kept, peak = learned()
    assert peak >= kept >= 4 * MEGABYTE
    tell(tmp_path, story)
    assert learned() == (kept, peak)


def test_the_curve_is_measured_once_and_kept_beside_the_model(tmp_path: Path) -> None:
    save(whole(), tmp_path / "m" / "1" / "model.edgew")
    request = Request("m", {"x": np.ones((1, 16), np.float32)})

    async def story(host: LocalHost) -> list[int]:
        await host.infer(request)
        curve = host._models.find("m").curve
        assert curve is not None
        return [point.rows for point in curve.points]

    sizes = tell(tmp_path, story)
    assert sizes[:3] == [1, 2, 4]
    (kept,) = json.loads((tmp_path / "m" / "1" / ".model.edgew.curves.json").read_bytes()).values()
    assert [point["rows"] for point in kept["points"]] == sizes and kept["seconds"] > 0
    assert tell(tmp_path, story) == sizes
    (tmp_path / "m" / "1" / ".model.edgew.curves.json").write_bytes(b"{half")
    assert tell(tmp_path, story)[:3] == [1, 2, 4]


def test_exact_calls_are_as_large_as_came_out_the_same(tmp_path: Path) -> None:
    save(whole(), tmp_path / "m" / "1" / "model.edgew")

    async def story(host: LocalHost) -> int:
        await host.infer(Request("m", {"x": np.ones((1, 16), np.float32)}))
        return host._models.find("m").exact

    assert tell(tmp_path, story, default=ModelSettings(exact=True)) >= 2


def test_a_plain_graph_serves_and_shares_nothing(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(whole().SerializeToString())

    async def story(host: LocalHost) -> Any:
        description = await host.describe("m")
        answers = await asyncio.gather(*(host.infer(Request("m", {"x": np.full((1, 16), i, np.float32)})) for i in range(8)))
        return description, answers

    description, answers = tell(tmp_path, story, inline_ms=0)
    assert description.batched and not description.independent and description.execution == "onnxruntime fp32 ×1"
    assert all(answer.rows == 1 for answer in answers)


def test_a_damaged_package_dropped_in_is_told_and_changes_nothing(tmp_path: Path) -> None:
    save(whole(), tmp_path / "m" / "1" / "model.edgew")
    data = bytearray((tmp_path / "m" / "1" / "model.edgew").read_bytes())
    data[-100] ^= 1
    request = Request("m", {"x": np.ones((1, 16), np.float32)})

    async def story(host: LocalHost) -> None:
        await host.infer(request)
        (tmp_path / "m" / "2").mkdir()
        (tmp_path / "m" / "2" / "model.edgew").write_bytes(data)
        with pytest.raises(InvalidInput, match="SHA-256"):
            await host.load("m")
        assert (await host.infer(request)).version == "1"
        assert [status.state for status in host.index()] == ["ready", "failed"]

    tell(tmp_path, story)


def test_several_runners_of_one_model_run_at_once(tmp_path: Path) -> None:
    save(whole(), tmp_path / "m" / "1" / "model.edgew", rows=None)

    async def story(host: LocalHost) -> list[Answer]:
        return await asyncio.gather(*(host.infer(Request("m", {"x": np.full((1, 16), i, np.float32)})) for i in range(200)))

    expected = backends.load(whole().SerializeToString(), Execution("onnxruntime"))
    for i, answer in enumerate(tell(tmp_path, story, inline_ms=0, default=ModelSettings(instances=2))):
        assert answer.outputs["y"].tobytes() == expected.run({"x": np.full((1, 16), i, np.float32)})["y"].tobytes()
