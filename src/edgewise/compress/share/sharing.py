"""The pass `share`: the weights of a layer become few different values, as many as some bits can name, which are then trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Literal, cast

import numpy as np

from edgewise.compress.distill import Teacher, learning, told
from edgewise.compress.prune.targets import OPERATORS, Target, targets
from edgewise.compress.share.codebooks import Shared
from edgewise.compress.share.kmeans import kmeans
from edgewise.errors import InvalidInput
from edgewise.models.network import Network
from edgewise.tasks import TrainingTask
from edgewise.train import Progress, train
from edgewise.types import Compressed

# Peaks. A centroid's gradient is a sum over all weights that share it, thousands of times what one weight gets: the step that AdamW takes
# doesn't grow with it.
LEARNING_RATE = {"sgd": 5e-4, "adamw": 5e-4}
MOST_BITS = 8  # what the palette of `coding` can name


def share(
    model: Network,
    *,
    task: TrainingTask | None = None,
    bits: int | Mapping[str, int] = 4,
    epochs: int = 1,
    skip: Collection[str] = (),
    teacher: Teacher | None = None,
    weight: float = 0.5,
    temperature: float = 2.0,
    learning_rate: float | None = None,
    batch_size: int = 128,
    optimizer: Literal["sgd", "adamw"] = "adamw",
    precision: Literal["fp32", "bf16"] = "fp32",
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Compressed:
    """Give each weight of a convolution or matrix product one of at most 2^bits values, by k-means, then train these values.

    bits: 1 to 8; for kinds of layers or single weights a mapping: {"Conv": 8, "Gemm": 5}; what it doesn't name is left alone. A weight that
    holds zeros keeps them, and zero is one of its values. epochs: of training the values, and all other parameters, on labels and a
    teacher; 0 leaves them as k-means found them, and needs no task. weight, temperature, the other options: see `distill`. teacher: the
    network as it came unless given.

    The weights stay ordinary float32, which the package's coders recognise. Raises InvalidInput for arguments, and where nothing is shared;
    InvalidData where labels are needed and missing.
    """
    wanted, skipped = _wanted(model, bits, skip)
    if epochs < 0 or (epochs and task is None):
        raise InvalidInput(f"epochs={epochs}: training shared values needs a task; give one, or epochs=0 to leave them untrained")
    net = copy.deepcopy(model)
    books, made = {}, []
    for target, depth in wanted:
        values = model.weight(target.name).detach().cpu().numpy()
        books[target.name] = codebook(values, depth)
        many = len(books[target.name][0]) + bool((values == 0).any())
        made.append(f"{target.name}: {values.size:,} weights, {many} values ({depth} bits)")
    shared = Shared(net, books)
    notes: list[str] = []
    if epochs and task is not None:
        tell = progress or (lambda what, share: None)
        task, objective, said, weight = learning(task, teacher or model, weight=weight, temperature=temperature)
        plain = dict(bits) if isinstance(bits, Mapping) else bits

        def show(at: Progress) -> None:
            tell(at.said("training shared values"), at.done)

        done = train(
            shared,
            task,
            epochs=epochs,
            batch_size=batch_size,
            objective=objective,
            optimizer=optimizer,
            learning_rate=LEARNING_RATE.get(optimizer, 0.0) if learning_rate is None else learning_rate,
            precision=precision,
            seed=seed,
            checkpoint=checkpoint,
            identity={"bits": plain, "skip": sorted(skip), "weight": weight, "temperature": temperature},
            progress=show,
        )
        shared, notes = cast(Shared, done.model), [*said, *told(done, None)]
    notes.append("fewer bytes once they are coded; operations and latency are as before")
    return Compressed(shared.settled(), tuple(made), skipped, tuple(notes))


def codebook(values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(centroids ascending, float32; place of each value in them, -1 for a zero): with the zero, where there is one, at most 2^bits."""
    places = np.full(values.shape, -1, np.int64)
    some = values != 0
    if not some.any():
        return np.zeros(0, np.float32), places
    centroids, labels = kmeans(values[some], 2**bits - (not some.all()))
    places[some] = labels
    return centroids.astype(np.float32), places


def _wanted(model: Network, bits: int | Mapping[str, int], skip: Collection[str]) -> tuple[list[tuple[Target, int]], dict[str, str]]:
    found, skipped = targets(model, skip)
    if isinstance(bits, Mapping):
        known = {target.name for target in found}
        if unknown := [name for name in bits if name not in known and name not in OPERATORS]:
            listed = ", ".join((*OPERATORS, *sorted(known)[:6]))
            raise InvalidInput(f"bits names {unknown[0]!r}, no kind of layer and no weight; give some of {listed}")
    for name, depth in bits.items() if isinstance(bits, Mapping) else [("", bits)]:
        if not (isinstance(depth, int) and 1 <= depth <= MOST_BITS):
            raise InvalidInput(f"bits={depth!r}{f' of {name}' if name else ''}; give 1 to {MOST_BITS}")
    wanted = []
    for target in found:
        if not isinstance(bits, Mapping):
            wanted.append((target, bits))
        elif key := next((key for key in (target.name, target.operator) if key in bits), None):
            wanted.append((target, bits[key]))
        else:
            skipped[target.name] = "no bits are given for it"
    if not wanted:
        why = "; ".join(f"{name}: {reason}" for name, reason in [*skipped.items()][:3]) or "it has no weights"
        raise InvalidInput(f"no weight of this model can be shared ({why})")
    return wanted, skipped
