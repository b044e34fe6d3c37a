"""The one training loop.

Seeded, checkpointed, resumable: run again with the same `checkpoint` folder after an interruption, it goes on at the epoch where it
stopped, with the same batches, learning rates and weights as if it had never been interrupted (on one device).
"""

from __future__ import annotations

import copy
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from edgewise.checkpoint import History, resume, save
from edgewise.errors import InvalidData, InvalidInput, InvalidModel
from edgewise.steps import CHOICES, Batch, Descent, Objective, Trainable, draws_apart, make_optimizer, place, supervised, training_rows

__all__ = ["Adjust", "Batch", "Objective", "Progress", "Stopper", "Trainable", "Trained", "schedule", "train"]

# The validation metrics of the epochs so far (their losses where nothing validates) -> why it is hopeless to go on, or None.
Stopper = Callable[[Sequence[float]], str | None]
Validate = Callable[[torch.nn.Module], float]
# (network, step, steps): may change its weights and buffers in place.
Adjust = Callable[[torch.nn.Module, int, int], None]
Clock = Callable[[], float]

# What has to be the same for a training to go on where it stopped.
SETTINGS = (
    "epochs", "batch_size", "optimizer", "learning_rate", "decay", "warmup", "momentum", "weight_decay", "clip", "average", "precision",
    "keep_best", "max_seconds", "part_of", "seed",
)  # fmt: skip
TIMED_STEPS = 5
# Of max_seconds, what is planned for: checkpoints take a little, and a machine isn't equally fast all the time.
PLANNED_SHARE = 0.95


@dataclass(frozen=True)
class Progress:
    """Where training stands after a step: handed to the `progress` callback."""

    epoch: int
    epochs: int
    done: float  # share of all the training, 0..1
    loss: float  # mean since the epoch began
    seconds_left: float

    def said(self, what: str) -> str:
        """For people; what: is being done."""
        left = f"{self.seconds_left / 60:.0f} min" if self.seconds_left > 90 else f"{self.seconds_left:.0f} s"
        return f"{what}, epoch {self.epoch + 1} of {self.epochs}, loss {self.loss:.3f}, {left} left"


@dataclass(frozen=True)
class Trained:
    """What `train` returns: the trained copy, on the CPU, and for each epoch the mean training loss and the validation metric."""

    model: torch.nn.Module
    losses: tuple[float, ...]
    seconds: float  # of this call
    steps: int  # that the schedule spans
    steps_asked: int  # that the epochs asked for have: more than `steps` where max_seconds allowed no more
    metrics: tuple[float, ...] = ()
    best: int | None = None  # epoch, from 0, whose weights these are; None: the last one's
    stopped: str | None = None  # what the stopper said


def schedule(step: int, steps: int, *, peak: float, warmup: float = 0.1, decay: str = "cosine") -> float:
    """Learning rate at `step` of `steps`: linear to `peak` over the first `warmup` share, then to 0.

    decay: "cosine", half of one (Loshchilov 2017), or "linear", as encoders are fine-tuned (Devlin et al. 2019, appendix A.2).
    """
    rise = max(1, round(warmup * steps))
    if step < rise:
        return peak * (step + 1) / rise
    gone = (step - rise) / max(1, steps - rise)
    return peak * (1 - gone if decay == "linear" else 0.5 * (1 + math.cos(math.pi * gone)))


