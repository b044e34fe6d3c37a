"""The small parts: rows joined and split, memory looked at, threads, curves, and what a file says."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.errors import InvalidInput, NotTrusted
from edgewise.host import curves, loading, memory, workers
from edgewise.host.batching import NotRows, chosen, joined, key_of, split
from edgewise.host.requests import SIZES, Statistics
from edgewise.host.tickets import inline_rows, stretched
from edgewise.package.signing import Trust
from edgewise.scheduling import Curve, Point
from edgewise.testing import graphs
from edgewise.types import Execution

from .conftest import SIGNATURE, save


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.randoms())
def test_what_was_joined_comes_apart_as_it_was(rows: list[int], random: Any) -> None:
    parts = [{"x": np.full((count, 4), i, np.float32), "n": np.full((count,), i)} for i, count in enumerate(rows)]
    wanted = [random.choice([(), ("x",), ("n",), ("n", "x")]) for _ in rows]
    for i, (count, names, back) in enumerate(zip(rows, wanted, split(dict(joined(parts)), rows, wanted), strict=True)):
        assert list(back) == list(names or ("x", "n"))
        assert all(len(array) == count and (array == i).all() for array in back.values())


def test_outputs_that_are_not_rows_are_nobodys() -> None:
    for wrong in (np.zeros((3, 2)), np.float32(1), np.zeros((0, 2))):
        with pytest.raises(NotRows):
            split({"y": np.asarray(wrong)}, [1, 1], [(), ()])
    assert list(chosen({"a": np.zeros(1), "b": np.zeros(1)}, ("b",))) == ["b"]
    assert key_of(SIGNATURE, {"x": np.zeros((3, 4))}) == ((4,),)


def test_resident_memory_is_what_psutil_says_and_a_peak_is_seen() -> None:
    import psutil

    assert abs(memory.rss_bytes() - psutil.Process().memory_info().rss) < 4 << 20
    with memory.Peak() as peak:
        held = np.ones(40 << 20, np.uint8)
        threading.Event().wait(0.05)
        del held
    memory.give_back()
    assert peak.above > 35 << 20
    assert memory.rss_bytes() - peak.before < 20 << 20


def test_what_is_needed_is_known_by_the_best_of_witnesses() -> None:
    signature = SIGNATURE
    facts = loading.Facts("id", signature, Execution("e"), 10, 100 << 20)
    recorded = loading.Facts("id", signature, Execution("e"), 10, 100 << 20, recorded_bytes=150 << 20)
    assert memory.needed(recorded, hint=7, learned=(1, 2), instances=1).source == "as the settings say"
    assert memory.needed(recorded, hint=None, learned=(1, 2), instances=1) == memory.Need(1, 2, "measured when it was loaded before")
    assert memory.needed(recorded, hint=None, learned=None, instances=1).peak == 150 << 20
    guess = memory.needed(facts, hint=None, learned=None, instances=1)
    assert guess.kept > 100 << 20 and guess.peak > guess.kept and "estimated" in guess.source
    assert memory.needed(facts, hint=None, learned=None, instances=2).peak > guess.peak + (100 << 20)
    for one in (facts, recorded):
        alone = memory.needed(one, hint=None, learned=None, instances=1)
        assert memory.needed(replace(one, shapes=2), hint=None, learned=None, instances=1).kept > alone.kept + (200 << 20)


def test_threads_hand_back_results_and_errors_in_the_loop() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        threads = workers.Threads(2, loop)
        seen: list[tuple[Any, Any, bool]] = []
        both, over = threading.Barrier(2, timeout=10), asyncio.Event()

        def done(result: Any, error: BaseException | None) -> None:
            seen.append((result, error, threading.current_thread() is threading.main_thread()))
            if len(seen) == 3:
                over.set()

        threads.start(lambda: both.wait() * 0 + 1, done)
        threads.start(lambda: both.wait() * 0 + 1, done)
        threads.start(lambda: 1 // 0, done)
        await asyncio.wait_for(over.wait(), 10)
        threads.close()
        assert sorted(str(result) for result, _, _ in seen) == ["1", "1", "None"]
        assert [type(error) for _, error, _ in seen if error] == [ZeroDivisionError]
        assert all(main for _, _, main in seen)

    asyncio.run(story())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux alone")
@pytest.mark.parametrize("nice", [0, 3])
def test_threads_of_calls_stand_back_behind_the_loop(nice: int) -> None:
    async def story() -> None:
        threads, over = workers.Threads(1, asyncio.get_running_loop(), nice), asyncio.get_running_loop().create_future()
        before = os.getpriority(os.PRIO_PROCESS, 0)
        threads.start(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), lambda result, _: over.set_result(result))
        assert await asyncio.wait_for(over, 10) == min(19, before + nice)
        assert os.getpriority(os.PRIO_PROCESS, 0) == before
        threads.close()

    asyncio.run(story())


def test_more_threads_only_where_they_bring_more() -> None:
    assert workers.threads_worth(1, seconds=0.01) == 1
    assert 1 <= workers.threads_worth(3, seconds=0.01) <= 3


class Clocked:
    """A runner whose calls take a told time of a fake clock."""

    signature = SIGNATURE

    def __init__(self, seconds: Any, refuse: int = 1000) -> None:
        self.now, self.seconds, self.refuse, self.calls = 0.0, seconds, refuse, []

    def run(self, inputs: Any) -> Any:
        rows = len(inputs["x"])
        if rows >= self.refuse:
            raise InvalidInput("made for fewer rows")
        self.calls.append(rows)
        self.now += self.seconds(rows)
        return {"y": inputs["x"] if rows < 8 else inputs["x"] + 1e-3}

    def close(self) -> None: ...


def measured(runner: Clocked, **given: Any) -> curves.Measured:
    return curves.measure(runner, SIGNATURE, clock=lambda: runner.now, **{"shared": True, **given})


def test_a_curve_is_measured_while_more_rows_pay_and_the_time_lasts() -> None:
    pays = measured(Clocked(lambda rows: 1e-3 + 1e-5 * rows))
    assert [point.rows for point in pays.points] == [1, 2, 4, 8, 16, 32, 64]
    assert pays.points[2].p50_ms == pytest.approx(1.04) and pays.curve.pays()
    assert [point.rows for point in measured(Clocked(lambda rows: 1e-3 * rows)).points] == [1, 2, 4]
    assert [point.rows for point in measured(Clocked(lambda rows: 1e-3), shared=False).points] == [1]
    assert [point.rows for point in measured(Clocked(lambda rows: 1e-3, refuse=5)).points] == [1, 2, 4]
    assert [point.rows for point in measured(Clocked(lambda rows: 1e-3), largest=3).points] == [1, 2]
    # Fifteen calls of 50 ms would take all the time there is.
    assert [point.rows for point in measured(Clocked(lambda rows: 50e-3)).points][:3] == [1, 2, 4]
    slow = Clocked(lambda rows: 0.5)
    assert [point.rows for point in measured(slow).points] == [1] and slow.now < 3
    assert measured(Clocked(lambda rows: 1e-3), exact=True).exact == 4


def test_a_model_that_takes_nothing_drawn_has_no_curve_but_serves() -> None:
    found = measured(Clocked(lambda rows: 1e-3, refuse=1))
    assert not found.ran and found.curve is curves.UNKNOWN


def test_curves_stretch_and_say_what_may_run_in_the_loop() -> None:
    curve = Curve((Point(1, 0.1, 0.2), Point(4, 0.4, 0.5), Point(8, 1.0, 2.0)))
    assert inline_rows(curve, 0.45e-3) == 4 and inline_rows(curve, 0.05e-3) == 0
    assert stretched(curve, 2.0).points[0] == Point(1, 0.2, 0.4)
    assert curves.paced(curves.Measured(curve.points), 2.0).points[1] == Point(4, 0.8, 1.0)
    assert curves.paced(curves.Measured(curve.points), 50.0).points == curve.points


def test_a_shelf_that_can_not_be_written_keeps_in_memory(tmp_path: Path) -> None:
    record = curves.Measured((Point(1, 1.0, 2.0),), kept=5, peak=6)
    for shelf in (curves.Shelf(), curves.Shelf(keep=False)):
        shelf.put(tmp_path / "nowhere" / "model.edgew", "id", Execution("e"), record)
        assert shelf.find(tmp_path / "nowhere" / "model.edgew", "id", Execution("e")) == record
        assert shelf.find(tmp_path / "nowhere" / "model.edgew", "other", Execution("e")) is None
    assert not list(tmp_path.iterdir())
    shelf = curves.Shelf()
    for i in range(40):
        shelf.put(tmp_path / "model.edgew", str(i), Execution("e"), record)
    again = curves.Shelf()
    assert again.find(tmp_path / "model.edgew", "39", Execution("e")) == record
    assert again.find(tmp_path / "model.edgew", "0", Execution("e")) is None


def test_what_a_file_says_without_an_engine(tmp_path: Path) -> None:
    model, inputs = graphs.mlp()
    save(model, tmp_path / "m.edgew")
    facts = loading.look(tmp_path / "m.edgew")
    assert facts.batchable and facts.signature.batched and facts.weight_bytes > 16 * 32 * 4
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    plain = loading.look(tmp_path / "m.onnx")
    assert not plain.batchable and plain.signature == facts.signature and len(plain.content_id) == 64
    runners = loading.Runners(loading.read(tmp_path / "m.edgew"), eager=True)
    assert runners.run(inputs)["y"].shape == (5, 4)
    runners.close()
    with pytest.raises(NotTrusted):
        loading.look(tmp_path / "m.onnx", trust=Trust(()))
    (tmp_path / "bad.onnx").write_bytes(b"rubbish")
    with pytest.raises(InvalidInput):
        loading.look(tmp_path / "bad.onnx")


def test_leading_axes_without_a_name_are_the_batch(tmp_path: Path) -> None:
    model, _ = graphs.mlp()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert loading.look(tmp_path / "m.onnx").signature.batched


def test_sizes_of_calls_that_are_counted_have_a_number() -> None:
    figures = Statistics()
    for rows in range(1, 100_000, 7):
        figures.called(rows, 1.0)
    assert len(figures.batches) <= SIZES + 17
    assert sum(counted.count for counted in figures.batches.values()) == len(range(1, 100_000, 7))
    assert figures.batches[8].count == 1 and figures.batches[65536].count == len([n for n in range(1, 100_000, 7) if n > 65536])
