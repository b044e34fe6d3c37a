"""Samples without labels that a model is rounded by: pictures, as `fit --data` reads them, or arrays by the model's input names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewise.cli import derive, given
from edgewise.errors import InvalidData, InvalidInput

if TYPE_CHECKING:
    import numpy as np

    from edgewise.types import Inputs, Signature

MOST = 256  # samples that are rounded by, and as many that are held out
FEWEST = 16  # from so many samples on, a part is held out
HELD = 4  # one of so many
BATCH = 16

# Of the task: what needs labels, or is for training.
NO_OPTIONS = ("labels", "calibration", "shift", "flip", "erase", "seed")


@dataclass(frozen=True)
class Calibration:
    """Batches to round by, and batches that rounding never sees (none where there are too few). notes: what reading found to say."""

    seen: Sequence[Inputs]
    held: Sequence[Inputs]
    notes: tuple[str, ...] = ()


def options() -> list[derive.Option]:
    """How pictures become the model's input: the options of the task that reads them for `fit`."""
    return derive.options(given.task_function(given.USUAL_TASK), panel="Pictures of --calibration", leave_out=NO_OPTIONS)


def read(where: str, signature: Signature, pictures: Mapping[str, Any]) -> Calibration:
    """Arrays (.npz with one for each input, .npy for a single one; samples along the first axis), or whatever pictures `fit --data` takes.

    pictures: options of the task. Raises InvalidInput or InvalidData for what the model doesn't take.
    """
    leading = {spec.shape[0] if spec.shape else None for spec in signature.inputs}
    if leading & {None} or any(isinstance(size, int) and size != 1 for size in leading):
        told = ", ".join(f"{spec.name} {spec.shape}" for spec in signature.inputs)
        raise InvalidInput(
            f"--calibration {where}: the model takes {told}; samples are drawn one by one from a first axis that is open, or 1"
        )
    path, size = Path(where), 1 if 1 in leading else BATCH
    names = {spec.name for spec in signature.inputs}
    if path.suffix == ".npy" or (path.suffix == ".npz" and (_named(path) == names or not _picture(signature))):
        if pictures:
            flags = ", ".join(f"--{name}" for name in sorted(pictures))
            raise InvalidInput(f"--calibration {where} holds inputs as they are; leave out {flags}")
        return _parted(_arrays(path, signature), size, where)
    if not _picture(signature):
        told = ", ".join(sorted(names))
        raise InvalidInput(f"--calibration {where}: the model takes no picture; give an .npz with an array for each of {told}")
    given.import_from_here()
    task = given.task_function(given.USUAL_TASK)(where, calibration=MOST, **pictures).for_model(signature)
    held = [inputs for inputs, _ in given.First(task.split("validation"), MOST).batches(size)]
    notes = (*task.dataset.findings, *task.notes)
    return Calibration(task.calibration(batch_size=size), held if sum(map(_count, held)) >= FEWEST // HELD else [], notes)


def _picture(signature: Signature) -> bool:
    return len(signature.inputs) == 1 and len(signature.inputs[0].shape) == 4 and signature.inputs[0].dtype == "float32"


def _named(path: Path) -> set[str]:
    """The arrays in an .npz; none where it can't be read, which whoever reads it then says."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()


def _arrays(path: Path, signature: Signature) -> dict[str, np.ndarray]:
    import numpy as np

    from edgewise.cli.run import arrays_for

    if not path.is_file():
        raise InvalidData(f"--calibration {path}: there is no such file")
    many = replace(signature, inputs=tuple(replace(spec, shape=("samples", *spec.shape[1:])) for spec in signature.inputs))
    arrays = arrays_for(path, many)
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1 or not all(counts.values()):
        told = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise InvalidData(f"{path} holds {told}; expected as many of each, and at least one")
    if wrong := [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]:
        raise InvalidData(f"{path}: {', '.join(wrong)} holds NaN or infinity; leave those samples out")
    return arrays


def _parted(arrays: Mapping[str, np.ndarray], size: int, where: str) -> Calibration:
    """Every fourth sample held out, where there are enough."""
    import numpy as np

    count = _count(arrays)
    places = np.arange(count)
    out = places[HELD - 1 :: HELD] if count >= FEWEST else places[:0]
    seen, held = (
        [{name: array[chosen[i : i + size]] for name, array in arrays.items()} for i in range(0, len(chosen), size)]
        for chosen in (np.setdiff1d(places, out)[:MOST], out[:MOST])
    )
    used = sum(map(_count, seen)) + sum(map(_count, held))
    return Calibration(seen, held, (f"{where}: {used:,} of {count:,} samples are used",) if used < count else ())


def _count(batch: Inputs) -> int:
    return len(next(iter(batch.values())))
