"""Models of other makers, held beside those that were found: the same test samples, the same interleaved timing, the same reference.

Nothing is chosen by them. A team has a model already that some other tool made, and wants to see both in one picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewise import backends
from edgewise.data import metrics
from edgewise.errors import EdgewiseError, InvalidInput
from edgewise.graph import Graph
from edgewise.measure import Subject
from edgewise.records import Beside, Quality
from edgewise.search.bench import least, worst
from edgewise.search.climb import Climb
from edgewise.search.store import key
from edgewise.types import Execution, from_json, to_json

Named = tuple[str, Graph, int]  # what it is called, the graph, the bytes of its file


def read(paths: Sequence[str | Path], dense: Graph) -> list[Named]:
    """The graphs of `paths`. Raises InvalidInput for one that doesn't take what the dense model takes: it couldn't be fed the same."""
    found: list[Named] = []
    wanted = [spec.name for spec in dense.signature.inputs]
    for path in map(Path, paths):
        graph = Graph.load(path)
        given = [spec.name for spec in graph.signature.inputs]
        if sorted(given) != sorted(wanted):
            raise InvalidInput(
                f"{path} takes {', '.join(given)}, and the model {', '.join(wanted)}: give one that was made of the same model, its "
                "inputs called the same"
            )
        if path.stem in {name for name, _, _ in found}:
            raise InvalidInput(f"two models to hold beside are called {path.stem}; rename one of the files")
        found.append((path.stem, graph, path.stat().st_size))
    return found


def measured(climb: Climb, task: Any, models: Sequence[Named], dense: Quality, seconds: float) -> tuple[Beside, ...]:
    """Each of `models` on the engine where it is fastest, at a length of the timing as the verdict's. Kept in the study.

    task: with its test split open; called when nothing is chosen any more. dense: of the dense model there, as the verdict found it.
    A model that no engine runs becomes a note.
    """
    found = []
    for name, graph, size in models:
        memo = key(*climb.bench.origin, "beside", name, graph.sha256)
        kept = climb.bench.store.noted(memo)
        if kept is None:
            climb.pace.begin(f"{name}, beside")
            try:
                kept = to_json(_measured(climb, task, (name, graph, size), dense, seconds)).decode()
            except EdgewiseError as error:
                climb.notes.append(f"{name} isn't held beside: {error}")
                continue
            climb.bench.store.note(memo, kept)
        found.append(from_json(kept.encode(), Beside))
    return tuple(found)


def _measured(climb: Climb, task: Any, model: Named, dense: Quality, seconds: float) -> Beside:
    name, graph, size = model
    bench, reference, split = climb.bench, climb.reference, task.split("test")
    executions = _executions(climb)
    # The first side of a race has to run: the reference does.
    _, *raced = bench.race([reference, *(Subject(graph.to_bytes(), execution) for execution in executions)])
    ran = [(ratio.value, execution) for execution, one in zip(executions, raced, strict=True) if (ratio := least(one))]
    if not ran:
        raise InvalidInput(next((one.failed for own in raced for one in own if one.failed), "no engine runs it"))
    _, execution = max(ran, key=lambda pair: pair[0])
    outputs = bench.answers(graph, execution, split)
    quality = metrics.quality(task.metric, split.name, outputs, split.targets, task.labels)
    speedups = bench.compare(
        reference, bench.subjects(graph, execution), max_seconds=seconds * len(bench.shapes), min_pairs=40, renew_pairs=10
    )
    shapes = bench.told(reference.subjects, speedups)
    return Beside(name, execution, worst(speedups), quality, metrics.paired(dense, quality), size, shapes)


def _executions(climb: Climb) -> list[Execution]:
    """Every engine of the run that takes graphs as they are, in each precision: other tools run in what the engine does by itself."""
    threads = climb.baseline.execution.threads
    plain = [name for name in climb.engines if backends.form(name) == backends.ONNX]
    return [Execution(name, precision, threads) for name in plain for precision in backends.precisions(name, climb.bench.device.isa)]
