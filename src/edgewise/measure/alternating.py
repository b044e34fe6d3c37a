"""One graph after another against the dense one: the timer of latency tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from edgewise.devices import Health
from edgewise.errors import EdgewiseError
from edgewise.graph.graph import Graph
from edgewise.measure.process import LIMIT_S, Process
from edgewise.measure.referee import Looked, Referee
from edgewise.measure.subject import Subject
from edgewise.types import Execution, Inputs

# Give it a graph and a number of pairs; it gives (dense ms, that graph's ms) of that many pairs of blocks, each pair adjacent in time.
Timer = Callable[[Graph, int], Sequence[tuple[float, float]]]

BLOCK_MS = 15.0  # shorter than a comparison's: a table needs many figures more than it needs exact ones
RENEWED = 32  # graphs timed before both processes are started anew
LEAST = 30  # pairs of a table, about: see Referee


class Alternating:
    """A Timer: the dense graph and one graph after another, in two processes of their own, in alternating blocks.

    Both are started anew after every RENEWED graphs: where memory happens to lie moves a tiny model's time by a percent or two. Pairs that
    the machine disturbed are measured again, a third more in all at most: `referee` knows of which. looked: instead of a look at it.
    """

    def __init__(
        self,
        dense: Graph,
        execution: Execution,
        inputs: Inputs,
        cores: Sequence[int],
        limit_s: float = LIMIT_S,
        looked: Looked | None = None,
    ) -> None:
        self.engine = ""  # and version, known once a graph was timed
        self.referee = Referee(looked or Health(cores, lambda: [process.pid for process in self._processes or ()]), least=LEAST)
        self._dense, self._execution, self._inputs = dense, execution, inputs
        self._cores, self._limit_s = cores, limit_s
        self._processes: tuple[Process, Process] | None = None
        self._left = 0

    def __call__(self, graph: Graph, pairs: int) -> list[tuple[float, float]]:
        try:
            reference, candidate = self._running()
            candidate.load(Subject(graph.to_bytes(), self._execution), self._inputs)
            candidate.first()
            candidate.block(BLOCK_MS)  # the first block warms it up and isn't counted
            self.referee.begin()
            found: list[tuple[float, float]] = []
            while len(found) < pairs:
                # A B, B A …: a steady drift favours neither side.
                times = {side: (reference, candidate)[side].block(BLOCK_MS) for side in ((0, 1), (1, 0))[len(found) % 2]}
                if self.referee.counts():
                    found.append((times[0], times[1]))
            return found
        except EdgewiseError:
            self.close()  # the next graph gets processes that are whole
            raise

    def _running(self) -> tuple[Process, Process]:
        if self._processes is None or not self._left:
            self.close()
            threads = self._execution.threads
            self._processes = (
                Process(self._cores, threads=threads, limit_s=self._limit_s),
                Process(self._cores, threads=threads, limit_s=self._limit_s),
            )
            version = self._processes[0].load(Subject(self._dense.to_bytes(), self._execution), self._inputs).version
            self.engine = f"{self._execution.backend} {version}"
            self._processes[0].first()
            self._processes[0].block(BLOCK_MS)
            self._left = RENEWED
        self._left -= 1
        return self._processes

    def close(self, *, at_once: bool = False) -> None:
        for process in self._processes or ():
            process.close(at_once=at_once)
        self._processes = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(at_once=kind is not None)
