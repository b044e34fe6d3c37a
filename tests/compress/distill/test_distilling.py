"""Distillation: its loss by hand, what it leaves alone, how it goes on, and that a network pruned badly comes back."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from edgewise import backends, recipe
from edgewise.compress.distill import asking, blended, distance, distill, teacher_loss
from edgewise.compress.distill.blending import hidden_term
from edgewise.data.pictures import ArrayPictures
from edgewise.data.source import Source
from edgewise.errors import InvalidData, InvalidInput
from edgewise.graph import Graph
from edgewise.models.network import Network
from edgewise.tasks import image_classification
from edgewise.testing import graphs
from edgewise.testing.clouds import Clouds
from edgewise.train import train
from edgewise.types import Execution

CPU = torch.device("cpu")


def mlp(hidden=16, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 4))


def network(hidden, seed=0, keep=None):
    """x (batch, 8) -> h = relu(x · w1 + b1) -> y (batch, 4) = h · w2; of its `hidden` neurons those in `keep`."""
    random = np.random.default_rng(seed)
    chosen = slice(None) if keep is None else keep
    weights = {
        "w1": random.standard_normal((8, hidden), dtype=np.float32)[:, chosen],
        "b1": random.standard_normal(hidden, dtype=np.float32)[chosen],
        "w2": random.standard_normal((hidden, 4), dtype=np.float32)[chosen],
    }
    nodes = [("MatMul", ["x", "w1"], ["m"]), ("Add", ["m", "b1"], ["a"]), ("Relu", ["a"], ["h"]), ("MatMul", ["h", "w2"], ["y"])]
    return Network(Graph.from_proto(graphs.build(nodes, {"x": ("batch", 8)}, {"y": ("batch", 4)}, weights)))


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def by_hand(student, teacher, temperature):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return (p * np.log(p / q)).sum(axis=1).mean() * temperature**2


def test_the_whole_loss_by_hand():
    student, teacher = network(6, seed=1), network(10)
    keep = (0, 2, 3, 5, 8, 9)
    x, targets = Clouds().draw(20, 0)
    objective = blended(Clouds(), asking(teacher, ("h",), CPU), weight=0.3, temperature=3.0, terms=[hidden_term(0.7, {"h": (1, keep)})])
    found = float(objective(student, {"x": torch.from_numpy(x)}, torch.from_numpy(targets)).detach())

    def forward(net):
        w = {name: value.detach().numpy().astype(np.float64) for name, value in net.weights().items()}
        h = np.maximum(x @ w["w1"] + w["b1"], 0)
        return h, h @ w["w2"]

    (h, y), (wide, wanted) = forward(student), forward(teacher)
    true = -np.log(softmax(y)[np.arange(20), targets]).mean()
    inner = ((h - wide[:, keep]) ** 2).mean() / wide[:, keep].var()
    assert found == pytest.approx(0.7 * true + 0.3 * by_hand(y, wanted, 3.0) + 0.7 * inner, rel=1e-5)


def test_hidden_states_of_a_narrower_student():
    keep = [1, 4, 6, 7]
    teacher = network(10)
    exact = blended(Clouds(), asking(teacher, ("h",), CPU), weight=0.0, temperature=1.0, terms=[hidden_term(1.0, {"h": (-1, keep)})])
    x = {"x": torch.from_numpy(Clouds().draw(20, 0)[0])}
    targets = torch.from_numpy(Clouds().draw(20, 0)[1])
    cut = network(10, keep=keep)
    plain = float(Clouds().loss(cut(x["x"]), targets).detach())
    assert float(exact(cut, x, targets).detach()) == pytest.approx(plain, rel=1e-6)  # what was kept is what the teacher has
    # a student whose neurons were spoilt comes back to them, without labels
    spoilt = network(10, keep=keep)
    with torch.no_grad():
        spoilt.weight("w1").add_(torch.from_numpy(np.random.default_rng(3).normal(size=(8, 4)).astype(np.float32)))
    settings = {"task": Clouds(labelled=False), "epochs": 8, "batch_size": 32, "optimizer": "adamw", "learning_rate": 0.05}
    done = distill(spoilt, teacher=teacher, hidden=5.0, kept={"h": (1, keep)}, **settings)
    asked = asking(teacher, ("h",), CPU)(x)[1]["h"][:, keep]
    before, after = (float(distance(net.run(x, ["h"])["h"], asked).detach()) for net in (spoilt, done.model))
    assert after < 0.3 * before
    # the same from a function that gives the inner tensor among its outputs
    told = distill(spoilt, teacher=lambda inputs: {"y": answered(teacher, inputs)["y"], "h": answered(teacher, inputs)["h"]},
                   hidden=5.0, kept={"h": (1, keep)}, **settings)  # fmt: skip
    assert same(told.model, done.model)


def answered(net, inputs):
    with torch.no_grad():
        return {name: value.numpy() for name, value in net.run({name: torch.from_numpy(x) for name, x in inputs.items()}, ["h"]).items()}


def test_labels_alone_are_plain_training():
    settings = {"epochs": 2, "batch_size": 32, "learning_rate": 0.03, "seed": 4}
    plain = train(mlp(), Clouds(), **settings)
    assert same(distill(mlp(), task=Clouds(), teacher=mlp(32), weight=0.0, **settings).model, plain.model)
    assert same(distill(mlp(), task=Clouds(), weight=0.0, **settings).model, plain.model)
    assert not same(distill(mlp(), task=Clouds(), teacher=mlp(32), **settings).model, plain.model)


def test_without_labels_the_teacher_is_all():
    settings = {"teacher": mlp(32).eval(), "epochs": 2, "batch_size": 32}
    unlabelled = distill(mlp(), task=Clouds(labelled=False), **settings)
    assert "weight is 1 instead of 0.5" in unlabelled.notes[0]
    labelled = distill(mlp(), task=Clouds(), weight=1.0, **settings)
    assert same(unlabelled.model, labelled.model)
    with pytest.raises(InvalidData, match="labels alone, and the data has none"):
        distill(mlp(), task=Clouds(labelled=False), weight=0.0, epochs=1)


def test_pictures_without_labels():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 6, 6, 1), dtype=np.uint8)
    task = image_classification(Source("made", ArrayPictures(pixels), None, (), np.array([""] * 60)), shift=1)
    torch.manual_seed(0)
    student, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(36, 3)) for _ in range(2))
    done = distill(student, task=task, teacher=teacher, epochs=2, batch_size=16)
    x = torch.from_numpy(task.example_inputs(30)["image"])
    before, after = (float(teacher_loss(net(x), teacher(x), 2.0).detach()) for net in (student, done.model))
    assert after < before


def test_an_engine_teaches_as_the_module_does():
    teacher, student = network(24), network(6, seed=1)
    settings = {"task": Clouds(), "epochs": 2, "batch_size": 32, "learning_rate": 0.02}
    by_module = distill(student, teacher=teacher, **settings)
    runner = backends.load(teacher.structure.to_bytes(), Execution("onnxruntime"))
    by_engine = distill(student, teacher=runner.run, **settings)
    runner.close()
    for name, weight in by_module.model.weights().items():
        np.testing.assert_allclose(by_engine.model.weights()[name].detach(), weight.detach(), rtol=1e-3, atol=1e-4)
    by_function = distill(student, teacher=lambda inputs: {"y": answered(teacher, inputs)["y"]}, **settings)
    assert same(by_function.model, by_module.model)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "adamw"}, {"weight": 1.0, "temperature": 4.0}])
def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path, settings):
    run = partial(distill, mlp(), teacher=mlp(32).eval(), epochs=4, batch_size=32, seed=2, **settings)
    whole = run(task=Clouds())
    with pytest.raises(KeyboardInterrupt):
        run(task=Clouds(stop=2), checkpoint=tmp_path)
    resumed = run(task=Clouds(), checkpoint=tmp_path)
    assert same(resumed.model, whole.model)
    assert resumed.notes[0] == whole.notes[0]
    with pytest.raises(InvalidInput, match=r"temperature=.* then, 7.0 now"):
        run(task=Clouds(), checkpoint=tmp_path, temperature=7.0)


def test_what_was_begun_with_another_model_or_teacher_isnt_gone_on_with(tmp_path):
    settings = {"task": Clouds(), "epochs": 1, "batch_size": 32, "checkpoint": tmp_path}
    done = distill(mlp(), teacher=mlp(32), **settings)
    assert same(distill(mlp(), teacher=mlp(32), **settings).model, done.model)
    with pytest.raises(InvalidInput, match=r"of another training \(model="):
        distill(mlp(seed=1), teacher=mlp(32), **settings)
    with pytest.raises(InvalidInput, match=r"of another training \(teacher="):
        distill(mlp(), teacher=mlp(32, seed=1), **settings)


def test_a_net_pruned_badly_recovers():
    task = Clouds(n=512)
    teacher = train(mlp(32), task, epochs=4, batch_size=32).model
    keep = [3, 4, 5, 6]
    pruned = mlp(4)
    with torch.no_grad():
        for ours, theirs in ((0, 0), (1, 1)):
            for name, value in pruned[ours].state_dict().items():
                value.copy_(teacher[theirs].state_dict()[name][keep] if value.ndim else teacher[theirs].state_dict()[name])
        pruned[3].weight.copy_(teacher[3].weight[:, keep])
        pruned[3].bias.copy_(teacher[3].bias)
    x, targets = task.draw(2000, 99)

    def accuracy(net):
        with torch.no_grad():
            return float((net.eval()(torch.from_numpy(x)).argmax(dim=1).numpy() == targets).mean())

    assert accuracy(teacher) > 0.9 and accuracy(pruned) < accuracy(teacher) - 0.15
    for labelled in (True, False):
        done = distill(pruned, task=Clouds(n=512, labelled=labelled), teacher=teacher, epochs=8, batch_size=32)
        assert accuracy(done.model) > accuracy(teacher) - 0.03


def test_neither_model_nor_teacher_is_changed():
    student, teacher = mlp(), mlp(32).train()
    before = [{name: value.clone() for name, value in net.state_dict().items()} for net in (student, teacher)]
    done = distill(student, task=Clouds(), teacher=teacher, epochs=1, batch_size=32)
    for net, kept in zip((student, teacher), before, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())
        assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert teacher.training and not done.model.training


def test_it_accounts_for_every_weight():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.unused = mlp(), nn.Linear(2, 2, bias=False)

        def forward(self, x):
            return self.body(x)

    student = Lazy()
    student.body[0].requires_grad_(False)
    done = distill(student, task=Clouds(), teacher=mlp(32), epochs=1, batch_size=32)
    assert done.touched == ("body.1.weight", "body.1.bias", "body.3.weight", "body.3.bias")
    assert set(done.skipped) == {"body.0.weight", "body.0.bias", "unused.weight"}
    assert "frozen" in done.skipped["body.0.bias"] and "no gradient" in done.skipped["unused.weight"]
    assert torch.equal(done.model.body[0].weight, student.body[0].weight)
    named = distill(network(6), task=Clouds(), teacher=network(24), epochs=1, batch_size=32)
    assert set(named.touched) == {"w1", "b1", "w2"} and not named.skipped


def test_the_notes_tell_losses_time_and_why_it_ended():
    told = []
    done = distill(
        mlp(), task=Clouds(), teacher=mlp(32), epochs=5, batch_size=32, progress=lambda what, share: told.append((what, share)),
        stopper=lambda losses: f"{len(losses)} are enough" if len(losses) == 2 else None,
    )  # fmt: skip
    assert done.notes[0].startswith("loss by epoch: ") and done.notes[0].count(",") == 1
    assert done.notes[1].startswith("2 epochs in ") and done.notes[-1] == "stopped early: 2 are enough"
    assert told[0][0].startswith("distilling, epoch 1 of 5, loss ") and [share for _, share in told] == sorted(share for _, share in told)
    cut = distill(mlp(), task=Clouds(), teacher=mlp(32), epochs=100_000, batch_size=32, max_seconds=0.2)
    assert "of 800000 steps fit into max_seconds=0.2" in cut.notes[-1]


def test_in_a_recipe(tmp_path):
    text = "distill(epochs=1, batch_size=32) > distill(epochs=2, batch_size=32, weight=1)"
    steps = recipe.parse(text)
    assert str(steps) == text
    assert not {"teacher", "task", "checkpoint", "kept", "stopper", "progress"} & set(recipe.options(distill))
    assert recipe.level(distill) == "module"
    done = recipe.apply(steps, network(6), task=Clouds(), teacher=network(24), checkpoint=tmp_path)
    assert [len(result.touched) for result in done.results] == [3, 3]
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["1-distill", "2-distill"]
    with pytest.raises(InvalidInput, match="no argument 'teacher'"):
        recipe.parse("distill(teacher='x')")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"weight": 1.1}, "weight=1.1"),
        ({"weight": -0.1}, "weight=-0.1"),
        ({"weight": float("nan")}, "weight=nan"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"hidden": -1.0}, "hidden=-1.0"),
        ({"optimizer": "adam"}, "use one of sgd, adamw"),
        ({"teacher": None}, "need a teacher"),
        ({"teacher": "resnet"}, "teacher is a str"),
        ({"teacher": nn.Linear(8, 3)}, r"outputs are \(32, 3\) where the student's are \(32, 4\)"),
        ({"teacher": lambda inputs: {"y": np.zeros((32, 4)), "z": np.zeros(32)}}, r"\(32, 4\), \(32,\) where"),
        ({"hidden": 1.0}, "needs kept"),
        ({"by_length": True}, "is no task on texts"),
        ({"hidden": 1.0, "kept": {"h": None}}, "have names in a Network"),
    ],
)
def test_what_is_refused(settings, says):
    with pytest.raises(InvalidInput, match=says):
        distill(mlp(), **{"task": Clouds(), "teacher": mlp(32), "epochs": 1, "batch_size": 32, **settings})


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ({"h": None}, r"leaves \(32, 10\) of the teacher's tensor, and the student's is \(32, 4\)"),
        ({"h": (1, [0, 1])}, r"leaves \(32, 2\)"),
        ({"h": (1, [0, 1, 2, 10])}, "positions on it"),
        ({"h": (2, [0, 1, 2, 3])}, "one of its axes"),
        ({"nothing": None}, "nothing"),
    ],
)
def test_hidden_states_that_do_not_match(kept, says):
    with pytest.raises(InvalidInput, match=says):
        distill(network(4), task=Clouds(), teacher=network(10), epochs=1, batch_size=32, hidden=1.0, kept=kept)


def test_other_things_that_are_refused():
    with pytest.raises(InvalidInput, match="put it before what exports"):
        distill(network(4).structure, task=Clouds(), teacher=network(10))
    with pytest.raises(InvalidInput, match="make model and teacher one"):
        distill(network(4), task=Clouds(), teacher=mlp(), hidden=1.0, kept={"h": None})
    with pytest.raises(InvalidInput, match="and not h; add it"):
        distill(network(4), task=Clouds(), teacher=lambda inputs: {"y": np.zeros((32, 4))}, batch_size=32, hidden=1.0, kept={"h": None})
