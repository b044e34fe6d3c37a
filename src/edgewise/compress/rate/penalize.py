"""The pass `penalize`: train a network until its coded weights take so many bytes, at the least loss."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from edgewise import measure
from edgewise.compress.distill import Teacher, learning, told
from edgewise.compress.prune.readers import every
from edgewise.compress.rate.dead import alive
from edgewise.compress.rate.penalized import PERIOD, SLOPES, Penalized
from edgewise.compress.rate.sensitivity import without_norms
from edgewise.errors import InvalidInput
from edgewise.graph import Index
from edgewise.models.network import Network
from edgewise.steps import Batch, Objective, Trainable, supervised, training_rows
from edgewise.tasks import TrainingTask
from edgewise.train import Progress, Stopper, Trained, Validate, train
from edgewise.types import Compressed, Inputs, Outputs, Signature, Split

RAMP = 0.5  # of all steps: until then the bytes that are aimed at fall, evenly in their logarithm, to those asked for
UPDATES_LEAST = 200  # of prices and slope, in a training of that many steps and more
PIECES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)  # of all epochs: after them dead units go, and what is left trains faster
REPEAT = 8  # epochs whose batches come again and again
UPDATES = 60.0  # the slope may grow by e^this, over all of a training: it has to find its size from nothing


def penalize(
    model: Network,
    *,
    task: TrainingTask,
    size_bytes: int,
    teacher: Teacher | None = None,
    epochs: int = 30,
    weight: float = 0.7,
    temperature: float = 2.0,
    learning_rate: float = 2e-3,
    batch_size: int = 128,
    seed: int = 0,
    checkpoint: Path | None = None,
    stopper: Stopper | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Compressed:
    """Train a copy of `model` whose weights lie on learned grids, their price in the adaptive coder in the loss, and take out dead units.

    size_bytes: of all coded weights together, steps included; the price of a bit is steered so that training ends near it (it is no bound:
    the note says what was reached). teacher, weight, temperature: as in `distill`; without a teacher, labels alone, without labels, the
    teacher alone. Units that die go along the way, so that most of a training is of a small network; batches come again every few epochs,
    and a teacher's answers to them are kept. The learning rate ends at zero, where weights settle on their grids; longer trainings find
    better ones of a size. Of the last epochs, that one is taken which does best on the validation split among those that are no larger than
    asked. Batch norms are folded first, and train as the weights that they became.

    Raises InvalidInput for a size that no training reaches, or options that make no sense.
    """
    model = without_norms(model)
    readers = every(model, Index(model.structure))
    if not readers:
        raise InvalidInput("the model has no weight of a product or convolution to put on a grid; leave penalize out")
    least = 4 * len(list(model.parameters()))
    if size_bytes < least or epochs < 1:
        raise InvalidInput(f"size_bytes={size_bytes}, epochs={epochs}: {least} bytes are taken by the tensors' heads alone; give more")
    count = math.ceil(training_rows(task) / batch_size)
    task, learned, said, weight = learning(task, teacher, weight=weight, temperature=temperature, remember=True)
    answer = learned or supervised(task)
    net = Penalized(model, readers)
    course = _Course(net.learn_prices() / 8, size_bytes, count, epochs * count)
    samples, _ = next(iter(task.training_batches(batch_size=batch_size, epoch=0, seed=seed)))
    repeated, judged = Repeated(task, REPEAT), _judged(task, size_bytes)
    done: list[Trained] = []
    gone: list[str] = []
    for first, last in itertools.pairwise(pieces(epochs)):
        losses = [loss for one in done for loss in one.losses]

        def tell(at: Progress, first: int = first, last: int = last) -> None:
            if progress:
                share = (first + at.done * (last - first)) / epochs
                left = at.seconds_left * (1 - share) / max((1 - at.done) * (last - first) / epochs, 1e-9)
                progress(replace(at, epoch=first + at.epoch, epochs=epochs, seconds_left=left).said("training for size"), share)

        def ends(seen: Sequence[float], before: Sequence[float] = losses) -> str | None:
            return stopper([*before, *seen]) if stopper else None

        done.append(
            train(
                net,
                repeated,
                epochs=last - first,
                part_of=(first, epochs),
                batch_size=batch_size,
                objective=_priced(answer, course),
                optimizer="adamw",
                learning_rate=learning_rate,
                weight_decay=0.0,
                clip=math.inf,
                validate=judged if last == epochs else None,
                keep_best=judged is not None and last == epochs,
                seed=seed,
                stopper=ends,
                checkpoint=checkpoint / f"from-{first}" if checkpoint else None,
                identity={"size_bytes": size_bytes, "weight": weight, "temperature": temperature},
                progress=tell,
            )
        )
        trained = done[-1].model
        if not isinstance(trained, Penalized):
            raise TypeError("train returns a copy of what it is given")
        found = alive(trained.settled(), samples)
        net = trained.narrowed(found.keeps)
        gone += found.notes
        stopped = done[-1].stopped or (ends(done[-1].losses) if last < epochs else None)
        if stopped:
            break
    zero = {name: float((q == 0).float().mean()) for name, q in net.integers().items()}
    whole = replace(done[-1], losses=tuple(loss for one in done for loss in one.losses), seconds=sum(one.seconds for one in done))
    notes = (
        f"penalize: {net.coded_bytes():,} bytes of coded weights, {size_bytes:,} asked for; zeros take no bytes and save no time, "
        "dead units do",
        *gone,
        *said,
        *told(replace(whole, steps=whole.steps_asked, stopped=stopped), None),
    )
    return Compressed(net.settled(), tuple(f"{name}: {share:.1%} zero" for name, share in zero.items()), {}, notes)


def pieces(epochs: int) -> tuple[int, ...]:
    """Epochs after which dead units go, 0 and the last one included."""
    return tuple(sorted({0, *(math.ceil(share * epochs) for share in PIECES), epochs}))


@dataclass(frozen=True)
class Repeated:
    """A task whose batches are those of its first `epochs` epochs, again and again: their answers by a teacher can be kept."""

    task: Trainable
    epochs: int

    @property
    def training_rows(self) -> int:
        return training_rows(self.task)

    def split(self, name: Literal["train"]) -> Split:
        return self.task.split(name)

    def training_batches(self, *, batch_size: int, epoch: int, seed: int) -> Iterator[Batch]:
        return self.task.training_batches(batch_size=batch_size, epoch=epoch % self.epochs, seed=seed)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(outputs, targets)


@dataclass(frozen=True)
class _Answering:
    """A network as a `Runner`."""

    network: Network

    @property
    def signature(self) -> Signature:
        return self.network.structure.signature

    def run(self, inputs: Inputs) -> Outputs:
        found = self.network.run({name: torch.from_numpy(array) for name, array in inputs.items()})
        return {name: tensor.detach().numpy() for name, tensor in found.items()}

    def close(self) -> None:
        """Nothing to let go of."""


def _judged(task: TrainingTask, size_bytes: int) -> Validate | None:
    """What an epoch's network does on the validation split; less than any of a network that is larger than asked. None without labels."""
    split = task.split("validation")
    if split.targets is None:
        return None

    def judged(net: nn.Module) -> float:
        if not isinstance(net, Penalized):
            raise TypeError("this is a judgement of a Penalized network")
        found = measure.quality(_Answering(net.settled().to("cpu").eval()), split, metric=task.metric, labels=task.labels)
        over = max(0.0, net.coded_bytes() / size_bytes - 1)
        return found.value.value - (1 + over if over else 0.0)

    return judged


