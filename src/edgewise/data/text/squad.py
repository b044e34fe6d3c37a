"""Answers that are spans of a text: the best span of a model's scores, and how good it is by SQuAD's official rules."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgewise.data.intervals import wilson
from edgewise.data.scores import mean_interval
from edgewise.errors import InvalidData, InvalidModel
from edgewise.records import Quality

METRICS = ("exact", "answer-f1")
LONGEST = 30  # tokens of an answer, as BERT's script has it
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Span(NamedTuple):
    """first, last: characters of the context, last excluded. score: the sum of its logits, less that of no answer if that may be said."""

    first: int
    last: int
    score: float


@dataclass(frozen=True, eq=False)
class Question:
    """What the answer to one question is read from and held against.

    tokens: gives spans (tokens of all windows, 2), each token's characters in the context, −1 where it isn't of the context, and how many
    tokens each window has. answers: those that count as right; () where there is none. nothing: whether "no answer" may be said.
    """

    context: str
    tokens: Callable[[], tuple[np.ndarray, tuple[int, ...]]]
    answers: tuple[str, ...]
    nothing: bool = False

    def answer(self, logits: np.ndarray) -> str:
        """logits: (tokens or more, 2) -> the text of the best span, "" for none."""
        span = best(logits, *self.tokens(), nothing=self.nothing)
        return self.context[span.first : span.last]

    def scores(self, said: str) -> tuple[float, float]:
        """Exact match and F1 with the right answer that is nearest. Where none is right, saying nothing is."""
        right = [text for text in self.answers if plain(text)] or [""]
        return max(exact(said, text) for text in right), max(f1(said, text) for text in right)


def best(logits: np.ndarray, spans: np.ndarray, windows: Sequence[int], *, nothing: bool, longest: int = LONGEST) -> Span:
    """The span of the context with the largest start + end logit, inside one window and of at most `longest` tokens.

    logits: (tokens or more, 2), the windows one after the other; what is behind them is filling. nothing: no answer, Span(0, 0), where the
    first token of every window (BERT's [CLS]) has a larger sum than the best span (Devlin et al. 2019, section 4.3).
    """
    found = Span(0, 0, -np.inf)
    none = np.inf
    begin = 0
    for size in windows:
        start, end = np.asarray(logits[begin : begin + size], np.float64).T
        none = min(none, float(start[0] + end[0]))
        usable = spans[begin : begin + size, 0] >= 0
        start, end = np.where(usable, start, -np.inf), np.where(usable, end, -np.inf)
        for length in range(min(longest, size)):
            sums = start[: size - length] + end[length:]
            place = int(sums.argmax()) if len(sums) else 0
            if len(sums) and sums[place] > found.score:
                found = Span(int(spans[begin + place, 0]), int(spans[begin + place + length, 1]), float(sums[place]))
        begin += size
    if nothing and none >= found.score:
        return Span(0, 0, float(none - found.score) if np.isfinite(found.score) else 0.0)
    return found._replace(score=found.score - none if nothing else found.score) if np.isfinite(found.score) else Span(0, 0, 0.0)


def quality(metric: str, split_name: str, outputs: np.ndarray, targets: np.ndarray | None) -> Quality:
    """outputs: (samples, tokens, 2), start and end logits; targets: (samples,) of `Question`. `also` has the other one of EM and F1.

    Raises InvalidData for missing targets, InvalidModel for outputs of another shape, or with NaN.
    """
    said = answered(outputs, targets, split_name)
    matches, overlaps = np.array([one.scores(text) for one, text in zip(targets if targets is not None else (), said, strict=True)]).T
    found = {"exact": wilson(int(matches.sum()), len(said)), "answer-f1": mean_interval(overlaps, 0.0, 1.0)}
    scores = matches if metric == "exact" else overlaps
    also = {name: interval for name, interval in found.items() if name != metric}
    return Quality(metric=metric, split=split_name, value=found[metric], scores=tuple(scores.tolist()), also=also)


def answered(outputs: np.ndarray, targets: np.ndarray | None, split_name: str = "") -> list[str]:
    """What the model answers to each question of `targets`. Raises as `quality`."""
    if targets is None or not len(targets):
        raise InvalidData(f"split {split_name!r} has no questions with answers; give data with a column of answers")
    if outputs.ndim != 3 or outputs.shape[2] != 2 or len(outputs) != len(targets):
        raise InvalidModel(
            f"the model gave {outputs.shape} for {len(targets)} questions; expected (samples, tokens, 2), start and end logits"
        )
    if not np.isfinite(outputs).all():
        raise InvalidModel("the model gave NaN or infinity; check its weights and its precision")
    return [question.answer(logits) for logits, question in zip(outputs, targets, strict=True)]


def exact(given: str, right: str) -> float:
    """1 for the same text but for case, punctuation, articles and spaces."""
    return float(plain(given) == plain(right))


def f1(given: str, right: str) -> float:
    """Harmonic mean of precision and recall of the words; of nothing with nothing 1."""
    ours, theirs = plain(given).split(), plain(right).split()
    if not ours or not theirs:
        return float(ours == theirs)
    same = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * same / (len(ours) + len(theirs))


def plain(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces: the order of SQuAD's evaluation script."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
