"""The pass `penalize`: train a network until its coded weights take so many bytes, at the least loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from edgewise.compress.distill import Teacher, learning, told
from edgewise.compress.prune.readers import every
from edgewise.compress.rate.dead import without_dead_units
from edgewise.compress.rate.penalized import PERIOD, SLOPES, Penalized
from edgewise.compress.rate.sensitivity import without_norms
from edgewise.errors import InvalidInput
from edgewise.graph import Index
from edgewise.models.network import Network
from edgewise.steps import Objective, supervised
from edgewise.tasks import TrainingTask
from edgewise.train import Progress, Stopper, train
from edgewise.types import Compressed

RAMP = 0.5  # of all steps: until then the bytes that are aimed at fall, evenly in their logarithm, to those asked for
UPDATES_LEAST = 200  # of prices and slope, in a training of that many steps and more
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
    teacher alone. The learning rate ends at zero, where weights settle on their grids; longer trainings find better ones of a size.
    Batch norms are folded first, and train as the weights that they became.

    Raises InvalidInput for a size that no training reaches, or options that make no sense.
    """
    model = without_norms(model)
    readers = every(model, Index(model.structure))
    if not readers:
        raise InvalidInput("the model has no weight of a product or convolution to put on a grid; leave penalize out")
    least = 4 * len(list(model.parameters()))
    if size_bytes < least or epochs < 1:
        raise InvalidInput(f"size_bytes={size_bytes}, epochs={epochs}: {least} bytes are taken by the tensors' heads alone; give more")
    count = math.ceil(len(task.split("train")) / batch_size)
    task, learned, said, weight = learning(task, teacher, weight=weight, temperature=temperature)
    answer = learned or supervised(task)
    started = Penalized(model, readers)
    objective = _priced(answer, size_bytes, started.learn_prices() / 8, count, epochs * count)

    def tell(at: Progress) -> None:
        if progress:
            progress(at.said("training for size"), at.done)

    trained = train(
        started,
        task,
        epochs=epochs,
        batch_size=batch_size,
        objective=objective,
        optimizer="adamw",
        learning_rate=learning_rate,
        weight_decay=0.0,
        clip=math.inf,
        seed=seed,
        stopper=stopper,
        checkpoint=checkpoint,
        identity={"size_bytes": size_bytes, "weight": weight, "temperature": temperature},
        progress=tell,
    )
    penalized = trained.model
    if not isinstance(penalized, Penalized):
        raise TypeError("train returns a copy of what it is given")
    size = penalized.coded_bytes()
    samples, _ = next(iter(task.training_batches(batch_size=batch_size, epoch=0, seed=seed)))
    settled, gone = without_dead_units(penalized.settled(), samples)
    zero = {name: float((q == 0).float().mean()) for name, q in penalized.integers().items()}
    notes = (
        f"penalize: {size:,} bytes of coded weights, {size_bytes:,} asked for; zeros take no bytes and save no time, dead units do",
        *gone,
        *said,
        *told(trained, None),
    )
    return Compressed(settled, tuple(f"{name}: {share:.1%} zero" for name, share in zero.items()), {}, notes)


def _priced(answer: Objective, size_bytes: int, first_bytes: float, epoch: int, steps: int) -> Objective:
    """The loss of the answers, and the bits of the weights at a price that is steered towards the bytes that are due."""

    period = min(PERIOD, max(1, steps // UPDATES_LEAST))

    def objective(net: nn.Module, tensors: dict[str, Tensor], targets: Tensor | None) -> Tensor:
        if not isinstance(net, Penalized):
            raise TypeError("this objective is of a Penalized network")
        tick = int(net.ticks)
        if not net.prices or tick % period == 0 or tick % epoch == 0:
            bits = net.learn_prices()
            if tick % epoch == 0:
                net.correction.fill_(8 * net.coded_bytes() / max(bits, 1.0))
            due = due_bytes(tick, steps, first_bytes, size_bytes)
            push = max(-1.0, min(1.0, 3 * math.log(max(bits, 1.0) * float(net.correction) / 8 / due)))
            rate = min(0.5, UPDATES / (steps / period))
            net.slope.fill_(min(max(float(net.slope) * math.exp(rate * push), SLOPES[0]), SLOPES[1]))
        net.ticks += 1
        return answer(net, tensors, targets) + net.penalty() * net.slope.float()

    return objective


def due_bytes(tick: int, steps: int, first: float, last: float) -> float:
    """Bytes that are aimed at after `tick` of `steps`."""
    share = min(1.0, tick / max(1.0, RAMP * steps))
    return math.exp(math.log(max(first, last)) * (1 - share) + math.log(last) * share)
