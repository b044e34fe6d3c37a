"""The loops of the measuring process, against a fake clock."""

import io

import numpy as np
import pytest

from edgewise.measure import messages
from edgewise.measure.child import Child, block, sample
from edgewise.testing import FakeClock, FakeRunner

X = {"x": np.zeros((1, 4), np.float32)}


def test_block_drops_the_first_tenth_and_times_the_rest():
    clock = FakeClock()
    timed = block(FakeRunner(clock, [100, *[2.0] * 200]), X, 50, clock)
    assert timed.samples_ms == pytest.approx([2.0])
    assert timed.calls == pytest.approx(25, abs=1)
    runner = FakeRunner(clock, 1.0)
    timed = block(runner, X, 50, clock)
    assert runner.calls - timed.calls == pytest.approx(5, abs=1)


def test_block_times_three_slow_calls_but_not_for_ever():
    clock = FakeClock()
    assert block(FakeRunner(clock, 40.0), X, 50, clock).calls == 3
    assert block(FakeRunner(clock, 1000.0), X, 50, clock).calls == 1


def test_block_is_the_median():
    clock = FakeClock()
    timed = block(FakeRunner(clock, [1.0] * 6 + [1.0, 30.0, 1.0] * 100), X, 50, clock)
    assert timed.samples_ms == pytest.approx([1.0])


def test_sample_keeps_at_least_the_least():
    clock = FakeClock()
    timed = sample(FakeRunner(clock, 50.0), X, 1.0, 100, 2000, clock)
    assert timed.calls == len(timed.samples_ms) == 100
    assert timed.samples_ms == pytest.approx([50.0] * 100)
    assert timed.elapsed_ms == pytest.approx(5000)


def test_sample_thins_evenly():
    clock = FakeClock()
    timed = sample(FakeRunner(clock, 0.1), X, 2.0, 100, 500, clock)
    assert timed.calls == pytest.approx(20000, abs=1)
    assert len(timed.samples_ms) == pytest.approx(500, abs=1)
    assert timed.elapsed_ms == pytest.approx(2000, rel=1e-3)


def test_garbage_collection_is_back_on_after_a_block():
    import gc

    def fails(_):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        block(FakeRunner(FakeClock(), answer=fails), X, 50)
    assert gc.isenabled()


def test_a_request_before_loading_is_an_answer():
    replies = io.BytesIO()
    Child(io.BytesIO(messages.framed(messages.First())), replies).serve()
    reply = messages.decode_reply(replies.getvalue()[messages.HEADER.size :])
    assert isinstance(reply, messages.Failed)
    assert reply.kind == "MeasurementFailed"


@pytest.mark.parametrize(
    "array", [np.arange(6).reshape(2, 3), np.array(3.5, np.float32), np.asfortranarray(np.ones((3, 2), np.uint8)), np.array([True])]
)
def test_arrays_survive_the_way(array):
    back = messages.unpack(messages.pack({"a": array}))["a"]
    assert back.dtype == array.dtype
    assert back.flags.writeable
    np.testing.assert_array_equal(back, array)
