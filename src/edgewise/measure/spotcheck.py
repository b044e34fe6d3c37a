"""Whether a device elsewhere gives the answers of home: processors round otherwise, and some saturate where others don't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewise import backends
from edgewise.errors import MeasurementFailed
from edgewise.measure import elsewhere
from edgewise.measure.fidelity import divergence
from edgewise.measure.subject import Subject
from edgewise.records import Device
from edgewise.types import Inputs, Split

MOST_SAMPLES = 256
MOST_BYTES = 8 << 20  # of inputs: links to devices are thin
ALIKE = 0.01  # relative L2, up to which outputs differ by rounding alone


@dataclass(frozen=True)
class Spot:
    """The same samples answered here and there. same: with the same largest output; None where they aren't scores of classes."""

    samples: int
    same: int | None
    relative_l2: float

    def told(self, device: str) -> str:
        """For the notes of a study."""
        rows = "" if self.same is None else f"the same class on {self.same} of {self.samples} test samples, "
        found = (
            f"answers of the chosen model on {device} and here: {rows}outputs {self.relative_l2:.2g} apart (relative L2, {self.samples})"
        )
        if self.relative_l2 <= ALIKE:
            return found
        return f"{found}. {device} computes otherwise than this machine: what is said of accuracy, which is taken here, may not hold there"


def spot_check(subject: Subject, split: Split, device: Device, labels: Sequence[str] = ()) -> Spot | None:
    """Samples from all over `split`, one call each, by `subject` here and on `device`. labels: of a classifier, its classes.

    None for this machine, and for one that is away (a recorded profile). Raises MeasurementFailed where the device can't.
    """
    there = elsewhere.of(device)
    if there is None or there.absent:
        return None
    runner = backends.load(subject.model, subject.execution)
    try:
        fixed = [spec.shape[0] for spec in runner.signature.inputs if spec.shape and isinstance(spec.shape[0], int)]
        batches = _some(split, fixed[0] if fixed else 1)
        here = [next(iter(runner.run(batch).values())) for batch in batches]
    finally:
        runner.close()
    found = there.answers(subject.model, subject.execution, batches)
    if [one.shape for one in here] != [one.shape for one in found]:
        raise MeasurementFailed(f"{device.name} gave answers of other shapes than this machine")
    same = None
    if len(labels) > 1 and all(one.ndim == 2 and one.shape[1] == len(labels) for one in here):
        same = sum(int((one.argmax(axis=1) == other.argmax(axis=1)).sum()) for one, other in zip(here, found, strict=True))
    ours, theirs = (np.concatenate([np.asarray(one, np.float64).ravel() for one in side]) for side in (here, found))
    return Spot(sum(map(len, here)), same, divergence(ours, theirs))


def _some(split: Split, size: int) -> list[Inputs]:
    """Batches evenly spaced over the split: one of texts is sorted by length. All of `size` samples."""
    found: list[Inputs] = []
    held, step = 0, max(1, -(-len(split) // MOST_SAMPLES))
    for number, (inputs, _) in enumerate(split.batches(size)):
        if number * size % step >= size or len(next(iter(inputs.values()))) < size:
            continue
        held += sum(array.nbytes for array in inputs.values())
        if found and (len(found) * size >= MOST_SAMPLES or held > MOST_BYTES):
            break
        found.append(inputs)
    return found
