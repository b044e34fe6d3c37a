"""The main job, whole, on a tiny trained net and real engines."""

import contextlib
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import numpy_helper

import edgewise as ew
import edgewise.fitting
from edgewise import measure, search
from edgewise.errors import InvalidInput, InvalidModel
from edgewise.graph import Graph
from edgewise.models.resnet import ResNet
from edgewise.records import Trial
from edgewise.search import asked
from edgewise.testing import pictures
from edgewise.train import train
from edgewise.types import Execution, from_json


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = pictures.kept(tmp_path_factory.mktemp("data") / "shapes.npz", 700, names=["a", "b", "c", "d"])
    return ew.tasks.image_classification(path, calibration=32)


@pytest.fixture(scope="module")
def net(task):
    torch.manual_seed(0)
    return train(ResNet(blocks=1, classes=4, channels=1, width=4), task, epochs=2, batch_size=32, learning_rate=0.05).model


@pytest.fixture(autouse=True)
def quick(briefly, monkeypatch):
    monkeypatch.setattr(search.climb, "INT8", search.climb.INT8[:2])


def test_a_budget_that_can_be_met(task, net, tmp_path):
    told = []
    budget = ew.Budget(size_bytes=60_000, max_drop=0.05)
    result = ew.fit(net, task, budget=budget, threads=1, out=tmp_path, progress=lambda what, share, left: told.append((what, share)))
    study = result.study
    assert result.met, study.verdict.summary
    assert study.verdict.quality.split == "test"
    assert all(trial.quality is None or trial.quality.split == "validation" for trial in study.trials)
    assert all(trial.divergence is not None for trial in study.trials if trial.state != "failed")
    assert study.trial(study.reference).speedup.ratio.value == 1.0
    assert {outcome.limit for outcome in study.verdict.outcomes} == {"size_bytes", "max_drop"}
    # what lies on disk is what was returned, and says its own size
    kept = ew.package.open(tmp_path / "model.edgew")
    assert kept.content_id == result.best.content_id
    assert (tmp_path / "model.edgew").stat().st_size == study.verdict.measurement.size_bytes
    assert from_json((tmp_path / "study" / "study.json").read_bytes(), type(study)).verdict == study.verdict
    assert study.verdict.summary[:20] in (tmp_path / "report.html").read_text() or "met" in (tmp_path / "report.html").read_text()
    assert [share for _, share in told] == sorted(share for _, share in told)
    # the package answers as the verdict says
    runner = ew.backends.load(kept.model_bytes(), kept.execution)
    split = task.for_model(kept.signature).unsealed().split("test")
    found = measure.quality(runner, split, metric="accuracy", labels=task.labels)
    assert found.value == study.verdict.quality.value


def test_a_recipe_that_ends_in_the_package(task, net, tmp_path):
    """The graph is that of the steps before; the trial's size, and the package's, are those after `code`."""
    asked = {"threads": 1, "engines": ("onnxruntime",)}
    recipe = "quantize() > code()"
    done = ew.fitting.follow(net, task, recipe=recipe, out=tmp_path, **asked)
    trial = next(trial for trial in done.study.trials if trial.recipe == recipe)
    fast = ew.package.recode(done.best, coders="fast")
    assert trial.size_bytes < done.best.size_bytes  # a trial has no verdict in it
    assert len(done.best.members["weights"]) < len(fast.members["weights"])  # (the manifest's length hangs on how figures are written)
    assert "lossless" in trial.notes[-1] and {row.name for row in done.best.manifest.entry("main").tensors} & set(trial.touched)
    assert done.best.size_bytes == (tmp_path / "model.edgew").stat().st_size == done.study.verdict.measurement.size_bytes
    assert done.best.members["weights"] == ew.package.recode(fast, coders="all").members["weights"]
    assert [step.step for step in done.study.steps] == ["", "quantize()", "code()"]
    # asked again, nothing is made anew
    assert ew.fitting.follow(net, task, recipe=recipe, out=tmp_path, **asked).best.content_id == done.best.content_id


