"""Which inner tensors of a student are to resemble which of its teacher's, when depth or width differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Literal

import numpy as np

from edgewise.errors import InvalidInput
from edgewise.graph import Graph, Index
from edgewise.graph.blocks import Block, Heads, blocks, layers
from edgewise.graph.origins import channel_origins

Mapped = Literal["auto", "names", "uniform", "last"]
MAPPINGS = ("auto", "names", "uniform", "last")

# MiniLMv2 found more relation heads to be better, up to this number.
MOST_RELATION_HEADS = 48

_WITH_WEIGHTS = frozenset(("MatMul", "Gemm", "Gather", "Conv"))


@dataclass(frozen=True)
class Streams:
    """A residual stream of the student's and the teacher's that it is compared with, both (batch, tokens, width).

    positions: of the teacher's channels, those that the student has kept; None: all where it is as wide, and where it isn't, nobody knows.
    """

    ours: str
    theirs: str
    width: int
    their_width: int
    positions: tuple[int, ...] | None = None

    @property
    def projected(self) -> bool:
        """Whether a learned projection has to stand between them."""
        return self.positions is None and self.width != self.their_width


@dataclass(frozen=True)
class Relations:
    """Queries, keys and values of two attentions: pairs of (student's, teacher's), and how many relation heads both are parted into."""

    pairs: tuple[tuple[Heads, Heads], ...]
    heads: tuple[int, ...]


@dataclass(frozen=True)
class Mapping:
    """What of a student corresponds to what of its teacher. said: for people."""

    streams: tuple[Streams, ...]
    attentions: tuple[tuple[Block, Block], ...]
    said: str

    def relations(self, layer: int = -1) -> Relations | None:
        """Of one pair of attentions, counted as in a list; None where there are none. Raises InvalidInput for a number too far."""
        if not self.attentions:
            return None
        if not -len(self.attentions) <= layer < len(self.attentions):
            raise InvalidInput(
                f"relation_layer={layer}: {len(self.attentions)} attentions of the student have one of the teacher's to follow"
            )
        one, other = self.attentions[layer]
        found = [(ours, its) for ours, its in ((one.query, other.query), (one.key, other.key), (one.value, other.value)) if ours and its]
        counts = [max(n for n in range(1, MOST_RELATION_HEADS + 1) if gcd(a.width, b.width) % n == 0) for a, b in found]
        return Relations(tuple(found), tuple(counts))


def mapped(student: Graph, teacher: Graph, how: Mapped = "auto") -> Mapping:
    """The mapping between a student and its teacher.

    names: the student was pruned from the teacher, and what stayed is called as there. The stream before each block that stayed is to be
    what that block reads in the teacher, so that what is left makes up for the blocks in between that went; one stream for each layer of
    which something stayed. uniform: the student's layer i of n follows the teacher's i · N / n, both counted from 1 (TinyBERT, Jiao et al.
    2020, section 3.1). last: the last ones of the teacher's. auto: names where they say that it was pruned from the teacher, else uniform.
    Raises InvalidInput where there is no mapping of that kind, or the teacher has no layers.
    """
    ours, theirs = blocks(student), blocks(teacher)
    if not theirs:
        raise InvalidInput("the teacher has no residual stream of tokens: layers and relations are for transformers; leave both at 0")
    found = _by_name(ours, theirs) if how in ("auto", "names") else None
    if how == "auto" and not (found is not None and _descends(student, teacher)):
        found = None
    if how == "names" and found is None:
        raise InvalidInput("mapping='names': the student's blocks aren't called as the teacher's are; give 'uniform' or 'last'")
    if found is not None:
        streams, said = _pruned(ours, theirs, found), f"{len(ours)} of {len(theirs)} blocks stayed, compared by name"
        attentions = [(ours[i], theirs[j]) for i, j in enumerate(found)]
    else:
        layered = _layered(len(layers(ours)), len(layers(theirs)), "last" if how == "last" else "uniform")
        groups = [(layers(ours)[i], layers(theirs)[j]) for i, j in enumerate(layered)]
        streams = [(one[-1].stream, other[-1].stream) for one, other in groups]
        attentions = [pair for one, other in groups for pair in zip(_attending(one), _attending(other), strict=False)]
        said = f"layers {', '.join(str(j + 1) for j in layered)} of {len(layers(theirs))} compared"
    compared = _compared(streams, _widths(ours), _widths(theirs), (student, teacher) if found is not None else None)
    known = tuple((one, other) for one, other in attentions if one.query and other.query)
    return Mapping(compared, known, said)


def _widths(found: Sequence[Block]) -> dict[str, int]:
    return {name: block.width for block in found for name in (block.reads, block.stream)}


def _compared(
    streams: Sequence[tuple[str, str]], ours: dict[str, int], theirs: dict[str, int], related: tuple[Graph, Graph] | None
) -> tuple[Streams, ...]:
    """related: the graphs of a student and of the teacher that it was pruned from."""
    narrower = [(one, other) for one, other in streams if ours[one] != theirs[other]]
    kept: list[dict[str, np.ndarray]] = [{}, {}]
    if related is not None and narrower:
        kept = [channel_origins(graph, names) for graph, names in zip(related, zip(*narrower, strict=True), strict=True)]
    found = []
    for one, other in streams:
        whole = np.arange(theirs[other])
        positions = None if ours[one] == theirs[other] else _within(kept[0].get(one), kept[1].get(other, whole), ours[one])
        found.append(Streams(one, other, ours[one], theirs[other], positions))
    return tuple(found)


def _by_name(ours: Sequence[Block], theirs: Sequence[Block]) -> list[int] | None:
    """For each block of the student the teacher's that shares weights with it, in rising order; None where one has none."""
    found: list[int] = []
    for block in ours:
        start = found[-1] + 1 if found else 0
        alike = (j for j in range(start, len(theirs)) if theirs[j].kind == block.kind and {*theirs[j].weights} & {*block.weights})
        if (place := next(alike, None)) is None:
            return None
        found.append(place)
    return found


