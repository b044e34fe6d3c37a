"""From a recipe's text to a graph: step by step, each step's result kept, so that recipes with a common beginning share it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgewise import recipe as recipes
from edgewise import registry
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, cost, fold
from edgewise.search.bench import Bench
from edgewise.search.pace import Pace, training_seconds
from edgewise.search.store import key


@dataclass(frozen=True)
class Made:
    """A graph, where the study keeps it, and what the steps that made it touched and left alone.

    structure: the training form that the graph was folded from, after steps on the module; None after steps on the graph.
    """

    graph: Graph
    path: str
    touched: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    structure: Graph | None = None
    seconds: float = 0.0  # that the last step took
    size_bytes: int | None = None  # of the package, after steps on it


@dataclass
class Maker:
    """dense: the float graph. structure: gives the training form of the same, where the model can be trained.

    supplies: what passes ask for by name besides task, device, calibration and progress (`recipe.SUPPLIED`); callables are called when a
    pass asks. pace: told how far a step on the module is.
    """

    bench: Bench
    dense: Graph
    pace: Pace
    structure: Callable[[], Graph] | None = None
    supplies: dict[str, Any] = field(default_factory=dict)

    def made(self, recipe: str) -> Made:
        """What `recipe` makes of the dense model. Raises what a pass raises; InvalidInput for a step on a model that can't be trained."""
        steps = recipes.parse(recipe).steps
        name = key(*self.bench.origin, recipe)
        store = self.bench.store
        if not steps:
            return Made(*store.graph(name, lambda: self.dense))
        level = recipes.level(registry.load("pass", steps[-1].name))
        if level == "package":
            return self._packed(recipes.Recipe(steps), name)
        on_module = level == "module"

        def make() -> Graph:
            before = self.made(str(recipes.Recipe(steps[:-1])))
            began = time.perf_counter()
            applied = self._apply(recipes.Recipe(steps[-1:]), before, on_module, store.folder / "training" / name)
            done = applied.results[-1]
            told = ((*before.touched, *done.touched), {**before.skipped, **done.skipped}, (*before.notes, *done.notes))
            store.note(name, (*told, time.perf_counter() - began))
            done_model: Any = applied.model
            return done_model.to_graph() if on_module else done_model

        graph, path = store.graph(name, make)
        touched, skipped, notes, seconds = store.noted(name)
        if not on_module:
            return Made(graph, path, tuple(touched), skipped, tuple(notes), seconds=seconds)
        return Made(fold(graph), path, tuple(touched), skipped, tuple(notes), graph, seconds)

    def _packed(self, recipe: recipes.Recipe, name: str) -> Made:
        """The graph is that of the steps before; what steps on its package did to the size is kept."""
        making, packing = recipes.divided(recipe)
        before = self.made(str(making))
        kept = self.bench.store.noted(name)
        if kept is None:
            began = time.perf_counter()
            applied = recipes.apply(packing, self.bench.package(before.graph, {}))
            touched = tuple(name for done in applied.results for name in done.touched)
            skipped = {name: why for done in applied.results for name, why in done.skipped.items()}
            notes = tuple(note for done in applied.results for note in done.notes)
            self.bench.store.note(name, (touched, skipped, notes, time.perf_counter() - began, applied.model.size_bytes))
            kept = self.bench.store.noted(name)
        touched, skipped, notes, seconds, size = kept
        told = ((*before.touched, *touched), {**before.skipped, **skipped}, (*before.notes, *notes))
        return Made(before.graph, before.path, *told, before.structure, seconds, size)

    def made_before(self, recipe: str) -> bool:
        return self.bench.store.has_graph(key(*self.bench.origin, str(recipes.parse(recipe))))

    def _apply(self, recipe: recipes.Recipe, before: Made, on_module: bool, checkpoint: Any) -> recipes.Applied:
        bench = self.bench
        given = {"task": bench.task, "device": bench.device, "calibration": bench.calibration, **self.supplies}
        if not on_module:
            return recipes.apply(recipe, before.graph, **given)
        from edgewise.models.network import Network

        structure = before.structure or (self.structure() if self.structure is not None else None)
        if structure is None:
            raise InvalidInput(f"{recipe}: this model can't be trained; give a module, or an .onnx file, instead of an exported program")
        with self.pace.piece(self.expected(recipe.steps[-1], structure)) as tell:
            return recipes.apply(recipe, Network(structure), checkpoint=checkpoint, progress=tell, **given)

    def expected(self, step: recipes.Step, structure: Graph) -> float:
        """Seconds that a step on the module will take, about: what trains goes through the data, the others look at some samples."""
        macs = sum(node.macs for node in cost(structure))
        count = recipes.epochs(step)
        whole = training_seconds(macs, count * len(self.bench.task.split("train")))
        return whole if count else whole / 2  # it counts the pruning before it