def train(
    model: torch.nn.Module,
    task: Trainable,
    *,
    epochs: int,
    batch_size: int = 128,
    objective: Objective | None = None,
    optimizer: Literal["sgd", "adamw"] = "sgd",
    learning_rate: float = 0.1,
    decay: Literal["cosine", "linear"] = "cosine",
    warmup: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    clip: float = 5.0,
    average: float = 0.0,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str = "auto",
    adjust: Adjust | None = None,
    validate: Validate | None = None,
    keep_best: bool = False,
    stopper: Stopper | None = None,
    max_seconds: float | None = None,
    part_of: tuple[int, int] | None = None,
    seed: int = 0,
    checkpoint: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
    clock: Clock = time.perf_counter,
) -> Trained:
    """Train a copy of `model`; `model` itself is left as it was.

    objective: what is minimised; `task.loss` of the first output unless given. One that needs no targets trains on unlabelled data.
    optimizer: SGD with Nesterov momentum, or AdamW (`momentum` is its first beta). Decay is applied to weights of rank 2 and more only.
    decay, warmup: how the learning rate goes (see `schedule`).
    average: decay per step of an exponential moving average of the weights, which is then what is returned (0 switches it off).
    precision: "bf16" computes under autocast; weights stay fp32. device: of torch; "auto" is the GPU when there is one.
    adjust: called before every step, to prune on a schedule, say; what it goes by has to be the step or the network's state, or a training
    that is resumed differs. validate: called after every epoch with the network in eval mode; higher is better.
    keep_best: return the weights of its best epoch.
    stopper: called between epochs; a reason that it gives ends the training.
    max_seconds: a few steps are timed first; the schedule then spans as many as fit. That number is kept: a machine that slows down
    afterwards takes longer. part_of: (epochs before, epochs of the whole): these epochs are a part of a longer training, whose batches and
    learning rates they follow; the optimizer starts afresh. checkpoint: a folder written after every epoch and resumed from,
    with the same settings; identity: settings of the objective, compared then too.
    Raises InvalidData for an epoch without batches, InvalidModel when the loss stops being a number.
    """
    settings = {name: value for name, value in locals().items() if name in SETTINGS}
    _check(settings, validate)
    target = place(device)
    settings |= {"device": target.type, **(identity or {})}
    torch.manual_seed(seed)
    started = clock()
    net = copy.deepcopy(model).train().to(target)
    mean = copy.deepcopy(net) if average else None
    best = copy.deepcopy(net) if keep_best else None
    updates = make_optimizer(net, optimizer, learning_rate, momentum, weight_decay)
    descent = Descent(net, updates, objective or supervised(task), clip, precision, target)
    count = math.ceil(training_rows(task) / batch_size)
    if not count:
        raise InvalidData("the train split is empty: give data to train on")
    parts = {name: module for name, module in (("net", net), ("mean", mean), ("best", best)) if module is not None}
    history = resume(checkpoint, parts, updates, settings) if checkpoint else None
    if history is None:
        history = History(epochs * count)
        if max_seconds is not None:
            batches = itertools.islice(task.training_batches(batch_size=batch_size, epoch=0, seed=seed), TIMED_STEPS)
            affordable = _affordable(descent, batches, count, max_seconds - (clock() - started), validate, clock)
            history = replace(history, steps=min(history.steps, affordable))
            if checkpoint:  # the decision is part of what is gone on with
                save(checkpoint, parts, updates, settings, history)
    steps, resumed = history.steps, len(history.losses)
    last = math.ceil(steps / count)
    before, whole = part_of or (0, last)
    spanned = steps if part_of is None else whole * count
    for epoch in range(resumed, last):
        if history.stopped:
            break
        total, samples = 0.0, 0
        for index, (inputs, targets) in enumerate(task.training_batches(batch_size=batch_size, epoch=before + epoch, seed=seed)):
            step = epoch * count + index
            if step >= steps:
                break
            for group in updates.param_groups:
                group["lr"] = schedule(before * count + step, spanned, peak=learning_rate, warmup=warmup, decay=decay)
            if adjust:
                adjust(net, step, steps)
            loss = descent.step(inputs, targets)
            if mean is not None:
                _blend(mean, net, average, step)
            size = len(next(iter(inputs.values())))
            total, samples = total + loss * size, samples + size
            if progress:
                done, here = (step + 1) / steps, (step + 1 - resumed * count) / steps
                progress(Progress(epoch, last, done, total / samples, (clock() - started) / here * (1 - done)))
        if not samples:
            raise InvalidData(f"training_batches gave nothing for epoch {epoch}: every epoch needs a batch")
        history = replace(history, losses=(*history.losses, total / samples))
        if validate:
            current = net if mean is None else mean
            history = replace(history, metrics=(*history.metrics, _validated(current, validate, target)))
            if best is not None and history.metrics[-1] > max(history.metrics[:-1], default=-math.inf):
                best.load_state_dict(current.state_dict())
        if stopper and epoch + 1 < last:
            history = replace(history, stopped=stopper(history.metrics if validate else history.losses))
        if checkpoint:
            save(checkpoint, parts, updates, settings, history)
    final = next(parts[name] for name in ("best", "mean", "net") if name in parts)
    first_best = history.metrics.index(max(history.metrics)) if keep_best else None
    return Trained(
        final.eval().to("cpu"), history.losses, clock() - started, steps, epochs * count, history.metrics, first_best, history.stopped
    )


