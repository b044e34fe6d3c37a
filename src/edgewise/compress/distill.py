"""The pass `distill`: train a network, usually one that was just pruned, to answer as a better one does (Hinton et al. 2015)."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, mse_loss

from edgewise.errors import InvalidData, InvalidInput
from edgewise.models.network import Network
from edgewise.steps import Objective, labelled, outputs, place, widened
from edgewise.tasks import TrainingTask
from edgewise.train import Progress, Stopper, Trained, train
from edgewise.types import Compressed, Inputs

# A network, or what runs one: inputs by name -> outputs by name, in the student's order (an engine's `Runner.run` is several times faster).
Teacher = nn.Module | Callable[[Inputs], Mapping[str, np.ndarray]]
# Inner tensor -> where the student's is narrower: (axis, positions in the teacher's that the student has kept); None where it is as wide.
Kept = Mapping[str, tuple[int, Sequence[int]] | None]
# {input name: tensor} -> outputs in order, and inner tensors by name.
Ask = Callable[[Mapping[str, Tensor]], tuple[tuple[Tensor, ...], Mapping[str, Tensor]]]

REMEMBERED = 256 << 20  # bytes of a teacher's answers
LEARNING_RATE = {"sgd": 0.05, "adamw": 5e-4}


def distill(
    model: Network,
    *,
    task: TrainingTask,
    teacher: Teacher | None = None,
    epochs: int = 3,
    weight: float = 0.5,
    temperature: float = 2.0,
    hidden: float = 0.0,
    kept: Kept | None = None,
    learning_rate: float | None = None,
    batch_size: int = 128,
    optimizer: Literal["sgd", "adamw"] = "sgd",
    precision: Literal["fp32", "bf16"] = "fp32",
    seed: int = 0,
    checkpoint: Path | None = None,
    stopper: Stopper | None = None,
    max_seconds: float | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Compressed:
    """Train a copy of `model` on (1 - weight) · L_true + weight · L_teacher (+ hidden · L_hidden). Any nn.Module will do.

    weight: 0 trains on labels alone and needs no teacher; 1 needs no labels, and is what data without labels get. teacher: in eval mode,
    without gradients, never changed. temperature: see `teacher_loss`. hidden: weight of the mean distance between the inner tensors named
    in `kept`, for a Network. learning_rate: its peak; 0.05 for sgd and 0.0005 for adamw unless given. precision, checkpoint, stopper,
    max_seconds: see `train`.

    `touched` are the weights that changed, `skipped` the others; the notes tell the loss of each epoch, the time, and why it ended.
    Raises InvalidInput for options and for a teacher whose outputs have other shapes, InvalidData where labels are needed and missing.
    """
    _check(model, teacher, weight, temperature, hidden, kept)
    names = dict(kept or {}) if hidden else {}
    task, objective, notes, weight = learning(task, teacher, weight=weight, temperature=temperature, hidden=hidden, kept=names)

    def tell(at: Progress) -> None:
        if progress:
            progress(at.said("distilling"), at.done)

    trained = train(
        model,
        task,
        epochs=epochs,
        batch_size=batch_size,
        objective=objective,
        optimizer=optimizer,
        learning_rate=LEARNING_RATE.get(optimizer, 0.0) if learning_rate is None else learning_rate,
        precision=precision,
        stopper=stopper,
        max_seconds=max_seconds,
        seed=seed,
        checkpoint=checkpoint,
        identity={"weight": weight, "temperature": temperature, "hidden": hidden, "kept": sorted(names)},
        progress=tell,
    )
    touched, skipped = _account(_weights(model), _weights(trained.model))
    return Compressed(trained.model, touched, skipped, (*notes, *told(trained, max_seconds)))


def learning(
    task: TrainingTask,
    teacher: Teacher | None,
    *,
    weight: float,
    temperature: float,
    hidden: float = 0.0,
    kept: Kept | None = None,
    remember: bool = False,
) -> tuple[TrainingTask, Objective | None, list[str], float]:
    """The task and the objective to train on (None: the task's own loss), what is to be said of it, and the weight that it came to.

    Without labels the teacher is all that is learned from. remember: its answers are kept, for the batches that come again.
    Raises InvalidData for weight 0 where there are no labels.
    """
    notes = []
    if task.split("train").targets is None:
        if weight == 0:
            raise InvalidData("weight=0 trains on labels alone, and the data has none; give a teacher and a weight above 0")
        if weight < 1:
            notes.append(f"the data has no labels: weight is 1 instead of {weight:g}, the teacher is all that is learned from")
        task, weight = _without_labels(task), 1.0
    names = dict(kept or {})
    if teacher is None or not (weight or hidden):
        return task, None, notes, weight
    ask = asking(teacher, tuple(names), place("auto"))
    if remember:
        ask = remembering(ask)
    return task, blended(task, ask, weight=weight, temperature=temperature, hidden=hidden, kept=names), notes, weight


def teacher_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """What an answer is apart from the teacher's: a scalar.

    Class scores, (batch, 2 or more classes): KL(softmax(teacher / T) ‖ softmax(student / T)) · T², mean over the batch; T² keeps the
    gradient's size as T grows (Hinton et al. 2015, section 2). Anything else: `distance`.
    """
    if student.ndim == 2 and student.shape[1] > 1:
        wanted, given = log_softmax(teacher / temperature, dim=1), log_softmax(student / temperature, dim=1)
        return kl_div(given, wanted, reduction="batchmean", log_target=True) * temperature**2
    return distance(student, teacher)


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error over the variance of the teacher's: 1 is as bad as answering its mean, whatever the unit."""
    return mse_loss(student, teacher) / teacher.var(unbiased=False).clamp_min(1e-8)


def blended(task: TrainingTask, ask: Ask, *, weight: float, temperature: float, hidden: float, kept: Kept) -> Objective:
    """What `distill` minimises. Several outputs, or several inner tensors, count as their mean; the task's loss is of the first output."""

    def objective(net: nn.Module, tensors: dict[str, Tensor], targets: Tensor | None) -> Tensor:
        given, inner = _answered(net, tensors, tuple(kept))
        wanted, theirs = ask(tensors)
        _same(given, wanted)
        terms = []
        if weight < 1:
            terms.append((1 - weight) * task.loss(given[0], labelled(targets)))
        if weight > 0:
            # Whole numbers, such as the class that was chosen, have no gradient.
            pairs = [(ours, its.to(ours.dtype)) for ours, its in zip(given, wanted, strict=True) if ours.is_floating_point()]
            terms.append(weight * torch.stack([teacher_loss(ours, its, temperature) for ours, its in pairs]).mean())
        if hidden > 0:
            apart = [distance(inner[name], _narrowed(name, theirs[name], at, inner[name])) for name, at in kept.items()]
            terms.append(hidden * torch.stack(apart).mean())
        return torch.stack(terms).sum()

    return objective


def asking(teacher: Teacher, names: Sequence[str], device: torch.device) -> Ask:
    """The teacher as a function of a batch's tensors; `names` of inner tensors, which a callable gives among its outputs."""
    if isinstance(teacher, nn.Module):
        net = copy.deepcopy(teacher).eval().to(device)

        def ask(tensors: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], Mapping[str, Tensor]]:
            with torch.no_grad():
                return _answered(net, tensors, names)

    else:

        def ask(tensors: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], Mapping[str, Tensor]]:
            arrays = teacher({name: tensor.cpu().numpy() for name, tensor in tensors.items()})
            given = {name: torch.tensor(np.asarray(array), device=device) for name, array in arrays.items()}
            missing = [name for name in names if name not in given]
            if missing:
                raise InvalidInput(f"the teacher gives {', '.join(given)}, and not {', '.join(missing)}; add it to its outputs")
            return tuple(tensor for name, tensor in given.items() if name not in names), {name: given[name] for name in names}

    return ask