def test_what_cannot_be_met_ends_with_the_nearest_point(task, net):
    result = ew.fit(net, task, budget=ew.Budget(speedup=1000, max_drop=0.5), epochs=0, threads=1, engines=("onnxruntime",))
    assert not result.met
    assert "1000x was asked" in result.study.verdict.summary
    lowered = [trial for trial in result.study.trials if "lower(to='s8')" in trial.recipe]
    assert lowered and all(trial.divergence < 0.5 and trial.quality.value.n > 50 for trial in lowered)
    assert result.best.graph().size_bytes


def test_an_interrupted_search_measures_nothing_twice(task, net, tmp_path, monkeypatch):
    budget = ew.Budget(speedup=1000, max_drop=0.5)
    settings = {"budget": budget, "epochs": 0, "threads": 1, "engines": ("onnxruntime",), "out": tmp_path}
    judge, raced = search.Bench.judge, search.Bench.time
    count = []

    def torn(self, candidate, reference):
        count.append(candidate.recipe)
        if len(count) == 2:
            raise KeyboardInterrupt
        return judge(self, candidate, reference)

    monkeypatch.setattr(search.Bench, "judge", torn)
    with pytest.raises(KeyboardInterrupt):
        ew.fit(net, task, **settings)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "study" / "models").iterdir()}
    assert not (tmp_path / "model.edgew").exists()
    monkeypatch.setattr(search.Bench, "judge", judge)
    waiting = []

    def counted(self, trials, graphs, reference):
        waiting.extend(trial.recipe for trial in trials if trial.speedup is None)
        return raced(self, trials, graphs, reference)

    monkeypatch.setattr(search.Bench, "time", counted)
    engines = search.racing.engines
    monkeypatch.setattr(search.racing, "engines", lambda *_: pytest.fail("the reference was measured again"))
    done = ew.fit(net, task, **settings)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "study" / "models").iterdir()}
    assert before.items() <= after.items()
    assert count[0] not in waiting
    # and a study that is finished is not touched at all
    monkeypatch.setattr(search.Bench, "judge", lambda *_: pytest.fail("judged again"))
    again = ew.fit(net, task, **settings)
    assert again.study == done.study
    monkeypatch.setattr(search.racing, "engines", engines)