@dataclass(frozen=True)
class _Course:
    """first_bytes, last_bytes: what is aimed at to begin with, and in the end. epoch, steps: steps of an epoch, and of all."""

    first_bytes: float
    last_bytes: float
    epoch: int
    steps: int


def _priced(answer: Objective, course: _Course) -> Objective:
    """The loss of the answers, and the bits of the weights at a price that is steered towards the bytes that are due."""

    period = min(PERIOD, max(1, course.steps // UPDATES_LEAST))

    def objective(net: nn.Module, tensors: dict[str, Tensor], targets: Tensor | None) -> Tensor:
        if not isinstance(net, Penalized):
            raise TypeError("this objective is of a Penalized network")
        tick = int(net.ticks)
        if not net.prices or tick % period == 0 or tick % course.epoch == 0:
            bits = net.learn_prices()
            if tick % course.epoch == 0:
                net.correction.fill_(8 * net.coded_bytes() / max(bits, 1.0))
            due = due_bytes(tick, course.steps, course.first_bytes, course.last_bytes)
            push = max(-1.0, min(1.0, 3 * math.log(max(bits, 1.0) * float(net.correction) / 8 / due)))
            rate = min(0.5, UPDATES / (course.steps / period))
            net.slope.fill_(min(max(float(net.slope) * math.exp(rate * push), SLOPES[0]), SLOPES[1]))
        net.ticks += 1
        return answer(net, tensors, targets) + net.penalty() * net.slope.float()

    return objective


def due_bytes(tick: int, steps: int, first: float, last: float) -> float:
    """Bytes that are aimed at after `tick` of `steps`."""
    share = min(1.0, tick / max(1.0, RAMP * steps))
    return math.exp(math.log(max(first, last)) * (1 - share) + math.log(last) * share)