def remembering(ask: Ask, most_bytes: int = REMEMBERED) -> Ask:
    """`ask` that answers a batch that it has seen from memory, up to so many bytes of answers. On a GPU it asks each time."""
    known: dict[bytes, tuple[tuple[Tensor, ...], Mapping[str, Tensor]]] = {}
    held = 0

    def answer(tensors: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], Mapping[str, Tensor]]:
        nonlocal held
        if any(tensor.device.type != "cpu" for tensor in tensors.values()):
            return ask(tensors)
        digest = hashlib.sha256()
        for tensor in tensors.values():
            digest.update(tensor.contiguous().numpy().data)
        key = digest.digest()
        if key not in known:
            found = ask(tensors)
            held += sum(tensor.nbytes for tensor in (*found[0], *found[1].values()))
            if held > most_bytes:
                return found
            known[key] = found
        return known[key]

    return answer


def _answered(net: nn.Module, tensors: Mapping[str, Tensor], names: Sequence[str]) -> tuple[tuple[Tensor, ...], Mapping[str, Tensor]]:
    """All outputs of `net` in order, and the inner tensors of those names."""
    if not isinstance(net, Network):
        return outputs(net, tensors), {}
    found = net.run(tensors, names)
    order = [spec.name for spec in net.structure.signature.outputs]
    return tuple(widened(found[name]) for name in order), {name: widened(found[name]) for name in names}


