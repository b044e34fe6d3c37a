"""A loop whose time moves only when nothing else can, models that take the time they are told to, and a memory that is a sum."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise import package
from edgewise.graph import Graph
from edgewise.host import curves
from edgewise.host.hosting import LocalHost
from edgewise.host.loading import Facts
from edgewise.host.requests import Request
from edgewise.host.settings import Settings
from edgewise.host.tickets import Version
from edgewise.scheduling import Point
from edgewise.types import Execution, Inputs, Outputs, Runner, Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", ("batch", 4), "float32"),), (TensorSpec("y", ("batch", 4), "float32"),))


class _NoWait(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waiting moves the loop's clock; threads, which have a real one, are looked for meanwhile."""

    loop: FakeTimeLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if found or timeout == 0:
            return found
        if self.loop.abroad:  # a thread works: what it does takes no time here
            return super().select(5.0)
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will ever happen")
        self.loop.now += timeout
        return found


class FakeTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        selector = _NoWait()
        selector.loop = self
        self.now = 1000.0
        self.abroad = 0
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        self.abroad += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(lambda _: setattr(self, "abroad", self.abroad - 1))
        return future


@pytest.fixture
def loop() -> Iterator[FakeTimeLoop]:
    made = FakeTimeLoop()
    yield made
    made.abroad += 1
    try:
        made.run_until_complete(made.shutdown_default_executor())
    finally:
        made.close()


@pytest.fixture
def play(loop: FakeTimeLoop) -> Callable[[Awaitable[Any]], Any]:
    """Run a story on the fake clock; at most 20 real seconds of it."""

    def run(story: Any) -> Any:
        began = time.monotonic()
        try:
            return loop.run_until_complete(story)
        finally:
            assert time.monotonic() - began < 20

    return run


class FakeModel:
    """What a file of a fake repository stands for. seconds(rows): of a call. answer: its outputs; y is 2·x + `plus` unless given."""

    def __init__(self, seconds: Callable[[int], float] = lambda rows: 0.01, *, size: int = 10, plus: float = 0.0, **facts: Any) -> None:
        self.seconds, self.size, self.plus = seconds, size, plus
        self.load_s = 0.0
        self.error: Exception | None = None
        self.answer: Callable[[Inputs], Outputs] | None = None
        self.facts = {"rows": "independent", **facts}
        self.calls: list[int] = []
        self.loads = 0
        self.resident = 0


class FakeRunner:
    def __init__(self, model: FakeModel, workers: FakeWorkers) -> None:
        self.signature = SIGNATURE
        self._model, self._workers = model, workers
        self.closed = self.busy = False

    def run(self, inputs: Inputs) -> Outputs:
        assert not self.closed, "called after it was closed"
        x = inputs["x"]
        if np.isnan(x).any():
            raise ValueError("not a number")
        self._model.calls.append(len(x))
        self._workers.spend(self._model.seconds(len(x)))
        return self._model.answer(inputs) if self._model.answer else {"y": x * 2 + self._model.plus, "z": x + 1}

    def close(self) -> None:
        self.closed = True
        self._model.resident -= self._model.size


class FakeWorkers:
    """Calls take as long as their model says, on the loop's clock."""

    def __init__(self, loop: FakeTimeLoop) -> None:
        self._loop = loop
        self.took = 0.0
        self.running = self.most = self.started = 0
        self._inside = False

    def spend(self, seconds: float) -> None:
        """Of a call: here, or in the loop itself."""
        if self._inside:
            self.took += seconds
        else:
            self._loop.now += seconds

    def start(self, work: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        self.took, self._inside = 0.0, True
        try:
            result, error = work(), None
            result.seconds = self.took
        except Exception as raised:
            result, error = None, raised
        self._inside = False
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)

        def over() -> None:
            self.running -= 1
            done(result, error)

        self._loop.call_later(self.took, over)

    def close(self) -> None:
        pass


class FakeEngine:
    """`loader.Engine` by the file's text: the name of a FakeModel."""

    def __init__(self, models: dict[str, FakeModel], workers: FakeWorkers) -> None:
        self.models, self._workers = models, workers

    def look(self, version: Version) -> Facts:
        name = version.file.path.read_text()
        if name not in self.models:
            raise ValueError(f"{name!r} is no model")
        model = self.models[name]
        return Facts(name, model.facts.get("signature", SIGNATURE), Execution("fake"), 10, 10, model.facts["rows"])  # type: ignore[arg-type]

    def load(self, version: Version) -> list[Runner]:
        model = self.models[version.file.path.read_text()]
        if model.error is not None:
            raise model.error
        model.loads += 1
        model.resident += model.size * version.settings.instances
        return [FakeRunner(model, self._workers) for _ in range(version.settings.instances)]

    def resident(self) -> int:
        return sum(model.resident for model in self.models.values())


def put(folder: Path, name: str, version: int, text: str) -> None:
    place = folder / name / str(version)
    place.mkdir(parents=True, exist_ok=True)
    new = place / ".new"
    new.write_text(text)
    new.replace(place / "model.onnx")


def asked(model: str, x: Any = 1.0, rows: int = 1, **given: Any) -> Request:
    return Request(model, {"x": np.full((rows, 4), x, np.float32)}, **given)


def save(graph: Any, path: Path, rows: str | None = "independent") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = package.build(Graph.from_proto(graph), created="2026-01-01T00:00:00Z", rows=rows, execution=Execution("onnxruntime"))  # type: ignore[arg-type]
    made.save(path)


class Story:
    """A host of fake models in a folder, on the fake clock. Made by the fixture `hosted`."""

    def __init__(self, folder: Path, loop: FakeTimeLoop, play: Callable[[Any], Any]) -> None:
        self.folder, self.loop, self.play = folder, loop, play
        self.models: dict[str, FakeModel] = {}
        self.workers = FakeWorkers(loop)
        self.engine = FakeEngine(self.models, self.workers)
        self.host: LocalHost | None = None

    def model(self, name: str, seconds: Callable[[int], float] = lambda rows: 0.01, *, version: int = 1, **given: Any) -> FakeModel:
        """A model on disk, whose text is NAME-VERSION."""
        text = f"{name}-{version}"
        self.models[text] = FakeModel(seconds, **given)
        put(self.folder, name, version, text)
        return self.models[text]

    def __call__(self, tell: Callable[[LocalHost], Awaitable[Any]], **settings: Any) -> Any:
        """Run `tell(host)` between start and close."""
        given = Settings(**{"cores": 1, "poll_s": 0, "inline_ms": 0, "curves": False, **settings})

        async def story() -> Any:
            host = LocalHost(self.folder, given, engine=self.engine, workers=self.workers, above=self.engine.resident, clock=self.loop.time)
            await host.start()
            try:
                return await tell(host)
            finally:
                await host.close()

        return self.play(story())


@pytest.fixture
def hosted(tmp_path: Path, loop: FakeTimeLoop, play: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> Story:
    story = Story(tmp_path, loop, play)

    def measured(runner: Any, signature: Signature, *, shared: bool, largest: int = 0, **_: Any) -> curves.Measured:
        """The curve as it is, without a call."""
        sizes = [1, 2, 4, 8, 16, 32] if shared else [1]
        model = runner._model
        points = [(rows, model.seconds(rows) * 1e3) for rows in sizes if rows <= (largest or 32)]
        return curves.Measured(tuple(Point(rows, ms, ms) for rows, ms in points))

    monkeypatch.setattr(curves, "measure", measured)
    return story
