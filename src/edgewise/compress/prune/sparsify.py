"""The pass `sparsify`: prune single weights while the network trains, little by little, so that what stays can take over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from edgewise.compress.distill import LEARNING_RATE, Teacher, learning, told
from edgewise.compress.prune.calibration import Data
from edgewise.compress.prune.patterns import Pattern, masks, parse
from edgewise.compress.prune.scores import SCORES, USUAL_SCOPE, WITHOUT_DATA
from edgewise.compress.prune.targets import Target
from edgewise.compress.prune.weights import accounted, blank, choose, prune_weights
from edgewise.errors import InvalidInput
from edgewise.graph import mark_sparse
from edgewise.models.network import Network
from edgewise.tasks import TrainingTask
from edgewise.train import Progress, train
from edgewise.types import Compressed, Inputs

# Steps between two changes of the masks: Zhu and Gupta recommend 100 to 1,000 of long trainings; an epoch of 60,000 samples has 469.
EVERY = 50


def sparsify(
    model: Network,
    *,
    task: TrainingTask,
    ratio: float = 0.9,
    epochs: int = 10,
    schedule: Literal["cubic", "rounds"] = "cubic",
    until: float = 0.6,
    rounds: int = 4,
    importance: str = "magnitude",
    scope: Literal["auto", "global", "layer", "row"] = "auto",
    pattern: str = "none",
    skip: Collection[str] = (),
    teacher: Teacher | None = None,
    weight: float = 0.5,
    temperature: float = 2.0,
    calibration: Sequence[Inputs] = (),
    learning_rate: float | None = None,
    batch_size: int = 128,
    optimizer: Literal["sgd", "adamw"] = "sgd",
    precision: Literal["fp32", "bf16"] = "fp32",
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Compressed:
    """Train a copy of `model` while the share `ratio` of the weights of its products goes to zero, for size and never for time.

    schedule: "cubic" prunes every 50 steps, much at first and little at last, until the share `until` of the steps is over (Zhu and Gupta
    2017, 1710.01878, equation 1); "rounds" prunes `rounds` times, each time the same share of what is left, and trains in between (Han et
    al. 2015; Frankle and Carbin 2019), epochs shared out among them. importance, scope, pattern, skip: as for `prune(of="weights")`; with
    "cubic" the criteria that look at weights alone: magnitude, lamp, random. N:M patterns have no schedule: prune(of="weights",
    pattern="2:4") > distill().
    weight, temperature, the other options: see `distill`. teacher: the network as it came unless given.

    Raises InvalidInput for arguments, and where nothing can be pruned; InvalidData where labels are needed and missing.
    """
    shape = parse(pattern)
    _check(ratio, epochs, schedule, until, rounds, importance, shape, calibration)
    chosen, skipped = choose(model, ratio, shape, skip)
    task, objective, notes, weight = learning(task, teacher or model, weight=weight, temperature=temperature)
    over = scope if scope != "auto" else USUAL_SCOPE.get(importance, "global")
    tell = progress or (lambda what, share: None)
    asked: dict[str, Any] = {
        "ratio": ratio,
        "schedule": schedule,
        "until": until,
        "rounds": rounds,
        "importance": importance,
        "scope": over,
    }
    asked |= {"pattern": pattern, "skip": sorted(skip), "weight": weight, "temperature": temperature}

    def trained(
        net: Network, label: str, epochs: int, folder: Path | None, span: tuple[float, float], adjust: Gradual | None = None
    ) -> Network:
        low, high = span

        def show(at: Progress) -> None:
            tell(at.said(label), low + (high - low) * at.done)

        done = train(
            net,
            task,
            epochs=epochs,
            batch_size=batch_size,
            objective=objective,
            optimizer=optimizer,
            learning_rate=LEARNING_RATE.get(optimizer, 0.0) if learning_rate is None else learning_rate,
            precision=precision,
            adjust=adjust,
            seed=seed,
            checkpoint=folder,
            identity=asked,
            progress=show,
        )
        notes.extend(told(done, None))
        return cast(Network, done.model)

    if schedule == "cubic":
        whole = Network(mark_sparse(model.to_graph(), [target.name for target in chosen]))
        gradual = Gradual(chosen, ratio, until, importance, over, shape)
        last = trained(whole, "pruning gradually", epochs, checkpoint, (0.0, 1.0), gradual)
        settle(last)
        return accounted(Network(last.to_graph()), chosen, skipped, notes)
    last = model
    for number in range(1, rounds + 1):
        share = 1 - (1 - ratio) ** (number / rounds)
        last = prune_weights(
            last,
            ratio=share,
            calibration=calibration,
            importance=importance,
            scope=scope,
            pattern=pattern,
            repair=False,
            skip=skip,
            seed=seed,
        ).model
        span = ((number - 1) / rounds, number / rounds)
        each = epochs // rounds + (1 if number > rounds - epochs % rounds else 0)
        folder = checkpoint / f"round-{number}" if checkpoint else None
        last = trained(last, f"round {number} of {rounds}, {share:.1%} pruned", each, folder, span)
    return accounted(last, chosen, skipped, notes)


class Gradual:
    """Masks that follow the step: what `train` calls before each of them."""

    def __init__(
        self, chosen: Sequence[Target], ratio: float, until: float, importance: str, scope: str, pattern: Pattern, every: int = EVERY
    ) -> None:
        self.chosen, self.ratio, self.until, self.every = chosen, ratio, until, every
        self.importance, self.scope, self.pattern = importance, scope, pattern

    def __call__(self, net: nn.Module, step: int, steps: int) -> None:
        last = max(1, int(self.until * steps))
        if isinstance(net, Network):
            if step <= last and (step % self.every == 0 or step == last):
                self.prune(net, cubic(step / last) * self.ratio)
            settle(net)

    def prune(self, net: Network, ratio: float) -> None:
        """Narrow the masks to the share that stays."""
        # What is zero scores least and goes first, so that masks only shrink.
        settle(net)
        kept = masks(SCORES[self.importance](net, self.chosen, _NOTHING), self.chosen, ratio, self.pattern, self.scope)
        held = net.masks()
        for target in self.chosen:
            mask = held[target.name]
            mask.logical_and_(target.unmatrix(kept[target.name]).to(mask.device))


def settle(net: Network) -> None:
    """Zero what is masked, in place: the momentum of an element that has just gone would carry it on."""
    with torch.no_grad():
        for name, mask in net.masks().items():
            blank(net.weight(name), mask)


def cubic(done: float) -> float:
    """The share of the final sparsity when the share `done` of the pruning steps is over: 1 - (1 - t)³ (1710.01878, equation 1)."""
    return float(1 - (1 - min(max(done, 0.0), 1.0)) ** 3)


# For criteria that look at weights alone.
_NOTHING = Data(batches=({},))


def _check(
    ratio: float, epochs: int, schedule: str, until: float, rounds: int, importance: str, pattern: Pattern, calibration: Sequence[Inputs]
) -> None:
    if not 0 < ratio < 1:
        raise InvalidInput(f"ratio={ratio!r}; give the share of the weights that goes, above 0 and below 1")
    if schedule not in ("cubic", "rounds"):
        raise InvalidInput(f"schedule={schedule!r}; give 'cubic' or 'rounds'")
    if importance not in SCORES:
        raise InvalidInput(f"importance={importance!r}; give one of {', '.join(SCORES)}")
    if pattern.keep:
        raise InvalidInput(f"pattern {pattern} has no share that could grow; give prune(of='weights', pattern='{pattern}') > distill()")
    if schedule == "cubic" and importance not in WITHOUT_DATA:
        raise InvalidInput(f"importance={importance!r} looks at data, too slow for every few steps; give one of {', '.join(WITHOUT_DATA)}")
    if schedule == "rounds" and importance not in WITHOUT_DATA and not calibration:
        raise InvalidInput(f"importance={importance!r} needs calibration samples; or give one of {', '.join(WITHOUT_DATA)}")
    if not 0 < until <= 1:
        raise InvalidInput(f"until={until!r}; give the share of the steps after which all is pruned, above 0 to 1")
    if schedule == "rounds" and not 1 <= rounds <= epochs:
        raise InvalidInput(f"rounds={rounds} of epochs={epochs}: each round needs an epoch; give 1 to {epochs}")