def _same(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    ours, its = (", ".join(str(tuple(tensor.shape)) for tensor in tensors) for tensors in (student, teacher))
    if ours != its:
        raise InvalidInput(
            f"the teacher's outputs are {its} where the student's are {ours}; give a teacher with the same outputs in the same order, "
            "as the dense network is that the student was made from"
        )


def _narrowed(name: str, theirs: Tensor, at: tuple[int, Sequence[int]] | None, like: Tensor) -> Tensor:
    """Of the teacher's inner tensor, what the student's (`like`) stands for."""
    if at is not None:
        axis, positions = at
        wide = theirs.shape[axis] if -theirs.ndim <= axis < theirs.ndim else 0
        if not all(0 <= position < wide for position in positions):
            raise InvalidInput(f"kept[{name!r}]: the teacher's is {tuple(theirs.shape)}; give one of its axes, and positions on it")
        theirs = theirs.index_select(axis, torch.as_tensor(list(positions), dtype=torch.int64, device=theirs.device))
    if theirs.shape != like.shape:
        raise InvalidInput(f"kept[{name!r}] leaves {tuple(theirs.shape)} of the teacher's tensor, and the student's is {tuple(like.shape)}")
    return theirs.to(like.dtype)


def _check(model: Any, teacher: Any, weight: float, temperature: float, hidden: float, kept: Kept | None) -> None:
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"distill trains a network, and {type(model).__name__} is none; put it before what exports the model")
    if not 0 <= weight <= 1:
        raise InvalidInput(f"weight={weight}: give the teacher's share of the loss, 0 (labels alone) to 1 (teacher alone)")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InvalidInput(f"temperature={temperature}: give a positive number; 1 leaves scores as they are, 2 to 4 are usual")
    if not (hidden >= 0 and math.isfinite(hidden)):
        raise InvalidInput(f"hidden={hidden}: give 0 or more")
    if teacher is None and (weight or hidden):
        raise InvalidInput(f"weight={weight:g}, hidden={hidden:g} need a teacher: give the dense network, or weight=0 for labels alone")
    if teacher is not None and not callable(teacher):
        raise InvalidInput(f"teacher is a {type(teacher).__name__}; give a torch module, or a function of inputs such as a runner's `run`")
    if hidden and not kept:
        raise InvalidInput(f"hidden={hidden:g} needs kept: the names of inner tensors to compare, and which channels the student has kept")
    nameless = not isinstance(model, Network) or (isinstance(teacher, nn.Module) and not isinstance(teacher, Network))
    if hidden and nameless:
        raise InvalidInput(f"hidden={hidden:g}: inner tensors have names in a Network; make model and teacher one, or leave hidden at 0")


def _without_labels(task: Any) -> Any:
    """A task that insists on targets lends its training batches under stand-ins, which nothing reads."""
    if not hasattr(task, "with_targets"):
        return task
    return task.with_targets({"train": np.zeros(len(task.split("train")), dtype=np.int64)})


def _weights(net: nn.Module) -> dict[str, nn.Parameter]:
    found = net.weights() if isinstance(net, Network) else dict(net.named_parameters())
    return {name: weight for name, weight in found.items() if isinstance(weight, nn.Parameter)}


def _account(before: Mapping[str, nn.Parameter], after: Mapping[str, nn.Parameter]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of the weights that changed, and of the others with the reason."""
    skipped = {name: "frozen: its requires_grad is off" for name, weight in before.items() if not weight.requires_grad}
    for name, weight in before.items():
        if name not in skipped and torch.equal(weight, after[name].to(weight.device)):
            skipped[name] = "unchanged: no gradient moved it"
    return tuple(name for name in before if name not in skipped), skipped


def told(trained: Trained, max_seconds: float | None) -> tuple[str, ...]:
    notes = [
        f"loss by epoch: {', '.join(f'{loss:.4g}' for loss in trained.losses)}",
        f"{len(trained.losses)} epochs in {trained.seconds:.1f} s",
    ]
    if trained.steps < trained.steps_asked:
        notes.append(f"{trained.steps} of {trained.steps_asked} steps fit into max_seconds={max_seconds:g}; the schedule spans those")
    if trained.stopped:
        notes.append(f"stopped early: {trained.stopped}")
    return tuple(notes)
