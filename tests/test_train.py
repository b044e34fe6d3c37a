import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.train import schedule, train


@dataclass(frozen=True)
class Blobs:
    """Two Gaussian clouds, told apart by their sign. `stop`: the epoch in which the power goes."""

    n: int = 64
    stop: int | None = None
    scale: float = 1.0

    def split(self, name):
        return range(self.n)

    def training_batches(self, *, batch_size, epoch, seed):
        if epoch == self.stop:
            raise KeyboardInterrupt
        generator = np.random.default_rng((seed, epoch))
        for _ in range(0, self.n, batch_size):
            targets = generator.integers(0, 2, batch_size)
            x = generator.normal(size=(batch_size, 4)) + (2 * targets[:, None] - 1)
            yield {"x": (self.scale * x).astype(np.float32)}, targets

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
