"""Spans against a search of all of them; exact match and F1 against the rules of SQuAD's script, on cases worked by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from edgewise.data import metrics
from edgewise.data.text import squad
from edgewise.data.text.squad import Question, Span, best, exact, f1, plain
from edgewise.errors import InvalidData, InvalidModel


def by_hand(logits: np.ndarray, spans: np.ndarray, windows: tuple[int, ...], longest: int) -> float:
    found, begin = -np.inf, 0
    for size in windows:
        for a in range(begin, begin + size):
            for b in range(a, min(a + longest, begin + size)):
                if spans[a, 0] >= 0 and spans[b, 0] >= 0:
                    found = max(found, logits[a, 0] + logits[b, 1])
        begin += size
    return found


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_the_best_span_is_the_best_of_all(longest: int) -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        windows = tuple(random.integers(4, 12, 3).tolist())
        logits = random.standard_normal((sum(windows) + 5, 2))
        logits[sum(windows) :] = 99  # filling is never read
        spans = np.stack([np.arange(sum(windows)) * 2, np.arange(sum(windows)) * 2 + 1], axis=1)
        for begin in np.cumsum((0, *windows[:-1])):
            spans[begin : begin + 3] = -1
        found = best(logits, spans, windows, nothing=False, longest=longest)
        assert found.score == pytest.approx(by_hand(logits, spans, windows, longest))
        first, last = (int(np.flatnonzero(spans[:, i] == place)[0]) for i, place in enumerate(found[:2]))
        assert logits[first, 0] + logits[last, 1] == pytest.approx(found.score)


def test_no_answer_where_every_windows_first_token_says_so() -> None:
    spans = np.array([[-1, -1], [0, 3], [-1, -1], [4, 7]])
    logits = np.array([[5.0, 5.0], [1, 1], [4, 4], [3, 3]])
    assert best(logits, spans, (2, 2), nothing=False) == Span(4, 7, 6.0)
    assert best(logits, spans, (2, 2), nothing=True) == Span(0, 0, 2.0)  # the smaller of 10 and 8, less 6
    logits[2] = 2
    assert best(logits, spans, (2, 2), nothing=True) == Span(4, 7, 2.0)
    assert best(logits, np.full((4, 2), -1), (2, 2), nothing=False) == Span(0, 0, 0.0)  # no token of the context at all


@pytest.mark.parametrize(
    ("said", "right", "match", "overlap"),
    [
        ("The Denver Broncos!", "denver  broncos", 1, 1.0),
        ("Denver", "Denver Broncos", 0, 2 / 3),
        ("the the", "a", 1, 1.0),  # articles alone are nothing, and nothing equals nothing
        ("", "", 1, 1.0),
        ("", "x", 0, 0.0),
        ("good good film", "good film film", 0, 2 / 3),
        ("1,000", "1000", 1, 1.0),
        ("theatre", "atre", 0, 0.0),
        ("St. John's", "st johns", 1, 1.0),
    ],
)
def test_the_rules(said: str, right: str, match: int, overlap: float) -> None:
    assert exact(said, right) == match
    assert f1(said, right) == pytest.approx(overlap)
    assert plain("An apple, a pear; the  Fig") == "apple pear fig"


def question(context: str, answers: tuple[str, ...], nothing: bool = False) -> Question:
    words, spans, at = context.split(), [[-1, -1]], 0
    for word in words:
        at = context.index(word, at)
        spans.append([at, at + len(word)])
        at += len(word)
    return Question(context, partial(lambda spans: (np.array(spans), (len(spans),)), spans), answers, nothing)


def test_quality() -> None:
    questions = np.empty(3, dtype=object)
    questions[:] = [
        question("the good old film", ("good old film", "old")),
        question("a grim house", ("river",)),
        question("so be it", (), nothing=True),
    ]
    outputs = np.zeros((3, 6, 2))
    outputs[0, 2, 0] = outputs[0, 3, 1] = 9  # "good old"
    outputs[1, 2, 0] = outputs[1, 3, 1] = 9
    outputs[2, 0] = 9  # nothing
    found = metrics.quality("answer-f1", "validation", outputs, questions, ())
    assert found.scores == pytest.approx((0.8, 0.0, 1.0)) and found.value.value == pytest.approx(0.6)
    assert found.also["exact"].value == pytest.approx(1 / 3)
    matches = metrics.quality("exact", "validation", outputs, questions, ())
    assert matches.scores == (0.0, 0.0, 1.0) and matches.value == metrics.wilson(1, 3)
    assert squad.answered(outputs, questions) == ["good old", "grim house", ""]
    other = outputs.copy()
    other[0, 2, 0], other[0, 3, 0] = 0, 9
    same = metrics.agree("exact", outputs, other, questions)
    assert same is not None and same.tolist() == [False, True, True]
    drop = metrics.paired(found, metrics.quality("answer-f1", "validation", other, questions, ()))
    assert drop.difference.value == pytest.approx(0.2 / 3) and (drop.candidate_only_right, drop.reference_only_right) == (1, 0)


def test_what_does_not_fit_is_told() -> None:
    questions = np.array([question("a b", ("a",))], dtype=object)
    with pytest.raises(InvalidData, match="no questions"):
        squad.quality("exact", "test", np.zeros((1, 3, 2)), None)
    with pytest.raises(InvalidModel, match=r"\(1, 3\) for 1 questions"):
        squad.quality("exact", "test", np.zeros((1, 3)), questions)
    with pytest.raises(InvalidModel, match="NaN"):
        squad.quality("exact", "test", np.full((1, 3, 2), np.nan), questions)