def test_an_interrupt_that_an_engine_swallows_leaves_no_failed_trial(task, net, tmp_path, monkeypatch):
    """As bindings do: Ctrl-C while they work comes out as an error of the model."""
    answers, calls = measure.answers, []

    def torn(graph, execution, split, model=None):
        calls.append(execution)
        if len(calls) == 2:  # the first one is the reference
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            raise InvalidModel("initialization failed")
        return answers(graph, execution, split, model)

    monkeypatch.setattr(measure, "answers", torn)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            ew.fit(net, task, budget=ew.Budget(speedup=1000, max_drop=0.5), epochs=0, threads=1, engines=("onnxruntime",), out=tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    kept = [from_json(path.read_bytes(), Trial) for path in (tmp_path / "study" / "trials").iterdir()]
    assert [(trial.rung, trial.state) for trial in kept] == [("engine", "measured")]


def test_a_trials_key_covers_all_that_it_depends_on(task, net, tmp_path_factory, monkeypatch):
    class Seen(Exception):
        pass

    keys = []

    def seen(bench, *_, **__):
        keys.append(bench.key("quantize()", Execution("onnxruntime")))
        raise Seen

    def key(model, of=task, **settings):
        with pytest.raises(Seen):
            ew.fit(model, of, **{"budget": ew.Budget(max_drop=0.5), "threads": 1, "engines": ("onnxruntime",), **settings})
        return keys[-1]

    monkeypatch.setattr(search, "start", seen)
    graph = ew.export.export(net, task.example_inputs(2))
    first = key(graph)
    assert key(graph, budget=ew.Budget(speedup=2)) == first  # what was measured holds for every budget
    proto = graph.copy_proto()
    weight = proto.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    path = tmp_path_factory.mktemp("other") / "shapes.npz"
    images, labels = pictures.quarters(700)
    images[0] ^= 1
    np.savez(path, images=images, labels=labels, names=["a", "b", "c", "d"])
    here = ew.devices.local()
    others = [
        key(Graph.from_proto(proto)),
        key(graph, ew.tasks.image_classification(path, calibration=32)),
        key(graph, replace(task, preprocess=replace(task.preprocess, scale=1.0))),
        key(graph, device=replace(here, cpu="another")),
        key(graph, device=replace(here, backends={**here.backends, "onnxruntime": "9.9"})),
        key(graph, seed=1),
    ]
    monkeypatch.setattr(sys.modules["edgewise.fitting"], "versions", lambda names: {"onnx": "9.9"})
    others.append(key(graph))
    assert len({first, *others}) == 1 + len(others)


def test_the_test_split_stays_sealed_until_the_verdict(task, net, monkeypatch):
    module = sys.modules["edgewise.fitting"]
    opened = []
    unsealed = type(task).unsealed
    verdict = module.judged

    def watched(self):
        opened.append("unsealed")
        return unsealed(self)

    def at_last(*arguments):
        assert not opened
        return verdict(*arguments)

    monkeypatch.setattr(type(task), "unsealed", watched)
    monkeypatch.setattr(module, "judged", at_last)
    ew.fit(net, task, budget=ew.Budget(max_drop=0.5), threads=1, engines=("onnxruntime",))
    assert opened == ["unsealed"]


def test_without_labels_it_is_agreement(net, tmp_path):
    images, _ = pictures.quarters(300)
    np.savez(tmp_path / "x.npz", images=images)
    task = ew.tasks.image_classification(tmp_path / "x.npz", calibration=32)
    graph = ew.export.export(net, task.example_inputs(2))
    graph.save(tmp_path / "net.onnx")
    result = ew.fit(tmp_path / "net.onnx", task, budget=ew.Budget(size_bytes=60_000, max_drop=0.3), threads=1, engines=("onnxruntime",))
    assert result.study.verdict.quality.metric == "agreement"
    assert result.study.verdict.reference_quality.value.value == 1.0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"threads": 99}, "threads=99"),
        ({"engines": ("nothing",)}, "unknown backend 'nothing'"),
        ({"budget": ew.Budget(energy_mj=1)}, "energy_mj=1 can't be held"),
        ({"model": "no/such.onnx"}, "no/such.onnx"),
    ],
)
def test_what_is_refused(task, net, tmp_path, change, says):
    given = {"model": net, "budget": ew.Budget(), **change}
    with pytest.raises(InvalidInput, match=says):
        ew.fit(given.pop("model"), task, out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_an_exported_program_goes_the_same_way(task, net, tmp_path):
    """Its graph is the one that fit starts from, held against the program on real samples; there is nothing in it to train."""
    example = torch.from_numpy(task.example_inputs(2)["image"])
    program = torch.export.export(net.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "net.pt2")
    result = ew.fit(tmp_path / "net.pt2", task, budget=ew.Budget(size_bytes=60_000, max_drop=0.3), threads=1, engines=("onnxruntime",))
    assert result.study.model.name == "net"
    assert result.best.signature.inputs[0].shape == ("batch", 1, 12, 12)


def test_threads_are_tried_up_to_all_cores():
    counts = asked._doubling
    assert [counts(cores) for cores in (1, 2, 6, 8)] == [(1,), (1, 2), (1, 2, 4, 6), (1, 2, 4, 8)]


def test_a_model_of_another_class_count_is_refused(task):
    with pytest.raises(InvalidModel, match="7 classes"):
        ew.fit(ResNet(1, 7, 1, 4), task, budget=ew.Budget())
