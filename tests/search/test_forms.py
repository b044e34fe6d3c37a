"""An engine with a form of its own on the bench: made once per graph and shape, kept, refused once, and left out where none can be made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from edgewise import backends, devices, registry
from edgewise.backends import onnxruntime
from edgewise.errors import InvalidModel, MissingExtra
from edgewise.graph import Graph
from edgewise.measure import Subject
from edgewise.records import Conditions, Interval, PairedDifference, Speedup, Trial
from edgewise.search import Bench, Store, pruning, racing
from edgewise.search.asked import chosen_engines, left_out, versions
from edgewise.search.limits import Form
from edgewise.testing import graphs
from edgewise.types import Budget, Execution, Inputs, Runner

MARK = b"OWNF"
OWN = Execution("own")


class Engine:
    """ONNX Runtime, behind four letters."""

    name, form = "own", "letters"

    def precisions(self) -> tuple[str, ...]:
        return ("fp32",)

    def load(self, model: bytes, execution: Execution) -> Runner:
        if not model.startswith(MARK):
            raise InvalidModel("own has a form of its own")
        return onnxruntime.OnnxRuntime().load(model[4:], Execution("onnxruntime", threads=execution.threads))


class Maker:
    made: ClassVar[list[dict[str, int]]] = []
    samples: ClassVar[list[Inputs]] = []
    reason = ""
    fails = False

    def obstacle(self) -> str:
        return Maker.reason

    def make(self, graph: Graph, samples: Sequence[Inputs], execution: Execution, sizes: Mapping[str, int] | None) -> bytes:
        Maker.made.append(dict(sizes or {}))
        Maker.samples = [*samples]
        if Maker.fails:
            raise InvalidModel("it has an operator without letters")
        return MARK + graph.to_bytes()


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    loaded = registry.load

    def load(kind: str, name: Any) -> Any:
        return {"own": Engine, "letters": Maker}[name] if name in ("own", "letters") else loaded(kind, name)

    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setitem(registry.REGISTRY["backend"], "own", "")
    monkeypatch.setitem(registry.REGISTRY["form"], "letters", "")
    monkeypatch.setitem(registry.MODULES, "own", "json")  # which is installed everywhere
    Maker.made, Maker.samples, Maker.reason, Maker.fails = [], [], "", False
    yield


def bench(tmp_path: Path, model: Any, inputs: Inputs, split: Any = None, lengths: Sequence[int] = ()) -> Bench:
    """lengths: of the shapes that are timed, besides that of `inputs`."""
    one = {name: array[:1] for name, array in inputs.items()}
    shapes = (*({name: array[:, :length] for name, array in one.items()} for length in lengths), one)
    task = SimpleNamespace(split=lambda name: split)
    return Bench(Store(tmp_path), cast(Any, task), cast(Any, None), shapes, ("origin",), cast(Any, None), lambda: [dict(inputs)])


def test_a_form_is_made_once_and_kept(tmp_path: Path) -> None:
    model, inputs = graphs.mlp()
    graph = Graph.from_proto(model)
    first = bench(tmp_path, model, inputs)
    assert first.model(graph, Execution("onnxruntime")) == graph.to_bytes()
    assert not Maker.made
    for one in (first, bench(tmp_path, model, inputs)):  # the second has the first one's folder
        assert one.model(graph, OWN) == one.subjects(graph, OWN)[0].model == MARK + graph.to_bytes()
    assert Maker.made == [{"batch": 1}]


def test_what_cannot_be_made_is_tried_once(tmp_path: Path) -> None:
    model, inputs = graphs.mlp()
    Maker.fails = True
    one = bench(tmp_path, model, inputs)
    for _ in range(3):
        with pytest.raises(InvalidModel, match="without letters"):
            one.model(Graph.from_proto(model), OWN)
    assert len(Maker.made) == 1


class Sentences:
    """Of two lengths, in batches of one length each."""

    name = "validation"
    targets = None

    def __init__(self, *lengths: int) -> None:
        self.lengths = lengths

    def batches(self, size: int) -> Iterator[tuple[dict[str, np.ndarray], None]]:
        for length in self.lengths:
            yield {"ids": np.zeros((2, length), np.int64), "scale": np.ones((2, length), np.float32)}, None


def test_answers_take_a_form_for_the_longest_sample(tmp_path: Path) -> None:
    model, inputs = graphs.two_inputs()
    graph = Graph.from_proto(model)
    split = Sentences(3, 12, 5)
    one = bench(tmp_path, model, inputs, split)
    one.model(graph, OWN)
    one.model(graph, OWN, cast(Any, split))
    assert Maker.made == [{"batch": 1, "sequence": 7}, {"batch": 1, "sequence": 12}]
    one.model(graph, OWN, cast(Any, Sentences(3, 5)))  # the one that is timed is long enough
    assert len(Maker.made) == 2
    assert list(one.forms(graph, OWN)) == ["own"]  # here both are the same bytes
    assert one.forms(graph, Execution("onnxruntime")) == {}


def test_every_shape_is_timed_in_a_form_for_it(tmp_path: Path) -> None:
    model, inputs = graphs.two_inputs()
    graph = Graph.from_proto(model)
    one = bench(tmp_path, model, inputs, Sentences(3, 12), lengths=(3, 5))
    assert len(one.subjects(graph, OWN)) == 3
    assert Maker.made == [{"batch": 1, "sequence": length} for length in (3, 5, 7)]
    assert one.subjects(graph, Execution("onnxruntime")) == (Subject(graph.to_bytes(), Execution("onnxruntime")),) * 3
    one.forms(graph, OWN)
    assert Maker.made[3:] == [{"batch": 1, "sequence": 12}]  # the validation split has longer ones


def test_a_form_is_held_against_samples_that_fit_into_it(tmp_path: Path) -> None:
    """Cut where they are longer: the smallest shape must not be left with its own sample alone, which has no neighbour."""
    model, inputs = graphs.two_inputs()
    one = bench(tmp_path, model, inputs, lengths=(3, 5))
    one.model(Graph.from_proto(model), OWN, shape=one.shapes[1])
    assert [sample["ids"].shape for sample in Maker.samples] == [(1, 3), (1, 5), (1, 5), (len(inputs["ids"]), 5)]


def test_an_engine_whose_form_fails_leaves_the_race_and_the_others_go_on(tmp_path: Path) -> None:
    model, inputs = graphs.two_inputs()
    Maker.fails, graph = True, Graph.from_proto(model)
    one = replace(bench(tmp_path, model, inputs, lengths=(3,)), device=devices.local())
    executions = [OWN, Execution("onnxruntime")]
    failed, fastest = racing.engines(one, graph, executions, "models/dense.onnx")
    assert (failed.state, failed.execution, failed.reason) == ("failed", OWN, "it has an operator without letters")
    assert (fastest.reason, fastest.execution) == (racing.REFERENCE, executions[1])
    assert racing.fastest(one, graph, executions, fastest) == (Subject(graph.to_bytes(), executions[1]),) * 2
    with pytest.raises(InvalidModel, match="no engine can take the model: it has an operator"):
        racing.engines(one, graph, [OWN, OWN], "")


def test_engines_whose_form_cannot_be_made_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "own" in chosen_engines(None, devices.local()) and chosen_engines(["own"], devices.local()) == ("own",)
    assert not [note for note in left_out(chosen_engines(None, devices.local())) if note.startswith("own")]
    Maker.reason = "no ink here: buy some"
    assert "own" not in chosen_engines(None, devices.local())
    assert "own was left out: no ink here: buy some" in left_out(chosen_engines(None, devices.local()))
    with pytest.raises(MissingExtra, match="buy some"):
        chosen_engines(["own"], devices.local())


def test_versions_are_those_of_the_modules() -> None:
    found = versions(["onnxruntime", *backends.taking("tflite")])
    assert found["onnxruntime"]
    assert all(found[name][0].isdigit() for name in backends.taking("tflite"))


def trial(execution: Execution, recipe: str, factor: float, lost: float = 0.0) -> Trial:
    conditions = Conditions("here", "engine 1", 1, (0,), None, None, None, None, "2026-01-01")
    speedup = Speedup(Interval(factor, factor, factor, 20), (), (), (), True, 1.0, conditions, conditions)
    drop = PairedDifference(Interval(-lost, -lost, -lost, 100), 0, 0, 1.0, 0.001)
    return Trial(f"{recipe}{execution}", "int8", recipe, execution, "screened", drop=drop, speedup=speedup)


@pytest.mark.parametrize(
    ("factor", "lost", "recipes"), [(3.0, 0.0, ["quantize()"]), (2.6, 0.0, ["quantize()"]), (2.0, 0.0, []), (3.0, 0.05, [])]
)
def test_what_was_pruned_for_another_engine_is_tried_on_it(factor: float, lost: float, recipes: list[str]) -> None:
    """Where it was no more than a fifth slower, and lost little enough; it is never planned for."""
    plain = trial(Execution("onnxruntime"), "quantize(mode='dynamic')", 3.0)
    trials = [plain, trial(OWN, "", 1.0), trial(OWN, "quantize()", factor, lost)]
    climb = cast(Any, SimpleNamespace(timed=lambda: trials, budget=Budget(speedup=4, max_drop=0.01), metric=0.9))
    form = Form(plain.recipe, plain.execution, cast(Any, None), (3.0,), 1, None)
    assert [found.recipe for found in pruning.own_forms(climb, form)] == recipes
    climb.made = lambda recipe: SimpleNamespace(graph=None)
    climb.bench = SimpleNamespace(package_bytes=lambda graph: 1)
    assert [found.execution for found in pruning.forms(climb)] == [plain.execution]
