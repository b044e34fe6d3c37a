"""Whether a device elsewhere gives the answers of home: processors round otherwise, and some saturate where others don't."""

from __future__ import annotations

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
    """The same samples answered here and there. same: with the same largest output; None where outputs aren't one row a sample."""

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


def spot_check(subject: Subject, split: Split, device: Device) -> Spot | None:
    """The first samples of `split`, of the shape of the first, one by one, by `subject` here and on `device`.

    None for this machine, and for one that is away (a recorded profile). Raises MeasurementFailed where the device can't.
    """
    there = elsewhere.of(device)
    if there is None or there.absent:
        return None
    batches = _some(split)
    runner = backends.load(subject.model, subject.execution)
    try:
        here = [next(iter(runner.run(batch).values())) for batch in batches]
    finally:
        runner.close()
    found = there.answers(subject.model, subject.execution, batches)
    if [one.shape for one in here] != [one.shape for one in found]:
        raise MeasurementFailed(f"{device.name} gave answers of other shapes than this machine")
    ours, theirs = (np.stack([np.asarray(one, np.float64).ravel() for one in side]) for side in (here, found))
    classes = all(one.ndim == 2 and one.shape[0] == 1 and one.shape[1] > 1 for one in here)
    same = int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()) if classes else None
    return Spot(len(here), same, divergence(ours, theirs))


def _some(split: Split) -> list[Inputs]:
    found: list[Inputs] = []
    size = 0
    for inputs, _ in split.batches(1):
        shapes = {name: array.shape for name, array in inputs.items()}
        if found and shapes != {name: array.shape for name, array in found[0].items()}:
            continue
        size += sum(array.nbytes for array in inputs.values())
        if found and (len(found) >= MOST_SAMPLES or size > MOST_BYTES):
            break
        found.append(inputs)
    return found
