import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.steps import native_precision
from edgewise.train import schedule, train


@dataclass(frozen=True)
class Blobs:
    """Two Gaussian clouds, told apart by their sign. `stop`: the epoch in which the power goes."""

    n: int = 64
    stop: int | None = None
    scale: float = 1.0
    labelled: bool = True

    def split(self, name):
        return range(self.n)

    def training_batches(self, *, batch_size, epoch, seed):
        if epoch == self.stop:
            raise KeyboardInterrupt
        generator = np.random.default_rng((seed, epoch))
        for _ in range(0, self.n, batch_size):
            targets = generator.integers(0, 2, batch_size)
            x = generator.normal(size=(batch_size, 4)) + (2 * targets[:, None] - 1)
            yield {"x": (self.scale * x).astype(np.float32)}, targets if self.labelled else None

    def loss(self, outputs, targets):
        return torch.nn.functional.cross_entropy(outputs, targets)


def net():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(8, 2)
    )


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_it_learns_and_leaves_its_input_alone():
    model = net()
    before = state(model)
    told = []
    done = train(model, Blobs(), epochs=6, batch_size=16, learning_rate=0.1, progress=told.append)
    assert done.losses[-1] < 0.5 * done.losses[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not done.model.training
    assert [round(p.done, 3) for p in told] == [round((i + 1) / 24, 3) for i in range(24)]
    assert told[-1].seconds_left == 0


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path, average):
    settings = {"epochs": 4, "batch_size": 16, "learning_rate": 0.05, "average": average, "seed": 3}
    whole = train(net(), Blobs(), **settings)
    with pytest.raises(KeyboardInterrupt):
        train(net(), Blobs(stop=2), **settings, checkpoint=tmp_path)
    resumed = train(net(), Blobs(), **settings, checkpoint=tmp_path)
    assert resumed.losses == whole.losses
    assert all(torch.equal(value, whole.model.state_dict()[name]) for name, value in resumed.model.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]


def test_other_settings_do_not_resume(tmp_path):
    train(net(), Blobs(), epochs=1, checkpoint=tmp_path)
    with pytest.raises(InvalidInput, match="epochs=1 then, 2 now"):
        train(net(), Blobs(), epochs=2, checkpoint=tmp_path)
    with pytest.raises(InvalidInput, match="another model"):
        train(torch.nn.Linear(4, 2), Blobs(), epochs=1, checkpoint=tmp_path)


def test_the_seed_decides():
    first, again, other = (train(net(), Blobs(), epochs=1, batch_size=16, seed=seed).losses for seed in (0, 0, 1))
    assert first == again != other


def test_faults():
    with pytest.raises(InvalidInput, match="epochs=0"):
        train(net(), Blobs(), epochs=0)
    with pytest.raises(InvalidData, match="empty"):
        train(net(), Blobs(n=0), epochs=1)
    with pytest.raises(InvalidModel, match="lower learning_rate"):
        train(net(), Blobs(scale=float("nan")), epochs=1)


def test_the_schedule_rises_and_falls():
    rates = [schedule(step, 100, peak=1.0) for step in range(100)]
    assert rates[9] == 1.0 == max(rates)
    assert rates[0] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert rates[-1] < 0.001


def test_an_epoch_is_as_long_as_the_rows_that_samples_come_to():
    """A long text goes in windows: steps go on from epoch to epoch, and the last epoch has all of its batches."""

    class Windows(Blobs):
        training_rows = 128

        def training_batches(self, *, batch_size, epoch, seed):
            return Blobs(n=self.training_rows).training_batches(batch_size=batch_size, epoch=epoch, seed=seed)

    steps = []
    done = train(net(), Windows(n=64), epochs=2, batch_size=16, adjust=lambda network, step, whole: steps.append((step, whole)))
    assert steps == [(step, 16) for step in range(16)] and done.steps == 16


