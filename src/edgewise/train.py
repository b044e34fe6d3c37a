"""The one training loop.

Seeded, checkpointed, resumable: run again with the same `checkpoint` folder after an interruption, it goes on at the epoch where it
stopped, with the same batches, learning rates and weights as if it had never been interrupted (on one device).
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.types import Inputs, Split

Batch = tuple[Inputs, np.ndarray]
CHECKPOINT = "training.safetensors"


class Trainable(Protocol):
    """What training needs of a task."""

    def split(self, name: str) -> Split: ...

    def training_batches(self, *, batch_size: int, epoch: int, seed: int) -> Iterator[Batch]:
        """One epoch: (inputs, targets), each array with a leading batch axis; the same for the same epoch and seed."""
        ...

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """A scalar to minimise."""
        ...


@dataclass(frozen=True)
class Progress:
    """Where training stands after a step: handed to the `progress` callback."""

    epoch: int
    epochs: int
    done: float  # share of all the training, 0..1
    loss: float  # mean since the epoch began
    seconds_left: float


@dataclass(frozen=True)
class Trained:
    """What `train` returns: the trained copy and the mean training loss of each epoch."""

    model: torch.nn.Module
    losses: tuple[float, ...]
    seconds: float


def schedule(step: int, steps: int, *, peak: float, warmup: float = 0.1) -> float:
    """Learning rate at `step` of `steps`: linear to `peak` over the first `warmup` share, then half a cosine to 0 (Loshchilov 2017)."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def train(
    model: torch.nn.Module,
    task: Trainable,
    *,
    epochs: int,
    batch_size: int = 128,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    clip: float = 5.0,
    average: float = 0.0,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train a copy of `model` by SGD with Nesterov momentum and a cosine schedule; `model` itself is left as it was.

    Decay is applied to weights of rank 2 and more only. average: decay per step of an exponential moving average of the weights, which is
    then what is returned (0 switches it off). checkpoint: a folder written after every epoch and resumed from, with the same settings.
    Raises InvalidData for an epoch without batches, InvalidModel when the loss stops being a number.
    """
    if epochs < 1:
        raise InvalidInput(f"epochs={epochs}: training needs at least 1")
    settings = {
        name: value
        for name, value in locals().items()
        if name in ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "clip", "average", "seed")
    }
    torch.manual_seed(seed)
    started = time.perf_counter()
    net = copy.deepcopy(model).train()
    mean = copy.deepcopy(net) if average else None
    matrices = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)
    losses: list[float] = _resume(checkpoint, net, mean, optimizer, settings) if checkpoint else []
    resumed = len(losses)
    count = math.ceil(len(task.split("train")) / batch_size)
    if not count:
        raise InvalidData("the train split is empty: give data to train on")
    for epoch in range(resumed, epochs):
        total, samples = 0.0, 0
        for index, (inputs, targets) in enumerate(task.training_batches(batch_size=batch_size, epoch=epoch, seed=seed)):
            step = epoch * count + index
            for group in optimizer.param_groups:
                group["lr"] = schedule(step, epochs * count, peak=learning_rate)
            loss = _step(net, task, optimizer, inputs, targets, clip)
            if mean is not None:
                _blend(mean, net, average, step)
            total, samples = total + loss * len(targets), samples + len(targets)
            if progress:
                done = (step + 1) / (epochs * count)
                here = (step + 1 - resumed * count) / (epochs * count)
                left = (time.perf_counter() - started) / here * (1 - done)
                progress(Progress(epoch, epochs, done, total / samples, left))
        losses.append(total / samples)
        if checkpoint:
            _save(checkpoint, net, mean, optimizer, settings, losses)
    return Trained((net if mean is None else mean).eval(), tuple(losses), time.perf_counter() - started)


def _step(
    net: torch.nn.Module, task: Trainable, optimizer: torch.optim.Optimizer, inputs: Inputs, targets: np.ndarray, clip: float
) -> float:
    tensors = [torch.from_numpy(array) for array in inputs.values()]
    optimizer.zero_grad(set_to_none=True)
    loss = task.loss(net(*tensors), torch.from_numpy(targets))
    value = float(loss.detach())
    if not math.isfinite(value):
        raise InvalidModel(f"the training loss became {value}: lower learning_rate, or check the inputs for NaN")
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), clip)
    optimizer.step()
    return value


@torch.no_grad()
def _blend(mean: torch.nn.Module, net: torch.nn.Module, decay: float, step: int) -> None:
    """Move the average towards the weights; a shorter memory in the first steps, so that the start is forgotten."""
    keep = min(decay, (1 + step) / (10 + step))
    for kept, new in zip(mean.state_dict().values(), net.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - keep)
        else:
            kept.copy_(new)


def _save(
    folder: Path,
    net: torch.nn.Module,
    mean: torch.nn.Module | None,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, float],
    losses: list[float],
) -> None:
    """Weights, average and momentum as safetensors, the rest as that file's metadata: one file, replaced whole."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"net.{name}": value for name, value in net.state_dict().items()}
    if mean is not None:
        tensors |= {f"mean.{name}": value for name, value in mean.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors[f"momentum.{index}"] = state["momentum_buffer"]
    temporary = folder / "checkpoint.tmp"
    metadata = {"settings": json.dumps(settings), "losses": json.dumps(losses)}
    generator = {"generator": torch.get_rng_state()}
    save_file({name: value.contiguous() for name, value in (tensors | generator).items()}, temporary, metadata=metadata)
    temporary.replace(folder / CHECKPOINT)


def _resume(
    folder: Path, net: torch.nn.Module, mean: torch.nn.Module | None, optimizer: torch.optim.Optimizer, settings: dict[str, float]
) -> list[float]:
    """Load what `_save` wrote into net, mean and optimizer; returns the losses so far ([] when there is no checkpoint)."""
    path = folder / CHECKPOINT
    if not path.exists():
        return []
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    before = json.loads(metadata["settings"])
    if before != settings:
        changed = ", ".join(f"{name}={before.get(name)} then, {value} now" for name, value in settings.items() if before.get(name) != value)
        raise InvalidInput(f"{path} is of another training ({changed}): use the same settings, or another checkpoint folder")
    _restore(net, tensors, "net.")
    if mean is not None:
        _restore(mean, tensors, "mean.")
    state = optimizer.state_dict()
    state["state"] = {
        int(name.split(".")[1]): {"momentum_buffer": value} for name, value in tensors.items() if name.startswith("momentum.")
    }
    optimizer.load_state_dict(state)
    torch.set_rng_state(tensors["generator"])
    return list(json.loads(metadata["losses"]))


def _restore(module: torch.nn.Module, tensors: dict[str, torch.Tensor], prefix: str) -> None:
    try:
        module.load_state_dict({name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)})
    except RuntimeError as error:
        raise InvalidInput(
            f"the checkpoint is of another model: {str(error).splitlines()[-1].strip()}; use another checkpoint folder"
        ) from error
