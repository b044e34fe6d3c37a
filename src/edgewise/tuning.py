"""Fine-tuning: a model and labels in, the trained model in a folder out, from which `fit` starts."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file

from edgewise import tasks
from edgewise.checkpoint import digest
from edgewise.errors import InvalidData, InvalidInput
from edgewise.graph import Graph, fold, trainable
from edgewise.interrupts import interruptible
from edgewise.measure.fidelity import quality
from edgewise.models import Intake, hub, intake
from edgewise.models.encoder import Encoder
from edgewise.models.huggingface import head_for, load_folder, save_folder
from edgewise.models.network import Network
from edgewise.models.weights import load_weights
from edgewise.search.origin import dense_of
from edgewise.search.store import write
from edgewise.steps import Objective, labelled, native_precision, outputs, supervised, widened
from edgewise.train import Progress, Stopper, train
from edgewise.types import Inputs, Outputs, Signature, from_json, to_json

if TYPE_CHECKING:
    from edgewise.tasks import TrainingTask

# What was asked and how it went, written last: where it stands, the training is over.
RECORD = "training.json"
WEIGHTS, GRAPH, CHECKPOINTS = "model.safetensors", "model.onnx", "checkpoint"

Tell = Callable[[str, float, float | None], None]


@dataclass(frozen=True)
class Record:
    """A training that is over: what it was asked for, and by epoch its loss and the metric on validation."""

    asked: Mapping[str, Any]
    metric: str
    losses: tuple[float, ...]
    metrics: tuple[float, ...]  # none where validation has no labels
    best: int | None  # epoch, from 0, whose weights were kept; None: the last one's
    stopped: str | None  # why it ended before its last epoch
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """What `tune` made. files: what was written."""

    model: torch.nn.Module
    record: Record
    files: tuple[Path, ...] = ()


def tune(
    model: str | Path | Intake | Graph | torch.nn.Module,
    task: TrainingTask,
    *,
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float = 5e-5,
    warmup: float = 0.06,
    decay: Literal["linear", "cosine"] = "linear",
    weight_decay: float = 0.01,
    clip: float = 1.0,
    average: float = 0.0,
    patience: int = 2,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    seed: int = 0,
    weights: str | Path | None = None,
    out: str | Path | None = None,
    progress: Tell | None = None,
) -> Tuned:
    """Train a copy of `model` on the train split of `task`; the validation split says which epoch's weights are kept.

    model: what `models.intake` reads. A Hugging Face folder gets the head that the task needs where it has none. weights: a .safetensors
    file for a model that is built by a callable. AdamW, no decay of biases and norms (Devlin et al. 2019, appendix A.2).

    epochs: over the train split.
    batch_size: samples in a step.
    learning_rate: its peak. 2e-5 to 5e-5 suit encoders of BERT's size, 1e-4 small ones.
    warmup: the share of the steps in which it rises to that.
    decay: how it falls to 0 afterwards.
    weight_decay: of AdamW.
    clip: the longest that a step's gradient may be.
    average: decay per step of a moving average of the weights, which is then what validates and is kept, as 0.999; 0 keeps none.
    patience: end after so many epochs without a better metric on validation.
    precision: auto is bf16 where this CPU multiplies it, fp32 elsewhere; weights stay fp32.
    seed: of the new head, of the order of samples, of dropout.

    out: the folder for the trained model: of a Hugging Face folder another one, of a callable model.safetensors, of an .onnx model.onnx.
    The same call there goes on at the epoch where it was interrupted; a training that is over isn't done again.
    Raises InvalidInput and its kind.
    """
    if patience < 1:
        raise InvalidInput(f"patience={patience}: give a number of epochs, 1 or more")
    folder = Path(out) if out is not None else None
    with interruptible() as check:
        source = _taken(model, task, weights, seed, folder)
        net, task, signature = _trained_form(source, task)
        if task.split("train").targets is None:
            raise InvalidData(f"{task.summary().source} has no labels for {task.name}, and training needs them: label the data")
        asked: dict[str, Any] = {
            "model": digest(net), "data": task.fingerprint(), "task": task.name, "epochs": epochs, "batch_size": batch_size,
            "learning_rate": learning_rate, "warmup": warmup, "decay": decay, "weight_decay": weight_decay, "clip": clip,
            "average": average, "patience": patience, "precision": native_precision() if precision == "auto" else precision, "seed": seed,
        }  # fmt: skip
        if folder is not None and (before := _finished(folder, asked)) is not None:
            return _again(before, source, net, folder)
        if folder is not None:
            _make(folder)

        def tell(at: Progress) -> None:
            check()
            if progress:
                progress(at.said("training"), at.done, at.seconds_left)

        judged = task.split("validation").targets is not None
        trained = train(
            net, task, epochs=epochs, batch_size=batch_size, objective=_objective(net, task), optimizer="adamw",
            learning_rate=learning_rate, decay=decay, warmup=warmup, weight_decay=weight_decay, clip=clip, average=average,
            precision=asked["precision"],
            validate=_validation(task, signature) if judged else None, keep_best=judged, stopper=_patient(patience) if judged else None,
            seed=seed, checkpoint=None if folder is None else folder / CHECKPOINTS, progress=tell,
            identity={name: asked[name] for name in ("model", "data", "task", "patience")},
        )  # fmt: skip
    record = Record(asked, task.metric, trained.losses, trained.metrics, trained.best, trained.stopped, trained.seconds)
    return Tuned(trained.model, record, () if folder is None else _written(trained.model, record, source, folder))


def _taken(model: Any, task: Any, weights: str | Path | None, seed: int, out: Path | None) -> Intake:
    """The model as it came; of a Hugging Face folder with the head that the task needs."""
    named = model if isinstance(model, str | Path) else type(model).__name__
    if weights is not None and (not isinstance(model, str | Path) or Path(model).is_dir() or hub.is_name(str(model))):
        raise InvalidInput(f"weights={str(weights)!r} was given with {named}, which brings its own; leave one of them out")
    if isinstance(model, Intake):
        return model
    if isinstance(model, Graph):
        return Intake("graph", "model", graph=model)
    if isinstance(model, torch.nn.Module):
        return Intake("module", type(model).__name__, module=model)
    if not Path(model).is_dir() and not hub.is_name(str(model)):
        return intake(model, weights=weights)
    folder = Path(model) if Path(model).is_dir() else hub.download(str(model))
    if out is not None and out.exists() and out.samefile(folder):
        raise InvalidInput(f"{out} is the model's own folder; give another one to write to")
    encoder = load_folder(folder, head=head_for(task), labels=task.labels or ("LABEL_0",), seed=seed)
    return Intake("module", Path(model).name, module=encoder, folder=folder)


def _trained_form(source: Intake, task: Any) -> tuple[torch.nn.Module, Any, Signature]:
    """What trains, the task as it takes it, and its inputs and outputs."""
    if isinstance(source.module, Encoder):
        signature = source.module.signature
        return source.module, tasks.bound(task, signature), signature
    if source.program is not None:
        raise InvalidInput(f"{source.name} is an exported program, which can't be trained; give the module or an .onnx file")
    source, dense = dense_of(source, task, None)
    net = source.module if source.module is not None else Network(trainable(dense))
    return net, tasks.bound(task, dense.signature), dense.signature


def _objective(net: torch.nn.Module, task: Any) -> Objective:
    """The task's loss; an encoder is fed by name, without what it doesn't tell apart."""
    if not isinstance(net, Encoder):
        return supervised(task)

    def objective(encoder: Any, tensors: dict[str, torch.Tensor], targets: torch.Tensor | None) -> torch.Tensor:
        loss: torch.Tensor = task.loss(widened(encoder(**encoder.fed(tensors))), labelled(targets))
        return loss

    return objective


@dataclass(frozen=True, eq=False)
class _Asked:
    """A network in training as a `Runner`, so that the metric is taken of it as of any model."""

    net: torch.nn.Module
    signature: Signature

    def run(self, inputs: Inputs) -> Outputs:
        device = next(self.net.parameters()).device
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in inputs.items()}
        found = self.net(**self.net.fed(tensors)) if isinstance(self.net, Encoder) else outputs(self.net, tensors)[0]
        return {self.signature.outputs[0].name: found.cpu().numpy()}

    def close(self) -> None: ...


def _validation(task: Any, signature: Signature) -> Callable[[torch.nn.Module], float]:
    """The task's metric on validation, in fp32."""
    split = task.split("validation")
    return lambda net: quality(_Asked(net, signature), split, metric=task.metric, labels=task.labels).value.value


