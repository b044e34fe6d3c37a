"""What a distillation compares besides answers, made ready from the structures of student and teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from edgewise.compress.distill.answers import Answers, InMemory, OnDisk
from edgewise.compress.distill.blending import Kept, Term, blended, hidden_term, layers_term, relations_term
from edgewise.compress.distill.mapping import Mapped, mapped
from edgewise.compress.distill.teacher import Teacher, asking, fingerprint, graph_of, recalling, remembering
from edgewise.errors import InvalidData, InvalidInput
from edgewise.graph import Graph
from edgewise.graph.blocks import attention_mask
from edgewise.models.network import Network
from edgewise.steps import Objective, place
from edgewise.tasks import TrainingTask

# What a model's answers are: class scores and values as they come, or embeddings; "auto": what the task says.
AnswersAre = Literal["auto", "scores", "embeddings"]
ANSWERS = ("auto", "scores", "embeddings")


@dataclass(frozen=True)
class Teaching:
    """terms: of inner tensors. projections: by the width that they are from, untrained. mask: the input that is 0 for padding.

    by_token: outputs whose axis 1 is the tokens. along: the teacher's inner tensors -> their axis of tokens. trim: any number of tokens
    will do.
    """

    terms: tuple[Term, ...] = ()
    projections: Mapping[int, nn.Linear] | None = None
    mask: str | None = None
    by_token: tuple[int, ...] = ()
    along: Mapping[str, int] | None = None
    trim: bool = False
    notes: tuple[str, ...] = ()

    @property
    def remembers(self) -> bool:
        """Whether answers can be kept sample by sample: texts, whose padding is known."""
        return self.mask is not None and all(name in (self.along or {}) for name in self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the teacher's inner tensors."""
        return tuple(dict.fromkeys(name for term in self.terms for name in term.theirs))


def prepared(
    model: nn.Module,
    teacher: Teacher,
    *,
    hidden: float = 0.0,
    kept: Kept | None = None,
    layers: float = 0.0,
    relations: float = 0.0,
    relation_layer: int = -1,
    mapping: Mapped = "auto",
    mask: str | None = None,
    seed: int = 0,
) -> Teaching:
    """Arguments as for `distill`. Raises InvalidInput where a term is asked for that the structures don't allow."""
    structure = model.structure if isinstance(model, Network) else None
    mask, by_token, trim = _masked(structure, mask)
    terms, notes, along = [hidden_term(hidden, kept or {})] if hidden else [], [], dict[str, int]()
    projections: dict[int, nn.Linear] = {}
    if layers or relations:
        ours, theirs = structure, graph_of(teacher)
        if ours is None or theirs is None:
            raise InvalidInput(
                f"layers={layers:g}, relations={relations:g} need to know the layers of both: make model and teacher a Network (a teacher "
                "on an engine has to be `Tapped`), or leave them at 0"
            )
        found = mapped(ours, theirs, mapping)
        notes.append(found.said + ("" if mask else "; no input tells padding apart: every token counts"))
        if layers and found.streams:
            terms.append(layers_term(layers, found.streams))
            along |= {pair.theirs: 1 for pair in found.streams}
            widths = {pair.width: pair.their_width for pair in found.streams if pair.projected}
            projections = {width: _projection(width, wide, seed) for width, wide in widths.items()}
            notes += [
                f"a learned projection from {width} to {wide} channels: nobody knows which they were" for width, wide in widths.items()
            ]
        related = found.relations(relation_layer) if relations else None
        if related is not None:
            terms.append(relations_term(relations, related))
            along |= {other.tensor: other.axes[1] for _, other in related.pairs}
        elif relations:
            notes.append("relations=: no attention is left whose queries, keys and values are known; the term is left out")
    return Teaching(tuple(terms), projections, mask, by_token, along, trim, tuple(notes))