def _descends(student: Graph, teacher: Graph) -> bool:
    """Whether every node with weights is one of the teacher's, by its name: twins of another depth differ behind the blocks."""
    ours, theirs = (
        {
            (node.name, node.op_type)
            for node in index.nodes
            if node.op_type in _WITH_WEIGHTS and any(name in index.initializers for name in node.input)
        }
        for index in (Index(student), Index(teacher))
    )
    return ours <= theirs


def _pruned(ours: Sequence[Block], theirs: Sequence[Block], found: Sequence[int]) -> list[tuple[str, str]]:
    layer = {id(block): number for number, group in enumerate(layers(tuple(theirs))) for block in group}
    streams = []
    for i, j in enumerate(found):
        following = found[i + 1] if i + 1 < len(found) and ours[i].stream == ours[i + 1].reads else None
        if following is not None and layer[id(theirs[j])] == layer[id(theirs[following])]:
            continue  # the layer goes on
        if following is not None:
            streams.append((ours[i].stream, theirs[following].reads))
        else:
            streams.append((ours[i].stream, _last(theirs, j).stream))
    return streams


def _last(found: Sequence[Block], start: int) -> Block:
    """The last block of the stream that `found[start]` adds to."""
    block = found[start]
    for following in found[start + 1 :]:
        if following.reads == block.stream:
            block = following
    return block


def _layered(ours: int, theirs: int, how: str) -> list[int]:
    """For each layer of the student the teacher's, both from 0."""
    if ours > theirs:
        raise InvalidInput(f"the student has {ours} layers and the teacher {theirs}; give a teacher that is at least as deep")
    if how == "last":
        return list(range(theirs - ours, theirs))
    return [-(-(i + 1) * theirs // ours) - 1 for i in range(ours)]


def _attending(layer: Sequence[Block]) -> list[Block]:
    return [block for block in layer if block.kind == "attention"]


def _within(ours: np.ndarray | None, theirs: np.ndarray, width: int) -> tuple[int, ...] | None:
    """Where the student's channels stand among the teacher's, which may be pruned itself: both are positions of the first network's."""
    if ours is None or len(ours) != width or not np.isin(ours, theirs).all():
        return None
    return tuple(int(place) for place in np.searchsorted(theirs, ours))