def test_the_linear_schedule_is_berts():
    """Against the schedule of transformers, which starts at 0 where ours takes its first step."""
    from transformers import get_linear_schedule_with_warmup

    updates = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    theirs = get_linear_schedule_with_warmup(updates, 6, 100)
    for step in range(100):
        ours = schedule(step, 100, peak=2.0, warmup=0.06, decay="linear")
        assert ours == pytest.approx(theirs.get_last_lr()[0] + (2.0 / 6 if step < 6 else 0))
        updates.step()
        theirs.step()


def test_the_schedule_that_is_asked_for_is_followed():
    done = train(net(), Blobs(), epochs=2, batch_size=16, learning_rate=0.1, decay="linear", warmup=0.5)
    cosine = train(net(), Blobs(), epochs=2, batch_size=16, learning_rate=0.1, warmup=0.5)
    assert done.losses[0] == cosine.losses[0]  # they rise alike
    assert done.losses[1] != cosine.losses[1]
    with pytest.raises(InvalidInput, match="decay='none' is unknown; use one of cosine, linear"):
        train(net(), Blobs(), epochs=1, decay="none")
    with pytest.raises(InvalidInput, match="warmup=2"):
        train(net(), Blobs(), epochs=1, warmup=2)


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


class Clock:
    """Every look at it takes `tick` seconds."""

    def __init__(self, tick=1.0):
        self.tick, self.now = tick, 0.0

    def __call__(self):
        self.now += self.tick
        return self.now


def positives(model):
    """A validation metric that follows from the weights alone, and draws random numbers on its way."""
    torch.rand(3)
    return float(sum((parameter > 0).float().mean() for parameter in model.parameters()))


