"""Distillation by layer and token, on small encoders and made-up texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

from edgewise import backends, recipe
from edgewise.compress.distill import asking, blended, distance, distill, mapped
from edgewise.compress.distill.blending import Learner, layers_term, relations_term
from edgewise.compress.distill.teaching import prepared
from edgewise.errors import InvalidInput
from edgewise.graph import Graph, parts, shrink, taps
from edgewise.models.network import Network
from edgewise.testing import encoder_graphs as encoders
from edgewise.testing.clouds import Samples
from edgewise.types import Execution

CPU = torch.device("cpu")
TEACHER = Network(encoders.encoder(layers=3, width=12, heads=3, inner=24))
NAMES = [part.name for part in parts(TEACHER.structure).parts if part.kind != "hidden"]


@dataclass(frozen=True)
class Words:
    """Texts of 2 to 9 of 29 tokens, in batches of like length; the class is what most of its tokens have, modulo 3."""

    n: int = 96
    labelled: bool = True
    stop: int | None = None
    answers: str = "scores"

    def split(self, name):
        return Samples(name, np.zeros((self.n, 8), np.float32), np.zeros(self.n, np.int64) if self.labelled else None)

    def texts(self, seed=0):
        given = encoders.texts(self.n, seed=seed)
        order = np.argsort(given["attention_mask"].sum(1), kind="stable")
        ids, mask = (array[order] for array in given.values())
        votes = np.stack([((ids % 3 == k) & (mask > 0)).sum(1) for k in range(3)], 1)
        return ids, mask, votes.argmax(1)

    def training_batches(self, *, batch_size, epoch, seed=0):
        if epoch == self.stop:
            raise KeyboardInterrupt
        ids, mask, targets = self.texts()
        generator = np.random.default_rng((seed, epoch))
        shift = int(generator.integers(0, batch_size))  # other neighbours in every epoch
        order = np.roll(np.arange(self.n), shift)
        starts = np.arange(0, self.n - batch_size + 1, batch_size)
        for start in generator.permutation(starts):
            rows = order[start : start + batch_size]
            longest = mask[rows].sum(1).max()
            inputs = {"input_ids": ids[rows, :longest], "attention_mask": mask[rows, :longest]}
            yield inputs, targets[rows] if self.labelled else None

    def loss(self, outputs, targets):
        return torch.nn.functional.cross_entropy(outputs, targets)


def pruned(keep=None, teacher=TEACHER):
    """Of layer 0 two heads and half the neurons, nothing of layer 1's feed-forward block, spoilt a little, as pruning leaves it."""
    net = Network(shrink(teacher.structure, keep or {NAMES[0]: [0, 2], NAMES[1]: range(12), NAMES[3]: []}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return net


def batch(**given):
    return {name: torch.from_numpy(value) for name, value in encoders.texts(**given).items()}


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_the_whole_loss_by_hand_text_by_text():
    student, inputs = pruned(), batch(n=5, longest=6)
    targets = torch.tensor([0, 1, 2, 1, 0])
    teaching = prepared(student, TEACHER, layers=0.7, relations=0.4)
    objective = blended(
        Words(), asking(TEACHER, teaching.names, CPU), weight=0.3, temperature=2.0, terms=teaching.terms, mask=teaching.mask
    )
    found = float(objective(student, inputs, targets).detach())
    mapping = mapped(student.structure, TEACHER.structure)
    related = mapping.relations()
    streams = [(pair.ours, pair.theirs) for pair in mapping.streams]
    ours = [name for name, _ in streams] + [one.tensor for one, _ in related.pairs]
    theirs = [name for _, name in streams] + [other.tensor for _, other in related.pairs]
    runs = []
    for net, names in ((student, ours), (TEACHER, theirs)):
        rows = []
        for row, length in enumerate(inputs["attention_mask"].sum(1)):
            one = {name: tensor[row : row + 1, :length] for name, tensor in inputs.items()}
            rows.append({name: value.detach().numpy()[0] for name, value in net.run(one, names).items()})
        runs.append(rows)
    scores = [np.stack([row["scores"] for row in rows]) for rows in runs]
    true = -np.log(softmax(scores[0])[np.arange(5), targets.numpy()]).mean()
    p, q = softmax(scores[1] / 2), softmax(scores[0] / 2)
    answers = (p * np.log(p / q)).sum(1).mean() * 4
    layered = []
    for one, other in streams:
        a, b = np.concatenate([row[one] for row in runs[0]]), np.concatenate([row[other] for row in runs[1]])
        layered.append(((a - b) ** 2).mean() / b.var())
    relating = []
    for (one, other), heads in zip(related.pairs, related.heads, strict=True):
        rows = []
        for mine, its in zip(*runs, strict=True):
            a, b = (np.transpose(x[where.tensor][None], where.axes)[0] for x, where in ((mine, one), (its, other)))
            a, b = (x.reshape(len(x), heads, -1).transpose(1, 0, 2) for x in (a, b))
            p, q = (softmax(x @ x.transpose(0, 2, 1) / np.sqrt(x.shape[2])) for x in (b, a))
            rows.append((p * np.log(p / q)).sum(2).reshape(-1))
        relating.append(np.concatenate(rows).mean())
    expected = 0.7 * true + 0.3 * answers + 0.7 * np.mean(layered) + 0.4 * np.mean(relating)
    assert len(streams) == 3 and found == pytest.approx(expected, rel=1e-4)
    padded = {name: torch.nn.functional.pad(tensor, (0, 5)) for name, tensor in inputs.items()}
    assert float(objective(student, padded, targets).detach()) == pytest.approx(found, rel=1e-4)


def test_a_student_that_lost_nothing_has_nothing_to_learn_from_inside():
    teaching = prepared(TEACHER, TEACHER, layers=1.0, relations=1.0)
    objective = blended(
        Words(), asking(TEACHER, teaching.names, CPU), weight=1.0, temperature=2.0, terms=teaching.terms, mask=teaching.mask
    )
    assert float(objective(TEACHER, batch(), None).detach()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("settings", [{"layers": 1.0}, {"relations": 1.0}, {"layers": 1.0, "relations": 1.0, "precision": "bf16"}])
def test_a_pruned_student_comes_nearer_inside_and_outside(settings):
    student = pruned()
    done = distill(
        student, task=Words(labelled=False), teacher=TEACHER, epochs=6, batch_size=16, optimizer="adamw", learning_rate=3e-3, **settings
    )
    teaching = prepared(student, TEACHER, layers=settings.get("layers", 0.0), relations=settings.get("relations", 0.0))
    inputs = batch(n=40, seed=7)
    attended, ask = inputs["attention_mask"] != 0, asking(TEACHER, teaching.names, CPU)
    wanted, theirs = ask(inputs)
    for net in (student, done.model):
        assert isinstance(net, Network)
    for term in teaching.terms:
        before, after = (float(term.loss(net.run(inputs, term.ours), theirs, attended, net).detach()) for net in (student, done.model))
        assert after < 0.8 * before
    before, after = (float(distance(net.run(inputs)["scores"], wanted[0]).detach()) for net in (student, done.model))
    assert after < before
    assert done.notes[1] == "5 of 6 blocks stayed, compared by name"


def test_a_projection_trains_with_the_student_and_isnt_part_of_it():
    """An independent student, narrower: through a linear layer, which is gone afterwards."""
    student = Network(encoders.encoder(layers=1, width=8, heads=2, prefix="small.", seed=2))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    run = partial(distill, student, teacher=TEACHER, layers=1.0, epochs=3, batch_size=16, optimizer="adamw", learning_rate=1e-2)
    done = run(task=Words())
    assert isinstance(done.model, Network) and done.model.state_dict().keys() == before.keys()
    assert "a learned projection from 8 to 12 channels: nobody knows which they were" in done.notes
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in before.items())
    assert same(done.model, run(task=Words()).model) and not same(done.model, run(task=Words(), layers=0.0).model)
    # the loss falls further than a projection that stays as it was drawn could bring it
    teaching = prepared(student, TEACHER, layers=1.0)
    (projection,) = teaching.projections.values()
    assert projection.weight.shape == (12, 8)
    torch.testing.assert_close(projection.weight.T @ projection.weight, torch.eye(8), rtol=1e-4, atol=1e-5)
    net = Learner(student, teaching.projections)
    objective = blended(
        Words(), asking(TEACHER, teaching.names, CPU), weight=1.0, temperature=2.0, terms=teaching.terms, mask=teaching.mask
    )
    objective(net, batch(), None).backward()
    assert projection.weight.grad is not None and projection.weight.grad.abs().sum() > 0
    assert torch.equal(net(*batch().values()), student(*batch().values()))


def test_channels_that_are_known_need_no_projection():
    inputs = batch()
    mapping = mapped(TEACHER.structure, TEACHER.structure)
    (pair, *_) = mapping.streams
    narrow = layers_term(1.0, [type(pair)(pair.ours, pair.theirs, 4, 12, (1, 4, 5, 9))])
    values = TEACHER.run(inputs, [pair.theirs])
    ours = {pair.ours: values[pair.theirs][..., [1, 4, 5, 9]]}
    assert float(narrow.loss(ours, values, inputs["attention_mask"] != 0, TEACHER).detach()) == 0
    assert float(narrow.loss({pair.ours: ours[pair.ours] + 1}, values, None, TEACHER).detach()) > 0.1


def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path):
    run = partial(distill, pruned(), teacher=TEACHER, epochs=4, batch_size=16, layers=1.0, relations=0.5, seed=2, optimizer="adamw")
    whole = run(task=Words(), checkpoint=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(task=Words(stop=2), checkpoint=tmp_path / "cut")
    assert len(list((tmp_path / "cut" / "answers").glob("*.answers"))) == 1
    resumed = run(task=Words(), checkpoint=tmp_path / "cut")
    assert same(resumed.model, whole.model) and resumed.notes[:2] == whole.notes[:2]
    with pytest.raises(InvalidInput, match=r"layers=1.0 then, 2.0 now"):
        run(task=Words(), checkpoint=tmp_path / "cut", layers=2.0)


def test_a_projection_is_gone_on_with_too(tmp_path):
    student = Network(encoders.encoder(layers=1, width=8, heads=2, prefix="small.", seed=2))
    run = partial(distill, student, teacher=TEACHER, epochs=3, batch_size=16, layers=1.0)
    whole = run(task=Words(), checkpoint=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(task=Words(stop=1), checkpoint=tmp_path / "cut")
    assert same(run(task=Words(), checkpoint=tmp_path / "cut").model, whole.model)


class Counted:
    """A teacher on an engine that can be looked into, and how many texts it was asked."""

    def __init__(self, graph):
        self.whole, self.asked, self.runners = graph, 0, []

    def graph(self):
        return self.whole

    def tapped(self, names):
        runner = backends.load(taps(self.whole, names).to_bytes(), Execution("onnxruntime"))
        self.runners.append(runner)

        def run(inputs):
            self.asked += len(inputs["input_ids"])
            return runner.run(inputs)

        return run

    def __call__(self, inputs):
        return self.tapped(())(inputs)

    def close(self):
        for runner in self.runners:
            runner.close()


def test_an_engine_teaches_as_the_network_does_and_a_cache_asks_each_text_once(tmp_path):
    teacher = Counted(TEACHER.structure)
    settings = {"epochs": 3, "batch_size": 16, "layers": 1.0, "relations": 1.0, "learning_rate": 0.01}
    by_network = distill(pruned(), task=Words(), teacher=TEACHER, **settings)
    by_engine = distill(pruned(), task=Words(), teacher=teacher, cache=tmp_path, **settings)
    for name, weight in by_network.model.weights().items():
        np.testing.assert_allclose(by_engine.model.weights()[name].detach(), weight.detach(), rtol=1e-2, atol=1e-3)
    distinct = len({(*ids[mask > 0],) for ids, mask, _ in zip(*Words().texts(), strict=True)})
    assert teacher.asked <= distinct + 3  # equal texts of one batch are asked together
    asked = teacher.asked
    again = distill(pruned(), task=Words(), teacher=teacher, cache=tmp_path, **settings)
    assert teacher.asked == asked and same(again.model, by_engine.model)
    teacher.answers = tmp_path  # a teacher that says itself where they are kept
    assert same(distill(pruned(), task=Words(), teacher=teacher, **settings).model, by_engine.model) and teacher.asked == asked
    teacher.close()


def test_embeddings_learn_from_texts_without_labels():
    teacher = Network(encoders.encoder(layers=2, width=12, heads=3, classes=None))
    names = [part.name for part in parts(teacher.structure).parts if part.kind != "hidden"]
    student = pruned({names[0]: [0], names[3]: []}, teacher)
    inputs = batch(n=40, seed=5)

    def cosine(net):
        return float(torch.nn.functional.cosine_similarity(net(*inputs.values()), teacher(*inputs.values())).mean().detach())

    settings = {"epochs": 6, "batch_size": 16, "optimizer": "adamw", "learning_rate": 5e-3}
    done = distill(student, task=Words(labelled=False, answers="embeddings"), teacher=teacher, **settings)
    asked_for = distill(student, task=Words(labelled=False), teacher=teacher, answers="embeddings", **settings)
    assert same(done.model, asked_for.model) and cosine(done.model) > cosine(student) + 0.03
    assert not same(distill(student, task=Words(labelled=False), teacher=teacher, **settings).model, done.model)
    # of another width
    small = Network(encoders.encoder(layers=1, width=8, heads=2, classes=None, prefix="small."))
    distill(small, task=Words(labelled=False), teacher=teacher, answers="embeddings", epochs=1, batch_size=16)
    with pytest.raises(InvalidInput, match="same outputs"):
        distill(small, task=Words(labelled=False), teacher=teacher, epochs=1, batch_size=16)


def test_a_student_without_layers_learns_from_answers():
    nothing = Network(shrink(TEACHER.structure, {name: [] for name in NAMES}))
    done = distill(nothing, task=Words(), teacher=TEACHER, epochs=1, batch_size=16, layers=1.0, relations=1.0)
    assert done.notes[0].startswith("0 of 6 blocks stayed") and "no attention is left" in done.notes[1]


def test_in_a_recipe(tmp_path):
    text = "distill(epochs=1, batch_size=16, layers=1.0, relations=0.5)"
    assert {"layers", "relations", "mapping", "answers", "mask", "relation_layer"} <= set(recipe.options(distill))
    assert "cache" not in recipe.options(distill)
    done = recipe.apply(recipe.parse(text), pruned(), task=Words(), teacher=TEACHER, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1 and done.results[0].touched


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"layers": -1.0}, "layers=-1.0"),
        ({"relations": float("inf")}, "relations=inf"),
        ({"mapping": "first"}, "use one of auto, names, uniform, last"),
        ({"answers": "words"}, "use one of auto, scores, embeddings"),
        ({"layers": 1.0, "teacher": None, "weight": 0.0}, "layers=1 need a teacher"),
        ({"layers": 1.0, "teacher": lambda inputs: inputs}, "has to be `Tapped`"),
        ({"layers": 1.0, "mask": "words"}, "inputs are input_ids, attention_mask"),
        ({"relations": 1.0, "relation_layer": 5}, "relation_layer=5"),
        ({"teacher": lambda inputs: inputs, "cache": True}, "told from another"),
    ],
)
def test_what_is_refused(tmp_path, settings, says):
    if "cache" in settings:
        settings = {**settings, "cache": tmp_path}
    with pytest.raises(InvalidInput, match=says):
        distill(pruned(), **{"task": Words(), "teacher": TEACHER, "epochs": 1, "batch_size": 16, **settings})


def test_pictures_have_no_padding_to_tell_apart(tmp_path):
    module = torch.nn.Linear(3, 2)
    for settings, says in (({"cache": tmp_path}, "no input of the model tells padding apart"), ({"mask": "x"}, "have no names")):
        with pytest.raises(InvalidInput, match=says):
            distill(module, task=Words(), teacher=module, epochs=1, **settings)


def test_relations_of_other_widths_and_heads():
    student = Network(encoders.encoder(layers=2, width=8, heads=4, prefix="small."))
    related = mapped(student.structure, TEACHER.structure).relations()
    term = relations_term(1.0, related)
    assert related.heads == (4, 4, 4)  # of 8 and 12
    inputs = batch()
    loss = term.loss(student.run(inputs, term.ours), TEACHER.run(inputs, term.theirs), inputs["attention_mask"] != 0, student)
    assert float(loss.detach()) > 0
    assert isinstance(student.structure, Graph)
