"""What a command line names: models in files, tasks with their options, and inputs for a model."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgewise import registry
from edgewise.cli import derive
from edgewise.data import drawn
from edgewise.errors import InvalidInput, InvalidModel
from edgewise.types import Execution, Inputs, Signature, Split

if TYPE_CHECKING:
    from edgewise.graph import Graph
    from edgewise.package import Package
    from edgewise.records import Device

USUAL_TASK = "image-classification"
TOKENIZER = "tokenizer.json"
DATA = "Pictures: a folder per class, IDX files, an .npz. Texts: a file of rows, or a folder with train, dev and test. Or module:function."


@dataclass(frozen=True)
class Model:
    """A model for the field: its graph, how it is run, and the package that it came in, if it came in one."""

    name: str
    graph: Graph
    execution: Execution
    size_bytes: int
    package: Package | None = None

    @property
    def form(self) -> bytes | None:
        """What the execution's engine loads instead of the graph, the one for the longest inputs; None where that is the graph."""
        forms = self.package.forms(self.execution.backend) if self.package is not None else ()
        return self.package.model_bytes(forms[-1]) if self.package is not None and forms else None


def model(path: Path) -> Model:
    """The model in an .onnx file or a package. Raises InvalidModel, InvalidPackage, or InvalidInput for another kind of file."""
    from edgewise.host.loading import execution_here

    if not path.exists():
        raise InvalidModel(f"{path} does not exist; give a model (.onnx) or a package (.edgew)")
    if path.suffix == ".onnx":
        from edgewise.graph import read

        return Model(path.name, read(path), execution_here(None, None, None)[0], path.stat().st_size)
    if path.suffix == ".edgew":
        from edgewise import package

        found = package.open(path)
        return Model(path.name, found.graph(), execution_of(found), found.size_bytes, found)
    raise InvalidInput(f"{path}: give a model (.onnx) or a package (.edgew)")


def execution_of(found: Package) -> Execution:
    """How a package is run here: as it measured best, where that engine is installed."""
    from edgewise.host.loading import execution_here

    return execution_here(found.execution, None, None)[0]


# --- tasks --------------------------------------------------------------------------------------------------------


def device(name: str, tell: Callable[[str], None] = lambda text: None) -> Device:
    """This machine, or one that `edgewise devices` knows, connected. tell: is told when it is away. Raises what `connect` does."""
    from edgewise import devices
    from edgewise.devices import known

    if name == known.LOCAL:
        return devices.local()
    from edgewise.measure import elsewhere
    from edgewise.wire import client, keys

    one = known.find(name)
    if one.profile:
        return elsewhere.stand_in(Path(one.profile), name)
    return elsewhere.connect(client.link(one.url, keys.read(one.key), tell), name)


def named_task(arguments: Sequence[str], usual: str = USUAL_TASK) -> str:
    """What --task says among `arguments`, before they are parsed: the task's function decides which options there are."""
    for word, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        if word == "--task" and following:
            return following
        if word.startswith("--task="):
            return word.partition("=")[2]
    return usual


def task_function(name: str) -> Callable[..., Any]:
    """Raises InvalidInput for a name that is neither registered nor an importable "module:function"."""
    import_from_here()
    found = registry.load("task", name)
    if not callable(found):
        raise InvalidInput(f"--task {name} is a {type(found).__name__}; give a function that makes a task")
    return found


def text_tasks() -> tuple[str, ...]:
    """Registered tasks on texts: those that take a tokenizer."""
    return tuple(name for name in registry.names("task") if "tokenizer" in inspect.signature(task_function(name)).parameters)


def task_options(name: str) -> list[derive.Option]:
    return derive.options(task_function(name), panel=f"Task {name}")


def make_task(name: str, data: str | None, given: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None) -> Any:
    """The task that --task, --data and the options ask for. `defaults` (a package's preprocessing) fill in what wasn't given."""
    function = task_function(name)
    parameters = inspect.signature(function).parameters.values()
    # What data is made of is the first argument; one that may be left out can't be given by keyword.
    takes = [p for p in parameters if p.kind is p.POSITIONAL_ONLY or (p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty)]
    if data is None and any(p.default is p.empty for p in takes):
        raise InvalidInput(f"--data is missing: {name} needs pictures in a folder per class, IDX files, an .npz, or 'module:function'")
    if not takes and data is not None:
        raise InvalidInput(f"--data {data}: {name} takes none; leave it out")
    keywords = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if "tokenizer" in (defaults or {}) and "tokenizer" not in keywords:
        raise InvalidInput(f"the model takes texts, and {name} doesn't; say what it is for by --task ({', '.join(text_tasks())})")
    arguments = {key: value for key, value in (defaults or {}).items() if key in keywords}
    arguments |= derive.collect(task_options(name), given)
    task = function(*([data] if data is not None else []), **arguments)
    if not hasattr(task, "split"):
        raise InvalidInput(f"--task {name} gave a {type(task).__name__}, which is no task; a function that returns arrays goes with --data")
    return task


