"""Several speedups in one run: real engines, a tiny trained net, a table of operations."""

import types
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import edgewise as ew
from edgewise import measure, search
from edgewise.errors import InvalidInput
from edgewise.graph import cost, total
from edgewise.measure import table as tables
from edgewise.models.resnet import ResNet
from edgewise.recipe import parse
from edgewise.records import Interval
from edgewise.search import planning, pruning, verdict
from edgewise.testing import pictures
from edgewise.train import train

# What all share is made in one go: a minute and a half on a core of its own, several times that beside other work.
pytestmark = pytest.mark.timeout(600)

ASKED = {"threads": 1, "engines": ("onnxruntime",), "epochs": 2}
SPEEDUPS = (1.5, 2.0, 4.5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A family, the folder it lies in, and how often the test split had been opened when something was chosen."""
    folder = tmp_path_factory.mktemp("family")
    pictures.kept(folder / "shapes.npz", 500)
    task = ew.tasks.image_classification(folder / "shapes.npz", calibration=32)
    torch.manual_seed(0)
    net = train(ResNet(blocks=1, classes=4, channels=1, width=16), task, epochs=2, batch_size=32, learning_rate=0.05).model
    order = []
    with pytest.MonkeyPatch.context() as patch:
        by_operations(patch)
        chosen, judged = search.Climb.chosen, verdict.verdict
        patch.setattr(search.Climb, "chosen", lambda *a, **k: (order.append("chosen"), chosen(*a, **k))[1])
        patch.setattr("edgewise.fitting.judged", lambda *a, **k: (order.append("test split"), judged(*a, **k))[1])
        trained = []
        tidy = search.Store.tidy
        patch.setattr(search.Store, "tidy", lambda self: (trained.extend((self.folder / "training").iterdir()), tidy(self))[1])
        results = ew.family(net, task, speedups=SPEEDUPS[::-1], budget=ew.Budget(max_drop=0.5), out=folder / "out", **ASKED)
    return results, folder / "out", order, (net, task), trained


def by_operations(patch):
    """A clock that counts operations: what is planned is then what is found, and the way is the same on every machine."""
    counted = {}

    def operations(model):
        if model not in counted:
            counted[model] = total(cost(ew.graph.Graph.from_bytes(model))).macs
        return counted[model]

    race, compare, profile, latency_table = measure.race, measure.compare, measure.profile, tables.latency_table

    def compared(first, second, *rest, **options):
        quick = compare(first, second, *rest, **{**options, "max_seconds": 0.2, "block_ms": 5, "min_pairs": 6})
        ratio = operations(first.model) / operations(second.model)
        return replace(quick, ratio=Interval(ratio, ratio, ratio, 30))

    def raced(subjects, *rest, **options):
        quick = race(subjects, *rest, block_ms=5, min_rounds=6, rounds=6)
        first = operations(subjects[0].model)
        ratios = [first / operations(one.subject.model) for one in quick]
        return [replace(one, ratio=Interval(ratio, ratio, ratio, 6)) for one, ratio in zip(quick, ratios, strict=True)]

    def table(graph, parts, *rest, **options):
        whole = total(cost(graph)).macs
        return latency_table(graph, parts, *rest, **options, timer=lambda small, pairs: [(1.0, total(cost(small)).macs / whole)] * pairs)

    patch.setattr(measure, "compare", compared)
    patch.setattr(measure, "race", raced)
    patch.setattr(measure, "profile", lambda *a, **k: profile(*a, **{**k, "seconds": 0.05}))
    patch.setattr(measure, "peaks", lambda device, threads: ew.records.Peaks(threads, 50.0, 100.0, 10.0))
    patch.setattr(search.climb, "INT8", ("quantize(rounding='nearest')",))
    patch.setattr(planning, "latency_table", table)


def test_every_member_gets_what_it_was_asked_for(made):
    results, *_ = made
    assert [result.study.budget.speedup for result in results] == list(SPEEDUPS)
    for result, asked in zip(results, SPEEDUPS, strict=True):
        assert result.met, result.study.verdict.summary
        assert result.study.plans[-1].asked == asked
        assert result.study.verdict.speedup.ratio.value == pytest.approx(result.study.plans[-1].measured.value, rel=0.02)


def test_each_member_goes_on_from_the_one_before(made):
    results, folder, _, _, trained = made
    recipes = [result.study.trial(result.study.verdict.trial).recipe for result in results]
    for before, after in pairwise(recipes):
        assert after.startswith(before)
    stages = [step.name for step in parse(recipes[-1]).steps]
    assert stages == ["prune", "distill"] * 4  # 4.5x is more than twice 2x: it goes in two stages
    # What they share was made once, and what it was made with is gone.
    assert len(trained) == stages.count("distill")
    assert not (folder / "study" / "training").exists() and not (folder / "study" / "answers").exists()


def test_a_stage_that_lost_far_too_much_is_the_last(made, monkeypatch):
    results, _, _, (_, task), _ = made
    recipe = results[-1].study.trial(results[-1].study.verdict.trial).recipe
    steps = [str(step) for step in parse(recipe).steps]
    looked = []
    quality = types.SimpleNamespace(value=Interval(0.5, 0.4, 0.6, 100))
    monkeypatch.setattr(pruning.metrics, "quality", lambda *a: quality)
    monkeypatch.setattr(measure, "answers", lambda graph, *rest: looked.append(graph))
    climb = types.SimpleNamespace(
        bench=types.SimpleNamespace(task=task), budget=ew.Budget(max_drop=0.3), metric=0.95, notes=[],
        baseline=types.SimpleNamespace(execution=ew.Execution("onnxruntime")), made=lambda text: types.SimpleNamespace(graph=text),
    )  # fmt: skip
    assert pruning.worthwhile(climb, steps) == steps[:2] and looked == [" > ".join(steps[:2])]
    assert "stopped after 2 of 8 steps: 45.0 points are lost" in climb.notes[0]
    climb.metric = 0.89  # within ten points of what may be lost
    assert pruning.worthwhile(climb, steps) == steps


def test_no_choice_comes_after_a_look_at_the_test_split(made):
    assert made[2] == ["chosen"] * 3 + ["test split"] * 3


def test_what_lies_in_the_folders(made):
    results, folder, *_ = made
    for result, asked in zip(results, SPEEDUPS, strict=True):
        member = folder / f"{asked:g}x"
        assert ew.package.open(member / "model.edgew").content_id == result.best.content_id
        assert (member / "report.html").exists() and (member / "study.json").exists()
    page = (folder / "report.html").read_text()
    assert [f'href="{asked:g}x/report.html"' in page for asked in SPEEDUPS] == [True] * len(SPEEDUPS)


def test_what_each_step_did_and_what_is_left_of_the_parts(made):
    study = made[0][-1].study
    recipe = study.trial(study.verdict.trial).recipe
    assert [effect.step for effect in study.steps] == ["", *(str(step) for step in parse(recipe).steps)]
    operations = [effect.operations for effect in study.steps]
    assert operations == sorted(operations, reverse=True) and operations[0] == study.model.operations
    assert study.steps[0].seconds == 0 and all(effect.seconds > 0 for effect in study.steps[1:])
    assert operations[0] / operations[-1] == pytest.approx(study.steps[-1].speedup.value)
    plan = study.plans[-1].widths
    assert {one.part: one.width for one in study.widths if one.width < one.units} == dict(plan)
    assert any(one.width == one.units for one in study.widths) or len(plan) == len(study.widths)


def test_the_same_call_again_makes_nothing_again(made, monkeypatch):
    results, folder, _, (net, task), _ = made
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    monkeypatch.setattr(search, "start", lambda *a, **k: pytest.fail("searched again"))
    again = ew.family(net, task, speedups=SPEEDUPS, budget=ew.Budget(max_drop=0.5), out=folder, **ASKED)
    assert [one.study for one in again] == [one.study for one in results]
    assert (folder / "report.html").read_bytes() == page  # what was lost is written again


def test_a_family_of_nothing():
    with pytest.raises(InvalidInput, match="speedups is empty"):
        ew.family("model.onnx", None, speedups=[], budget=ew.Budget())
    with pytest.raises(InvalidInput, match="1 budgets for 2 speedups"):
        ew.family("model.onnx", types.SimpleNamespace(), speedups=[2, 4], budget=[ew.Budget()], epochs=1)


def test_members_are_planned_by_their_own_budgets(monkeypatch):
    """Each with its own bytes, from the fastest to the slowest, none of which drops what a slower one needs."""
    small, large = ew.Budget(speedup=4, size_bytes=100), ew.Budget(speedup=2, size_bytes=200)
    climb = types.SimpleNamespace(family=(large, small), budget=small, baseline=types.SimpleNamespace(measurement=None))
    planned = []

    def plan(climb, form, limits, least, own):
        planned.append((limits, dict(least), own))
        return pruning.Planned(limits, form, {"a": limits.size_bytes})

    monkeypatch.setattr(pruning, "best_form", lambda climb, member: types.SimpleNamespace())
    monkeypatch.setattr(pruning.Limits, "left", lambda limits, form: 2.0)
    monkeypatch.setattr(pruning, "_plan", plan)
    chain = pruning.planned(climb, pruning.asked_limits(climb))
    assert [one.limits for one in chain] == [pruning.Limits(2, 200), pruning.Limits(4, 100)]
    assert planned == [(pruning.Limits(4, 100), {}, True), (pruning.Limits(2, 200), {"a": 100}, False)]
    climb.budget = large  # the slower one goes by the same plans, and ends with its own
    assert [one.limits for one in pruning.planned(climb, pruning.asked_limits(climb))] == [pruning.Limits(2, 200)]


def test_a_member_out_of_reach_is_the_one_before_it(monkeypatch):
    """The nearest point of 4x is what was made for 2x, not the dense model."""
    form = types.SimpleNamespace(recipe="quantize()", execution="here")
    reached = pruning.Planned(pruning.Limits(2.0), form, {})
    monkeypatch.setattr(pruning, "asked_limits", lambda climb: pruning.Limits(4.0))
    monkeypatch.setattr(pruning, "forms", lambda climb: [form])
    monkeypatch.setattr(pruning.Limits, "left", lambda limits, form: 2.0)
    monkeypatch.setattr(pruning, "planned", lambda climb, limits: [reached])
    monkeypatch.setattr(pruning, "own_forms", lambda climb, form: [])
    monkeypatch.setattr(pruning, "trained", lambda climb, chain: ["prune(ratio=0.5)"])
    monkeypatch.setattr(pruning, "worthwhile", lambda climb, steps: steps)
    climb = types.SimpleNamespace(epochs=1, maker=types.SimpleNamespace(structure=object()), notes=[])
    assert [*pruning.pruned(climb)] == [("prune", "prune(ratio=0.5) > quantize()", ["here"])]