def test_adamw_is_the_one_of_the_paper():
    """Loshchilov 2019, algorithm 2, for a matrix that decays and a bias that doesn't: five steps in numpy, float64."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    task = Blobs(n=80)
    settings = {"epochs": 1, "batch_size": 16, "learning_rate": 0.01, "weight_decay": 0.1, "clip": 1e9}
    done = train(model, task, optimizer="adamw", **settings).model
    weights = [p.detach().numpy().astype(np.float64) for p in (model.weight, model.bias)]
    first, second = [0.0, 0.0], [0.0, 0.0]
    for step, (inputs, targets) in enumerate(task.training_batches(batch_size=16, epoch=0, seed=0)):
        scores = inputs["x"] @ weights[0].T + weights[1]
        chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        error = (chances - np.eye(2)[targets]) / 16
        rate = schedule(step, 5, peak=0.01)
        for i, (gradient, decay) in enumerate([(error.T @ inputs["x"], 0.1), (error.sum(axis=0), 0.0)]):
            first[i] = 0.9 * first[i] + 0.1 * gradient
            second[i] = 0.999 * second[i] + 0.001 * gradient**2
            move = first[i] / (1 - 0.9 ** (step + 1)) / (np.sqrt(second[i] / (1 - 0.999 ** (step + 1))) + 1e-8)
            weights[i] = weights[i] * (1 - rate * decay) - rate * move
    np.testing.assert_allclose(done.weight.detach().numpy(), weights[0], rtol=1e-4)
    np.testing.assert_allclose(done.bias.detach().numpy(), weights[1], rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "learning_rate": 0.01},
        {"optimizer": "adamw", "learning_rate": 0.01, "average": 0.9, "validate": positives, "keep_best": True},
        {"precision": "bf16"},
        {"momentum": 0.0},
    ],
)
def test_whatever_trains_resumes_to_the_bit(tmp_path, settings):
    settings = {"epochs": 4, "batch_size": 16, "learning_rate": 0.05, "seed": 3, **settings}
    whole = train(net(), Blobs(), **settings)
    with pytest.raises(KeyboardInterrupt):
        train(net(), Blobs(stop=2), **settings, checkpoint=tmp_path)
    resumed = train(net(), Blobs(), **settings, checkpoint=tmp_path)
    assert same(resumed.model, whole.model)
    assert (resumed.losses, resumed.metrics, resumed.best) == (whole.losses, whole.metrics, whole.best)
    again = train(net(), Blobs(stop=0), **settings, checkpoint=tmp_path)  # nothing is left to do
    assert same(again.model, whole.model) and again.losses == whole.losses


def test_an_objective_of_its_own_needs_no_targets():
    def quiet(model, tensors, targets):
        assert targets is None
        return model(tensors["x"]).square().mean()

    done = train(net(), Blobs(labelled=False), epochs=4, batch_size=16, objective=quiet)
    assert done.losses[-1] < 0.3 * done.losses[0]
    with pytest.raises(InvalidData, match="no targets"):
        train(net(), Blobs(labelled=False), epochs=1)


@pytest.mark.parametrize("wrap", [lambda y: (y, 0 * y), lambda y: [y], lambda y: {"logits": y, "state": 0 * y}])
def test_the_loss_is_of_the_first_output(wrap):
    class Several(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def forward(self, x):
            return wrap(self.inner(x))

    plain = train(net(), Blobs(), epochs=2, batch_size=16)
    assert train(Several(), Blobs(), epochs=2, batch_size=16).losses == plain.losses


def test_a_stopper_ends_it_with_a_reason_that_is_kept(tmp_path):
    seen = []

    def stopper(losses):
        seen.append(tuple(losses))
        return "no better than chance" if len(losses) == 2 else None

    settings = {"epochs": 5, "batch_size": 16, "checkpoint": tmp_path}
    done = train(net(), Blobs(), **settings, stopper=stopper)
    assert done.stopped == "no better than chance"
    assert seen == [done.losses[:1], done.losses]
    again = train(net(), Blobs(), **settings, stopper=stopper)
    assert same(again.model, done.model) and again.stopped == done.stopped and len(seen) == 2
    # after the last epoch there is nothing to stop
    assert train(net(), Blobs(), epochs=2, batch_size=16, stopper=stopper).stopped is None


def test_the_best_epoch_is_kept_and_the_stopper_sees_the_metric():
    scores, kept, seen = iter([0.1, 0.9, 0.5, 0.9]), [], []

    def validate(model):
        assert not model.training and not torch.is_grad_enabled()
        kept.append(state(model))
        return next(scores)

    plain = train(net(), Blobs(), epochs=4, batch_size=16)
    settings = {"validate": validate, "keep_best": True, "stopper": lambda metrics: seen.append(tuple(metrics))}
    done = train(net(), Blobs(), epochs=4, batch_size=16, **settings)
    assert done.metrics == (0.1, 0.9, 0.5, 0.9) and done.best == 1  # the first of equals
    assert all(torch.equal(value, kept[1][name]) for name, value in done.model.state_dict().items())
    assert seen == [(0.1,), (0.1, 0.9), (0.1, 0.9, 0.5)]
    assert done.losses == plain.losses  # looking changes nothing
    with pytest.raises(InvalidModel, match="validate gave NaN"):
        train(net(), Blobs(), epochs=1, validate=lambda model: float("nan"))


def test_the_schedule_spans_what_fits_into_the_time(tmp_path):
    settings = {"epochs": 6, "batch_size": 16, "max_seconds": 18.0}
    told = []
    done = train(net(), Blobs(), **settings, clock=Clock(), progress=told.append)
    # 18 s, less one before and two of a timed step each; 95 % of that at a second each
    assert (done.steps, done.steps_asked, len(told), len(done.losses)) == (14, 24, 14, 4)
    assert told[-1].done == 1 and {at.epochs for at in told} == {4}
    alike = train(net(), Blobs(), **settings, clock=Clock(1.001))
    assert alike.steps == 14 and alike.losses == done.losses and same(alike.model, done.model)
    # gone on with on a machine that is slower by then
    with pytest.raises(KeyboardInterrupt):
        train(net(), Blobs(stop=2), **settings, clock=Clock(), checkpoint=tmp_path)
    resumed = train(net(), Blobs(), **settings, clock=Clock(5.0), checkpoint=tmp_path)
    assert resumed.steps == 14 and resumed.losses == done.losses and same(resumed.model, done.model)


def test_time_enough_changes_nothing():
    plain = train(net(), Blobs(), epochs=3, batch_size=16)
    timed = train(net(), Blobs(), epochs=3, batch_size=16, max_seconds=1000.0, clock=Clock())
    assert plain.steps == timed.steps == 12
    assert timed.losses == plain.losses and same(timed.model, plain.model)
    assert train(net(), Blobs(), epochs=3, batch_size=16, max_seconds=1.0, clock=Clock()).steps == 1  # the least that trains
    with_looks = train(net(), Blobs(), epochs=6, batch_size=16, max_seconds=18.0, clock=Clock(), validate=positives)
    assert with_looks.steps == 10  # 95 % of 14 s, at a second and a quarter of a look


def test_bf16_computes_in_bf16_and_keeps_fp32_weights():
    seen = []

    def watched(model, tensors, targets):
        scores = model(tensors["x"])
        seen.append(scores.dtype)
        return torch.nn.functional.cross_entropy(scores.float(), targets)

    done = train(net(), Blobs(), epochs=3, batch_size=16, precision="bf16", objective=watched)
    assert set(seen) == {torch.bfloat16} and {p.dtype for p in done.model.parameters()} == {torch.float32}
    task_loss = train(net(), Blobs(), epochs=3, batch_size=16, precision="bf16")
    assert task_loss.losses == done.losses and done.losses[-1] < done.losses[0]


def test_what_is_refused():
    for settings, says in (
        ({"batch_size": 0}, "batch_size=0"),
        ({"optimizer": "adam"}, "optimizer='adam' is unknown; use one of sgd, adamw"),
        ({"precision": "fp16"}, "precision='fp16' is unknown"),
        ({"keep_best": True}, "needs validate="),
        ({"max_seconds": 0.0}, "max_seconds=0.0"),
        ({"device": "abacus"}, "device='abacus'"),
    ):
        with pytest.raises(InvalidInput, match=says):
            train(net(), Blobs(), **{"epochs": 1, **settings})
    with pytest.raises(InvalidModel, match="nothing to train"):
        train(net().requires_grad_(False), Blobs(), epochs=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(InvalidInput, match="sees no GPU"):
        train(net(), Blobs(), epochs=1, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu(tmp_path):
    settings = {"epochs": 4, "batch_size": 16, "learning_rate": 0.05, "optimizer": "adamw"}
    whole = train(net(), Blobs(), **settings)
    assert {p.device.type for p in whole.model.parameters()} == {"cpu"}
    with pytest.raises(KeyboardInterrupt):
        train(net(), Blobs(stop=2), **settings, checkpoint=tmp_path)
    with pytest.raises(InvalidInput, match="device=cuda then, cpu now"):
        train(net(), Blobs(), **settings, checkpoint=tmp_path, device="cpu")
    assert same(train(net(), Blobs(), **settings, checkpoint=tmp_path).model, whole.model)


@pytest.mark.parametrize(
    ("sets", "precision"), [(("avx512f", "amx_bf16"), "bf16"), (("avx512_bf16",), "bf16"), (("avx2",), "fp32"), (("asimd", "bf16"), "fp32")]
)
def test_training_is_in_bf16_where_the_cpu_multiplies_it(monkeypatch, sets, precision):
    monkeypatch.setattr("edgewise.devices.isa", lambda: sets)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert native_precision() == precision
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert native_precision() == "fp32"


def test_adjust_is_called_before_every_step_with_where_it_stands():
    seen, values = [], []

    def adjust(module, step, steps):
        seen.append((step, steps))
        values.append(float(module[0].weight.detach().abs().sum()))
        with torch.no_grad():
            module[0].weight.zero_()

    train(net(), Blobs(), epochs=2, batch_size=16, learning_rate=0.01, adjust=adjust)
    assert seen == [(step, 8) for step in range(8)]
    assert all(value < 0.1 * values[0] for value in values[1:])  # what one step makes of zeros
