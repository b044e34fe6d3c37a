import numpy as np
import pytest

from edgewise.errors import InvalidInput
from edgewise.testing import FakeClock, FakeRunner
from edgewise.types import Runner


def test_clock_moves_only_when_told():
    clock = FakeClock(5)
    assert clock() == clock() == 5
    clock.sleep(1.5)
    assert clock() == 6.5
    with pytest.raises(ValueError, match="back"):
        clock.sleep(-1)


def test_runner_takes_its_script_of_time():
    clock = FakeClock()
    runner = FakeRunner(clock, [1, 2])
    assert isinstance(runner, Runner)
    x = np.ones((1, 4), np.float32)
    assert runner.run({"x": x})["y"] is not x
    runner.run({"x": x})
    assert clock() == pytest.approx(0.003)
    assert runner.calls == 2
    with pytest.raises(StopIteration):
        runner.run({"x": x})
    runner.close()
    runner.close()
    with pytest.raises(InvalidInput, match="closed"):
        runner.run({"x": x})
