"""The objective of a distillation: the task's loss, the teacher's answers, and terms of inner tensors, each with its weight."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgewise.compress.distill.losses import distance, embedding_loss, relation_loss, teacher_loss
from edgewise.compress.distill.mapping import Relations, Streams
from edgewise.compress.distill.teacher import Ask, answered
from edgewise.errors import InvalidInput
from edgewise.graph.blocks import Heads
from edgewise.models.network import Network
from edgewise.steps import Objective, labelled
from edgewise.tasks import TrainingTask

# Inner tensor -> where the student's is narrower: (axis, positions in the teacher's that the student has kept); None where it is as wide.
Kept = Mapping[str, tuple[int, Sequence[int]] | None]
Inner = Mapping[str, Tensor]


@dataclass(frozen=True)
class Term:
    """A part of the objective that compares inner tensors.

    ours, theirs: names of those that it needs of the student and of the teacher. loss: of both by name, of the tokens that are attended,
    (batch, tokens) bool or None for all, and of the module that trains (for what it has learned besides the student).
    """

    weight: float
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    loss: Callable[[Inner, Inner, Tensor | None, nn.Module], Tensor]


class Learner(nn.Module):
    """A student with the projections that it is compared through: they train with it, and aren't part of it.

    projections: by the width of the student's stream, to the teacher's (TinyBERT, Jiao et al. 2020, section 3.1).
    """

    def __init__(self, student: Network, projections: Mapping[int, nn.Linear]) -> None:
        super().__init__()
        self.student = student
        self.projections = nn.ModuleDict({str(width): linear for width, linear in projections.items()})

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        found: Tensor | tuple[Tensor, ...] = self.student(*inputs)
        return found


def blended(
    task: TrainingTask,
    ask: Ask,
    *,
    weight: float,
    temperature: float,
    terms: Sequence[Term] = (),
    embeddings: bool = False,
    mask: str | None = None,
    by_token: Collection[int] = (),
) -> Objective:
    """What `distill` minimises. Several outputs count as their mean; the task's loss is of the first output.

    embeddings: that is what the outputs are, (batch, width), and directions are what counts of them; widths may differ then.
    mask: the input, (batch, tokens), that is 0 for padding; by_token: the outputs whose axis 1 is the tokens.
    """
    names = tuple(dict.fromkeys(name for term in terms for name in term.ours))

    def objective(net: nn.Module, tensors: dict[str, Tensor], targets: Tensor | None) -> Tensor:
        student = net.student if isinstance(net, Learner) else net
        given, inner = answered(student, tensors, names)
        wanted, theirs = ask(tensors)
        _same(given, wanted, embeddings)
        attended = None if mask is None else tensors[mask] != 0
        parts = []
        if weight < 1:
            parts.append((1 - weight) * task.loss(given[0], labelled(targets)))
        if weight > 0:
            # Whole numbers, such as the class that was chosen, have no gradient.
            pairs = [(i, a, b.to(a.dtype)) for i, (a, b) in enumerate(zip(given, wanted, strict=True)) if a.is_floating_point()]
            if embeddings:
                apart = [embedding_loss(ours, its) for _, ours, its in pairs]
            else:
                apart = [teacher_loss(ours, its, temperature, attended if i in by_token else None) for i, ours, its in pairs]
            parts.append(weight * torch.stack(apart).mean())
        parts += [term.weight * term.loss(inner, theirs, attended, net) for term in terms]
        return torch.stack(parts).sum()

    return objective


def hidden_term(weight: float, kept: Kept) -> Term:
    """The mean distance between inner tensors of one name, of which the student has kept some positions."""

    def loss(ours: Inner, theirs: Inner, attended: Tensor | None, net: nn.Module) -> Tensor:
        return torch.stack([distance(ours[name], _narrowed(name, theirs[name], at, ours[name])) for name, at in kept.items()]).mean()

    return Term(weight, tuple(kept), tuple(kept), loss)


def layers_term(weight: float, streams: Sequence[Streams]) -> Term:
    """The mean distance between residual streams, token by token; through a projection where channels don't correspond."""

    def loss(ours: Inner, theirs: Inner, attended: Tensor | None, net: nn.Module) -> Tensor:
        apart = []
        for pair in streams:
            student, teacher = ours[pair.ours], theirs[pair.theirs]
            if pair.positions is not None and len(pair.positions) < pair.their_width:
                teacher = teacher[..., torch.as_tensor(pair.positions, device=teacher.device)]
            if pair.projected and isinstance(net, Learner):
                student = net.projections[str(pair.width)](student).to(student.dtype)
            apart.append(distance(student, teacher.to(student.dtype), attended))
        return torch.stack(apart).mean()

    return Term(weight, tuple(pair.ours for pair in streams), tuple(pair.theirs for pair in streams), loss)


def relations_term(weight: float, relations: Relations) -> Term:
    """The mean of `relation_loss` over queries, keys and values."""

    def loss(ours: Inner, theirs: Inner, attended: Tensor | None, net: nn.Module) -> Tensor:
        apart = [
            relation_loss(flat(ours[one.tensor], one), flat(theirs[other.tensor], other), heads, attended)
            for (one, other), heads in zip(relations.pairs, relations.heads, strict=True)
        ]
        return torch.stack(apart).mean()

    return Term(weight, tuple(one.tensor for one, _ in relations.pairs), tuple(other.tensor for _, other in relations.pairs), loss)


def flat(tensor: Tensor, heads: Heads) -> Tensor:
    """Queries, keys or values as (batch, tokens, heads · size)."""
    turned = tensor.permute(heads.axes)
    return turned if turned.ndim == 3 else turned.flatten(2)


def _same(student: Sequence[Tensor], teacher: Sequence[Tensor], embeddings: bool) -> None:
    sizes = [[tuple(tensor.shape[:1] if embeddings else tensor.shape) for tensor in each] for each in (student, teacher)]
    ours, its = (", ".join(map(str, shapes)) for shapes in sizes)
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
