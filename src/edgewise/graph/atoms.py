"""`Atoms`: which positions along the axes of a network's tensors stand and fall together.

An atom is one position along one axis of one tensor. Operators make atoms equal (an Add couples channel i of both sides) or freeze them (a
softmax is taken over all of them). Equal atoms form classes; a class that nothing froze is a unit that can be pruned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Atoms along one axis, one for each position: (length,) int64. None: an axis along which nothing can be pruned (batch, space, tokens).
Labels = np.ndarray | None


@dataclass(frozen=True, eq=False)
class Choice:
    """A reshape that splits one axis into several, or merges several into one: whole slices along *one* of them can be removed.

    elements: (d1, d2, …) atoms of the one axis, seen as the several; options: the atoms of each of the several, None where there are none.
    """

    elements: np.ndarray
    options: tuple[Labels, ...]


class Atoms:
    """Equalities, frozen atoms and open choices, gathered while a graph is walked; `settle` then decides."""

    def __init__(self) -> None:
        self.count = 0
        self.choices: list[Choice] = []
        self.together: list[np.ndarray] = []  # axes along which two activations are multiplied batch by batch: attention heads
        self.normed: list[np.ndarray] = []  # axes that a layer norm takes its statistics over
        self._edges: list[tuple[np.ndarray, np.ndarray]] = []
        self._frozen: list[tuple[np.ndarray, str]] = []

    def new(self, length: int) -> np.ndarray:
        self.count += length
        return np.arange(self.count - length, self.count)

    def unite(self, first: Labels, second: Labels, reason: str) -> Labels:
        """Make two axes equal, position by position. One that meets an axis without atoms is frozen, for `reason`."""
        if first is None or second is None or len(first) != len(second):
            self.freeze(first, reason)
            self.freeze(second, reason)
            return first if second is None else second if first is None else None
        if first is not second:
            self._edges.append((first, second))
        return first

    def freeze(self, labels: Labels, reason: str) -> None:
        if labels is not None and labels.size:
            self._frozen.append((labels.reshape(-1), reason))

    def settle(self) -> Settled:
        """Decide every choice, then give each atom its class and each frozen class its reason.

        Of a choice's options, an attention's heads come first, then what has the most positions; the others are frozen.
        """
        open_choices = list(self.choices)
        while open_choices:
            classes = self._classes()
            frozen = self._frozen_classes(classes)
            heads = np.zeros(self.count, bool)
            for labels in self.together:
                heads[classes[labels]] = True

            def rating(labels: Labels, classes: np.ndarray = classes, frozen: np.ndarray = frozen, heads: np.ndarray = heads) -> float:
                if labels is None or frozen[classes[labels]].any():
                    return 0.0
                return len(labels) + (1e9 if heads[classes[labels]].all() else 0.0)

            # The surest first: what it decides may decide the others.
            ratings = [[rating(option) for option in choice.options] for choice in open_choices]
            place = max(range(len(open_choices)), key=lambda i: (max(ratings[i]) == 0, max(ratings[i])))
            choice, rated = open_choices.pop(place), ratings[place]
            self._decide(choice, frozen[classes[choice.elements]].any(), rated)
        classes = self._classes()
        frozen = self._frozen_classes(classes)
        reasons: dict[int, str] = {}
        for labels, reason in self._frozen:
            for root in np.unique(classes[labels]):
                reasons.setdefault(int(root), reason)
        return Settled(classes, frozen, reasons)

    def _decide(self, choice: Choice, lost: bool, rated: list[float]) -> None:
        best = -1 if lost or max(rated) == 0 else int(np.argmax(rated))
        for axis, option in enumerate(choice.options):
            if axis != best:
                self.freeze(option, "a reshape keeps this axis whole")
        if best < 0:
            self.freeze(choice.elements, "a reshape mixes this axis with others that have to stay")
            return
        option = choice.options[best]
        shape = [-1 if axis == best else 1 for axis in range(choice.elements.ndim)]
        spread = np.broadcast_to(np.asarray(option).reshape(shape), choice.elements.shape)
        self._edges.append((choice.elements.reshape(-1), spread.reshape(-1)))

    def _classes(self) -> np.ndarray:
        """(count,) the smallest atom of each atom's class: labels spread along the edges, by halving paths."""
        labels = np.arange(self.count)
        if not self._edges:
            return labels
        first = np.concatenate([a.reshape(-1) for a, _ in self._edges])
        second = np.concatenate([b.reshape(-1) for _, b in self._edges])
        while True:
            least = np.minimum(labels[first], labels[second])
            before = labels.copy()
            # Both the atoms and the roots that they had: roots joined at once make the number of rounds logarithmic.
            for atoms in (first, second, before[first], before[second]):
                np.minimum.at(labels, atoms, least)
            labels = labels[labels]
            if np.array_equal(labels, before):
                return labels

    def _frozen_classes(self, classes: np.ndarray) -> np.ndarray:
        """(count,) bool, by class."""
        frozen = np.zeros(self.count, bool)
        for labels, _ in self._frozen:
            frozen[classes[labels]] = True
        return frozen


@dataclass(frozen=True, eq=False)
class Settled:
    """classes: (count,) each atom's class. frozen: (count,) bool, by class. reasons: of frozen classes."""

    classes: np.ndarray
    frozen: np.ndarray
    reasons: dict[int, str]