def _patient(epochs: int) -> Stopper:
    def stop(metrics: Sequence[float]) -> str | None:
        since = len(metrics) - 1 - metrics.index(max(metrics))
        return f"{epochs} epochs without a better one" if since >= epochs else None

    return stop


def _make(folder: Path) -> None:
    """Before hours are spent. Raises InvalidInput."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder}: can't write there ({error.strerror}); give another folder") from error


def _finished(folder: Path, asked: Mapping[str, Any]) -> Record | None:
    """The record of the same training, where it is over. Raises InvalidInput when `folder` holds another one."""
    path = folder / RECORD
    if not path.exists():
        return None
    record = from_json(path.read_bytes(), Record)
    changed = [f"{name}: {record.asked.get(name)} then, {value} now" for name, value in asked.items() if record.asked.get(name) != value]
    if changed:
        raise InvalidInput(f"{folder} holds another training ({'; '.join(changed)}); give another folder, or delete it")
    return record


def _again(record: Record, source: Intake, net: torch.nn.Module, folder: Path) -> Tuned:
    """What the same call left there."""
    if source.folder is not None and isinstance(net, Encoder):
        return Tuned(load_folder(folder, head=net.head), record, (folder,))
    if source.graph is not None:
        return Tuned(Network(trainable(Graph.load(folder / GRAPH))), record, (folder / GRAPH,))
    trained = copy.deepcopy(net)
    load_weights(trained, folder / WEIGHTS, source.name)
    return Tuned(trained, record, (folder / WEIGHTS,))


def _written(net: torch.nn.Module, record: Record, source: Intake, folder: Path) -> tuple[Path, ...]:
    """Write the model as what it came as, then the record; the checkpoint is no longer needed."""
    if source.folder is not None and isinstance(net, Encoder):
        save_folder(net, folder, source.folder)
        files: tuple[Path, ...] = (folder,)
    elif isinstance(net, Network):
        files = (folder / GRAPH,)
        fold(net.to_graph()).save(files[0])
    else:
        files = (folder / WEIGHTS,)
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in net.state_dict().items()}, files[0])
    write(folder / RECORD, to_json(record))
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return files
