"""The pass `distill`: train a network, usually one that was just pruned, to answer as a better one does (Hinton et al. 2015)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from edgewise.checkpoint import digest
from edgewise.compress.distill.blending import Kept, Learner
from edgewise.compress.distill.mapping import MAPPINGS, Mapped
from edgewise.compress.distill.teacher import Teacher
from edgewise.compress.distill.teaching import ANSWERS, AnswersAre, Teaching, answers_kept, learning, prepared
from edgewise.errors import InvalidInput
from edgewise.models.network import Network
from edgewise.tasks import TrainingTask
from edgewise.train import Progress, Stopper, Trained, train
from edgewise.types import Compressed

LEARNING_RATE = {"sgd": 0.05, "adamw": 5e-4}


def distill(
    model: Network,
    *,
    task: TrainingTask,
    teacher: Teacher | None = None,
    epochs: int = 3,
    weight: float = 0.5,
    temperature: float = 2.0,
    answers: AnswersAre = "auto",
    layers: float = 0.0,
    relations: float = 0.0,
    relation_layer: int = -1,
    mapping: Mapped = "auto",
    mask: str | None = None,
    hidden: float = 0.0,
    kept: Kept | None = None,
    by_length: bool = False,
    learning_rate: float | None = None,
    batch_size: int = 128,
    optimizer: Literal["sgd", "adamw"] = "sgd",
    precision: Literal["fp32", "bf16"] = "fp32",
    seed: int = 0,
    checkpoint: Path | None = None,
    cache: Path | None = None,
    stopper: Stopper | None = None,
    max_seconds: float | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Compressed:
    """Train a copy of `model` on (1 - weight) · L_true + weight · L_teacher, plus terms of inner tensors. Any nn.Module will do.

    weight: 0 trains on labels alone and needs no teacher; 1 needs no labels, and is what data without labels get. teacher: in eval mode,
    without gradients, never changed. temperature: see `teacher_loss`. answers: "scores", or "embeddings", of which directions count;
    "auto" is what the task says that its model gives (`task.answers`), scores unless it does.

    For transformers, both of them a Network (or a teacher on an engine that is `Tapped`): layers: weight of the mean distance between
    hidden states, token by token, of each layer that is left. relations: weight of the distance between how queries, keys and values of
    one attention relate (`relation_loss`); relation_layer: of which, counted among those that correspond. mapping: which layers
    correspond, see `mapping.mapped`. mask: the input that is 0 for padding, which counts nowhere; it is looked for unless given.
    hidden: weight of the mean distance between the inner tensors named in `kept`, of any Network.

    by_length: of tasks on texts, draw each text as often as its share of all tokens says: where most are fragments, whole texts, which
    lose most, come more often.

    learning_rate: its peak; 0.05 for sgd and 0.0005 for adamw unless given. precision, checkpoint, stopper, max_seconds: see `train`.
    cache: a folder; the teacher's answers to texts are kept there, for later epochs and later trainings, instead of in memory. With a
    checkpoint they are kept beside it unless told otherwise, so that a training that is resumed goes on with the same answers. A checkpoint
    is of one model and one teacher that is a module: with others it isn't gone on with.

    `touched` are the weights that changed, `skipped` the others; the notes tell the loss of each epoch, the time, and why it ended.
    Raises InvalidInput for options and for a teacher whose outputs have other shapes, InvalidData where labels are needed and missing.
    """
    weights = {"layers": layers, "relations": relations, "hidden": hidden}
    _check(model, teacher, weight, temperature, weights, kept)
    _check_choices(answers, mapping)
    task = _by_length(task) if by_length else task
    inner = {**weights, "kept": sorted(kept or {}) if hidden else [], "mapping": mapping, "relation_layer": relation_layer, "mask": mask}
    if checkpoint is not None:
        inner |= {name: digest(net) for name, net in (("model", model), ("teacher", teacher)) if isinstance(net, nn.Module)}
    teaching = Teaching()
    if teacher is not None and (weight or any(weights.values())):
        teaching = prepared(model, teacher, **weights, kept=kept, relation_layer=relation_layer, mapping=mapping, mask=mask, seed=seed)

    def tell(at: Progress) -> None:
        if progress:
            progress(at.said("distilling"), at.done)

    with answers_kept(teaching, teacher, precision=precision, cache=cache, checkpoint=checkpoint) as store:
        task, objective, notes, weight = learning(
            task, teacher, weight=weight, temperature=temperature, answers=answers, teaching=teaching, store=store
        )
        trained = train(
            Learner(model, teaching.projections) if teaching.projections else model,
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
            identity={
                "weight": weight,
                "temperature": temperature,
                "answers": answers,
                **inner,
                **({"by_length": True} if by_length else {}),
            },
            progress=tell,
        )
    net = trained.model.student if isinstance(trained.model, Learner) else trained.model
    touched, skipped = _account(_weights(model), _weights(net))
    return Compressed(net, touched, skipped, (*notes, *told(trained, max_seconds)))


def _check(model: Any, teacher: Any, weight: float, temperature: float, inner: Mapping[str, float], kept: Kept | None) -> None:
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"distill trains a network, and {type(model).__name__} is none; put it before what exports the model")
    if not 0 <= weight <= 1:
        raise InvalidInput(f"weight={weight}: give the teacher's share of the loss, 0 (labels alone) to 1 (teacher alone)")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InvalidInput(f"temperature={temperature}: give a positive number; 1 leaves scores as they are, 2 to 4 are usual")
    for name, value in inner.items():
        if not (value >= 0 and math.isfinite(value)):
            raise InvalidInput(f"{name}={value}: give 0 or more")
    wanted = ", ".join(f"{name}={value:g}" for name, value in inner.items() if value)
    if teacher is None and (weight or wanted):
        said = ", ".join(filter(None, (f"weight={weight:g}", wanted)))
        raise InvalidInput(f"{said} need a teacher: give the dense network, or weight=0 for labels alone")
    if teacher is not None and not callable(teacher):
        raise InvalidInput(f"teacher is a {type(teacher).__name__}; give a torch module, or a function of inputs such as a runner's `run`")
    if inner["hidden"] and not kept:
        raise InvalidInput(f"{wanted} needs kept: the names of inner tensors to compare, and which channels the student has kept")
    nameless = not isinstance(model, Network) or (isinstance(teacher, nn.Module) and not isinstance(teacher, Network))
    if wanted and nameless:
        raise InvalidInput(f"{wanted}: inner tensors have names in a Network; make model and teacher one, or leave it at 0")


def _check_choices(answers: str, mapping: str) -> None:
    for name, value, allowed in (("answers", answers, ANSWERS), ("mapping", mapping, MAPPINGS)):
        if value not in allowed:
            raise InvalidInput(f"{name}={value!r} is unknown; use one of {', '.join(allowed)}")


def _by_length(task: Any) -> Any:
    if not hasattr(task, "by_length"):
        raise InvalidInput(f"by_length=True: {getattr(task, 'name', type(task).__name__)} is no task on texts; leave it out")
    return task.by_length()


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
