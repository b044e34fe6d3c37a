"""A clock that only moves when it is told to, and a model that takes the time it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat

import numpy as np

from edgewise.errors import InvalidInput
from edgewise.types import Inputs, Outputs, Signature, TensorSpec


class FakeClock:
    """Seconds since it was made. Call it to read it, as `time.perf_counter`; `sleep` moves it."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"time can't go back by {-seconds} s")
        self.now += seconds


class FakeRunner:
    """A Runner whose calls take scripted milliseconds of a FakeClock; a number is taken by every call, an exhausted script raises.

    `answer` makes the outputs; without it, output "y" is input "x" as it is. `calls` counts them.
    """

    def __init__(
        self,
        clock: FakeClock,
        milliseconds: float | Iterable[float] = 1.0,
        *,
        answer: Callable[[Inputs], Outputs] | None = None,
        signature: Signature | None = None,
    ) -> None:
        self.signature = signature or Signature(
            (TensorSpec("x", ("batch", 4), "float32"),),
            (TensorSpec("y", ("batch", 4), "float32"),),
        )
        self.calls = 0
        self.closed = False
        self._clock = clock
        self._script: Iterator[float] = repeat(milliseconds) if isinstance(milliseconds, (int, float)) else iter(milliseconds)
        self._answer = answer or (lambda inputs: {"y": np.array(inputs["x"])})

    def run(self, inputs: Inputs) -> Outputs:
        if self.closed:
            raise InvalidInput("this runner is closed; load the model again")
        self._clock.sleep(next(self._script) / 1e3)
        self.calls += 1
        return self._answer(inputs)

    def close(self) -> None:
        self.closed = True