def packaged_options(packages: Sequence[Package | None]) -> dict[str, Any]:
    """A task's options that a package knows already: how its pictures or texts are fed, and the labels."""
    from edgewise.data.preprocess import ImagePreprocess
    from edgewise.data.text import TextPreprocess

    found: dict[str, Any] = {}
    for package in packages:
        record = package.preprocess if package is not None else None
        if package is not None and isinstance(record, TextPreprocess):
            found = {"tokenizer": package.files.get(TOKENIZER), "max_length": record.max_length, "stride": record.stride}
        elif isinstance(record, ImagePreprocess):
            found = {name: getattr(record, name) for name in ("size", "channels", "mean", "std", "scale", "resize", "crop")}
            found |= {"interpolation": record.interpolation, "layout": record.layout}
        if package is not None and package.labels and not all(label.isdigit() for label in package.labels):
            found["labels"] = package.labels
    return found


def model_options(model: str) -> dict[str, Any]:
    """A task's options that the model's folder, here or on the hub, knows: its tokenizer, and the labels where its config.json names them.

    Raises InvalidModel where the hub can't be asked.
    """
    from edgewise.models import hub

    folder = hub.download(model) if hub.is_name(model) else Path(model)
    if not folder.is_dir() or not (folder / TOKENIZER).is_file():
        return {}
    try:
        told = json.loads((folder / "config.json").read_bytes()).get("id2label") or {}
        labels = tuple(str(told[str(place)]) for place in range(len(told)))
    except (OSError, ValueError, KeyError, AttributeError):
        labels = ()
    named = any(label != f"LABEL_{place}" for place, label in enumerate(labels))  # what transformers writes where nobody named them
    return {"tokenizer": folder, **({"labels": labels} if named else {})}


def first(split: Split, n: int) -> Split:
    """`n` samples of a split: the first; of texts, which are sorted by length, those that the split itself takes."""
    return split.every(n) if hasattr(split, "every") else First(split, n)


@dataclass(frozen=True)
class First:
    """The first `n` samples of a split, in its order."""

    whole: Split
    n: int

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def targets(self) -> np.ndarray | None:
        return None if self.whole.targets is None else self.whole.targets[: self.n]

    def __len__(self) -> int:
        return min(self.n, len(self.whole))

    def batches(self, size: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray | None]]:
        left = self.n
        for inputs, targets in self.whole.batches(size):
            yield {key: array[:left] for key, array in inputs.items()}, None if targets is None else targets[:left]
            left -= len(next(iter(inputs.values())))
            if left <= 0:
                return


def import_from_here() -> None:
    """Let "module:function" name a file in the working directory, which a console script leaves out of the path. Last: it hides nothing."""
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        sys.path.append(here)


# --- inputs -------------------------------------------------------------------------------------------------------


def inputs(
    signature: Signature, *, data: Path | None, batch: int, tokens: int = 1, seed: int = 0
) -> tuple[dict[str, np.ndarray], list[str]]:
    """One call's inputs from `data` (.npy, .npz), or drawn at random; and what to say about them.

    tokens: the size of axes that are open besides the batch.
    """
    if data is not None:
        from edgewise.cli.run import arrays_for

        return dict(arrays_for(data, signature)), []
    open_axes = {axis for spec in signature.inputs for axis in spec.shape[1:] if isinstance(axis, str)}
    leading = {spec.shape[0] for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], str)}
    fixed = {spec.shape[0] for spec in signature.inputs if spec.shape and isinstance(spec.shape[0], int)}
    if batch != 1 and not leading and fixed != {batch}:
        raise InvalidInput(f"--batch {batch}: the model's first axis is fixed ({', '.join(map(str, sorted(fixed))) or 'there is none'})")
    notes = []
    if open_axes - leading and tokens == 1:
        named = ", ".join(sorted(open_axes - leading))
        notes.append(f"the axes {named} are open and were set to 1: give their size with --tokens, or real inputs with --data")
    return drawn.inputs(signature, batch=batch, tokens=tokens, seed=seed), notes


def feeds(example: Inputs) -> str:
    """Inputs in words: "image 1×1×28×28"."""
    return ", ".join(f"{name} {'×'.join(map(str, array.shape)) or 'scalar'}" for name, array in example.items())
