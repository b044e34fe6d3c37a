"""The main job where engines and int8 alone don't reach the budget, and one recipe on its own: real engines, a tiny trained net."""

import pytest
import torch

import edgewise as ew
from edgewise import fitting, search
from edgewise.errors import InvalidInput, InvalidModel
from edgewise.graph import cost, total
from edgewise.measure import table as tables
from edgewise.models import Intake
from edgewise.models.resnet import ResNet
from edgewise.records import Study
from edgewise.search import planning, pruning, sizing
from edgewise.search.limits import Limits
from edgewise.search.origin import remade
from edgewise.testing import pictures
from edgewise.train import train
from edgewise.types import from_json

RECIPE = "prune(ratio=0.5, samples=32) > distill(epochs=1) > quantize(rounding='nearest')"
ASKED = {"threads": 1, "engines": ("onnxruntime",)}


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = pictures.kept(tmp_path_factory.mktemp("data") / "shapes.npz", 700)
    return ew.tasks.image_classification(path, calibration=32)


@pytest.fixture(scope="module")
def net(task):
    torch.manual_seed(0)
    return train(ResNet(blocks=1, classes=4, channels=1, width=8), task, epochs=2, batch_size=32, learning_rate=0.05).model


@pytest.fixture(autouse=True)
def quick(briefly, monkeypatch):
    """Short looks at the clock, and a table of operations."""
    latency_table = tables.latency_table
    monkeypatch.setattr(search.climb, "INT8", ("quantize(rounding='nearest')",))

    def counted(graph, parts, *rest, **options):
        whole = total(cost(graph)).macs
        return latency_table(graph, parts, *rest, **options, timer=lambda small, pairs: [(1.0, total(cost(small)).macs / whole)] * pairs)

    monkeypatch.setattr(planning, "latency_table", counted)


def test_a_speedup_that_int8_does_not_reach_is_planned_pruned_and_trained(task, net, tmp_path):
    budget = ew.Budget(speedup=30.0, max_drop=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "asked_limits", lambda climb: Limits(2.0))  # 30x of a tiny net is out of reach; the plan is made for 2x
        patch.setattr(pruning, "forms", lambda climb: [one for one in FORMS(climb) if not one.recipe])
        result = ew.fit(net, task, budget=budget, epochs=2, out=tmp_path, **ASKED)
    plan = result.study.plans[0]
    assert plan.asked == 2.0 and plan.predicted >= 2.0 and plan.widths
    assert len(result.study.tables) == 1 and result.study.tables[0].model is not None
    trial = next(trial for trial in result.study.trials if trial.rung == "prune")
    assert trial.recipe.startswith("prune(widths=") and "distill(epochs=" in trial.recipe
    assert trial.quality is not None and any("→" in each for each in trial.touched)
    assert from_json((tmp_path / "study" / "study.json").read_bytes(), Study).plans == result.study.plans


FORMS = pruning.forms


def test_out_of_reach_is_said_before_anything_is_trained(task, net, tmp_path, monkeypatch):
    monkeypatch.setattr(pruning, "forms", lambda climb: [one for one in FORMS(climb) if not one.recipe])
    monkeypatch.setattr("edgewise.compress.distill.distill", None)
    result = ew.fit(net, task, budget=ew.Budget(speedup=1e5, max_drop=0.5), epochs=2, out=tmp_path, **ASKED)
    assert not result.met
    assert any("is out of reach: with every part at its narrowest" in note for note in result.study.notes)
    assert not any(trial.rung == "prune" for trial in result.study.trials)


def test_no_table_is_measured_for_what_is_out_of_reach(task, net, monkeypatch):
    monkeypatch.setattr(planning, "latency_table", lambda *a, **k: pytest.fail("minutes were spent on a table"))
    monkeypatch.setattr(pruning, "forms", lambda climb: [one for one in FORMS(climb) if not one.recipe])
    result = ew.fit(net, task, budget=ew.Budget(speedup=100.0, max_drop=0.5), epochs=2, **ASKED)
    note = next(note for note in result.study.notes if "out of reach" in note)
    assert 1 < float(note.split("this model is ")[1].split("x as fast")[0]) < 100
    assert "100x was asked" in result.study.verdict.summary and result.best.graph().size_bytes


def test_a_model_without_a_prunable_part_says_so(task, monkeypatch):
    monkeypatch.setattr(pruning, "forms", lambda climb: [one for one in FORMS(climb) if not one.recipe])
    torch.manual_seed(0)
    flat = train(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 4)), task, epochs=1, batch_size=64).model
    result = ew.fit(flat, task, budget=ew.Budget(speedup=50.0, max_drop=0.5), epochs=2, **ASKED)
    assert any("50x is out of reach: no part of this model can be pruned" in note for note in result.study.notes)
    assert not result.met and not result.study.tables