@contextmanager
def answers_kept(
    teaching: Teaching, teacher: Teacher | None, *, precision: str, cache: Path | None, checkpoint: Path | None
) -> Iterator[Answers | None]:
    """Where answers to texts are kept: in `cache`, in the teacher's own folder, beside the checkpoint, or in memory; None without texts.

    Raises InvalidInput for a cache of a teacher that nothing identifies.
    """
    if teacher is None or not teaching.remembers:
        if cache is not None:
            raise InvalidInput("cache= keeps answers to texts, and no input of the model tells padding apart; leave it out, or give mask=")
        yield None
        return
    folder = cache or getattr(teacher, "answers", None) or (checkpoint / "answers" if checkpoint else None)
    known = fingerprint(teacher) if folder else None
    if cache is not None and known is None:
        raise InvalidInput("cache= needs a teacher that can be told from another: a torch module, or one that has a `graph`")
    store: Answers = InMemory()
    if folder is not None and known is not None:
        store = OnDisk(folder, {"teacher": known, "tensors": [*teaching.names], "precision": precision, "trim": teaching.trim})
    try:
        yield store
    finally:
        store.close()


def learning(
    task: TrainingTask,
    teacher: Teacher | None,
    *,
    weight: float,
    temperature: float,
    answers: AnswersAre = "auto",
    teaching: Teaching | None = None,
    store: Answers | None = None,
    remember: bool = False,
) -> tuple[TrainingTask, Objective | None, list[str], float]:
    """The task and the objective to train on (None: the task's own loss), what is to be said of it, and the weight that it came to.

    Without labels the teacher is all that is learned from. store: where its answers to texts are kept; remember: those to whole batches
    are, for the batches that come again.
    Raises InvalidData for weight 0 where there are no labels.
    """
    notes = []
    if task.split("train").targets is None:
        if weight == 0:
            raise InvalidData("weight=0 trains on labels alone, and the data has none; give a teacher and a weight above 0")
        if weight < 1:
            notes.append(f"the data has no labels: weight is 1 instead of {weight:g}, the teacher is all that is learned from")
        task, weight = _without_labels(task), 1.0
    known = teaching or Teaching()
    if teacher is None or not (weight or known.terms):
        return task, None, notes, weight
    ask = asking(teacher, known.names, place("auto"))
    if store is not None and known.mask is not None:
        ask = recalling(ask, store, known.mask, by_token=known.by_token, along=known.along, trim=known.trim)
    if remember:
        ask = remembering(ask)
    objective = blended(
        task,
        ask,
        weight=weight,
        temperature=temperature,
        terms=known.terms,
        embeddings=(getattr(task, "answers", "scores") if answers == "auto" else answers) == "embeddings",
        mask=known.mask,
        by_token=known.by_token,
    )
    return task, objective, [*notes, *known.notes], weight


def _masked(structure: Graph | None, mask: str | None) -> tuple[str | None, tuple[int, ...], bool]:
    """The mask among the inputs, the outputs of which each token has one, and whether the number of tokens is free."""
    if structure is None:
        if mask is not None:
            raise InvalidInput(f"mask={mask!r}: the inputs of a module have no names; make it a Network")
        return None, (), False
    inputs = {spec.name: spec for spec in structure.signature.inputs}
    if mask is None:
        mask = attention_mask(structure)
    elif mask not in inputs or len(inputs[mask].shape) != 2:
        raise InvalidInput(f"mask={mask!r}: give an input of shape (batch, tokens); the inputs are {', '.join(inputs)}")
    if mask is None:
        return None, (), False
    tokens = inputs[mask].shape[1]
    by_token = [
        number
        for number, spec in enumerate(structure.signature.outputs)
        if len(spec.shape) > 1 and (spec.shape[1] == tokens or isinstance(spec.shape[1], str))
    ]
    return mask, tuple(by_token), isinstance(tokens, str)


def _projection(width: int, wide: int, seed: int) -> nn.Linear:
    """As orthogonal as it can be: lengths and angles pass through it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = nn.Linear(width, wide)
        nn.init.orthogonal_(linear.weight)
        nn.init.zeros_(linear.bias)
    return linear


def _without_labels(task: Any) -> Any:
    """A task that insists on targets lends its training batches under stand-ins, which nothing reads."""
    if not hasattr(task, "with_targets"):
        return task
    return task.with_targets({"train": np.zeros(len(task.split("train")), dtype=np.int64)})