def _check(settings: Mapping[str, Any], validate: Validate | None) -> None:
    if settings["epochs"] < 1:
        raise InvalidInput(f"epochs={settings['epochs']}: training needs at least 1")
    if settings["batch_size"] < 1:
        raise InvalidInput(f"batch_size={settings['batch_size']}: give 1 or more")
    if not 0 <= settings["warmup"] <= 1:
        raise InvalidInput(f"warmup={settings['warmup']}: give the share of the steps in which the learning rate rises, 0 to 1")
    for name, allowed in CHOICES.items():
        if settings[name] not in allowed:
            raise InvalidInput(f"{name}={settings[name]!r} is unknown; use one of {', '.join(allowed)}")
    if (part := settings["part_of"]) and (part[0] < 0 or part[0] + settings["epochs"] > part[1] or settings["max_seconds"] is not None):
        raise InvalidInput(
            f"part_of={part} with epochs={settings['epochs']} and max_seconds={settings['max_seconds']}: give (epochs before, epochs of "
            "the whole) that hold these epochs, and no max_seconds"
        )
    if settings["keep_best"] and validate is None:
        raise InvalidInput("keep_best=True needs validate=, a function of the network whose result is better when higher")
    if settings["max_seconds"] is not None and not settings["max_seconds"] > 0:
        raise InvalidInput(f"max_seconds={settings['max_seconds']}: give a positive number, or leave it out")


def _validated(net: torch.nn.Module, validate: Validate, device: torch.device) -> float:
    net.eval()
    with torch.no_grad(), draws_apart(device):
        value = float(validate(net))
    net.train()
    if math.isnan(value):
        raise InvalidModel("validate gave NaN; it has to give a number that is better when higher")
    return value


def _affordable(descent: Descent, batches: Iterable[Batch], count: int, seconds: float, validate: Validate | None, clock: Clock) -> int:
    """How many steps fit into `seconds`: some are timed at a learning rate of 0, and what they changed all the same is put back.

    The first one isn't counted where there are others: in it memory is laid out and kernels are chosen. count: steps of an epoch, after
    which comes a validation.
    """
    before = {name: value.clone() for name, value in descent.net.state_dict().items()}
    for group in descent.optimizer.param_groups:
        group["lr"] = 0.0
    times: list[float] = []
    looking = 0.0
    with draws_apart(descent.device):
        at = clock()
        for inputs, targets in batches:
            descent.step(inputs, targets)
            times.append(clock() - at)
            at += times[-1]
            if len(times) > 1 and sum(times) > seconds / 10:
                break
        if validate:
            _validated(descent.net, validate, descent.device)
            looking = clock() - at
    descent.net.load_state_dict(before)
    descent.optimizer.state.clear()
    if not times:
        raise InvalidData("training_batches gave nothing for epoch 0: every epoch needs a batch")
    each = statistics.median(times[1:] or times) + looking / count
    return max(1, int(PLANNED_SHARE * (seconds - sum(times) - looking) / max(each, 1e-9)))


@torch.no_grad()
def _blend(mean: torch.nn.Module, net: torch.nn.Module, decay: float, step: int) -> None:
    """Move the average towards the weights; a shorter memory in the first steps, so that the start is forgotten."""
    keep = min(decay, (1 + step) / (10 + step))
    for kept, new in zip(mean.state_dict().values(), net.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - keep)
        else:
            kept.copy_(new)