def test_as_fast_as_it_is_needs_nothing(task, net):
    result = ew.fit(net, task, budget=ew.Budget(speedup=1.0, max_drop=0.0), epochs=2, **ASKED)
    assert result.met and result.study.trial(result.study.verdict.trial).recipe == "", result.study.verdict
    ratio = result.study.verdict.speedup.ratio  # two copies of one model may differ by percents on a clock that looks this shortly
    assert (ratio.low, ratio.value, ratio.high) == (1.0, 1.0, 1.0) and result.study.verdict.speedup.pairs
    assert not result.study.plans


def test_bytes_alone_are_pruned_for_without_a_table(task, net, tmp_path):
    dense = ew.fit(net, task, budget=ew.Budget(max_drop=1.0), epochs=0, **ASKED)
    limit = int(dense.best.size_bytes * 0.8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search.climb, "RUNGS", (pruning.pruned,))  # integers alone would do
        result = ew.fit(net, task, budget=ew.Budget(size_bytes=limit, max_drop=0.5), epochs=2, out=tmp_path, **ASKED)
    assert result.met and limit * 0.7 < result.best.size_bytes <= limit, result.study.verdict.summary
    assert not result.study.tables and any(one.width < one.units for one in result.study.widths)


def test_bytes_alone_are_rounded_for_without_training(task, net, tmp_path, monkeypatch):
    monkeypatch.setattr(search.climb, "RUNGS", (sizing.sized,))
    result = ew.fit(net, task, budget=ew.Budget(size_bytes=6000, max_drop=0.1), epochs=1, out=tmp_path, **ASKED)
    assert result.met, result.study.verdict.summary
    chosen = result.study.trial(result.study.verdict.trial)
    assert chosen.recipe.startswith("rdoq(size_bytes=") and chosen.recipe.endswith("> code(profile='minimal')")
    assert (tmp_path / "model.edgew").stat().st_size == result.best.size_bytes <= 6000
    assert ew.package.open(tmp_path / "model.edgew").profile == "minimal"


def test_what_rounding_does_not_reach_is_trained_for(task, net, monkeypatch):
    monkeypatch.setattr(search.climb, "RUNGS", (sizing.sized,))
    result = ew.fit(net, task, budget=ew.Budget(size_bytes=1500, max_drop=0.0), epochs=1, **ASKED)
    tried = [trial.recipe for trial in result.study.trials if trial.rung == "size"]
    assert [recipe.split("(")[0] for recipe in tried][:3] == ["code", "rdoq", "penalize"]
    assert f"epochs={sizing.LONGER}" in tried[2]


def test_bytes_out_of_reach_are_said_before_anything_is_trained(task, net, monkeypatch):
    monkeypatch.setattr("edgewise.compress.distill.distill", None)
    result = ew.fit(net, task, budget=ew.Budget(size_bytes=1000, memory_bytes=10**9, max_drop=0.5), epochs=2, **ASKED)
    note = next(note for note in result.study.notes if "out of reach" in note)
    assert "its package takes" in note and "1 kB" in note
    assert not result.met and not any(trial.rung == "prune" for trial in result.study.trials)


def test_one_recipe(task, net, tmp_path):
    result = fitting.follow(net, task, recipe=RECIPE, out=tmp_path, **ASKED)
    trial = result.study.trial(result.study.verdict.trial)
    assert trial.recipe == RECIPE and result.met
    assert result.best.manifest.provenance.recipe == RECIPE
    source = Intake("module", "net", module=net)
    bound = ew.tasks.bound(task, result.best.graph().signature)
    again = remade(RECIPE, source, search.origin.dense_of(net, task, None)[1], bound, result.best.manifest.provenance.reference)
    assert again.sha256 == result.best.graph().sha256


def test_a_recipe_that_asks_for_a_speedup_gets_a_table(task, net):
    result = fitting.follow(net, task, recipe="prune(speedup=1.5, samples=32) > quantize(rounding='nearest')", **ASKED)
    assert [table.form for table in result.study.tables] == ["quantize(rounding='nearest')"]
    assert any("speedup 1.5" in note or "1.5x asked" in note for trial in result.study.trials for note in trial.notes)


def test_a_recipe_that_cannot_be_followed(task, net):
    with pytest.raises(InvalidInput, match="has no argument 'spedup'"):
        fitting.follow(net, task, recipe="prune(spedup=2)", **ASKED)
    with pytest.raises(InvalidModel, match="is out of reach"):
        fitting.follow(net, task, recipe="prune(operations=1e9, samples=32)", **ASKED)
